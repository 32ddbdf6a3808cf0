//! Recent batches in memory: of each log a contiguous tail, all together within a budget, oldest out first.

use std::collections::{HashMap, VecDeque};

use bellwether_log::Batch;
use bellwether_protocol::ids::{Offset, QueueId};

/// What a cached batch costs besides its bytes.
const BATCH_COST: u64 = 128;

pub struct Cache {
    bytes_max: u64,
    bytes: u64,
    /// The tail of each log, up to its end.
    tails: HashMap<QueueId, VecDeque<Batch>>,
    /// In the order they came in. An entry whose batch is not the first of its tail is of the past.
    order: VecDeque<(QueueId, Offset)>,
}

impl Cache {
    pub fn new(bytes_max: u64) -> Cache {
        Cache { bytes_max, bytes: 0, tails: HashMap::new(), order: VecDeque::new() }
    }

    /// What all batches cost.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a batch behind the last one of its log.
    pub fn push(&mut self, batch: Batch) {
        let queue = batch.queue();
        self.order.push_back((queue, batch.base()));
        self.bytes += cost(&batch);
        self.tails.entry(queue).or_default().push_back(batch);
    }

    /// Drops the oldest batches while there are too many bytes, up to the first that is not on the disk yet.
    pub fn trim(&mut self, on_disk: impl Fn(QueueId, Offset) -> bool) {
        while self.bytes > self.bytes_max {
            let Some(&(queue, base)) = self.order.front() else { return };
            if let Some(tail) = self.tails.get_mut(&queue)
                && tail.front().is_some_and(|first| first.base() == base)
            {
                if !on_disk(queue, base) {
                    return;
                }
                self.bytes -= tail.pop_front().map_or(0, |batch| cost(&batch));
                if tail.is_empty() {
                    self.tails.remove(&queue);
                }
            }
            self.order.pop_front();
        }
    }

    /// Drops what begins at or behind `end`.
    pub fn cut(&mut self, queue: QueueId, end: Offset) {
        let Some(tail) = self.tails.get_mut(&queue) else { return };
        while tail.back().is_some_and(|last| last.base() >= end) {
            self.bytes -= tail.pop_back().map_or(0, |batch| cost(&batch));
        }
        if tail.is_empty() {
            self.tails.remove(&queue);
        }
    }

    /// Drops everything of a log.
    pub fn forget(&mut self, queue: QueueId) {
        self.cut(queue, Offset(0));
    }

    /// The first offset in memory; everything from there to the log's end is.
    pub fn first(&self, queue: QueueId) -> Option<Offset> {
        Some(self.tails.get(&queue)?.front()?.base())
    }

    /// The batches from the one that holds `from` on; none when that is not in memory.
    pub fn from(&self, queue: QueueId, from: Offset) -> impl Iterator<Item = &Batch> {
        let tail =
            self.tails.get(&queue).filter(|tail| tail.front().is_some_and(|b| b.base() <= from));
        tail.into_iter()
            .flat_map(move |tail| tail.range(tail.partition_point(|b| b.end() <= from)..))
    }
}

fn cost(batch: &Batch) -> u64 {
    BATCH_COST + batch.bytes().len() as u64
}
