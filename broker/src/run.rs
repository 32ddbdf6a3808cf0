//! A broker from its first breath to its last: what starts each part stops it, in one place.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bellwether_coordinator::coordinator::{ConnectError, Connector};
use bellwether_coordinator::records::{BrokerRecord, UnknownFields};
use bellwether_journal::{
    Journal, JournalConfig, JournalMetrics, JournalThread, NewerFormat, OpenError, SYNC_BUCKETS_US,
};
use bellwether_protocol::ids::{BrokerLife, Incarnation, Member, QueueId};
use bellwether_queue::CHECKPOINT_VERSION;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::admin::{Health, Scraper, Trouble};
use crate::catalog::{Catalog, CatalogConfig};
use crate::config::{BrokerConfig, Listeners};
use crate::connection::{self, Service};
use crate::controller;
use crate::descriptors;
use crate::live::{self, Live, Tuned};
use crate::memory::{self, PoolLimits};
use crate::metrics::Metrics;
use crate::peers::{Peers, PeersConfig};
use crate::pulse;
use crate::session::{self, Life, RegisterError, Registrant, SessionError, Timed};
use crate::shard::input::{Leases, ShardInput};
use crate::shard::{Environment, Shards};
use crate::stall;
use crate::traces::{ExportError, Exporter, Traces};

/// How often the journal's counters are brought into the metrics.
const COUNT_JOURNAL: Duration = Duration::from_secs(1);
/// How often the queues of the cluster are counted: with a hundred thousand of them that takes milliseconds.
const COUNT_QUEUES: Duration = Duration::from_secs(5);
/// How often a draining broker looks whether its queues are handed over.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// How long the goodbyes of a stopping broker may take, each.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why a broker cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Newer(#[from] NewerFormat),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Traces(#[from] ExportError),
    #[error("{what}: {error}")]
    Io { what: &'static str, error: std::io::Error },
    #[error("a part of the broker broke off: {0}. Please report this")]
    Defect(String),
}

