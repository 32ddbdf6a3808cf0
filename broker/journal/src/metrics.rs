//! What the journal counts, readable at any time from any thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Upper bounds of the sync latency buckets, in microseconds; the last bucket has none.
pub const SYNC_BUCKETS_US: [u64; 11] =
    [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 500_000];

/// Counters and gauges of one journal. Counters only ever go up.
#[derive(Debug, Default)]
pub struct JournalMetrics {
    /// Groups made durable, that is fdatasync calls on the write path.
    pub syncs: AtomicU64,
    /// Batches and registers made durable.
    pub entries: AtomicU64,
    /// Bytes written, headers and padding included.
    pub bytes_written: AtomicU64,
    /// Time spent in fdatasync on the write path, in microseconds.
    pub sync_us_total: AtomicU64,
    /// fdatasync calls by latency: [`SYNC_BUCKETS_US`] and one for all longer ones. Not cumulative.
    pub sync_us_buckets: [AtomicU64; SYNC_BUCKETS_US.len() + 1],
    /// Bytes appended that wait for the disk now.
    pub waiting_bytes: AtomicU64,
    /// Bytes of recent batches in memory now, all shards together.
    pub cache_bytes: AtomicU64,
    /// Bytes of the indexes that say where batches lie, all shards together, as last counted.
    pub index_bytes: AtomicU64,
    /// Bytes of all segment files now, spare ones included.
    pub disk_bytes: AtomicU64,
    /// Bytes of unsettled messages on the disk now.
    pub live_bytes: AtomicU64,
    /// Segment files in use now.
    pub segments: AtomicU64,
    /// Bytes that the cleaner has moved.
    pub moved_bytes: AtomicU64,
    /// Segments that the cleaner has freed.
    pub segments_freed: AtomicU64,
    /// Free bytes of the file system as last seen.
    pub disk_free_bytes: AtomicU64,
    busy: Busy,
}

/// Since when the journal's thread has been at what it is at.
#[derive(Debug)]
struct Busy {
    /// What times are counted from.
    base: Instant,
    /// Microseconds after `base`, and one; 0: it waits for work.
    since: AtomicU64,
}

impl Default for Busy {
    fn default() -> Busy {
        Busy { base: Instant::now(), since: AtomicU64::new(0) }
    }
}

impl JournalMetrics {
    /// For how long the thread has been at one group, or at one look after its segments; `None` when it waits for work. A long
    /// time is a disk that does not answer.
    #[must_use]
    pub fn busy_for(&self) -> Option<Duration> {
        let since = self.busy.since.load(Relaxed).checked_sub(1)?;
        Some(self.busy.base.elapsed().saturating_sub(Duration::from_micros(since)))
    }

    /// The thread has something to do: a group at most.
    pub(crate) fn begins(&self) {
        let now = u64::try_from(self.busy.base.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        self.busy.since.store(now + 1, Relaxed);
    }

    /// It waits for work.
    pub(crate) fn rests(&self) {
        self.busy.since.store(0, Relaxed);
    }

    pub(crate) fn synced(&self, took: Duration, entries: u64, bytes: u64) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = SYNC_BUCKETS_US.partition_point(|bound| *bound < us);
        self.sync_us_buckets[bucket].fetch_add(1, Relaxed);
        self.sync_us_total.fetch_add(us, Relaxed);
        self.syncs.fetch_add(1, Relaxed);
        self.entries.fetch_add(entries, Relaxed);
        self.bytes_written.fetch_add(bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_waits_for_work_is_not_busy_however_long() {
        let metrics = JournalMetrics::default();
        assert_eq!(metrics.busy_for(), None);
        metrics.begins();
        let first = metrics.busy_for().unwrap();
        assert!(metrics.busy_for().unwrap() >= first);
        metrics.rests();
        assert_eq!(metrics.busy_for(), None);
    }
}
