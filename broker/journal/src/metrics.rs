//! What the journal counts, readable at any time from any thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

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
}

impl JournalMetrics {
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
