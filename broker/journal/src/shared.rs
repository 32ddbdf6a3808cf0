//! What the shards and the journal thread share: an inbox for the thread, an outbox for each shard.
//! Nobody blocks on it but the thread that has nothing to do.
//!
//! Both boxes are bounded by what waits for the disk: an entry is in the inbox, or its position in an outbox, only
//! while its shard has not heard of it, and [`crate::Logs::has_room`] limits that.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwether_protocol::ids::{Offset, OffsetRange, QueueId, StoreId};
use bytes::Bytes;

use crate::format::{EntryHeader, SegmentSeq, Stamp};
use crate::index::{Located, Place};
use crate::metrics::JournalMetrics;
use crate::segment::Segment;
use crate::writer::entry_bytes_max;
use crate::{DiskLevel, JournalConfig};

/// What an entry costs besides its payload while it waits, in bytes.
pub const ENTRY_COST: u64 = 128;

/// An entry on its way to the disk.
#[derive(Clone, Debug)]
pub struct Entry {
    pub header: EntryHeader,
    pub payload: Bytes,
}

impl Entry {
    pub fn cost(&self) -> u64 {
        ENTRY_COST + self.payload.len() as u64
    }
}

/// One thing a shard hands to the journal thread.
pub enum Work {
    /// To be written, in this order.
    Entries { shard: usize, entries: Vec<Entry> },
    /// What of this shard has to be moved out of a segment.
    Plan { shard: usize, segment: SegmentSeq, items: Vec<CopyItem> },
    /// One more shard refers to nothing in the segment any more.
    Released { segment: SegmentSeq },
}

/// A batch to be moved.
#[derive(Clone, Debug)]
pub struct CopyItem {
    pub queue: QueueId,
    pub generation: Stamp,
    pub located: Located,
    pub keep: Keep,
}

/// What of it.
#[derive(Clone, Debug)]
pub enum Keep {
    Whole,
    /// These offsets; all lie within the batch.
    Parts(Vec<OffsetRange>),
}

/// Where a batch has been moved.
#[derive(Clone, Copy, Debug)]
pub struct Copied {
    pub queue: QueueId,
    pub generation: Stamp,
    pub base: Offset,
    pub place: Place,
}

/// One thing the journal thread tells a shard.
pub enum Outcome {
    /// The next so many entries of this shard are durable, and these are their positions.
    Placed {
        segment: Arc<Segment>,
        positions: Vec<u32>,
    },
    /// What is still needed in this segment?
    Evacuate {
        segment: Arc<Segment>,
    },
    /// It has been moved, durably.
    Moved {
        segment: SegmentSeq,
        targets: Vec<Arc<Segment>>,
        copies: Vec<Copied>,
    },
    Disk(DiskLevel),
    Corrupt {
        queue: QueueId,
        what: String,
    },
    Failed(String),
}

type Notify = Box<dyn Fn(usize) + Send + Sync>;

pub struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    outboxes: Vec<Mutex<Vec<Outcome>>>,
    notify: Notify,
    level: AtomicU8,
    stamps: AtomicU64,
    /// Logs that are condemned. As long as there is one, no damaged segment is freed: it may be the last that holds
    /// what an operator wants back.
    pub condemned: AtomicUsize,
    /// The folder's.
    pub store: StoreId,
    pub waiting_bytes_max: u64,
    /// See [`JournalConfig`].
    pub disk_warn_bytes: u64,
    /// Likewise; may change at any time.
    pub disk_low_bytes: AtomicU64,
    /// Likewise.
    pub dead_bytes_max: AtomicU64,
    /// Largest payload of one entry.
    pub entry_bytes_max: u64,
    pub metrics: Arc<JournalMetrics>,
}

#[derive(Default)]
struct Inbox {
    work: Vec<Work>,
    stopping: bool,
}

impl Shared {
    pub fn new(
        shards: usize,
        notify: Notify,
        store: StoreId,
        first_stamp: Stamp,
        config: &JournalConfig,
        metrics: Arc<JournalMetrics>,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            inbox: Mutex::default(),
            wake: Condvar::new(),
            outboxes: (0..shards).map(|_| Mutex::default()).collect(),
            notify,
            level: AtomicU8::new(0),
            stamps: AtomicU64::new(first_stamp.0),
            condemned: AtomicUsize::new(0),
            store,
            waiting_bytes_max: config.waiting_bytes_max,
            disk_warn_bytes: config.disk_warn_bytes,
            disk_low_bytes: AtomicU64::new(config.disk_low_bytes),
            dead_bytes_max: AtomicU64::new(config.dead_bytes_max),
            entry_bytes_max: entry_bytes_max(config.segment_bytes),
            metrics,
        })
    }

    pub fn shards(&self) -> usize {
        self.outboxes.len()
    }

    /// A number never given out before.
    pub fn stamp(&self) -> Stamp {
        Stamp(self.stamps.fetch_add(1, Relaxed))
    }

    pub fn send(&self, work: Work) {
        locked(&self.inbox).work.push(work);
        self.wake.notify_one();
    }

    pub fn stop(&self) {
        locked(&self.inbox).stopping = true;
        self.wake.notify_one();
    }

    /// Takes all that waits; when nothing does, waits for something up to `patience`. The second: whether to stop.
    pub fn take(&self, patience: Duration) -> (Vec<Work>, bool) {
        let inbox = locked(&self.inbox);
        let idle = |inbox: &mut Inbox| inbox.work.is_empty() && !inbox.stopping;
        let waited = self.wake.wait_timeout_while(inbox, patience, idle);
        let (mut inbox, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut inbox.work), inbox.stopping)
    }

    /// Tells shards what happened, waking each once.
    pub fn tell(&self, outcomes: impl IntoIterator<Item = (usize, Outcome)>) {
        let mut told = vec![false; self.outboxes.len()];
        for (shard, outcome) in outcomes {
            locked(&self.outboxes[shard]).push(outcome);
            told[shard] = true;
        }
        for shard in (0..told.len()).filter(|shard| told[*shard]) {
            (self.notify)(shard);
        }
    }

    /// The journal thread is gone, or as good as gone.
    pub fn tell_failed(&self, failure: &str) {
        let failed = |shard| (shard, Outcome::Failed(failure.to_owned()));
        self.tell((0..self.shards()).map(failed));
    }

    pub fn heard(&self, shard: usize) -> Vec<Outcome> {
        std::mem::take(&mut locked(&self.outboxes[shard]))
    }

    pub fn level(&self) -> DiskLevel {
        match self.level.load(Relaxed) {
            0 => DiskLevel::Ok,
            1 => DiskLevel::Low,
            2 => DiskLevel::Scarce,
            3 => DiskLevel::Full,
            _ => DiskLevel::Starved,
        }
    }

    /// Answers whether that is new.
    pub fn set_level(&self, level: DiskLevel) -> bool {
        let number = match level {
            DiskLevel::Ok => 0,
            DiskLevel::Low => 1,
            DiskLevel::Scarce => 2,
            DiskLevel::Full => 3,
            DiskLevel::Starved => 4,
        };
        self.level.swap(number, Relaxed) != number
    }
}

/// A poisoned box means that a thread panicked between two pushes: what is in it is whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
