//! The shards' mailboxes as publishers and peer links see them.

use async_trait::async_trait;
use bellwether_protocol::ids::QueueId;

use super::Shards;
use super::input::ShardInput;
use crate::publish::ShardGate;

#[async_trait]
impl ShardGate for Shards {
    fn shards(&self) -> usize {
        self.count()
    }

    fn shard_of(&self, queue: QueueId) -> usize {
        self.index_of(queue)
    }

    async fn send(&self, shard: usize, input: ShardInput) {
        self.handles[shard].send(input).await;
    }

    fn try_send(&self, shard: usize, input: ShardInput) -> Result<(), Box<ShardInput>> {
        self.handles[shard].try_send(input).map_err(Box::new)
    }

    async fn room(&self, shard: usize) {
        // The permit is given back at once: what counts is that there was one. A shard that stopped has all the room.
        if self.handles[shard].sender.reserve().await.is_err() {
            tracing::debug!("a shard has stopped");
        }
    }
}
