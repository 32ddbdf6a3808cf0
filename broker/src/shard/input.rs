//! What can be asked of a shard, and what it answers. Everything comes in batches.

use std::sync::Arc;
use std::time::Duration;

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::{BrokerRecord, QueueDefinition, QueueState};
use bellwether_protocol::client::{
    Claim, ConsumerAttached, CopyStatus, DeliveredRun, QueueCounts, Settlement, StoppedCopy,
};
use bellwether_protocol::error::ErrorBody;
use bellwether_protocol::ids::{
    BrokerId, BrokerLife, Epoch, Offset, OffsetRange, QueueId, Seq, StoreId,
};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::{ExchangeName, ProducerName, RoutingKey};
use bellwether_protocol::peer::PeerFrame;
use bellwether_replication::{Force, NotForced};
use tokio::sync::oneshot;

use crate::metrics::queues::{QueueSelection, ShardSample};

use super::browse::{BrowseReply, Look};
pub use super::lease::{ConnectionId, Lease, Leases, Promises};

/// One thing a shard is told or asked.
pub enum ShardInput {
    /// Messages for queues that this broker may lead.
    Publish(Vec<QueuePublish>),
    /// A consumer wants to attach.
    Attach(AttachConsumer),
    /// A consumer leaves: what it holds is returned.
    Detach { queue: QueueId, consumer: ConsumerKey },
    /// Settles of consumers.
    Settle(Vec<ConsumerSettle>),
    /// A consumer's outbox has room again.
    Drained { queue: QueueId, consumer: ConsumerKey },
    /// Removes ready messages; answers how many, once that is committed.
    Purge { queue: QueueId, reply: oneshot::Sender<Result<u64, ErrorBody>> },
    /// Stops the queue for its deletion, checking the conditions first. On `Ok` the leader accepts nothing
    /// more for this queue; the caller then carries out the delete in the coordinator and says how it went with [`ShardInput::DeleteDecided`].
    PrepareDelete {
        queue: QueueId,
        if_unused: bool,
        if_empty: bool,
        reply: oneshot::Sender<Result<Deletable, ErrorBody>>,
    },
    /// Of which of these is nothing held here that could come back? Asked when their tombstones were told.
    DurablyGone { queues: Vec<QueueId>, reply: oneshot::Sender<Vec<QueueId>> },
    /// How the delete went: `true` when nothing is left to lead, `false` when it was refused.
    DeleteDecided { queue: QueueId, deleted: bool },
    /// Messages, without taking them, if it is led here.
    Browse { queue: QueueId, look: Look, reply: BrowseReply },
    /// A queue's counts, if it is led here.
    Describe { queue: QueueId, reply: oneshot::Sender<Result<QueueCounts, ErrorBody>> },

    /// What the catalog read of queues that have a replica here.
    Queues(Vec<QueueNews>),
    /// Brokers that are live or gone, from synced reads.
    Brokers(Arc<LiveBrokers>),
    /// This broker's own life began, or the session was lost for good (`None`).
    Life(Option<BrokerLife>),
    /// Whether the coordinator session is connected.
    CoordinatorConnected(bool),
    /// Settings have changed: how long a follower may lag, and how long a preferred leader has to be in sync.
    Retime { lag_limit: Duration, settle: Duration },

    /// From peers.
    Peer(PeerNews),
    /// A peer wants a snapshot of a queue that is led here in this epoch: its beginning.
    SnapshotAsked {
        queue: QueueId,
        epoch: Epoch,
        reply: oneshot::Sender<Result<crate::seams::SnapshotHead, ErrorBody>>,
    },
    /// The live batches of a snapshot that hold these messages, about a MiB of them: a prefix of what is asked for. A read
    /// that has to go to the disk is given to the asker.
    SnapshotMore {
        queue: QueueId,
        ranges: Vec<OffsetRange>,
        reply: oneshot::Sender<Result<crate::seams::SnapshotMore, ErrorBody>>,
    },
    /// Are you there?
    Ping { reply: oneshot::Sender<()> },
    /// How the queues led here do, for the metrics.
    Sample { wanted: Arc<QueueSelection>, reply: oneshot::Sender<ShardSample> },
    /// What the copy here holds, and up to where it was applied and counted; none: there is no copy here.
    CopyStatus { queue: QueueId, reply: oneshot::Sender<Option<(CopyStatus, Offset)>> },
    /// Copies that have stopped here: at most so many by name, and how many there are.
    StoppedCopies { limit: usize, reply: oneshot::Sender<(u64, Vec<StoppedCopy>)> },
    /// An operator orders the copy here to lead.
    Force(Box<ForceOrder>),
    /// The disk stalls, or has been fine for a while again.
    DiskStalls(bool),
    /// Syncs return again where it stalled, and have not been fine for long enough.
    DiskReturns,
    /// The broker drains: hand over what is led here (`begin`), and say how many queues are still to be handed over.
    HandOver { begin: bool, reply: oneshot::Sender<usize> },
}

/// An order to lead, with what was read after a sync for it.
pub struct ForceOrder {
    pub queue: QueueId,
    pub state: QueueState,
    pub version: Version,
    /// The leader that the state names, when its path was found gone after the state was read.
    pub gone: Option<BrokerLife>,
    pub order: Force,
    /// What was asked of the coordinator, or why not.
    pub reply: oneshot::Sender<Result<Box<QueueState>, NotForced>>,
}