/// Runs a broker until `shutdown`; then hands its queues over and leaves.
///
/// # Errors
/// [`BrokerError`] when it cannot start, or can have no further life.
pub async fn run(
    live: Live,
    connector: Arc<dyn Connector>,
    listeners: Listeners,
    health: Arc<Health>,
    shutdown: CancellationToken,
) -> Result<(), BrokerError> {
    let started = Instant::now();
    let mut config = BrokerConfig::clone(&live.config.borrow());
    config.limits.connections_max = descriptors::fit_connections(config.limits.connections_max);
    let config = config;
    let metrics = Arc::new(Metrics::default());
    bound_memory(&config, &metrics);
    let scraper = Arc::new(Scraper::new(metrics.clone(), &config.watch));
    let connector: Arc<dyn Connector> = Arc::new(Timed::new(connector, metrics.clone()));
    let tracker = TaskTracker::new();
    let stop = CancellationToken::new();
    if let Some(listener) = listeners.admin {
        // Asked from the first moment on: starting may take long, and somebody watches.
        tracker.spawn(admin(listener, scraper.clone(), health.clone(), stop.clone()));
    }
    let (journal, recovered) = open_journal(&config).await?;
    check_checkpoints(&recovered)?;
    let coordinator = tokio::select! {
        coordinator = connector.connect() => coordinator?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let folder = journal.folder();
    let cluster = tokio::select! {
        cluster = session::join_cluster(&coordinator, folder.cluster(), config.cluster) => cluster?,
        () = shutdown.cancelled() => return Ok(()),
    };
    folder.claim(cluster)?;
    let sources = memory::Sources {
        metrics: metrics.clone(),
        journal: journal.metrics(),
        health: health.clone(),
    };
    tracker.spawn(memory::watch(sources, stop.clone()));
    let disk_free_warn = config.limits.bounds.disk_free_warn;
    tracker.spawn(count_journal(journal.metrics(), metrics.clone(), disk_free_warn, stop.clone()));
    let store = folder.id();
    info!(
        broker = config.id.0, %cluster, %store, queues = recovered.len(), took_ms = started.elapsed().as_millis() as u64,
        "the journal is open"
    );

    let (shards, mailboxes) = Shards::new(config.shards);
    let wakes: Vec<Arc<Notify>> = (0..shards.count()).map(|_| Arc::new(Notify::new())).collect();
    scraper.attach(shards.clone());
    let leases = Arc::new(Leases::new(metrics.clone()));
    let (lives_sender, lives) = watch::channel(None);
    let (coming_sender, coming) = watch::channel(None);

    let peer_tls = listeners.tls.peer().is_some();
    let peers = Peers::start(
        PeersConfig {
            cluster,
            store,
            promise: config.timing.promise,
            tls: listeners.tls.peer(),
            plain_too: listeners.tls.takes_plain_peers(),
            outbox_bytes_max: usize::try_from(config.limits.peer_window_bytes)
                .unwrap_or(usize::MAX),
            snapshot_bytes_per_second: config.storage.snapshot_bytes_per_second,
        },
        listeners.peer,
        lives.clone(),
        coming,
        Arc::new(shards.clone()),
        leases.clone(),
        metrics.clone(),
        &tracker,
        stop.clone(),
    );
    let traces = start_traces(&config, &metrics, &tracker, &stop)?;
    tracker.spawn(crate::tls::follow(listeners.tls.clone(), metrics.clone(), stop.clone()));
    let local_queues: Vec<QueueId> = recovered.iter().map(|log| log.queue).collect();
    let (catalog, watcher) = Catalog::new(
        CatalogConfig { me: config.id, store, cluster, local_queues },
        lives.clone(),
        Arc::new(shards.clone()),
        peers.clone(),
        stop.clone(),
    );
    tracker.spawn(watcher);

    let (reads, reads_max) = Environment::reads(&metrics);
    let environment = Arc::new(Environment {
        member: Member { broker: config.id, store },
        timing: timing(&config),
        started,
        peers: peers.clone(),
        keeper: Arc::new(catalog.clone()),
        leases,
        metrics: metrics.clone(),
        traces: traces.clone(),
        health: health.clone(),
        runtime: tokio::runtime::Handle::current(),
        reads,
        reads_max,
    });
    let watched = stall::Surroundings {
        journal: journal.metrics(),
        shards: shards.clone(),
        metrics: metrics.clone(),
        health: health.clone(),
    };
    tracker.spawn(stall::watch(watched, config.timing.session_timeout, stop.clone()));
    let (logs, thread) = start_journal(journal, &shards, &wakes)?;
    mailboxes.start(logs, recovered, &wakes, &shards, &environment, &tracker, &stop);
    tracker.spawn(become_ready(catalog.clone(), health.clone(), stop.clone()));
    tracker.spawn(count_queues(catalog.clone(), metrics.clone(), stop.clone()));
    tracker.spawn(tell_lives(
        lives.clone(),
        shards.clone(),
        metrics.clone(),
        health.clone(),
        stop.clone(),
    ));

    let registrant = Registrant { record: record(&config, store, peer_tls), cluster };
    let living = tokio::spawn(session::live(
        connector,
        registrant,
        coordinator,
        lives_sender,
        coming_sender,
        stop.clone(),
    ));
    let tuned = Tuned { journal: thread.dial(), shards: shards.clone(), peers: peers.clone() };
    tracker.spawn(pulse::beat(shards.clone(), live.pulse, stop.clone()));
    tracker.spawn(live::tune(live.config.clone(), tuned, stop.clone()));
    tracker.spawn(live::attend(lives.clone(), live.settings.clone(), stop.clone()));
    tracker.spawn(controller::attend(
        live.config.clone(),
        catalog.clone(),
        metrics.clone(),
        lives.clone(),
        stop.clone(),
    ));
    let service = Service::new(
        catalog,
        Arc::new(shards.clone()),
        peers,
        metrics,
        config.limits.clone(),
        &config.timing,
    )
    .with_settings(live.settings.clone())
    .tracing_to(traces)
    .with_tls(listeners.tls.client())
    .with_login(config.login_required);
    let server = connection::serve(listeners.client, service, live.config.clone(), stop.clone());
    let serving = tracker.spawn(server);

    let mut living = living;
    let ended = tokio::select! {
        () = shutdown.cancelled() => None,
        ended = &mut living => Some(ended),
    };
    if ended.is_none() {
        health.raise(Trouble::Stopping);
        let timeout = live.config.borrow().timing.drain_timeout;
        drain(&shards, timeout).await;
    }
    let last_life = lives.borrow().clone();
    stop.cancel();
    leave(last_life, serving, &tracker, thread).await;
    let ended = match ended {
        Some(ended) => ended,
        None => living.await,
    };
    ended.map_err(|error| BrokerError::Defect(error.to_string()))?.map_err(BrokerError::from)
}

/// A checkpoint of a later version is no damage. Taken for that, a broker that goes back a version would throw its copies away, and with
/// all brokers going back nothing would be left to fetch them from (promise G1): it does not start, and says why.
fn check_checkpoints(recovered: &[bellwether_journal::RecoveredLog]) -> Result<(), NewerFormat> {
    for log in recovered {
        let checkpoint = log.checkpoint.as_ref();
        let found = checkpoint.and_then(|kept| bellwether_queue::checkpoint_version(&kept.state));
        if let Some(found) = found.filter(|found| *found > CHECKPOINT_VERSION) {
            let what = format!("the checkpoint of queue {}", log.queue);
            return Err(NewerFormat {
                what,
                found: found.into(),
                known: CHECKPOINT_VERSION.into(),
            });
        }
    }
    Ok(())
}

/// Spans of traced messages go to a collector, when one is named.
fn start_traces(
    config: &BrokerConfig,
    metrics: &Arc<Metrics>,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Option<Traces>, BrokerError> {
    let Some(endpoint) = &config.watch.otlp_endpoint else { return Ok(None) };
    let exporter = Exporter::new(endpoint, config.id.0)?;
    let (traces, spans) = Traces::new(config.watch.trace_sample, metrics.clone());
    tracker.spawn(exporter.run(traces.clone(), spans, stop.clone()));
    Ok(Some(traces))
}

/// Splits the memory limit over the pools, and says what it came to.
fn bound_memory(config: &BrokerConfig, metrics: &Metrics) {
    let (limit, source) = config.limits.bounds.memory_limit_in_force();
    let limits = pool_limits(config);
    info!(limit, source, cache = limits.of(memory::Pool::Cache), "the memory limit");
    metrics.memory.limit(limits);
}

fn pool_limits(config: &BrokerConfig) -> PoolLimits {
    let (limit, _) = config.limits.bounds.memory_limit_in_force();
    let publishes = config.limits.publish_bytes_in_flight_max;
    PoolLimits::split(limit, config.storage.cache_bytes, publishes)
}

async fn open_journal(
    config: &BrokerConfig,
) -> Result<(Journal, Vec<bellwether_journal::RecoveredLog>), BrokerError> {
    let mut journal = JournalConfig::new(&config.data);
    journal.segment_bytes = config.storage.segment_bytes;
    journal.dead_bytes_max = config.storage.dead_bytes_max;
    journal.cache_bytes = pool_limits(config).of(memory::Pool::Cache);
    journal.disk_low_bytes = config.storage.disk_free_min;
    journal.waiting_bytes_max = journal.waiting_bytes_max.min(config.storage.segment_bytes / 2);
    let id = config.id;
    tokio::task::spawn_blocking(move || Journal::open(journal, id))
        .await
        .map_err(|error| BrokerError::Defect(error.to_string()))?
        .map_err(BrokerError::from)
}

fn start_journal(
    journal: Journal,
    shards: &Shards,
    wakes: &[Arc<Notify>],
) -> Result<(Vec<bellwether_journal::Logs>, JournalThread), BrokerError> {
    let wakes = wakes.to_vec();
    let owners = shards.clone();
    journal
        .start(
            shards.count(),
            move |queue| owners.index_of(queue),
            move |shard| wakes[shard].notify_one(),
        )
        .map_err(|error| BrokerError::Io { what: "the journal thread cannot be started", error })
}

fn timing(config: &BrokerConfig) -> bellwether_replication::Timing {
    bellwether_replication::Timing {
        lag_limit: config.timing.lag_limit,
        promise: config.timing.promise,
        settle: config.timing.leader_settle,
        ..bellwether_replication::Timing::default()
    }
}

fn record(
    config: &BrokerConfig,
    store: bellwether_protocol::ids::StoreId,
    peer_tls: bool,
) -> BrokerRecord {
    BrokerRecord {
        life: BrokerLife { broker: config.id, incarnation: Incarnation(0) },
        store,
        client_address: config.addresses.client.clone(),
        peer_address: config.addresses.peer.clone(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        rack: config.rack.clone(),
        peer_tls,
        unknown: UnknownFields::new(),
    }
}

/// The broker is ready when its catalog is complete and shows it among the live brokers: from then on it can declare, route
/// and redirect. A client that comes earlier would hear that nobody is live.
async fn become_ready(catalog: Catalog, health: Arc<Health>, stop: CancellationToken) {
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
async fn tell_lives(
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

async fn admin(
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
async fn count_journal(
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
async fn count_queues(catalog: Catalog, metrics: Arc<Metrics>, stop: CancellationToken) {
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
    }
}

/// Hands over what is led here; ends when there is nothing left that somebody else could take, or at the time-out.
async fn drain(shards: &Shards, timeout: Duration) {
    let deadline = Instant::now() + timeout;
    let mut begin = true;
    loop {
        let mut left = 0;
        for shard in shards.all() {
            let (reply, answer) = oneshot::channel();
            shard.send(ShardInput::HandOver { begin, reply }).await;
            left += answer.await.unwrap_or(0);
        }
        if begin && left > 0 {
            info!(queues = left, "handing over the queues that this broker leads");
        }
        begin = false;
        if left == 0 {
            return;
        }
        if Instant::now() >= deadline {
            warn!(
                queues = left,
                "the drain time-out passed: the remaining queues are taken over when this broker is gone"
            );
            return;
        }
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

/// Ends every task, syncs the journal, and closes the session, so that nobody waits for its time-out.
async fn leave(
    life: Option<Life>,
    serving: tokio::task::JoinHandle<()>,
    tracker: &TaskTracker,
    thread: JournalThread,
) {
    if tokio::time::timeout(GOODBYE, serving).await.is_err() {
        warn!("some clients did not take their goodbye");
    }
    tracker.close();
    if tokio::time::timeout(GOODBYE, tracker.wait()).await.is_err() {
        warn!("some tasks did not end in time");
    }
    if let Err(failure) = tokio::task::spawn_blocking(move || thread.stop()).await {
        error!(%failure, "the journal thread did not end well");
    }
    if let Some(life) = life {
        match tokio::time::timeout(GOODBYE, life.coordinator.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => {
                warn!(%failure, "the coordinator session could not be closed; it ends by its time-out")
            }
            Err(_) => warn!(
                "the coordinator session could not be closed in time; it ends by its time-out"
            ),
        }
    }
    info!("the broker has left");
}

#[cfg(test)]
mod tests {
    use bellwether_journal::{Checkpoint, Condition, RecoveredLog};
    use bellwether_protocol::ids::{Offset, QueueId, StoreId};
    use bellwether_queue::Queue;

    use super::*;

    fn recovered(state: Vec<u8>) -> RecoveredLog {
        let (at, high_watermark) = (Offset(0), Offset(0));
        RecoveredLog {
            queue: QueueId(uuid::Uuid::from_u128(7)),
            store: StoreId(uuid::Uuid::from_u128(1)),
            checkpoint: Some(Checkpoint { at, high_watermark, state: state.into() }),
            start: at,
            end: at,
            condition: Condition::Ok,
        }
    }

    /// Every broker is taken back a version. Each finds checkpoints that it cannot read: as damage, each would give up its copy.
    #[test]
    fn a_checkpoint_of_a_later_version_stops_the_broker_and_condemns_nothing() {
        let state = Queue::new().checkpoint();
        check_checkpoints(&[recovered(state.clone())]).unwrap();
        let mut later = state;
        later[0] = CHECKPOINT_VERSION + 1;
        let error = check_checkpoints(&[recovered(later)]).unwrap_err().to_string();
        assert!(error.contains("in format 2") && error.contains("up to 1"), "{error}");
        assert!(error.contains("checkpoint of queue"), "{error}");
    }

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
