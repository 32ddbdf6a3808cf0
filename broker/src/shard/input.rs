//! What can be asked of a shard, and what it answers. Everything comes in batches.

use std::sync::Arc;
use std::time::Instant;

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::{BrokerRecord, QueueDefinition, QueueState};
use bellwether_protocol::client::{DeliveredRun, QueueCounts, Settlement};
use bellwether_protocol::error::ErrorBody;
use bellwether_protocol::ids::{BrokerId, BrokerLife, Epoch, OffsetRange, QueueId, Seq, StoreId};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::{ExchangeName, ProducerName, RoutingKey};
use bellwether_protocol::peer::PeerFrame;
use tokio::sync::oneshot;

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
    /// These runs were handed to a consumer's connection and not written, because their lease had run out: back to their
    /// places without a mark, if the queue is still led in that epoch.
    Undelivered { queue: QueueId, consumer: ConsumerKey, epoch: Epoch, ranges: Vec<OffsetRange> },
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
    /// How the delete went: `true` when the tombstone stands, `false` when it was refused.
    DeleteDecided { queue: QueueId, deleted: bool },
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
    /// The broker drains: hand over what is led here (`begin`), and say how many queues are still to be handed over.
    HandOver { begin: bool, reply: oneshot::Sender<usize> },
}

/// The names and lives of brokers known live.
#[derive(Clone, Debug, Default)]
pub struct LiveBrokers {
    pub brokers: Vec<BrokerRecord>,
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
    pub sink: Arc<dyn ConsumerSink>,
    pub reply: oneshot::Sender<Result<Epoch, ErrorBody>>,
}

/// Where a consumer's deliveries and settle outcomes go. Never blocks: the shard stops delivering when [`ConsumerSink::deliver`] says so.
pub trait ConsumerSink: Send + Sync {
    /// Hands runs over; right before they are written, `lease` must still hold, else they are dropped.
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

/// The right to write deliveries of one queue, for a while: every other member of the maximal ISR has
/// promised not to deliver as a successor. Checked right before each write.
#[derive(Clone)]
pub struct Lease {
    /// One per other member; the lease holds while all do.
    pub promises: Arc<[Arc<Promises>]>,
    /// Cleared by the shard the moment it stops leading the epoch.
    pub leads: Arc<std::sync::atomic::AtomicBool>,
}

impl Lease {
    /// Whether a delivery may be written at `now`.
    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        self.leads.load(std::sync::atomic::Ordering::Acquire)
            && self.promises.iter().all(|promise| promise.holds(now))
    }
}

/// The leases that are out, by queue, so that a connection's reader can end one without waiting for a shard.
///
/// The reader of an accepted peer connection calls [`Leases::revoke`] for each queue of an `Unsubscribe` *before* it
/// takes the next frame: else a promise that comes behind the `Unsubscribe`, and no longer covers that queue, would
/// prolong its lease until the shard gets round to it.
#[derive(Default)]
pub struct Leases(std::sync::RwLock<std::collections::HashMap<QueueId, LeaseEntry>>);

/// The lease of one queue, and what has happened to it that the shard has not heard of.
#[derive(Default)]
struct LeaseEntry {
    leads: Option<Arc<std::sync::atomic::AtomicBool>>,
    /// `Unsubscribe`s read from connections that the shard has not dealt with: no lease is granted meanwhile, for it
    /// would rest on promises that no longer cover the queue.
    unhandled: Vec<BrokerLife>,
}

impl Leases {
    /// A lease is out: `leads` ends it. `false`, and none is out, while an `Unsubscribe` waits for the shard.
    #[must_use]
    pub fn grant(&self, queue: QueueId, leads: Arc<std::sync::atomic::AtomicBool>) -> bool {
        let mut leases = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let entry = leases.entry(queue).or_default();
        let granted = entry.unhandled.is_empty();
        entry.leads = granted.then_some(leads);
        granted
    }

    /// Ends the lease of this queue, at once, until the shard has dealt with the reason ([`Leases::handled`]).
    pub fn revoke(&self, queue: QueueId, by: BrokerLife) {
        let mut leases = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let entry = leases.entry(queue).or_default();
        entry.unhandled.push(by);
        if let Some(leads) = entry.leads.take() {
            leads.store(false, std::sync::atomic::Ordering::Release);
        }
    }

