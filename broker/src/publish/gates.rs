//! The seams of a publisher: who leads what, and the ways to the leaders, on this broker and on others.

use async_trait::async_trait;
use bellwether_protocol::ids::{BrokerLife, Epoch, QueueId};

use crate::shard::input::{LiveBrokers, QueuePublish, ShardInput};

/// Who leads a queue, in which term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lead {
    pub life: BrokerLife,
    pub epoch: Epoch,
}

/// What is known of a queue's leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// The coordinator's state names it.
    Led(Lead),
    /// Nobody leads, or the state was not read yet.
    Vacant,
    /// There is no such queue any more.
    Gone,
}

/// Who leads what. A read of the watched copy: quick, and perhaps a little behind.
pub trait Leaders: Send + Sync {
    fn leader(&self, queue: QueueId) -> Leadership;
}

/// The mailboxes of this broker's shards.
#[async_trait]
pub trait ShardGate: Send + Sync {
    /// How many shards there are.
    fn shards(&self) -> usize;

    /// The shard that owns `queue`; below [`ShardGate::shards`].
    fn shard_of(&self, queue: QueueId) -> usize;

    /// Hands `input` over, waiting for room. Nothing comes of it once the shard has stopped.
    async fn send(&self, shard: usize, input: ShardInput);

    /// Hands `input` over if there is room; otherwise it comes back.
    fn try_send(&self, shard: usize, input: ShardInput) -> Result<(), Box<ShardInput>>;

    /// Waits until there is room, or the shard has stopped.
    async fn room(&self, shard: usize);
}

/// The links to other brokers.
pub trait PeerGate: Send + Sync {
    /// Forwards a publish to its leader; it comes back when the link is down. What becomes of it is told to its origin.
    fn forward(&self, to: BrokerLife, publish: QueuePublish) -> Result<(), Box<QueuePublish>>;

    /// Which brokers are live now.
    fn brokers(&self, live: &LiveBrokers);
}
