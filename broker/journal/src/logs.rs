//! The logs of one shard's queues: what the shard appends to, reads from and cleans through. Lives on
//! the shard's task; never blocks and never touches a file.

mod cache;
mod evacuate;
mod hear;
mod memory;
mod reading;
mod snapshot;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bellwether_log::{Batch, EpochHistory};
use bellwether_protocol::ids::{Offset, OffsetRange, QueueId, StoreId};
use bytes::Bytes;
use tracing::error;

use self::cache::Cache;
use self::evacuate::Leaving;
use self::snapshot::Staging;
use crate::format::{EntryHeader, EntryKind, SegmentSeq, Stamp};
use crate::log::{Log, SinceCheckpoint};
use crate::register::{self, Lineage, Register, Shape};
use crate::shared::{Entry, Shared, Work};
use crate::{Checkpoint, Condition, DiskLevel, JournalConfig};

/// The logs of one shard. What is gathered by `append`, `truncate`, `checkpoint` and the like goes to the
/// journal thread with [`Logs::flush`], in that order, and nothing of it is durable before
/// [`Logs::completed`] says so.
pub struct Logs {
    shard: usize,
    shared: Arc<Shared>,
    logs: HashMap<QueueId, Log>,
    staging: HashMap<QueueId, Staging>,
    /// Gathered since the last flush.
    gathered: Vec<Entry>,
    gathered_bytes: u64,
    /// What everything in `sent` costs in memory.
    sent_bytes: u64,
    /// Gathered or flushed, and not yet heard of; oldest first. As long as the entries that wait.
    sent: VecDeque<Sent>,
    cache: Cache,
    told: memory::Told,
    /// Logs that have become long since their last checkpoint.
    long: Vec<QueueId>,
    leaving: HashMap<SegmentSeq, Vec<Leaving>>,
    thresholds: Thresholds,
}

/// When a log wants a checkpoint.
#[derive(Clone, Copy, Debug)]
struct Thresholds {
    bytes: u64,
    batches: u64,
}

/// An entry whose position is not known yet.
#[derive(Clone, Copy, Debug)]
struct Sent {
    queue: QueueId,
    generation: Stamp,
    what: SentWhat,
    cost: u64,
}

#[derive(Clone, Copy, Debug)]
enum SentWhat {
    Batch {
        base: Offset,
    },
    Staged {
        base: Offset,
    },
    /// The log was made or cut.
    Shape,
    Checkpoint,
    /// A staged snapshot was committed.
    Install,
    Drop,
}

impl Logs {
    pub(crate) fn new(
        shard: usize,
        shared: Arc<Shared>,
        logs: HashMap<QueueId, Log>,
        config: &JournalConfig,
    ) -> Logs {
        let shards = shared.shards() as u64;
        let long = Vec::new();
        let condemned = logs.values().filter(|log| log.condition != Condition::Ok).count();
        shared.condemned.fetch_add(condemned, Relaxed);
        Logs {
            shard,
            shared,
            logs,
            staging: HashMap::new(),
            gathered: Vec::new(),
            gathered_bytes: 0,
            sent_bytes: 0,
            sent: VecDeque::new(),
            cache: Cache::new(config.cache_bytes / shards),
            told: memory::Told::default(),
            long,
            leaving: HashMap::new(),
            thresholds: Thresholds {
                bytes: config.checkpoint_bytes,
                batches: config.checkpoint_batches,
            },
        }
    }

