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
mod operators;
mod outbox;
mod requests;
mod session;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bellwether_protocol::error::{ErrorBody, ErrorCode};

use crate::catalog::Catalog;
use crate::config::{BrokerConfig, Limits, Timing};
use crate::live::{ClusterSettings, NoClusterSettings};
use crate::metrics::Metrics;
use crate::publish::{PeerGate, PublishLimits, ShardGate};
use crate::shard::input::ConsumerKey;
use crate::traces::Traces;

pub use handshake::serve_connection;
pub use listener::serve;

/// How long one write to a client may make no progress before the client counts as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);

/// Frames other than deliveries that may wait for one client. What it is owed is bounded by what it asked for; who asks
/// without end and never reads is cut off.
const OUTBOX_FRAMES_MAX: usize = 65_536;

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
        Service {
            limits: config.limits.clone(),
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
