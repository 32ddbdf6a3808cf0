//! What a shard is told of its logs.

use std::sync::Arc;

use bellwether_log::Batch;
use bellwether_protocol::ids::{Offset, OffsetRange, QueueId};
use bytes::Bytes;

use crate::read::ReadRequest;
use crate::segment::Segment;

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
    /// Synced data of it is damaged, and how. It must neither answer nor stand: it is fetched anew ([`Logs::stage_snapshot`](crate::Logs::stage_snapshot)).
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
    /// The cleaner wants to free a segment: answer with [`Logs::evacuate`](crate::Logs::evacuate), soon.
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
    /// Less is free than [`JournalConfig::disk_low_bytes`](crate::JournalConfig::disk_low_bytes): refuse publishes; settles, deletes and
    /// checkpoints go on.
    Low,
    /// Less than half of that, or the reserve is being used: refuse also those that matter most.
    Scarce,
    /// Nothing fits any more, not even the reserve: what was appended waits for space.
    Full,
    /// There is room, but no file descriptor for the next segment: what was appended waits for one.
    Starved,
}

/// A segment that the cleaner wants to free, and what of this shard lies in it.
#[derive(Debug)]
pub struct Evacuation {
    /// The queues with something there.
    pub queues: Vec<EvacuationNeed>,
    pub(crate) segment: Arc<Segment>,
}

/// What one queue has in a segment.
#[derive(Clone, Debug)]
pub struct EvacuationNeed {
    pub queue: QueueId,
    /// Messages of the queue that lie there have offsets within this range: [`QueueLive::unsettled`] must be exact in it.
    pub offsets: OffsetRange,
    /// The last checkpoint does not cover what lies there: take one ([`Logs::checkpoint`](crate::Logs::checkpoint)) before answering, if possible;
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
