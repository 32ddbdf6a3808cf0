//! Publishing: from a client's frame to the leaders of all queues it is routed to, and back to the confirm.
//!
//! [`Publisher`] is the pure part, one for each connection: credit, the fan-out of a frame to its queues, the order per
//! producer and queue through failovers, and what is confirmed when. A frame's run of messages stays one unit for each queue.

mod confirms;
mod credit;
mod gates;
mod lane;
mod lanes;
mod publisher;
mod routes;
mod send;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use gates::{Lead, Leaders, Leadership, PeerGate, ShardGate};
pub use lane::Dispatch;
pub use publisher::{Grants, Publisher, Tally, Traced};
pub use routes::Routes;
pub use send::{Dispatcher, Stalled};

/// How long a publish is kept and sent again while its queue has no leader that takes it. The client's own deadline is as
/// long: later nobody waits for the answer.
pub const RETRY_FOR: Duration = Duration::from_secs(30);

/// First pause before a refused publish is sent again, when nothing was heard of a new leader meanwhile. A new leader
/// serves some milliseconds after the coordinator names it.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(5);

/// Longest pause before a refused publish is sent again.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_millis(200);

/// How long answers of a former leader are awaited for messages that have no producer name: sent again at once, they
/// would be stored twice if the former leader had them committed.
pub const FORMER_LEADER_GRACE: Duration = Duration::from_millis(500);

/// Pairs of producer and queue that a connection remembers; beyond it idle ones are forgotten.
pub const LANES_MAX: usize = 1_024;

/// What one connection's producers may do.
#[derive(Clone, Copy, Debug)]
pub struct PublishLimits {
    /// Producers at once.
    pub producers_max: usize,
    /// Messages of one producer that are not answered yet.
    pub credit_messages: u64,
    /// Bytes of one producer's messages that are not answered yet; one frame is let through beyond it.
    pub credit_bytes: u64,
    /// Largest message in bytes.
    pub message_bytes_max: usize,
}
