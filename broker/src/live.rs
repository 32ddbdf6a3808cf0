//! What may change while a broker runs: its configuration, which whoever started it may replace, and the settings that hold for
//! the whole cluster, which are watched here and judged by whoever knows all layers of configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bellwether_coordinator::coordinator::{Coordinator, SessionEvent};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::SettingsRecord;
use bellwether_journal::JournalDial;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::config::BrokerConfig;
use crate::peers::Peers;
use crate::session::Life;
use crate::shard::Shards;
use crate::shard::input::ShardInput;

/// How long to wait before the settings are read again when the coordinator did not answer.
const READ_AGAIN: Duration = Duration::from_millis(500);

/// The configuration of a running broker.
pub struct Live {
    /// What is in force. Only what [`CHANGEABLE`] names may change in it; whoever sends another has checked it.
    pub config: watch::Receiver<Arc<BrokerConfig>>,
    /// Takes in what is set for the whole cluster.
    pub settings: Arc<dyn ClusterSettings>,
    /// Moves about once a second, for as long as every shard answers.
    pub pulse: watch::Sender<u64>,
}

/// The layer of configuration that lies in the coordinator, for whoever knows the other layers.
pub trait ClusterSettings: Send + Sync {
    /// Whether a setting may be given this value for the whole cluster, or be taken back, if it is not set at all: what is set may
    /// always be taken back.
    ///
    /// # Errors
    /// Why not, and what is allowed, in words.
    fn judge(&self, key: &str, value: Option<&str>) -> Result<(), String>;

    /// This is set for the whole cluster now. Called at the start of each life, and whenever it may have changed.
    fn take_in(&self, settings: BTreeMap<String, String>);
}

/// For a broker that knows only its own configuration.
pub struct NoClusterSettings;

impl ClusterSettings for NoClusterSettings {
    fn judge(&self, key: &str, _value: Option<&str>) -> Result<(), String> {
        Err(format!(
            "{key} cannot be set for the whole cluster: this broker takes no such settings"
        ))
    }

    fn take_in(&self, _settings: BTreeMap<String, String>) {}
}

/// When a change of a setting is felt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Felt {
    /// At once.
    AtOnce,
    /// By connections that are made after it: those that exist were told the old one.
    ByNewConnections,
}

/// A setting that may change while the broker runs.
pub struct Changeable {
    /// Its key in the configuration file.
    pub key: &'static str,
    pub felt: Felt,
    /// Takes it over from another configuration.
    pub take: fn(&mut BrokerConfig, &BrokerConfig),
}

macro_rules! changeable {
    ($($key:literal $felt:ident $($field:ident).+;)*) => {
        &[$(Changeable {
            key: $key,
            felt: Felt::$felt,
            take: |config, from| config.$($field).+.clone_from(&from.$($field).+),
        }),*]
    };
}

/// Every setting of [`BrokerConfig`] that may change while the broker runs. All others need a restart: they are agreed on with other
/// brokers (`promise`), said to the ensemble (`session-timeout-ms`, the addresses), or fixed by what is on the disk.
pub const CHANGEABLE: &[Changeable] = changeable! {
    "lag-limit" AtOnce timing.lag_limit;
    "leader-settle" AtOnce timing.leader_settle;
    "drain-timeout" AtOnce timing.drain_timeout;
    "replace-after" AtOnce timing.replace_after;
    "heartbeat" ByNewConnections timing.heartbeat;
    "handshake-timeout" ByNewConnections timing.handshake_timeout;
    "dead-bytes-max" AtOnce storage.dead_bytes_max;
    "disk-free-min" AtOnce storage.disk_free_min;
    "snapshot-bytes-per-second" AtOnce storage.snapshot_bytes_per_second;
    "message-bytes-max" ByNewConnections limits.message_bytes_max;
    "frame-bytes-max" ByNewConnections limits.frame_bytes_max;
    "handshake-bytes-max" ByNewConnections limits.handshake_bytes_max;
    "connections-max" AtOnce limits.connections_max;
    "producers-per-connection-max" ByNewConnections limits.producers_per_connection_max;
    "consumers-per-connection-max" ByNewConnections limits.consumers_per_connection_max;
    "requests-in-flight-max" ByNewConnections limits.requests_in_flight_max;
    "prefetch-max" ByNewConnections limits.prefetch_max;
    "producer-credit-messages" ByNewConnections limits.producer_credit_messages;
    "producer-credit-bytes" ByNewConnections limits.producer_credit_bytes;
    "publish-bytes-in-flight-max" ByNewConnections limits.publish_bytes_in_flight_max;
    "outbox-bytes-max" ByNewConnections limits.outbox_bytes_max;
    "queues-max" AtOnce limits.numbers.queues_max;
    "deleted-queues-max" AtOnce limits.numbers.deleted_queues_max;
    "exchanges-max" AtOnce limits.numbers.exchanges_max;
    "bindings-max" AtOnce limits.numbers.bindings_max;
    "bindings-per-queue-max" AtOnce limits.numbers.bindings_per_queue_max;
};

/// The parts of a broker that hear of changes.
pub(crate) struct Tuned {
    pub journal: JournalDial,
    pub shards: Shards,
    pub peers: Arc<Peers>,
}

