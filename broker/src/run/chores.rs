//! What goes on beside the work as long as a broker runs: what is known is brought to those who are to know it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bellwether_journal::{JournalMetrics, SYNC_BUCKETS_US};
use bellwether_protocol::client::NumberOf;
use bellwether_protocol::ids::BrokerLife;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin::{Health, Scraper, Trouble};
use crate::catalog::Catalog;
use crate::metrics::Metrics;
use crate::session::Life;
use crate::shard::Shards;
use crate::shard::input::ShardInput;

/// How often the journal's counters are brought into the metrics.
const COUNT_JOURNAL: Duration = Duration::from_secs(1);
/// How often the queues of the cluster are counted: with a hundred thousand of them that takes milliseconds.
const COUNT_QUEUES: Duration = Duration::from_secs(5);

/// The broker is ready when its catalog is complete and shows it among the live brokers: from then on it can declare, route
/// and redirect. A client that comes earlier would hear that nobody is live.
pub(super) async fn become_ready(catalog: Catalog, health: Arc<Health>, stop: CancellationToken) {
    let mut changes = catalog.changes();
    loop {
        let shown = catalog.addresses().iter().any(|known| known.broker == catalog.me());
        if shown && catalog.is_complete() {
            return health.clear(&Trouble::Starting);
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// Tells every shard of this broker's lives and of the session's connection.
pub(super) async fn tell_lives(
    mut lives: watch::Receiver<Option<Life>>,
    shards: Shards,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    stop: CancellationToken,
) {
    let mut last: Option<(BrokerLife, bool)> = None;
    loop {
        let present = lives.borrow_and_update().clone();
        let connected = present.as_ref().is_some_and(|life| life.connected);
        metrics.coordinator_connected.set(u64::from(connected));
        let now = present.as_ref().map(|present| present.life);
        if last.is_some_and(|(_, was_connected)| was_connected) && !connected {
            metrics.coordinator_disconnects.increment();
        }
        if now.is_some() && now != last.map(|(life, _)| life) {
            metrics.coordinator_sessions.increment();
        } else if last.is_some_and(|(_, was_connected)| !was_connected) && connected {
            metrics.coordinator_reconnects.increment();
        }
        last = now.map(|life| (life, connected));
        if let Some(life) = &present {
            health.clear(&Trouble::NoSession);
            metrics.coordinator_session_timeout.set(life.coordinator.session().timeout);
        }
        for shard in shards.all() {
            shard.send(ShardInput::CoordinatorConnected(connected)).await;
            shard.send(ShardInput::Life(present.as_ref().map(|life| life.life))).await;
        }
        tokio::select! {
            changed = lives.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        if lives.borrow().is_none() {
            health.raise(Trouble::NoSession);
        }
    }
}

pub(super) async fn admin(
    listener: tokio::net::TcpListener,
    scraper: Arc<Scraper>,
    health: Arc<Health>,
    stop: CancellationToken,
) {
    if let Err(failure) = crate::admin::serve(listener, scraper, health, stop).await {
        error!(%failure, "the admin endpoint has ended");
    }
}

/// Brings what the journal counts into the metrics.
pub(super) async fn count_journal(
    journal: Arc<JournalMetrics>,
    metrics: Arc<Metrics>,
    disk_free_warn: u64,
    stop: CancellationToken,
) {
    let mut every = tokio::time::interval(COUNT_JOURNAL);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.cancelled() => return,
        }
        metrics.journal_segments.set(journal.segments.load(Relaxed));
        metrics.journal_live_bytes.set(journal.live_bytes.load(Relaxed));
        heed_free_disk(&metrics, journal.disk_free_bytes.load(Relaxed), disk_free_warn);
        for (counter, now) in [
            (&metrics.journal_syncs, &journal.syncs),
            (&metrics.journal_bytes, &journal.bytes_written),
            (&metrics.journal_relocated_bytes, &journal.moved_bytes),
        ] {
            counter.add(now.load(Relaxed).saturating_sub(counter.get()));
        }
        let counts = journal.sync_us_buckets.iter().map(|bucket| bucket.load(Relaxed));
        metrics.journal_sync_seconds.replace(
            &SYNC_BUCKETS_US,
            counts,
            journal.sync_us_total.load(Relaxed),
        );
    }
}

/// Below the first watermark producers are slowed: each gets credit only once all it has sent is answered. Below the second,
/// `disk-free-min`, the shards refuse publishes. Settles and deletes, which free room, go on in any case.
fn heed_free_disk(metrics: &Metrics, free: u64, warn_below: u64) {
    metrics.disk_free_bytes.set(free);
    // Nothing is known before the journal has looked.
    let low = free > 0 && free < warn_below;
    if low != (metrics.disk_low.get() > 0) {
        metrics.disk_low.set(u64::from(low));
        match low {
            true => warn!(free, warn_below, "the disk is filling: producers are slowed"),
            false => info!(free, warn_below, "the disk has room again"),
        }
    }
}

/// Brings into the metrics how the queues of the cluster are.
pub(super) async fn count_queues(catalog: Catalog, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut every = tokio::time::interval(COUNT_QUEUES);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.cancelled() => return,
        }
        let status = catalog.status();
        metrics.queues.set(status.queues);
        metrics.queues_without_leader.set(status.queues_without_leader);
        metrics.queues_under_replicated.set(status.queues_under_replicated);
        count_objects(&catalog, &metrics);
    }
}

/// Brings into the metrics how much there is of what is limited in number.
fn count_objects(catalog: &Catalog, metrics: &Metrics) {
    for number in catalog.counted() {
        let (used, most) = match number.of {
            NumberOf::Queues => (&metrics.objects_queues, &metrics.objects_max_queues),
            NumberOf::DeletedQueues => {
                (&metrics.objects_deleted_queues, &metrics.objects_max_deleted_queues)
            }
            NumberOf::Exchanges => (&metrics.objects_exchanges, &metrics.objects_max_exchanges),
            NumberOf::Bindings => (&metrics.objects_bindings, &metrics.objects_max_bindings),
            // Of each queue, not of the cluster.
            NumberOf::BindingsOfQueue | NumberOf::Other(_) => continue,
        };
        used.set(number.used);
        most.set(number.most);
    }
    let refused = catalog.refused_for_number();
    metrics.objects_refused.add(refused.saturating_sub(metrics.objects_refused.get()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filling_disk_slows_producers_before_it_refuses_them() {
        let metrics = Metrics::default();
        heed_free_disk(&metrics, 0, 100);
        assert_eq!(metrics.disk_low.get(), 0, "not looked yet");
        heed_free_disk(&metrics, 99, 100);
        assert_eq!((metrics.disk_low.get(), metrics.disk_free_bytes.get()), (1, 99));
        heed_free_disk(&metrics, 100, 100);
        assert_eq!(metrics.disk_low.get(), 0);
    }
}
