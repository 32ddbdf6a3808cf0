//! What the shards need of the rest of the broker, as narrow as they need it.

use async_trait::async_trait;
use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::QueueState;
use bellwether_protocol::ids::{BrokerLife, Epoch, Offset, OffsetRange, QueueId};
use bellwether_protocol::peer::PeerFrame;
use bellwether_replication::CasOutcome;
use bytes::Bytes;

/// What became of a frame for a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// It is in the outbox.
    Sent,
    /// The outbox is full: wait for [`crate::shard::input::PeerNews::Room`].
    Full,
    /// There is no connection.
    Down,
}

/// The connections between brokers.
pub trait PeerLinks: Send + Sync {
    /// On the connection that this broker dialed; `false`: it is down.
    fn to_leader(&self, to: BrokerLife, frame: PeerFrame) -> bool;
    /// On the connection that the follower dialed.
    fn to_follower(&self, to: BrokerLife, frame: PeerFrame) -> SendOutcome;
    /// To a broker over whichever connection is up.
    fn to_broker(&self, to: bellwether_protocol::ids::BrokerId, frame: PeerFrame) -> bool;
    /// Fetches a snapshot over a connection of its own; its parts come to the queue's shard as
    /// [`crate::shard::input::PeerNews::Snapshot`].
    fn fetch_snapshot(&self, from: BrokerLife, queue: QueueId, epoch: Epoch, fetch: u64);
}

/// The keeper of the queues' states in the coordinator.
#[async_trait]
pub trait StateKeeper: Send + Sync {
    /// Compares and sets the state of a queue, in the session of this life and in no other: what was asked for in a life
    /// that is over must not be written in the next.
    async fn cas(
        &self,
        life: BrokerLife,
        queue: QueueId,
        version: Version,
        state: QueueState,
    ) -> CasOutcome;
    /// Reads these states after a sync, then the live brokers, and tells the shards.
    fn reread(&self, queues: Vec<QueueId>);
}

/// The state a snapshot begins with.
#[derive(Clone, Debug)]
pub struct SnapshotHead {
    /// The state is that of the log up to here.
    pub at: Offset,
    /// Every offset below it was committed.
    pub high_watermark: Offset,
    /// The queue's state.
    pub state: Bytes,
    /// The epochs of the log up to `at`.
    pub epochs: Vec<(Epoch, Offset)>,
    /// The messages that are still needed; their batches follow.
    pub live: Vec<OffsetRange>,
}

/// A part of a snapshot that is being fetched.
#[derive(Clone, Debug)]
pub enum SnapshotPart {
    /// It begins.
    Head { at: Offset, high_watermark: Offset, epochs: Vec<(Epoch, Offset)>, state: Bytes },
    /// Whole batches, ascending.
    Live(Bytes),
    /// That was all.
    End,
    /// It broke off.
    Failed(String),
}

/// More of a snapshot's live batches.
#[derive(Debug)]
pub enum SnapshotMore {
    /// From memory.
    Ready(Vec<bellwether_log::Batch>),
    /// From the disk: run it where blocking is allowed.
    OnDisk(bellwether_journal::ReadRequest),
}
