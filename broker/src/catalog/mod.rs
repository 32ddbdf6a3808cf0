//! The catalog: a watched copy of what the coordinator knows — brokers, queues and who leads them, exchanges and
//! bindings — and the declarations that change it. It feeds the shards, the peer links and the publishers.
//!
//! *Invariants:* a queue's state never goes back to a lower version; only a tombstone deletes; "the leader's path is
//! gone" is told to a shard only after the state that names the leader was read on the same session.

mod answers;
mod casts;
mod delete;
#[cfg(test)]
pub(crate) mod doubles;
mod duties;
mod explain;
mod feed;
mod numbers;
mod placing;
mod queues;
mod settings;
mod strikes;
mod taint;
#[cfg(test)]
mod tests;
mod tombstones;
mod topology;
mod tree;
mod users;
mod watcher;
mod writes;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bellwether_coordinator::coordinator::{Coordinator, Version};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::QueueState;
use bellwether_protocol::error::{BrokerAddress, ErrorBody, ErrorCode};
use bellwether_protocol::ids::{BrokerId, BrokerLife, ClusterId, QueueId, StoreId};
use bellwether_protocol::names::{ExchangeName, QueueName, RoutingKey, VirtualHost};
use bellwether_replication::CasOutcome;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::BrokerConfig;
use crate::login::Users;
use crate::metrics::Counter;
use crate::publish::{Leaders, Leadership, PeerGate, ShardGate};
use crate::seams::StateKeeper;
use crate::session::Life;
use tree::Tree;

pub use tombstones::ReplacedStores;

/// Requests of declarations to the watcher that wait. Each waits for its answer, so their number is that of the
/// declarations under way.
const COMMANDS_MAX: usize = 256;

/// What the catalog is told at the start.
#[derive(Clone, Debug)]
pub struct CatalogConfig {
    pub me: BrokerId,
    /// Its data folder.
    pub store: StoreId,
    pub cluster: ClusterId,
    /// Queues with a log in this broker's journal: that one of them is nowhere in the coordinator must be noticed.
    pub local_queues: Vec<QueueId>,
}

/// See the module. Clones share the copy.
#[derive(Clone)]
pub struct Catalog {
    shared: Arc<Shared>,
}

struct Shared {
    config: CatalogConfig,
    tree: RwLock<Tree>,
    /// As in the tree, readable without its lock.
    users: ArcSwap<Users>,
    /// Everything was read once: what is not in the tree was not there.
    complete: AtomicBool,
    /// The tree's, readable without its lock.
    routing_version: AtomicU64,
    lives: watch::Receiver<Option<Life>>,
    shards: Arc<dyn ShardGate>,
    peers: Arc<dyn PeerGate>,
    changed: watch::Sender<u64>,
    rereads: Mutex<HashSet<QueueId>>,
    reread: Notify,
    commands: mpsc::Sender<Command>,
    tombstones: strikes::Tombstones,
    casts: Arc<casts::Casts>,
    /// What may change while the broker runs: how much may be declared.
    settings: watch::Receiver<Arc<BrokerConfig>>,
    under_way: numbers::AllUnderWay,
    refused_for_number: Counter,
}

/// What declarations ask of the watcher.
enum Command {
    /// Read these and say when they are entered.
    Enter(Vec<bellwether_coordinator::coordinator::Path>, oneshot::Sender<()>),
    /// Sync, take in every change up to now, and say when that is done.
    CatchUp(oneshot::Sender<()>),
}

impl Catalog {
    /// Begins to watch, life after life, until `shutdown`. The future is the watcher's and has to be run.
    pub fn new(
        config: CatalogConfig,
        settings: watch::Receiver<Arc<BrokerConfig>>,
        lives: watch::Receiver<Option<Life>>,
        shards: Arc<dyn ShardGate>,
        peers: Arc<dyn PeerGate>,
        shutdown: CancellationToken,
    ) -> (Catalog, impl Future<Output = ()> + Send + use<>) {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (changed, _) = watch::channel(0);
        let shared = Arc::new(Shared {
            users: ArcSwap::from_pointee(users::nobody()),
            tree: RwLock::new(Tree::default()),
            complete: AtomicBool::new(false),
            routing_version: AtomicU64::new(0),
            lives,
            shards,
            peers,
            changed,
            rereads: Mutex::new(HashSet::new()),
            reread: Notify::new(),
            commands,
            tombstones: strikes::Tombstones::default(),
            casts: Arc::default(),
            settings,
            under_way: numbers::AllUnderWay::default(),
            refused_for_number: Counter::default(),
            config,
        });
        let watcher = watcher::Watcher::new(Arc::clone(&shared), inbox);
        let strikes = strikes::run(Arc::clone(&shared));
        let run = async move {
            tokio::select! {
                () = watcher.run() => {}
                () = strikes => {}
                () = shutdown.cancelled() => {}
            }
        };
        (Catalog { shared }, run)
    }

