//! For tests: a broker's surroundings in one process — an embedded coordinator, shards that only take notes, no peers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bellwether_coordinator::coordinator::{
    Connector, Coordinator, Document, Path, ReadError, SessionEvent, SessionInfo, Version, Write,
    WriteError,
};
use bellwether_coordinator::embedded::{Embedded, EmbeddedConfig, Faults};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::{BrokerRecord, StoreRecord, UnknownFields};
use bellwether_coordinator::tombstone::registered;
use bellwether_protocol::client::{QueueOptions, Response};
use bellwether_protocol::ids::{BrokerId, BrokerLife, ClusterId, Incarnation, QueueId, StoreId};
use bellwether_protocol::names::{QueueName, VirtualHost};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Catalog, CatalogConfig};
use crate::config::{Addresses, BrokerConfig, Numbers};
use crate::publish::{PeerGate, ShardGate};
use crate::session::Life;
use crate::shard::input::{LiveBrokers, QueuePublish, ShardInput};

/// Nothing here takes that long; a test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One shard that writes down what it is told.
pub struct NotedShard {
    inputs: mpsc::Sender<ShardInput>,
    noted: tokio::sync::Mutex<mpsc::Receiver<ShardInput>>,
    full: AtomicBool,
    room: Notify,
}

impl NotedShard {
    pub fn new() -> Arc<NotedShard> {
        let (inputs, noted) = mpsc::channel(10_000);
        let (full, room) = (AtomicBool::new(false), Notify::new());
        Arc::new(NotedShard { inputs, noted: tokio::sync::Mutex::new(noted), full, room })
    }

    /// The next input that `pick` takes; others before it are passed over.
    pub async fn next<T>(&self, pick: impl Fn(ShardInput) -> Option<T>) -> T {
        let mut noted = self.noted.lock().await;
        let found = async {
            loop {
                let input = noted.recv().await.expect("the sender lives as long");
                if let Some(found) = pick(input) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("the shard is told in time")
    }

    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Release);
        self.room.notify_waiters();
    }
}

#[async_trait]
impl ShardGate for NotedShard {
    fn shards(&self) -> usize {
        1
    }

    fn shard_of(&self, _queue: QueueId) -> usize {
        0
    }

    async fn send(&self, _shard: usize, input: ShardInput) {
        // Tests that look at nothing drop the shard.
        let _dropped = self.inputs.send(input).await;
    }

    fn try_send(&self, _shard: usize, input: ShardInput) -> Result<(), Box<ShardInput>> {
        if self.full.load(Ordering::Acquire) {
            return Err(Box::new(input));
        }
        self.inputs.try_send(input).map_err(|error| Box::new(error.into_inner()))
    }

    async fn room(&self, _shard: usize) {
        loop {
            let room = self.room.notified();
            if !self.full.load(Ordering::Acquire) {
                return;
            }
            room.await;
        }
    }
}

/// Links to other brokers, all of which can be up or down.
#[derive(Default)]
pub struct NotedPeers {
    pub up: AtomicBool,
    forwarded: Mutex<Vec<(BrokerLife, QueuePublish)>>,
    grew: Notify,
}

impl NotedPeers {
    /// What was forwarded, once it is so much.
    pub async fn forwarded(&self, count: usize) -> Vec<(BrokerLife, QueuePublish)> {
        let grown = async {
            loop {
                let grew = self.grew.notified();
                if self.forwarded.lock().unwrap().len() >= count {
                    return std::mem::take(&mut *self.forwarded.lock().unwrap());
                }
                grew.await;
            }
        };
        timeout(PATIENCE, grown).await.expect("it is forwarded in time")
    }
}

impl PeerGate for NotedPeers {
    fn forward(&self, to: BrokerLife, publish: QueuePublish) -> Result<(), Box<QueuePublish>> {
        if !self.up.load(Ordering::Acquire) {
            return Err(Box::new(publish));
        }
        self.forwarded.lock().unwrap().push((to, publish));
        self.grew.notify_one();
        Ok(())
    }

