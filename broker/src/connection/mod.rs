//! Client connections: the listener, the handshake, and for each connection one task that reads and one that writes.
//!
//! ```text
//! socket ──> session (reader) ──> publisher ──> shards, peers        frames in; requests run as tasks of their own
//!              ^   inbox: outcomes, drained <──┐
//! socket <── writer <── outbox <── sinks, session, requests ┘        everything that waits goes out in one write
//! ```
//!
//! *Invariants:* the socket is read as long as the client reads its answers; settles and heartbeats never wait behind publishes;
//! no delivery is written once its lease has failed.

mod admission;
mod browse;
mod chunks;
mod consumers;
mod handshake;
mod inbox;
mod intake;
mod listener;
mod login;
mod lookups;
mod operators;
mod outbox;
mod requests;
mod rights;
mod room;
mod secure;
mod session;
#[cfg(test)]
mod tests;
mod uptake;
mod weight;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bellwether_protocol::error::{ErrorBody, ErrorCode};

use crate::catalog::Catalog;
use crate::config::{BrokerConfig, Limits, Timing};
use crate::descriptors;
use crate::live::{ClusterSettings, NoClusterSettings};
use crate::login::Login;
use crate::memory::Pool;
use crate::metrics::Metrics;
use crate::publish::{PeerGate, PublishLimits, ShardGate};
use crate::shard::input::ConsumerKey;
use crate::tls::ClientTls;
use crate::traces::Traces;

use lookups::LookupTurns;
use room::FrameRoom;

pub(crate) use handshake::drain;
pub use handshake::serve_connection;
pub use listener::serve;

/// Answers and confirms, in bytes, that may wait for a client to read before nothing more is read from it. A client that reads
/// has a few hundred; what its own socket buffer holds is not counted.
const ANSWERS_BYTES_MAX: usize = 256 * 1024;

/// The same while all such answers together have used up their pool: less than that hurts nobody.
const ANSWERS_BYTES_LEAST: usize = 4 * 1024;

/// Frames other than deliveries that may wait for one client. What still comes when nothing more is read from it is bounded
/// by its credit and its open requests; beyond this it is cut off.
const OUTBOX_FRAMES_MAX: usize = 65_536;

/// The same in bytes: refusals are long.
const OUTBOX_FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Room for large frames where no memory limit is set: as good as any number.
const FRAME_ROOM_UNLIMITED: u64 = u64::MAX / 4;

/// How long what is owed is still written when a connection ends.
const LINGER: Duration = Duration::from_secs(2);

/// What all connections share. The limits are those that hold when a connection is made, and it keeps them: it was told of them.
#[derive(Clone)]
pub struct Service {
    pub catalog: Catalog,
    pub shards: Arc<dyn ShardGate>,
    pub peers: Arc<dyn PeerGate>,
    pub metrics: Arc<Metrics>,
    pub limits: Limits,
    pub heartbeat: Duration,
    pub handshake_timeout: Duration,
    settings: Arc<dyn ClusterSettings>,
    /// Spans of traced messages, if any are wanted.
    pub traces: Option<Traces>,
    /// TLS, where clients speak it.
    pub tls: Option<Arc<ClientTls>>,
    /// And whether those that do not are taken, too.
    plain_too: bool,
    pub login: Arc<Login>,
    frame_room: FrameRoom,
    lookups: Arc<LookupTurns>,
    consumers: Arc<AtomicU64>,
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
        // The largest frame has to fit, whatever the pool is.
        let room = metrics.memory.limit_of(Pool::Frames).unwrap_or(FRAME_ROOM_UNLIMITED);
        let frame_room = FrameRoom::new(room.max(2 * limits.frame_bytes_max));
        Service {
            catalog,
            shards,
            peers,
            metrics,
            limits,
            heartbeat: timing.heartbeat,
            handshake_timeout: timing.handshake_timeout,
            settings: Arc::new(NoClusterSettings),
            traces: None,
            tls: None,
            plain_too: false,
            login: Arc::new(Login::new(false)),
            frame_room,
            lookups: Arc::default(),
            consumers: Arc::new(AtomicU64::new(1)),
        }
    }

    /// With what judges the settings of the whole cluster.
    #[must_use]
    pub fn with_settings(self, settings: Arc<dyn ClusterSettings>) -> Service {
        Service { settings, ..self }
    }

    /// The same for the next connections, after a change of the configuration.
    fn reconfigured(&self, config: &BrokerConfig) -> Service {
        let mut limits = config.limits.clone();
        limits.connections_max = descriptors::fit_connections(limits.connections_max);
        Service {
            limits,
            heartbeat: config.timing.heartbeat,
            handshake_timeout: config.timing.handshake_timeout,
            ..self.clone()
        }
    }

    /// With spans of traced messages.
    #[must_use]
    pub fn tracing_to(self, traces: Option<Traces>) -> Service {
        Service { traces, ..self }
    }

    /// The same for clients that speak TLS; `plain_too`: and for those that do not.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<ClientTls>>, plain_too: bool) -> Service {
        Service { tls, plain_too, ..self }
    }

    /// Says whether who does not log in is turned away; else they may do everything.
    #[must_use]
    pub fn with_login(self, required: bool) -> Service {
        Service { login: Arc::new(Login::new(required)), ..self }
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

    /// How many publishes may be unconfirmed before connections that publish are not read any more. Above the limit at which
    /// credit stops: what was granted before may still come, and need not, if clients share what there is.
    fn publish_bytes_hard_max(&self) -> u64 {
        self.limits.publish_bytes_in_flight_max.saturating_mul(3) / 2
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
