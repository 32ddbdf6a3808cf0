//! What a shard's logs hold in memory, for the figures that all shards share.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Logs;

/// What this shard has told of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    cache: u64,
    indexes: u64,
}

impl Logs {
    /// Counts what the indexes hold: a walk over the logs, for about once a second.
    pub fn count_indexes(&mut self) {
        let indexes = self.logs.values().map(|log| log.index_bytes()).sum();
        tell(&self.shared.metrics.index_bytes, &mut self.told.indexes, indexes);
    }

    /// Tells how large the cache is now.
    pub(super) fn tell_cache(&mut self) {
        tell(&self.shared.metrics.cache_bytes, &mut self.told.cache, self.cache.bytes());
    }
}

fn tell(shared: &AtomicU64, told: &mut u64, now: u64) {
    if now >= *told {
        shared.fetch_add(now - *told, Relaxed);
    } else {
        shared.fetch_sub(*told - now, Relaxed);
    }
    *told = now;
}