/// Tells the parts of every change, until `stop`. (The listener and the controller look for themselves.)
pub(crate) async fn tune(
    mut config: watch::Receiver<Arc<BrokerConfig>>,
    tuned: Tuned,
    stop: CancellationToken,
) {
    loop {
        let now = config.borrow_and_update().clone();
        tuned.journal.set(now.storage.disk_free_min, now.storage.dead_bytes_max);
        tuned.peers.set_snapshot_rate(now.storage.snapshot_bytes_per_second);
        let (lag_limit, settle) = (now.timing.lag_limit, now.timing.leader_settle);
        for shard in tuned.shards.all() {
            shard.send(ShardInput::Retime { lag_limit, settle }).await;
        }
        tokio::select! {
            changed = config.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// Reads what is set for the whole cluster, life after life, until `stop`.
pub(crate) async fn attend(
    mut lives: watch::Receiver<Option<Life>>,
    settings: Arc<dyn ClusterSettings>,
    stop: CancellationToken,
) {
    let mut last = None;
    loop {
        let life = lives.borrow_and_update().clone();
        let session = life.map(|life| life.coordinator);
        let another = async {
            // Lives are told also when their connection comes or goes: only another session is news here.
            let id = session.as_ref().map(|session| session.session().id);
            while lives.changed().await.is_ok() {
                let now =
                    lives.borrow_and_update().as_ref().map(|life| life.coordinator.session().id);
                if now != id {
                    return true;
                }
            }
            false
        };
        let watching = async {
            match &session {
                Some(session) => watch_settings(session, &*settings, &mut last).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            more = another => if !more { return },
            () = watching => {}
            () = stop.cancelled() => return,
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

/// Follows the document in one session; returns when that is over, after a pause.
async fn watch_settings(
    session: &Arc<dyn Coordinator>,
    settings: &dyn ClusterSettings,
    last: &mut Option<BTreeMap<String, String>>,
) {
    let Ok(mut events) = session.watch(&[paths::settings()]).await else {
        return tokio::time::sleep(READ_AGAIN).await;
    };
    // A watch is a hint: what stands there before the first one is read all the same.
    let mut stale = true;
    loop {
        if stale {
            stale = !read(session, settings, last).await;
        }
        let again = async {
            match stale {
                true => tokio::time::sleep(READ_AGAIN).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            event = events.recv() => match event {
                Some(SessionEvent::Connected | SessionEvent::Changed(_) | SessionEvent::Overrun) => stale = true,
                Some(SessionEvent::Disconnected) => {}
                Some(SessionEvent::Expired) | None => return tokio::time::sleep(READ_AGAIN).await,
            },
            () = again => {}
        }
    }
}

/// Reads the document and hands it on when it is another. `false`: it could not be read now.
async fn read(
    session: &Arc<dyn Coordinator>,
    settings: &dyn ClusterSettings,
    last: &mut Option<BTreeMap<String, String>>,
) -> bool {
    let document = match session.read(&paths::settings()).await {
        Ok(document) => document,
        Err(error) => {
            debug!(%error, "the cluster-wide settings could not be read; trying again");
            return false;
        }
    };
    let found = match document.as_ref().map(|document| SettingsRecord::parse(&document.bytes)) {
        None => BTreeMap::new(),
        Some(Ok(record)) => record.settings,
        Some(Err(error)) => {
            warn!(%error, path = %paths::settings(), "the cluster-wide settings cannot be read: those known before stay in force");
            return true;
        }
    };
    if last.as_ref() != Some(&found) {
        *last = Some(found.clone());
        settings.take_in(found);
    }
    true
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use bellwether_protocol::ids::BrokerId;
    use tokio::sync::mpsc;

    use super::*;
    use crate::catalog::doubles::{PATIENCE, Surroundings};
    use crate::config::Addresses;

    #[test]
    fn taking_a_setting_over_changes_that_one_and_no_other() {
        let addresses = Addresses { client: "h:1".into(), peer: "h:2".into() };
        let running = BrokerConfig::new(BrokerId(1), PathBuf::from("data"), addresses);
        let mut wanted = running.clone();
        wanted.timing.replace_after = None;
        wanted.timing.promise = Duration::from_millis(31);
        wanted.limits.prefetch_max = 7;
        let mut taken = running.clone();
        let replace_after = CHANGEABLE.iter().find(|one| one.key == "replace-after").unwrap();
        (replace_after.take)(&mut taken, &wanted);
        assert_eq!(taken.timing.replace_after, None);
        taken.timing.replace_after = running.timing.replace_after;
        assert_eq!(taken, running);
    }

    #[test]
    fn the_promise_and_the_session_are_not_changed_under_a_running_broker() {
        for fixed in ["promise", "session-timeout-ms", "id", "data", "segment-bytes"] {
            assert!(CHANGEABLE.iter().all(|one| one.key != fixed), "{fixed}");
        }
    }

    /// Writes down what it is told.
    struct Noted(mpsc::Sender<BTreeMap<String, String>>);

    impl ClusterSettings for Noted {
        fn judge(&self, _key: &str, _value: Option<&str>) -> Result<(), String> {
            Ok(())
        }

        fn take_in(&self, settings: BTreeMap<String, String>) {
            self.0.try_send(settings).expect("the test reads what it is told");
        }
    }

    #[tokio::test]
    async fn every_change_of_what_is_set_for_the_cluster_is_taken_in() {
        let world = Surroundings::new().await;
        let (told, mut heard) = mpsc::channel(100);
        let stop = CancellationToken::new();
        let attending =
            tokio::spawn(attend(world.lives.subscribe(), Arc::new(Noted(told)), stop.clone()));
        let mut next = async || {
            let settings = tokio::time::timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
            settings.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
        };
        assert!(next().await.is_empty(), "nothing is set to begin with");
        let set = |key: &str, value: Option<&str>| {
            world.catalog.change_setting(key.to_owned(), value.map(str::to_owned))
        };
        set("heartbeat", Some("20s")).await.unwrap();
        assert_eq!(next().await, ["heartbeat=20s"]);
        set("heartbeat", None).await.unwrap();
        assert!(next().await.is_empty());
        stop.cancel();
        attending.await.unwrap();
    }
}