    /// The queues that have a log here, corrupt ones included.
    pub fn queues(&self) -> impl Iterator<Item = QueueId> + '_ {
        self.logs.keys().copied()
    }

    #[must_use]
    pub fn contains(&self, queue: QueueId) -> bool {
        self.logs.contains_key(&queue)
    }

    /// Makes an empty log that starts at offset zero. Durable before anything that is appended to it.
    ///
    /// # Panics
    /// When the queue has a log.
    pub fn create(&mut self, queue: QueueId) {
        self.create_as(queue, self.shared.store);
    }

    /// The same, for a copy that takes part as that of another store than the folder's.
    ///
    /// # Panics
    /// When the queue has a log.
    pub fn create_as(&mut self, queue: QueueId, store: StoreId) {
        assert!(!self.contains(queue), "queue {queue} has a log already");
        let log = Log::new(Lineage::new(self.shared.stamp(), store));
        let shape = shape_of(&log);
        self.logs.insert(queue, log);
        self.gather_register(register::shape(queue, self.shared.stamp(), &shape), SentWhat::Shape);
    }

    /// Deletes the log, durably: call it on a tombstone (or when the replica has moved away) only. Also
    /// forgets a staged snapshot. No-op without a log. The same queue may be created again.
    pub fn remove(&mut self, queue: QueueId) {
        let staged = self.staging.remove(&queue).is_some();
        let removed = self.logs.remove(&queue);
        if removed.is_none() && !staged {
            return;
        }
        self.acquit(removed);
        self.cache.forget(queue);
        let dropped = register::shape(queue, self.shared.stamp(), &Shape::Dropped);
        self.gather_register(dropped, SentWhat::Drop);
    }

    /// Those of `queues` of which nothing comes back, whatever happens: there is no log and no staged snapshot, and that is durable.
    #[must_use]
    pub fn durably_gone(&self, queues: &[QueueId]) -> Vec<QueueId> {
        let under_way: HashSet<QueueId> = self.sent.iter().map(|sent| sent.queue).collect();
        let held = |queue: &QueueId| {
            self.logs.contains_key(queue)
                || self.staging.contains_key(queue)
                || under_way.contains(queue)
        };
        queues.iter().copied().filter(|queue| !held(queue)).collect()
    }

    /// Whether the log can be trusted. `None`: no such log.
    #[must_use]
    pub fn condition(&self, queue: QueueId) -> Option<&Condition> {
        self.logs.get(&queue).map(|log| &log.condition)
    }

    /// Marks the log corrupt (a read found damage, or its state cannot be restored). Nothing is deleted.
    pub fn quarantine(&mut self, queue: QueueId, what: String) {
        let log = self.log_mut(queue);
        let before = std::mem::replace(&mut log.condition, Condition::Corrupt(what));
        if before == Condition::Ok {
            self.shared.condemned.fetch_add(1, Relaxed);
        }
    }

    /// A log is gone, or another has taken its place.
    fn acquit(&self, gone: Option<Log>) {
        if gone.is_some_and(|log| log.condition != Condition::Ok) {
            self.shared.condemned.fetch_sub(1, Relaxed);
        }
    }

    /// First offset from which every record is there. Live messages below it are read with
    /// [`Logs::read_live`].
    ///
    /// # Panics
    /// Without such a log; so do all that follow unless they say otherwise.
    #[must_use]
    pub fn start(&self, queue: QueueId) -> Offset {
        self.log(queue).start
    }

    /// The log end offset: everything appended, durable or not.
    #[must_use]
    pub fn end(&self, queue: QueueId) -> Offset {
        self.log(queue).end
    }

    /// Everything below is durable here.
    #[must_use]
    pub fn durable(&self, queue: QueueId) -> Offset {
        self.log(queue).durable
    }

    /// The epochs of the log.
    #[must_use]
    pub fn epochs(&self, queue: QueueId) -> &EpochHistory {
        &self.log(queue).epochs
    }

    /// Offset and high watermark of the last checkpoint handed in (or recovered).
    #[must_use]
    pub fn checkpointed(&self, queue: QueueId) -> Option<(Offset, Offset)> {
        self.log(queue).checkpointed
    }

    /// Appends. The batch is readable at once.
    ///
    /// # Panics
    /// When it does not begin at the log's end, the log is corrupt, or a snapshot is about to replace it.
    pub fn append(&mut self, batch: Batch) {
        let queue = batch.queue();
        self.assert_fits(&batch);
        let replaced = self.staging.get(&queue).is_some_and(|staging| staging.committed);
        assert!(!replaced, "queue {queue} is about to be replaced by a snapshot");
        let thresholds = self.thresholds;
        let log = self.log_mut(queue);
        assert_eq!(log.condition, Condition::Ok, "queue {queue} is corrupt");
        log.append(&batch);
        let generation = log.lineage.last();
        if log.since_checkpoint.is_long(thresholds.bytes, thresholds.batches) {
            self.long.push(queue);
        }
        self.gather_batch(EntryKind::Batch, generation, &batch);
        self.cache.push(batch);
        self.trim_cache();
    }

    /// Cuts the log: everything from `to` on is gone and never comes back. Cuts lie between batches; one
    /// that falls inside a batch takes the whole batch. Answers the new end. [`crate::Progress::Durable`] tells when it is durable.
    ///
    /// # Panics
    /// When the cut lies below the last checkpoint: that would cut committed records.
    pub fn truncate(&mut self, queue: QueueId, to: Offset) -> Offset {
        let (generation, version) = (self.shared.stamp(), self.shared.stamp());
        let log = self.log_mut(queue);
        let end = log.cut(to, generation);
        let floor = log.checkpointed.map_or(Offset(0), |(at, _)| at);
        assert!(end >= floor, "queue {queue} cut to {end}, below its checkpoint at {floor}");
        let shape = shape_of(log);
        self.cache.cut(queue, end);
        self.gather_register(register::shape(queue, version, &shape), SentWhat::Shape);
        end
    }

    /// Keeps the queue's state as of the log up to `at`. Older ones are forgotten once it is durable.
    ///
    /// # Panics
    /// When `at` is beyond the log's end or below the last checkpoint.
    pub fn checkpoint(&mut self, queue: QueueId, at: Offset, high_watermark: Offset, state: Bytes) {
        let version = self.shared.stamp();
        let bytes_max = self.shared.entry_bytes_max;
        let log = self.log_mut(queue);
        let before = log.checkpointed.map_or(Offset(0), |(at, _)| at);
        assert!(before <= at && at <= log.end, "checkpoint of queue {queue} at {at}");
        log.since_checkpoint = SinceCheckpoint::default();
        let kept = Checkpoint { at, high_watermark, state };
        let made = register::checkpoint(queue, version, &log.lineage, &log.epochs, &kept);
        if made.payload.len() as u64 > bytes_max {
            // The one before still counts; the log since it is kept and replayed.
            return error!(%queue, bytes = made.payload.len(), bytes_max, "checkpoint does not fit into a segment");
        }
        log.checkpointed = Some((at, high_watermark));
        self.gather_register(made, SentWhat::Checkpoint);
    }

    /// Takes the queues whose log since the last checkpoint has become long; one that is not checkpointed then is
    /// named again when its log has grown as much again.
    pub fn wants_checkpoint(&mut self) -> Vec<QueueId> {
        std::mem::take(&mut self.long)
    }

    /// These messages, unsettled until now, are gone for good: their space can be freed.
    pub fn settled(&mut self, queue: QueueId, range: OffsetRange) {
        self.log_mut(queue).settled(range);
    }

    /// After a restart: of the messages below `below` only these are unsettled, ascending (until told, all are
    /// taken for it). Call it once the queue's state is restored.
    pub fn restored(&mut self, queue: QueueId, below: Offset, unsettled: &[OffsetRange]) {
        self.log_mut(queue).restored(below, unsettled);
    }

    /// Whether less waits for the disk, or for [`Logs::completed`] to be called, than allowed; if not, withhold
    /// publish credit.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let waiting = self.shared.metrics.waiting_bytes.load(Relaxed) + self.gathered_bytes;
        waiting.max(self.sent_bytes) < self.shared.waiting_bytes_max
    }

    /// How much room the disk has. At [`DiskLevel::Low`] refuse publishes before they are appended.
    #[must_use]
    pub fn disk(&self) -> DiskLevel {
        self.shared.level()
    }

    /// Whether less is free than [`JournalConfig::disk_warn_bytes`]: refuse what matters least, while there is time.
    #[must_use]
    pub fn disk_fills(&self) -> bool {
        let free = self.shared.metrics.disk_free_bytes.load(Relaxed);
        // Nothing is known before the journal has looked.
        self.disk() != DiskLevel::Ok || free > 0 && free < self.shared.disk_warn_bytes
    }

    /// Hands everything gathered since the last flush to the journal thread. Call it once a turn.
    pub fn flush(&mut self) {
        self.tell_cache();
        if self.gathered.is_empty() {
            return;
        }
        let entries = std::mem::take(&mut self.gathered);
        self.shared.metrics.waiting_bytes.fetch_add(self.gathered_bytes, Relaxed);
        self.gathered_bytes = 0;
        self.shared.send(Work::Entries { shard: self.shard, entries });
    }

    fn gather_batch(&mut self, kind: EntryKind, generation: Stamp, batch: &Batch) {
        let base = batch.base();
        let header = batch_header(kind, generation, batch);
        let entry = Entry { header, payload: batch.bytes().clone() };
        let what = match kind {
            EntryKind::Copy => SentWhat::Staged { base },
            EntryKind::Batch | EntryKind::Shape | EntryKind::Checkpoint => SentWhat::Batch { base },
        };
        self.gather(entry, what);
    }

    fn gather_register(&mut self, register: Register, what: SentWhat) {
        let Register { header, payload } = register;
        self.gather(Entry { header, payload }, what);
    }

    /// The configuration sees to it that a segment holds the largest batch there can be.
    fn assert_fits(&self, batch: &Batch) {
        let length = batch.bytes().len() as u64;
        assert!(length <= self.shared.entry_bytes_max, "{batch:?} does not fit into a segment");
    }

    fn gather(&mut self, entry: Entry, what: SentWhat) {
        let EntryHeader { queue, generation, .. } = entry.header;
        let cost = entry.cost();
        self.sent.push_back(Sent { queue, generation, what, cost });
        self.sent_bytes += cost;
        self.gathered_bytes += cost;
        self.gathered.push(entry);
    }

    fn log(&self, queue: QueueId) -> &Log {
        self.logs.get(&queue).unwrap_or_else(|| panic!("queue {queue} has no log here"))
    }

    fn log_mut(&mut self, queue: QueueId) -> &mut Log {
        self.logs.get_mut(&queue).unwrap_or_else(|| panic!("queue {queue} has no log here"))
    }
}

fn shape_of(log: &Log) -> Shape {
    Shape::Live { lineage: log.lineage.clone(), epochs: log.epochs.clone() }
}

/// The directory entry of a batch.
pub(crate) fn batch_header(kind: EntryKind, generation: Stamp, batch: &Batch) -> EntryHeader {
    EntryHeader {
        kind,
        record_kind: batch.kind() as u8,
        length: batch.bytes().len() as u32,
        crc: 0,
        count: batch.count(),
        queue: batch.queue(),
        generation,
        base: batch.base(),
        version: batch.epoch().0,
    }
}
