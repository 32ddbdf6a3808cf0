//! A broker from its first breath to its last: what starts each part stops it, in one place.

mod chores;
mod leave;

use std::sync::Arc;
use std::time::Instant;

use bellwether_coordinator::coordinator::{ConnectError, Connector};
use bellwether_coordinator::records::{BrokerRecord, UnknownFields};
use bellwether_journal::{Journal, JournalConfig, JournalThread, NewerFormat, OpenError};
use bellwether_protocol::ids::{BrokerLife, Incarnation, Member, QueueId};
use bellwether_queue::CHECKPOINT_VERSION;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

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
use crate::session::{self, RegisterError, Registrant, SessionError, Timed};
use crate::shard::input::Leases;
use crate::shard::{Environment, Shards};
use crate::stall;
use crate::traces::{ExportError, Exporter, Traces};

use chores::{admin, become_ready, count_journal, count_queues, tell_lives};
use leave::{drain, leave};

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
        live.config.clone(),
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
    let (stalls, stalling) = watch::channel(false);
    let watched = stall::Surroundings {
        journal: journal.metrics(),
        shards: shards.clone(),
        metrics: metrics.clone(),
        health: health.clone(),
        stalls,
    };
    tracker.spawn(stall::announce(stalling, lives.clone(), stop.clone()));
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
    .with_tls(listeners.tls.client(), listeners.tls.takes_plain_clients())
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
    journal.disk_warn_bytes = config.limits.bounds.disk_free_warn;
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
        disk_stalls: false,
        unknown: UnknownFields::new(),
    }
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
}
