//! Looks, a few times a second, whether too much is held, and says so: in health, in the log, in the metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bellwether_journal::JournalMetrics;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Pool;
use crate::admin::{Health, Trouble};
use crate::metrics::Metrics;

/// How often. What producers were granted already may come in meanwhile: it is bounded by what they hold unconfirmed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where it looks.
pub(crate) struct Sources {
    pub metrics: Arc<Metrics>,
    pub journal: Arc<JournalMetrics>,
    pub health: Arc<Health>,
}

/// Until `stop`.
pub(crate) async fn watch(sources: Sources, stop: CancellationToken) {
    let mut every = tokio::time::interval(LOOK_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => sources.look(),
            () = stop.cancelled() => return,
        }
    }
}

impl Sources {
    fn look(&self) {
        let Sources { metrics, journal, health } = self;
        let memory = &metrics.memory;
        memory.held(Pool::Cache).set(journal.cache_bytes.load(Relaxed));
        memory.held(Pool::Journal).set(journal.waiting_bytes.load(Relaxed));
        memory.held(Pool::Queues).set(journal.index_bytes.load(Relaxed));
        memory.held(Pool::Publishes).set(metrics.publish_bytes_in_flight.get());
        let Some(above) = memory.look() else { return };
        let limit = memory.limit_of_all().unwrap_or(u64::MAX);
        let trouble = Trouble::MemoryFull { limit };
        metrics.memory_above_limit.set(u64::from(above));
        if above {
            warn!(
                held = memory.total(),
                limit,
                largest = largest(metrics),
                "the memory limit is reached: producers wait for credit until consumers have drained"
            );
            health.raise(trouble);
        } else {
            info!(
                held = memory.total(),
                limit, "below the memory limit: producers get credit again"
            );
            health.clear(&trouble);
        }
    }
}

/// The pool that holds the most: where to look first.
fn largest(metrics: &Metrics) -> &'static str {
    let held = |pool: &&Pool| metrics.memory.held(**pool).get();
    Pool::ALL.iter().max_by_key(held).map_or("none", |pool| pool.name())
}

#[cfg(test)]
mod tests {
    use super::super::PoolLimits;
    use super::*;

    #[test]
    fn what_is_too_much_is_said_and_when_it_is_over_too() {
        let sources =
            Sources { metrics: Arc::default(), journal: Arc::default(), health: Arc::default() };
        sources.health.clear(&Trouble::Starting);
        sources.metrics.memory.limit(PoolLimits::split(100 << 20, 1 << 20, 1 << 20));
        sources.journal.index_bytes.store(101 << 20, Relaxed);
        sources.look();
        assert!(sources.metrics.memory.is_above());
        assert_eq!(sources.metrics.memory_above_limit.get(), 1);
        assert_eq!(sources.health.troubles(), [Trouble::MemoryFull { limit: 100 << 20 }]);
        assert!(sources.health.broken().is_empty(), "it passes by itself");
        sources.journal.index_bytes.store(0, Relaxed);
        sources.look();
        assert!(!sources.metrics.memory.is_above() && sources.health.troubles().is_empty());
        assert_eq!(sources.metrics.memory_above_limit.get(), 0);
    }
}