    fn brokers(&self, _live: &LiveBrokers) {}
}

/// A coordinator that carries writes out and answers them late.
#[derive(Debug)]
pub struct AnswersLate {
    pub inner: Arc<dyn Coordinator>,
    pub after: Duration,
}

#[async_trait]
impl Coordinator for AnswersLate {
    fn session(&self) -> SessionInfo {
        self.inner.session()
    }

    async fn read(&self, path: &Path) -> Result<Option<Document>, ReadError> {
        self.inner.read(path).await
    }

    async fn read_many(&self, paths: &[Path]) -> Result<Vec<Option<Document>>, ReadError> {
        self.inner.read_many(paths).await
    }

    async fn children(&self, path: &Path) -> Result<Vec<String>, ReadError> {
        self.inner.children(path).await
    }

    async fn sync(&self) -> Result<(), ReadError> {
        self.inner.sync().await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Option<Version>>, WriteError> {
        let begun = tokio::time::Instant::now();
        let answer = self.inner.write(writes).await;
        tokio::time::sleep_until(begun + self.after).await;
        answer
    }

    async fn make_parents(&self, path: &Path) -> Result<(), WriteError> {
        self.inner.make_parents(path).await
    }

    async fn watch(&self, watched: &[Path]) -> Result<mpsc::Receiver<SessionEvent>, ReadError> {
        self.inner.watch(watched).await
    }

    async fn close(&self) -> Result<(), ReadError> {
        self.inner.close().await
    }
}

/// One broker's catalog and what is around it.
pub struct Surroundings {
    pub embedded: Embedded,
    pub session: Arc<dyn Coordinator>,
    pub me: BrokerLife,
    pub catalog: Catalog,
    pub shard: Arc<NotedShard>,
    pub peers: Arc<NotedPeers>,
    pub lives: watch::Sender<Option<Life>>,
    settings: watch::Sender<Arc<BrokerConfig>>,
    stop: CancellationToken,
}

impl Drop for Surroundings {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn life(broker: u32) -> BrokerLife {
    BrokerLife { broker: BrokerId(broker), incarnation: Incarnation(u64::from(broker) << 8) }
}

pub fn record(life: BrokerLife) -> BrokerRecord {
    BrokerRecord {
        life,
        store: StoreId(Uuid::from_u128(u128::from(life.broker.0))),
        client_address: format!("127.0.0.1:{}", 5000 + life.broker.0),
        peer_address: format!("127.0.0.1:{}", 6000 + life.broker.0),
        host: "here".to_owned(),
        version: "test".to_owned(),
        rack: None,
        peer_tls: false,
        disk_stalls: false,
        unknown: UnknownFields::new(),
    }
}

pub fn host() -> VirtualHost {
    VirtualHost::default()
}

pub fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

pub fn options(replicas: u8) -> QueueOptions {
    QueueOptions { replicas, ..QueueOptions::default() }
}

impl Surroundings {
    /// A cluster of its own, with broker 1 in it.
    pub async fn new() -> Surroundings {
        let embedded = Embedded::start(EmbeddedConfig::default()).unwrap();
        Surroundings::beside(embedded, 1, Vec::new()).await
    }

    /// A further broker beside the same coordinator, with logs of these queues.
    pub async fn beside(
        embedded: Embedded,
        broker: u32,
        local_queues: Vec<QueueId>,
    ) -> Surroundings {
        let (surroundings, watcher) = Surroundings::begin(embedded, broker, local_queues).await;
        tokio::spawn(watcher);
        let me = surroundings.me;
        surroundings
            .until("the catalog is complete", |catalog| {
                catalog.is_complete()
                    && catalog.addresses().iter().any(|address| address.broker == me.broker)
            })
            .await;
        surroundings
    }

    /// A broker that has just started, and never gets to read anything.
    pub async fn that_reads_nothing() -> Surroundings {
        let embedded = Embedded::start(EmbeddedConfig::default()).unwrap();
        Surroundings::begin(embedded, 1, Vec::new()).await.0
    }

