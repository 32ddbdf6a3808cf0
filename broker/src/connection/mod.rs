//! Client connections: the listener, the handshake, and for each connection one task that reads and one that writes.
//!
//! ```text
//! socket ──> session (reader) ──> publisher ──> shards, peers        frames in; requests run as tasks of their own
//!              ^   inbox: outcomes, drained <──┐
//! socket <── writer <── outbox <── sinks, session, requests ┘        everything that waits goes out in one write
//! ```
//!
//! *Invariants:* the socket is always read; settles and heartbeats never wait behind publishes; no delivery is written
//! once its lease has failed.

mod chunks;
mod consumers;
mod handshake;
mod inbox;
mod listener;
mod login;
mod outbox;
mod requests;
mod rights;
mod secure;
mod session;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bellwether_protocol::error::{ErrorBody, ErrorCode};

use crate::catalog::Catalog;
use crate::config::{Limits, Timing};
use crate::login::Login;
use crate::metrics::Metrics;
use crate::publish::{PeerGate, PublishLimits, ShardGate};
use crate::shard::input::ConsumerKey;
use crate::tls::ClientTls;

pub(crate) use handshake::drain;
pub use handshake::serve_connection;
pub use listener::serve;

/// How long one write to a client may make no progress before the client counts as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);

/// Frames other than deliveries that may wait for one client. What it is owed is bounded by what it asked for; who asks
/// without end and never reads is cut off.
const OUTBOX_FRAMES_MAX: usize = 65_536;

/// How long what is owed is still written when a connection ends.
const LINGER: Duration = Duration::from_secs(2);

/// What all connections share.
pub struct Service {
    pub catalog: Catalog,
    pub shards: Arc<dyn ShardGate>,
    pub peers: Arc<dyn PeerGate>,
    pub metrics: Arc<Metrics>,
    pub limits: Limits,
    pub heartbeat: Duration,
    pub handshake_timeout: Duration,
    /// TLS, where clients have to speak it.
    pub tls: Option<Arc<ClientTls>>,
    pub login: Login,
    consumers: AtomicU64,
}

impl Service {
    #[must_use]
    pub fn new(
        catalog: Catalog,
        shards: Arc<dyn ShardGate>,
        peers: Arc<dyn PeerGate>,
        metrics: Arc<Metrics>,
        limits: Limits,
        timing: &Timing,
    ) -> Service {
        Service {
            catalog,
            shards,
            peers,
            metrics,
            limits,
            heartbeat: timing.heartbeat,
            handshake_timeout: timing.handshake_timeout,
            tls: None,
            login: Login::new(false),
            consumers: AtomicU64::new(1),
        }
    }

    /// The same for clients that have to speak TLS.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<ClientTls>>) -> Service {
        Service { tls, ..self }
    }

    /// Says whether who does not log in is turned away; else they may do everything.
    #[must_use]
    pub fn with_login(self, required: bool) -> Service {
        Service { login: Login::new(required), ..self }
    }

    fn next_consumer(&self) -> ConsumerKey {
        ConsumerKey(self.consumers.fetch_add(1, Ordering::Relaxed))
    }

    fn publish_limits(&self) -> PublishLimits {
        PublishLimits {
            producers_max: self.limits.producers_per_connection_max,
            credit_messages: self.limits.producer_credit_messages,
            credit_bytes: self.limits.producer_credit_bytes,
            message_bytes_max: usize::try_from(self.limits.message_bytes_max).unwrap_or(usize::MAX),
        }
    }

    fn frame_limits(&self) -> bellwether_protocol::Limits {
        bellwether_protocol::Limits {
            frame_bytes_max: usize::try_from(self.limits.frame_bytes_max).unwrap_or(usize::MAX),
        }
    }
}

/// The broker is going.
fn shutting_down() -> ErrorBody {
    ErrorBody::not_done(ErrorCode::ShuttingDown, "this broker is stopping; connect to another one")
}
