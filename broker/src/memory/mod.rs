//! What the broker holds in memory, by named pools: each counts what its owners hold, in buffers and batches and never in
//! messages, and has a limit; all together have one, past which no publish credit is granted until consumers have drained.

mod machine;
mod watch;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::metrics::Gauge;

pub use machine::{MachineMemory, machine_memory};
pub(crate) use watch::{Sources, watch};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Smallest limit that can be worked with: two of the largest messages, a cache, and what the rest holds at least.
pub const MEMORY_LIMIT_MIN: u64 = 96 * MIB;

/// What of the machine is taken when nothing is said, in percent: the rest is for the page cache, which serves consumers that
/// are behind, for what no pool counts, and for whoever else lives there.
pub const MEMORY_LIMIT_PERCENT: u64 = 40;

/// Least room for large frames that are not whole.
const FRAMES_LEAST: u64 = 36 * MIB;
/// The most.
const FRAMES_MOST: u64 = 128 * MIB;

/// The share of the limit above which credit stops, and the one below which it goes on, in percent. Apart, so that the
/// producers of a full broker do not flicker.
const STOP_PERCENT: u64 = 100;
/// See [`STOP_PERCENT`].
const GO_ON_PERCENT: u64 = 90;

macro_rules! pools {
    ($($(#[$doc:meta])* $variant:ident $name:literal;)*) => {
        /// Who holds it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Pool {
            $($(#[$doc])* $variant,)*
        }

        impl Pool {
            /// Every pool, in the order of the documentation.
            pub const ALL: &'static [Pool] = &[$(Pool::$variant),*];

            /// Its name, as scraped.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Pool::$variant => $name,)* }
            }
        }
    };
}

pools! {
    /// Recent batches of the journal.
    Cache "journal_cache";
    /// Batches that wait for the disk.
    Journal "journal_waiting";
    /// Publishes taken and not answered.
    Publishes "publishes";
    /// Deliveries that wait for clients to read, and what they are written from.
    Outboxes "client_outboxes";
    /// Answers and confirms that wait for clients to read.
    Answers "client_answers";
    /// What waits to be written to other brokers.
    Peers "peer_outboxes";
    /// What was read from the disk for consumers, followers and recovery, and was not handed over yet.
    Reads "disk_reads";
    /// Snapshots being taken in.
    Snapshots "snapshots";
    /// Requests of clients that are not answered yet.
    Requests "requests";
    /// Read buffers of connections, and what TLS keeps for them.
    Connections "connections";
    /// Room granted to large frames that have begun and are not whole yet.
    Frames "large_frames";
    /// Connections that have not said hello yet.
    Handshakes "handshakes";
    /// Where the waiting messages of all queues lie on the disk: a few bytes a batch.
    Queues "queue_indexes";
}

/// The limit of every pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Of all together.
    pub total: u64,
    limits: [u64; Pool::ALL.len()],
}

impl PoolLimits {
    /// Splits `total`. What has a setting of its own never gets more than that says.
    #[must_use]
    pub fn split(total: u64, cache_bytes: u64, publish_bytes: u64) -> PoolLimits {
        let percent = |share: u64| total / 100 * share;
        let limit = |pool| match pool {
            Pool::Cache => cache_bytes.min(percent(25)),
            Pool::Journal => (32 * MIB).min(percent(10)),
            Pool::Publishes => publish_bytes.min(percent(20)),
            Pool::Outboxes => percent(15),
            Pool::Peers => percent(10),
            Pool::Reads => percent(10),
            Pool::Snapshots => percent(10),
            Pool::Answers => percent(5).max(4 * MIB),
            Pool::Requests => percent(2),
            // A handshake with TLS takes 48 KiB: a hundred and more at once, however little there is.
            Pool::Handshakes => percent(8),
            Pool::Connections => percent(20),
            // Two frames of the largest size fit, or the largest message could never come in beside another. They come in within
            // milliseconds: room for many more would be for those that never end.
            Pool::Frames => percent(10).clamp(FRAMES_LEAST, FRAMES_MOST),
            Pool::Queues => percent(25),
        };
        let mut limits = [0; Pool::ALL.len()];
        for (place, pool) in limits.iter_mut().zip(Pool::ALL) {
            *place = limit(*pool);
        }
        PoolLimits { total, limits }
    }

    /// The limit of one pool.
    #[must_use]
    pub fn of(&self, pool: Pool) -> u64 {
        self.limits[pool as usize]
    }
}

/// What is held now. Counting never waits, and is done once for a buffer or a batch.
#[derive(Debug, Default)]
pub struct Memory {
    held: [Gauge; Pool::ALL.len()],
    limits: OnceLock<PoolLimits>,
    above: AtomicBool,
    /// A client has read answers: there may be room in their pool. One waits at a time.
    pub(crate) answers_read: Notify,
}

impl Memory {
    /// Sets the limits; once, before anything is counted. Without them nothing is ever above.
    pub fn limit(&self, limits: PoolLimits) {
        self.limits.get_or_init(|| limits);
    }

    /// How much a pool holds.
    pub fn held(&self, pool: Pool) -> &Gauge {
        &self.held[pool as usize]
    }

    /// The limit of a pool, if one is set.
    #[must_use]
    pub fn limit_of(&self, pool: Pool) -> Option<u64> {
        self.limits.get().map(|limits| limits.of(pool))
    }

    /// The limit of all pools together, if one is set.
    #[must_use]
    pub fn limit_of_all(&self) -> Option<u64> {
        self.limits.get().map(|limits| limits.total)
    }

    /// What all pools hold.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.held.iter().map(Gauge::get).sum()
    }

    /// Whether a pool holds as much as it may.
    #[must_use]
    pub fn is_full(&self, pool: Pool) -> bool {
        self.limit_of(pool).is_some_and(|limit| self.held(pool).get() >= limit)
    }

    /// Waits until answers have room in their pool. Only one waits at a time.
    pub(crate) async fn answers_have_room(&self) {
        while self.is_full(Pool::Answers) {
            self.answers_read.notified().await;
        }
    }

    /// Whether too much is held: then no publish credit is granted. Consumers, settles and deletes go on, so that it drains.
    #[must_use]
    pub fn is_above(&self) -> bool {
        self.above.load(Ordering::Relaxed)
    }

    /// Looks again whether too much is held; `Some` when that has changed. With a gap between stopping and going on.
    pub(crate) fn look(&self) -> Option<bool> {
        let limit = self.limit_of_all()?;
        let total = self.total();
        let was = self.is_above();
        let is = match was {
            false => total >= limit / 100 * STOP_PERCENT || self.has_run_over(),
            true => total >= limit / 100 * GO_ON_PERCENT || self.has_run_over(),
        };
        self.above.store(is, Ordering::Relaxed);
        (is != was).then_some(is)
    }

    /// Pools that nothing else holds back, and that only fewer publishes make smaller.
    fn has_run_over(&self) -> bool {
        [Pool::Queues, Pool::Peers].into_iter().any(|pool| self.is_full(pool))
    }
}

