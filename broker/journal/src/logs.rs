//! The logs of one shard's queues: what the shard appends to, reads from and cleans through. Lives on
//! the shard's task; never blocks and never touches a file.

use bellwether_log::{Batch, EpochHistory};
use bellwether_protocol::ids::{Offset, OffsetRange, QueueId};
use bytes::Bytes;

use crate::read::ReadRequest;

/// The logs of one shard. What is gathered by `append`, `truncate`, `checkpoint` and the like goes to the
/// journal thread with [`Logs::flush`], in that order, and nothing of it is durable before [`Logs::completed`] says so.
pub struct Logs {}

/// The last checkpoint of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The state is that of the log up to here: replay from here.
    pub at: Offset,
    /// Everything below was known committed when it was taken. Never below `at`.
    pub high_watermark: Offset,
    /// The queue's state, as it gave it.
    pub state: Bytes,
}

/// Whether a log can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Ok,
    /// Synced data of it is damaged, and how. It must neither answer nor stand: it is fetched anew ([`Logs::stage_snapshot`]).
    Corrupt(String),
}

/// What came of a read.
#[derive(Debug)]
pub enum Read {
    /// From memory. Empty at the end of the log. The first batch holds the offset asked for (it may begin before it).
    Ready(Vec<Batch>),
    /// Lies on the disk: run it on a thread that may block.
    OnDisk(ReadRequest),
    /// Below the log's start (or, for live messages, nowhere): a snapshot is needed.
    Gone,
}

/// What has happened at the disk.
#[derive(Debug)]
pub enum Progress {
    /// The log is durable up to `end`: this, and nothing else, is what may be reported.
    Durable { queue: QueueId, end: Offset },
    /// The staged snapshot has durably replaced the log, which now starts and ends at `end`.
    Installed { queue: QueueId, end: Offset },
    /// The cleaner wants to free a segment: answer with [`Logs::evacuate`], soon.
    Evacuate(Evacuation),
    /// Damage was found in synced data of this queue's log: as [`Condition::Corrupt`].
    Corrupt { queue: QueueId, what: String },
    /// How much room the disk has, when that changes.
    Disk(DiskLevel),
    /// A write or an fdatasync failed: this store is dead. Nothing will ever be durable any more. Comes once.
    Failed(String),
}

/// How much room the disk has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskLevel {
    #[default]
    Ok,
    /// Refuse publishes (and, as a follower, stop taking records that a leader streams); settles, deletes and checkpoints go on.
    Low,
    /// Nothing fits any more, not even the reserve: what was appended waits for space.
    Full,
}

/// A segment that the cleaner wants to free, and what of this shard lies in it.
#[derive(Debug)]
pub struct Evacuation {
    /// The queues with something there.
    pub queues: Vec<EvacuationNeed>,
    #[expect(dead_code)]
    segment: u64,
}

/// What one queue has in a segment.
#[derive(Clone, Debug)]
pub struct EvacuationNeed {
    pub queue: QueueId,
    /// Messages of the queue that lie there have offsets within this range: [`QueueLive::unsettled`] must be exact in it.
    pub offsets: OffsetRange,
    /// The last checkpoint does not cover what lies there: take one ([`Logs::checkpoint`]) before answering, if possible;
    /// else the log is moved as it is.
    pub checkpoint_wanted: bool,
}

/// Which messages of a queue are still needed.
#[derive(Clone, Debug)]
pub struct QueueLive {
    pub queue: QueueId,
    /// Unsettled offsets, as of what the queue has applied, ascending.
    pub unsettled: Vec<OffsetRange>,
}