    /// A broker whose copy gets no further as long as nobody runs its watcher, which comes with it.
    pub async fn that_is_held_up() -> (Surroundings, impl Future<Output = ()> + Send) {
        let embedded = Embedded::start(EmbeddedConfig::default()).unwrap();
        Surroundings::begin(embedded, 1, Vec::new()).await
    }

    async fn begin(
        embedded: Embedded,
        broker: u32,
        local_queues: Vec<QueueId>,
    ) -> (Surroundings, impl Future<Output = ()> + Send) {
        let session = embedded.connector(Duration::from_secs(10)).connect().await.unwrap();
        for folder in paths::folders() {
            session.make_parents(&folder).await.unwrap();
        }
        let me = life(broker);
        register(&*session, me).await;
        let (lives, lived) = watch::channel(Some(Life {
            life: me,
            coordinator: Arc::clone(&session),
            connected: true,
        }));
        let (shard, peers, stop) =
            (NotedShard::new(), Arc::new(NotedPeers::default()), CancellationToken::new());
        let config = CatalogConfig {
            me: me.broker,
            store: record(me).store,
            cluster: ClusterId(Uuid::from_u128(9)),
            local_queues,
        };
        let addresses = Addresses { client: "h:1".into(), peer: "h:2".into() };
        let (settings, set) =
            watch::channel(Arc::new(BrokerConfig::new(me.broker, "data".into(), addresses)));
        let gate = Arc::clone(&shard) as Arc<dyn ShardGate>;
        let links = Arc::clone(&peers) as Arc<dyn PeerGate>;
        let (catalog, watcher) = Catalog::new(config, set, lived, gate, links, stop.clone());
        let surroundings =
            Surroundings { embedded, session, me, catalog, shard, peers, lives, settings, stop };
        (surroundings, watcher)
    }

    /// Waits for a fact about the catalog.
    pub async fn until(&self, fact: &str, holds: impl Fn(&Catalog) -> bool) {
        let mut changes = self.catalog.changes();
        let waited = async {
            while !holds(&self.catalog) {
                changes.changed().await.expect("the catalog lives");
            }
        };
        timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("{fact}"));
    }

    /// Changes how much may be declared.
    pub fn set_numbers(&self, change: impl FnOnce(&mut Numbers)) {
        self.settings.send_modify(|config| change(&mut Arc::make_mut(config).limits.numbers));
    }

    pub fn faults(&self) -> Faults {
        self.embedded.faults()
    }

    /// Says whether the session is connected, as the keeper of the lives would.
    pub fn set_connected(&self, connected: bool) {
        let life = Life { life: self.me, coordinator: Arc::clone(&self.session), connected };
        self.lives.send_replace(Some(life));
    }

    /// Declares a queue on this broker alone.
    pub async fn declare(&self, name: &str) -> QueueId {
        match self.catalog.declare_queue(&host(), &queue(name), options(1)).await.unwrap() {
            Response::Declared { queue, .. } => queue.id,
            other => panic!("{other:?}"),
        }
    }
}

/// Makes a broker live, and writes its data folder down.
pub async fn register(session: &dyn Coordinator, life: BrokerLife) {
    register_with(session, record(life)).await;
}

/// The same, as this record says.
pub async fn register_with(session: &dyn Coordinator, record: BrokerRecord) {
    let life = record.life;
    let path = paths::live_broker(life);
    let live = Write::Create { path, bytes: record.to_bytes(), ephemeral: true };
    let (broker, path) = (life.broker, paths::store(life.broker));
    let present = session.read(&path).await.unwrap();
    let before = present.as_ref().map(|document| StoreRecord::parse(&document.bytes).unwrap());
    let bytes = registered(before, broker, record.store).to_bytes();
    let store = match present {
        Some(before) => Write::Set { path, bytes, version: before.version },
        None => Write::Create { path, bytes, ephemeral: false },
    };
    session.write(vec![live, store]).await.unwrap();
}