    /// The shard is dealing with what one [`Leases::revoke`] was for.
    pub fn handled(&self, queue: QueueId, by: BrokerLife) {
        self.update(queue, |entry| {
            if let Some(one) = entry.unhandled.iter().position(|life| *life == by) {
                entry.unhandled.swap_remove(one);
            }
        });
    }

    /// The connection that this peer dialed is down, and its promises with it: nothing that was read from it comes any more.
    pub fn gone(&self, by: BrokerLife) {
        let mut leases = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        leases.retain(|_, entry| {
            entry.unhandled.retain(|life| *life != by);
            entry.leads.is_some() || !entry.unhandled.is_empty()
        });
    }

    /// The queue is not led here any more.
    pub fn forget(&self, queue: QueueId) {
        self.update(queue, |entry| entry.leads = None);
    }

    /// Changes an entry, and drops it when there is nothing left to remember.
    fn update(&self, queue: QueueId, change: impl FnOnce(&mut LeaseEntry)) {
        let mut leases = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(entry) = leases.get_mut(&queue) {
            change(entry);
            if entry.unhandled.is_empty() && entry.leads.is_none() {
                leases.remove(&queue);
            }
        }
    }
}

/// The promises of one peer on one connection that it dialed.
pub struct Promises {
    /// Nanoseconds from `origin` until which deliveries may be written: the time the last answered ask was *sent*, plus two thirds of T. 0: never.
    until: std::sync::atomic::AtomicU64,
    origin: Instant,
}

impl Promises {
    /// No promise yet.
    #[must_use]
    pub fn none() -> Promises {
        Promises { until: std::sync::atomic::AtomicU64::new(0), origin: Instant::now() }
    }

    /// Deliveries may be written until `until`, if that is later than what was promised before.
    pub fn extend(&self, until: Instant) {
        let nanos = until.saturating_duration_since(self.origin).as_nanos() as u64;
        self.until.fetch_max(nanos, std::sync::atomic::Ordering::AcqRel);
    }

    /// The connection is gone: never again.
    pub fn end(&self) {
        self.until.store(0, std::sync::atomic::Ordering::Release);
    }

    /// Whether a delivery may be written at `now`.
    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        let nanos = now.saturating_duration_since(self.origin).as_nanos() as u64;
        nanos < self.until.load(std::sync::atomic::Ordering::Acquire)
    }
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
    Down { peer: BrokerLife, side: Side },
    /// Positive evidence: after a reset, a new connection to the peer's address was refused, or answered by another life of the same store.
    Dead { peer: BrokerLife },
    /// Frames about queues of this shard, in order.
    Frames { peer: BrokerLife, side: Side, frames: Vec<PeerFrame> },
    /// The outbox towards this follower has room again: go on streaming.
    Room { peer: BrokerLife },
    /// A part of a snapshot that this shard asked for.
    Snapshot { queue: QueueId, fetch: u64, part: crate::seams::SnapshotPart },
    /// The dialed connection to this broker answers, but it is not past the check of its leftovers.
    NotReady { broker: BrokerId },
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use bellwether_protocol::ids::Incarnation;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn no_lease_is_granted_while_an_unsubscribe_waits_for_the_shard() {
        let leases = Leases::default();
        let queue = QueueId(Uuid::from_u128(1));
        let peer = BrokerLife { broker: BrokerId(2), incarnation: Incarnation(2) };
        let first = Arc::new(AtomicBool::new(true));
        assert!(leases.grant(queue, first.clone()));
        leases.revoke(queue, peer);
        assert!(!first.load(Ordering::Acquire), "the reader ends it at once");
        assert!(
            !leases.grant(queue, Arc::new(AtomicBool::new(true))),
            "its promises no longer cover the queue"
        );
        leases.handled(queue, peer);
        assert!(leases.grant(queue, Arc::new(AtomicBool::new(true))));
    }

    #[test]
    fn an_unsubscribe_that_was_lost_with_its_connection_withholds_no_lease() {
        let leases = Leases::default();
        let queue = QueueId(Uuid::from_u128(1));
        let peer = BrokerLife { broker: BrokerId(2), incarnation: Incarnation(2) };
        leases.revoke(queue, peer);
        leases.gone(peer);
        assert!(leases.grant(queue, Arc::new(AtomicBool::new(true))));
    }
}