impl Logs {
    /// The queues that have a log here, corrupt ones included.
    pub fn queues(&self) -> impl Iterator<Item = QueueId> + '_ {
        std::iter::empty()
    }

    #[must_use]
    pub fn contains(&self, _queue: QueueId) -> bool {
        unimplemented!()
    }

    /// Makes an empty log that starts at offset zero. Durable before anything that is appended to it.
    ///
    /// # Panics
    /// When the queue has a log.
    pub fn create(&mut self, _queue: QueueId) {
        unimplemented!()
    }

    /// Deletes the log, durably: call it on a tombstone (or when the replica has moved away) only. No-op without a log.
    /// The same queue may be created again.
    pub fn remove(&mut self, _queue: QueueId) {
        unimplemented!()
    }

    /// Whether the log can be trusted. `None`: no such log. So do the next ones.
    #[must_use]
    pub fn condition(&self, _queue: QueueId) -> Option<&Condition> {
        unimplemented!()
    }

    /// Marks the log corrupt (a read found damage, or its state cannot be restored). Nothing is deleted.
    pub fn quarantine(&mut self, _queue: QueueId, _what: String) {
        unimplemented!()
    }

    /// First offset from which every record is there. Live messages below it are read with [`Logs::read_live`].
    ///
    /// # Panics
    /// Without such a log; so do all that follow unless they say otherwise.
    #[must_use]
    pub fn start(&self, _queue: QueueId) -> Offset {
        unimplemented!()
    }

    /// The log end offset: everything appended, durable or not.
    #[must_use]
    pub fn end(&self, _queue: QueueId) -> Offset {
        unimplemented!()
    }

    /// Everything below is durable here.
    #[must_use]
    pub fn durable(&self, _queue: QueueId) -> Offset {
        unimplemented!()
    }

    /// The epochs of the log.
    #[must_use]
    pub fn epochs(&self, _queue: QueueId) -> &EpochHistory {
        unimplemented!()
    }

    /// Offset and high watermark of the last checkpoint handed in (or recovered).
    #[must_use]
    pub fn checkpointed(&self, _queue: QueueId) -> Option<(Offset, Offset)> {
        unimplemented!()
    }

    /// Appends. The batch is readable at once.
    ///
    /// # Panics
    /// When it does not begin at the log's end, or the log is corrupt.
    pub fn append(&mut self, _batch: Batch) {
        unimplemented!()
    }

    /// Cuts the log: everything from `to` on is gone and never comes back. Cuts lie between batches; one that falls inside a
    /// batch takes the whole batch. Answers the new end.
    ///
    /// # Panics
    /// When `to` lies below the last checkpoint: that would cut committed records.
    pub fn truncate(&mut self, _queue: QueueId, _to: Offset) -> Offset {
        unimplemented!()
    }

    /// Keeps the queue's state as of the log up to `at`. Older ones are forgotten once it is durable.
    ///
    /// # Panics
    /// When `at` is beyond the log's end or below the last checkpoint.
    pub fn checkpoint(
        &mut self,
        _queue: QueueId,
        _at: Offset,
        _high_watermark: Offset,
        _state: Bytes,
    ) {
        unimplemented!()
    }

    /// Takes the queues whose log since the last checkpoint has become long; each is named once until it is checkpointed.
    pub fn wants_checkpoint(&mut self) -> Vec<QueueId> {
        unimplemented!()
    }

    /// Batches from the one that holds `from` on, about `bytes_max` of them, one at least.
    #[must_use]
    pub fn read(&self, _queue: QueueId, _from: Offset, _bytes_max: usize) -> Read {
        unimplemented!()
    }

    /// The batches that hold the messages of `ranges` (ascending), wherever they lie, about `bytes_max` of them: a
    /// prefix of what was asked, one batch at least. A batch may hold more than was asked for; see from the last
    /// batch's end how far it got.
    #[must_use]
    pub fn read_live(&self, _queue: QueueId, _ranges: &[OffsetRange], _bytes_max: usize) -> Read {
        unimplemented!()
    }

    /// These messages are gone for good: their space can be freed.
    pub fn settled(&mut self, _queue: QueueId, _range: OffsetRange) {
        unimplemented!()
    }

    /// After a restart: of the messages below `below` only these are unsettled (until told, all are taken for it).
    /// Call it once the queue's state is restored.
    pub fn restored(&mut self, _queue: QueueId, _below: Offset, _unsettled: &[OffsetRange]) {
        unimplemented!()
    }

    /// Whether less waits for the disk than allowed; if not, withhold publish credit.
    #[must_use]
    pub fn has_room(&self) -> bool {
        unimplemented!()
    }

    /// How much room the disk has. At [`DiskLevel::Low`] refuse publishes before they are appended.
    #[must_use]
    pub fn disk(&self) -> DiskLevel {
        unimplemented!()
    }

    /// Hands everything gathered since the last flush to the journal thread. Call it once a turn.
    pub fn flush(&mut self) {
        unimplemented!()
    }

    /// Takes what the journal thread has done. Call it whenever this shard was notified.
    pub fn completed(&mut self) -> Vec<Progress> {
        unimplemented!()
    }

    /// Answers [`Progress::Evacuate`]: what is still needed there is moved by the journal thread. All messages of queues
    /// that are not named are taken for live.
    pub fn evacuate(&mut self, _evacuation: Evacuation, _live: &[QueueLive]) {
        unimplemented!()
    }

    /// Begins to replace the queue's whole log by a snapshot (making a log if there is none): state as of `at`, then live batches below it
    /// ([`Logs::stage_live`]), then [`Logs::commit_snapshot`]. Until that is durable ([`Progress::Installed`]) the old log stays as it is, also over a crash.
    /// A snapshot begun before and not committed is forgotten.
    pub fn stage_snapshot(
        &mut self,
        _queue: QueueId,
        _at: Offset,
        _high_watermark: Offset,
        _epochs: EpochHistory,
        _state: Bytes,
    ) {
        unimplemented!()
    }

    /// One of the snapshot's live batches, ascending. All lie below its `at`.
    pub fn stage_live(&mut self, _batch: Batch) {
        unimplemented!()
    }

    /// Everything is staged: the snapshot replaces the log, all or nothing.
    pub fn commit_snapshot(&mut self, _queue: QueueId) {
        unimplemented!()
    }

    /// Forgets what was staged.
    pub fn abandon_snapshot(&mut self, _queue: QueueId) {
        unimplemented!()
    }
}