/// Bytes counted in a pool until this is dropped.
#[derive(Debug)]
pub struct Held {
    metrics: std::sync::Arc<crate::metrics::Metrics>,
    pool: Pool,
    bytes: u64,
}

impl Held {
    /// Counts `bytes` in `pool`.
    #[must_use]
    pub fn new(metrics: &std::sync::Arc<crate::metrics::Metrics>, pool: Pool, bytes: u64) -> Held {
        metrics.memory.held(pool).add(bytes);
        Held { metrics: metrics.clone(), pool, bytes }
    }

    /// It is so many now.
    pub fn set(&mut self, bytes: u64) {
        let held = self.metrics.memory.held(self.pool);
        match bytes.checked_sub(self.bytes) {
            Some(0) => return,
            Some(more) => held.add(more),
            None => held.subtract(self.bytes - bytes),
        }
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::Metrics;

    fn limited(total: u64) -> Arc<Metrics> {
        let metrics = Arc::new(Metrics::default());
        metrics.memory.limit(PoolLimits::split(total, 64 * MIB, 64 * MIB));
        metrics
    }

    #[test]
    fn credit_stops_at_the_limit_and_goes_on_only_well_below_it() {
        let metrics = limited(1000 * MIB);
        let memory = &metrics.memory;
        let mut held = Held::new(&metrics, Pool::Outboxes, 999 * MIB);
        assert_eq!((memory.look(), memory.is_above()), (None, false));
        held.set(1000 * MIB);
        assert_eq!((memory.look(), memory.is_above()), (Some(true), true));
        held.set(900 * MIB);
        assert_eq!((memory.look(), memory.is_above()), (None, true));
        held.set(899 * MIB);
        assert_eq!((memory.look(), memory.is_above()), (Some(false), false));
    }

    #[test]
    fn waiting_messages_alone_stop_credit_when_their_index_has_used_up_its_share() {
        let metrics = limited(1000 * MIB);
        let mut held = Held::new(&metrics, Pool::Queues, 250 * MIB);
        assert_eq!(metrics.memory.look(), Some(true));
        held.set(249 * MIB);
        assert_eq!(metrics.memory.look(), Some(false));
    }

    #[test]
    fn what_is_held_is_given_back_with_its_guard() {
        let metrics = limited(1000 * MIB);
        let mut held = Held::new(&metrics, Pool::Reads, 10);
        held.set(7);
        assert_eq!(metrics.memory.held(Pool::Reads).get(), 7);
        drop(held);
        assert_eq!(metrics.memory.total(), 0);
    }

    #[test]
    fn without_a_limit_nothing_is_above() {
        let metrics = Arc::new(Metrics::default());
        let _held = Held::new(&metrics, Pool::Queues, u64::MAX / 2);
        assert_eq!((metrics.memory.look(), metrics.memory.is_above()), (None, false));
        assert!(!metrics.memory.is_full(Pool::Queues));
    }

    #[test]
    fn a_small_limit_leaves_room_for_the_largest_message_and_keeps_to_the_settings() {
        let limits = PoolLimits::split(MEMORY_LIMIT_MIN, 64 * MIB, 64 * MIB);
        assert!(limits.of(Pool::Frames) >= 36 * MIB);
        assert!(limits.of(Pool::Cache) <= MEMORY_LIMIT_MIN / 4);
        let limits = PoolLimits::split(64 * 1024 * MIB, 64 * MIB, 32 * MIB);
        assert_eq!((limits.of(Pool::Cache), limits.of(Pool::Publishes)), (64 * MIB, 32 * MIB));
    }
}