    /// Moves whenever leaders, brokers or routes change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Moves whenever routes change; see [`Catalog::route`].
    #[must_use]
    pub fn routing_version(&self) -> u64 {
        self.shared.routing_version.load(Ordering::Acquire)
    }

    /// The queues an address leads to.
    ///
    /// # Errors
    /// There is no such exchange, or, for the default exchange, no such queue.
    pub fn route(
        &self,
        host: &VirtualHost,
        exchange: &ExchangeName,
        key: &RoutingKey,
    ) -> Result<Vec<QueueId>, ErrorBody> {
        // An exchange is read before its bindings: routed by what is there so far, messages would be confirmed and never
        // reach the queues whose bindings come a moment later. The default exchange names its queue, which is there or not.
        if !exchange.is_default() && !self.is_complete() {
            let words = "this broker has just started and has not read all bindings yet; try again";
            return Err(ErrorBody::not_done(ErrorCode::CoordinatorUnavailable, words));
        }
        let route = self.shared.tree().routing.route(host, exchange, key);
        route.map_err(|error| self.unknown(error.into()))
    }

    /// Something is not known here. "There is no such thing" can be said only by who has read everything and hears of
    /// changes; it is final to a client, and at a start, or without the coordinator, it would be a guess.
    fn unknown(&self, error: ErrorBody) -> ErrorBody {
        if self.is_complete() && self.shared.connected().is_some() {
            return error;
        }
        let words = format!(
            "{}; or it is not known here yet, and the coordinator cannot be asked: try again",
            error.message
        );
        ErrorBody::not_done(ErrorCode::CoordinatorUnavailable, words)
    }

    /// Whether everything was read once.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.shared.complete.load(Ordering::Acquire)
    }

    /// The queue of that name.
    #[must_use]
    pub fn queue_named(&self, host: &VirtualHost, name: &QueueName) -> Option<QueueId> {
        self.shared.tree().routing.queue(host, name)
    }

    /// Where clients reach the leader of a queue, if it has one that is registered.
    #[must_use]
    pub fn leader_address(&self, queue: QueueId) -> Option<BrokerAddress> {
        let tree = self.shared.tree();
        match tree.leader(queue) {
            Leadership::Led(lead) => tree.brokers.get(&lead.life).map(|record| record.address()),
            Leadership::Vacant | Leadership::Gone => None,
        }
    }

    /// Where clients reach the live brokers.
    #[must_use]
    pub fn addresses(&self) -> Vec<BrokerAddress> {
        self.shared.tree().brokers.values().map(|record| record.address()).collect()
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.shared.config.cluster
    }

    /// Declarations that were refused because there are as many as are allowed.
    #[must_use]
    pub fn refused_for_number(&self) -> u64 {
        self.shared.refused_for_number.get()
    }

    /// This broker.
    #[must_use]
    pub fn me(&self) -> BrokerId {
        self.shared.config.me
    }
}

impl Leaders for Catalog {
    fn leader(&self, queue: QueueId) -> Leadership {
        self.shared.tree().leader(queue)
    }
}

#[async_trait]
impl StateKeeper for Catalog {
    async fn cas(
        &self,
        life: BrokerLife,
        queue: QueueId,
        version: Version,
        state: QueueState,
    ) -> CasOutcome {
        let session = match self.shared.lives.borrow().as_ref() {
            Some(present) if present.life == life => present.coordinator.clone(),
            _ => return CasOutcome::NotSent,
        };
        let path = paths::queue_state(queue);
        self.shared.casts.set(session, path, state.to_bytes(), version).await
    }

    fn reread(&self, queues: Vec<QueueId>) {
        self.shared.rereads.lock().unwrap_or_else(PoisonError::into_inner).extend(queues);
        self.shared.reread.notify_one();
    }
}

impl Shared {
    fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tree_mut(&self) -> RwLockWriteGuard<'_, Tree> {
        self.tree.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self) -> Option<Arc<dyn Coordinator>> {
        self.lives.borrow().as_ref().map(|life| Arc::clone(&life.coordinator))
    }

    /// The session, if it is connected now.
    fn connected(&self) -> Option<Arc<dyn Coordinator>> {
        let life = self.lives.borrow();
        life.as_ref().filter(|life| life.connected).map(|life| Arc::clone(&life.coordinator))
    }

    /// Something changed that others wait for.
    fn tell_changed(&self) {
        self.changed.send_modify(|version| *version += 1);
    }
}