/// The names and lives of brokers known live.
#[derive(Clone, Debug, Default)]
pub struct LiveBrokers {
    pub brokers: Vec<BrokerRecord>,
}

impl LiveBrokers {
    /// Those that would decline to lead, in order.
    #[must_use]
    pub fn unready(&self) -> Vec<BrokerId> {
        let stalling = self.brokers.iter().filter(|record| record.disk_stalls);
        let mut unready: Vec<BrokerId> = stalling.map(|record| record.life.broker).collect();
        unready.sort_unstable();
        unready
    }
}

/// What was read of one queue.
#[derive(Clone, Debug)]
pub enum QueueNews {
    /// Its definition and state, with the state's version. Read after a sync when `synced`.
    State { definition: Arc<QueueDefinition>, state: QueueState, version: Version, synced: bool },
    /// Its tombstone was read: local data goes.
    Deleted(QueueId),
    /// Neither state nor tombstone is there: the queue stops, nothing is deleted.
    Vanished(QueueId),
}

/// Permission to delete: the version of the state under which this leader stopped.
#[derive(Clone, Debug)]
pub struct Deletable {
    pub version: Version,
    pub epoch: Epoch,
}

/// Messages for one queue.
pub struct QueuePublish {
    pub queue: QueueId,
    /// Given back with the outcome.
    pub token: u64,
    pub origin: Arc<dyn PublishOrigin>,
    pub producer: Option<ProducerName>,
    /// See [`bellwether_protocol::peer::Forward::previous`].
    pub previous: Seq,
    /// See [`bellwether_protocol::peer::Forward::chained`].
    pub chained: bool,
    pub first: Seq,
    pub resent: bool,
    pub exchange: ExchangeName,
    pub routing_key: RoutingKey,
    pub messages: MessageBlock,
}

/// Where publish outcomes go. Never blocks: what is outstanding is bounded by publish credit.
pub trait PublishOrigin: Send + Sync {
    /// Outcomes by token, several at once. `Ok`: committed.
    fn outcomes(&self, outcomes: Vec<(u64, Result<(), ErrorBody>)>);
}

/// A consumer, unique in this life of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerKey(pub u64);

/// A consumer that wants to attach.
pub struct AttachConsumer {
    pub queue: QueueId,
    pub consumer: ConsumerKey,
    pub prefetch: u32,
    /// 0: no limit.
    pub prefetch_bytes: u64,
    /// What it had of an earlier leader.
    pub claim: Option<Claim>,
    pub sink: Arc<dyn ConsumerSink>,
    /// `Ok` when it is attached: its sink has heard more.
    pub reply: oneshot::Sender<Result<(), ErrorBody>>,
}

/// Where a consumer's deliveries and settle outcomes go. Never blocks: the shard stops delivering when [`ConsumerSink::deliver`] says so.
pub trait ConsumerSink: Send + Sync {
    /// It is attached. Told before anything else.
    fn attached(&self, attached: ConsumerAttached);
    /// Hands runs over. They are written, in this order, when `lease` holds; until then they are held back, and they are
    /// dropped when it is over.
    /// `false`: hold back until [`ShardInput::Drained`].
    fn deliver(&self, epoch: Epoch, lease: Lease, runs: Vec<DeliveredRun>) -> bool;
    /// Settles up to this number are committed.
    fn settled(&self, up_to: u64);
    /// This settle was not done, or nobody knows.
    fn settle_failed(&self, number: u64, error: ErrorBody);
    /// The consumer is detached by the broker.
    fn closed(&self, error: ErrorBody);
}

/// A settle of one consumer.
pub struct ConsumerSettle {
    pub queue: QueueId,
    pub consumer: ConsumerKey,
    pub number: u64,
    pub epoch: Epoch,
    pub settlement: Settlement,
    pub ranges: Vec<OffsetRange>,
}

/// Which end of a peer connection this broker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// This broker dialed: it follows, and forwards publishes.
    Dialed,
    /// The peer dialed: it follows queues led here.
    Accepted,
}

/// What a shard hears of peers. Frames that name several queues are split by shard before.
pub enum PeerNews {
    /// A connection is up, past both hellos. For an accepted one `promises` is its lease clock.
    Up { peer: BrokerLife, store: StoreId, side: Side, promises: Option<Arc<Promises>> },
    /// It is down.
    Down { peer: BrokerLife, side: Side, connection: ConnectionId },
    /// Positive evidence: after a reset, a new connection to the peer's address was refused, or answered by another life of the same store.
    Dead { peer: BrokerLife },
    /// Frames about queues of this shard, in order.
    Frames { peer: BrokerLife, side: Side, connection: ConnectionId, frames: Vec<PeerFrame> },
    /// The outbox towards this follower has room again: go on streaming.
    Room { peer: BrokerLife },
    /// A part of a snapshot that this shard asked for.
    Snapshot { queue: QueueId, fetch: u64, part: crate::seams::SnapshotPart },
    /// The dialed connection to this broker answers, but it is not past the check of its leftovers.
    NotReady { broker: BrokerId },
}
