//! Sorts what arrived from a peer by the shards it concerns.

use std::sync::Arc;

use bellwether_protocol::ids::QueueId;
use bellwether_protocol::peer::PeerFrame;

use super::forwards;
use crate::publish::ShardGate;
use crate::shard::input::{PublishOrigin, QueuePublish};

/// What arrived for one shard.
#[derive(Default)]
pub(super) struct ForShard {
    pub frames: Vec<PeerFrame>,
    pub publishes: Vec<QueuePublish>,
}

/// What arrived in one go, by shard.
pub(super) struct Sorter {
    shards: Arc<dyn ShardGate>,
    sorted: Vec<ForShard>,
    empty: bool,
}

impl Sorter {
    pub fn new(shards: Arc<dyn ShardGate>) -> Sorter {
        let sorted = (0..shards.shards()).map(|_| ForShard::default()).collect();
        Sorter { shards, sorted, empty: true }
    }

    /// What was sorted since the last call, if anything.
    pub fn take(&mut self) -> Option<Vec<ForShard>> {
        if self.empty {
            return None;
        }
        self.empty = true;
        let count = self.sorted.len();
        Some(std::mem::replace(&mut self.sorted, (0..count).map(|_| ForShard::default()).collect()))
    }

    /// A forward, for the shard of its queue.
    pub fn publish(
        &mut self,
        forward: bellwether_protocol::peer::Forward,
        origin: Arc<dyn PublishOrigin>,
    ) {
        let shard = self.shards.shard_of(forward.queue);
        self.sorted[shard].publishes.push(forwards::publish(forward, origin));
        self.empty = false;
    }

    /// A frame about queues; one that names several is split.
    pub fn frame(&mut self, frame: PeerFrame) {
        match frame {
            PeerFrame::Subscribe(list) => {
                self.list(list, |entry| entry.queue, PeerFrame::Subscribe)
            }
            PeerFrame::Unsubscribe(list) => {
                self.list(list, |entry| entry.0, PeerFrame::Unsubscribe)
            }
            PeerFrame::Append(list) => self.list(list, |entry| entry.queue, PeerFrame::Append),
            PeerFrame::Committed(list) => self.list(list, |entry| entry.0, PeerFrame::Committed),
            PeerFrame::Durable(list) => self.list(list, |entry| entry.0, PeerFrame::Durable),
            PeerFrame::PositionAsk(list) => self.list(list, |entry| *entry, PeerFrame::PositionAsk),
            PeerFrame::Positions(list, without) => {
                self.list(list, |entry| entry.queue, |list| PeerFrame::Positions(list, Vec::new()));
                let silent = |list| PeerFrame::Positions(Vec::new(), list);
                self.list(without, |entry| entry.queue, silent);
            }
            PeerFrame::StateChanged(list) => {
                self.list(list, |entry| *entry, PeerFrame::StateChanged)
            }
            PeerFrame::NotLeading { queue, .. }
            | PeerFrame::EpochEnd { queue, .. }
            | PeerFrame::SnapshotNeeded { queue, .. } => {
                self.add(self.shards.shard_of(queue), frame)
            }
            PeerFrame::Hello(_)
            | PeerFrame::Goodbye(_)
            | PeerFrame::Heartbeat
            | PeerFrame::AppendPart { .. }
            | PeerFrame::PromiseAsk { .. }
            | PeerFrame::Promise { .. }
            | PeerFrame::Forward(_)
            | PeerFrame::ForwardPart { .. }
            | PeerFrame::Forwarded(_)
            | PeerFrame::SnapshotAsk { .. }
            | PeerFrame::SnapshotStart { .. }
            | PeerFrame::SnapshotPart(_)
            | PeerFrame::SnapshotEnd => {
                unreachable!("the connection's reader takes these itself or refuses them")
            }
        }
    }

    fn list<T>(&mut self, list: Vec<T>, queue: fn(&T) -> QueueId, frame: fn(Vec<T>) -> PeerFrame) {
        let Some(first) = list.first() else { return };
        let shard = self.shards.shard_of(queue(first));
        // Usually one queue, or one shard.
        if list.iter().all(|entry| self.shards.shard_of(queue(entry)) == shard) {
            return self.add(shard, frame(list));
        }
        let mut parts: Vec<Vec<T>> = self.sorted.iter().map(|_| Vec::new()).collect();
        for entry in list {
            parts[self.shards.shard_of(queue(&entry))].push(entry);
        }
        for (shard, part) in parts.into_iter().enumerate().filter(|(_, part)| !part.is_empty()) {
            self.add(shard, frame(part));
        }
    }

    fn add(&mut self, shard: usize, frame: PeerFrame) {
        self.sorted[shard].frames.push(frame);
        self.empty = false;
    }
}
