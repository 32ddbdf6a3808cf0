//! The connections between brokers: one stream for each ordered pair, carrying all their queues, and one for each snapshot.
//! The dialer follows and forwards, the acceptor leads. Everything that arrives goes to the shards; everything they push
//! goes out in two lanes. Here is also found out whether a peer's process is dead.

mod accept;
mod cut;
mod dial;
mod fetch;
mod forwards;
mod hello;
mod link;
mod outbox;
mod promises;
mod secure;
mod snapshot;
mod sort;
mod strangers;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bellwether_protocol::ids::{BrokerId, BrokerLife, ClusterId, Epoch, QueueId, StoreId};
use bellwether_protocol::peer::PeerFrame;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::publish::{PeerGate, ShardGate};
use crate::seams::{PeerLinks, SendOutcome};
use crate::seldom::SharedSeldom;
use crate::session::Life;
use crate::shard::input::{Leases, LiveBrokers, PeerNews, QueuePublish, ShardInput, Side};
use crate::tls::PeerTls;
use dial::{Suspect, Target};
use hello::Framed;
use link::{End, Link};
use outbox::Pushed;
use secure::Stream;
use snapshot::Pacer;
use strangers::Strangers;

/// Snapshots that this broker fetches at the same time; the others wait their turn.
const FETCHES_MAX: usize = 4;

/// What stays the same while the process lives.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// The cluster; peers of another are refused.
    pub cluster: ClusterId,
    /// This broker's store.
    pub store: StoreId,
    /// T: how long a promise holds.
    pub promise: Duration,
    /// TLS, where brokers have to speak it.
    pub tls: Option<Arc<PeerTls>>,
    /// Until all brokers speak TLS: those that do not are taken as well, and dialed plainly.
    pub plain_too: bool,
    /// Bytes of logs that wait for one follower; its queues wait beyond that.
    pub outbox_bytes_max: usize,
    /// Bytes a second that snapshots may use, for each peer.
    pub snapshot_bytes_per_second: u64,
}

/// This broker in its present life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Me {
    life: BrokerLife,
    /// Whether it is past the check of its leftovers; until then it answers no more than hellos.
    ready: bool,
}

/// What the peers need of the rest of the broker.
struct Surroundings {
    me: watch::Receiver<Option<Me>>,
    shards: Arc<dyn ShardGate>,
    leases: Arc<Leases>,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

/// The connections with other brokers.
pub struct Peers {
    shared: Arc<Shared>,
}

/// What all tasks of the peers share.
pub(crate) struct Shared {
    config: PeersConfig,
    me: watch::Receiver<Option<Me>>,
    shards: Arc<dyn ShardGate>,
    leases: Arc<Leases>,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
    /// One for each side of each peer at most.
    links: RwLock<HashMap<(BrokerId, Side), Arc<Link>>>,
    /// Whom the dialers dial. One for each broker that was ever live.
    targets: Mutex<HashMap<BrokerId, watch::Sender<Option<Target>>>>,
    suspects: Mutex<HashMap<BrokerId, Suspect>>,
    pacer: Pacer,
    fetches: Semaphore,
    strangers: Strangers,
    /// Strangers are refused as often as they like.
    refused_told: SharedSeldom,
}

impl Peers {
    /// Accepts connections on `listener`, and dials whoever [`PeerGate::brokers`] names. Its tasks are in `tracker` and end
    /// with `shutdown`.
    #[must_use]
    #[expect(
        clippy::too_many_arguments,
        reason = "the front door: each is another part of the broker"
    )]
    pub fn start(
        config: PeersConfig,
        listener: TcpListener,
        lives: watch::Receiver<Option<Life>>,
        coming: watch::Receiver<Option<BrokerLife>>,
        shards: Arc<dyn ShardGate>,
        leases: Arc<Leases>,
        metrics: Arc<Metrics>,
        tracker: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Arc<Peers> {
        let (present, me) = watch::channel(None);
        tracker.spawn(follow_lives(lives, coming, present, shutdown.clone()));
        let tracker = tracker.clone();
        Peers::begin(
            config,
            listener,
            Surroundings { me, shards, leases, metrics, tracker, shutdown },
        )
    }

    fn begin(config: PeersConfig, listener: TcpListener, surroundings: Surroundings) -> Arc<Peers> {
        let Surroundings { me, shards, leases, metrics, tracker, shutdown } = surroundings;
        let pacer = Pacer::new(config.snapshot_bytes_per_second);
        let shared = Arc::new(Shared {
            config,
            me,
            shards,
            leases,
            metrics,
            tracker,
            shutdown,
            links: RwLock::default(),
            targets: Mutex::default(),
            suspects: Mutex::default(),
            pacer,
            fetches: Semaphore::new(FETCHES_MAX),
            strangers: Strangers::default(),
            refused_told: SharedSeldom::default(),
        });
        shared.tracker.spawn(accept::accept(shared.clone(), listener));
        Arc::new(Peers { shared })
    }

    /// What snapshots may use from now on; see [`PeersConfig::snapshot_bytes_per_second`].
    pub fn set_snapshot_rate(&self, bytes_per_second: u64) {
        self.shared.pacer.set(bytes_per_second);
    }

    /// Dials all live brokers but this one. A connection with one that is no longer live stays until it ends by itself: what
    /// was read may be stale.
    fn aim_at(&self, live: &LiveBrokers) {
        let mut targets = self.shared.targets.lock().unwrap_or_else(PoisonError::into_inner);
        for record in live.brokers.iter().filter(|record| record.store != self.shared.config.store)
        {
            let target = Target {
                life: record.life,
                address: record.peer_address.clone(),
                tls: record.peer_tls,
            };
            let broker = record.life.broker;
            let sender = targets.entry(broker).or_insert_with(|| {
                let (sender, receiver) = watch::channel(None);
                self.shared.tracker.spawn(dial::keep_dialing(
                    self.shared.clone(),
                    broker,
                    receiver,
                ));
                sender
            });
            aim(sender, Some(target));
        }
        for (broker, sender) in targets.iter() {
            if !live.brokers.iter().any(|record| record.life.broker == *broker) {
                aim(sender, None);
            }
        }
    }

    fn forward_to(&self, to: BrokerLife, publish: QueuePublish) -> Result<(), Box<QueuePublish>> {
        match self.shared.link(to, Side::Dialed) {
            None => Err(Box::new(publish)),
            Some(link) => {
                let messages = u64::from(publish.messages.count());
                link.forwards.send(&link.outbox, publish)?;
                self.shared.metrics.forwarded_messages.add(messages);
                Ok(())
            }
        }
    }
}

/// Who this broker is, of all that is told of its lives: a session that comes and goes ends no connection.
async fn follow_lives(
    mut lives: watch::Receiver<Option<Life>>,
    mut coming: watch::Receiver<Option<BrokerLife>>,
    present: watch::Sender<Option<Me>>,
    shutdown: CancellationToken,
) {
    loop {
        let coming_life = *coming.borrow_and_update();
        let me = match lives.borrow_and_update().as_ref() {
            Some(life) => Some(Me { life: life.life, ready: true }),
            // Not past the check of its leftovers: says who it is, and no more.
            None => coming_life.map(|life| Me { life, ready: false }),
        };
        present.send_if_modified(|now| {
            let changed = *now != me;
            *now = me;
            changed
        });
        tokio::select! {
            changed = lives.changed() => if changed.is_err() { return },
            changed = coming.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

fn aim(sender: &watch::Sender<Option<Target>>, target: Option<Target>) {
    sender.send_if_modified(|now| {
        let changed = *now != target;
        *now = target;
        changed
    });
}

impl PeerGate for Peers {
    fn forward(&self, to: BrokerLife, publish: QueuePublish) -> Result<(), Box<QueuePublish>> {
        self.forward_to(to, publish)
    }

    fn brokers(&self, live: &LiveBrokers) {
        self.aim_at(live);
    }
}

impl PeerLinks for Peers {
    fn to_leader(&self, to: BrokerLife, frame: PeerFrame) -> bool {
        self.shared
            .link(to, Side::Dialed)
            .is_some_and(|link| link.outbox.push(frame) == Pushed::Taken)
    }

    fn to_follower(&self, to: BrokerLife, frame: PeerFrame) -> SendOutcome {
        match self.shared.link(to, Side::Accepted).map(|link| link.outbox.push(frame)) {
            Some(Pushed::Taken) => SendOutcome::Sent,
            Some(Pushed::Full) => SendOutcome::Full,
            Some(Pushed::Closed) | None => SendOutcome::Down,
        }
    }

    fn to_broker(&self, to: BrokerId, frame: PeerFrame) -> bool {
        let link = self
            .shared
            .link_of(to, Side::Dialed)
            .or_else(|| self.shared.link_of(to, Side::Accepted));
        link.is_some_and(|link| link.outbox.push(frame) == Pushed::Taken)
    }

    fn fetch_snapshot(&self, from: BrokerLife, queue: QueueId, epoch: Epoch, fetch: u64) {
        self.shared.tracker.spawn(fetch::fetch(self.shared.clone(), from, queue, epoch, fetch));
    }
}

impl Shared {
    fn link_of(&self, broker: BrokerId, side: Side) -> Option<Arc<Link>> {
        self.links.read().unwrap_or_else(PoisonError::into_inner).get(&(broker, side)).cloned()
    }

    fn link(&self, life: BrokerLife, side: Side) -> Option<Arc<Link>> {
        self.link_of(life.broker, side).filter(|link| link.peer == life)
    }

    /// Makes this the link with its peer. An older one ends first, so that the shards hear of its end before they hear
    /// of this one.
    async fn remember(&self, link: &Arc<Link>) {
        let key = (link.peer.broker, link.side);
        loop {
            let older = {
                let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
                match links.get(&key) {
                    Some(older) => older.clone(),
                    None => {
                        links.insert(key, link.clone());
                        return;
                    }
                }
            };
            older.cancel.cancel();
            older.over.cancelled().await;
        }
    }

    fn forget(&self, link: &Arc<Link>) {
        self.links
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(link.peer.broker, link.side));
    }

    fn suspect(&self, broker: BrokerId, suspect: Suspect) {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).insert(broker, suspect);
    }

    /// The suspicion of a broker, which is settled now.
    fn cleared(&self, broker: BrokerId) -> Option<Suspect> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).remove(&broker)
    }

    fn target_of(&self, broker: BrokerId) -> Option<Target> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.get(&broker)?.borrow().clone()
    }

    async fn tell_all(&self, news: impl Fn() -> PeerNews) {
        for shard in 0..self.shards.shards() {
            self.shards.send(shard, ShardInput::Peer(news())).await;
        }
    }

    /// Whether this life of this broker goes on.
    fn lives(&self, mine: BrokerLife) -> bool {
        self.me.borrow().as_ref().is_some_and(|me| me.life == mine)
    }

    /// Returns when this life is over.
    async fn life_is_over(&self, mine: BrokerLife) {
        let mut me = self.me.clone();
        let over = me.wait_for(|me| me.as_ref().is_none_or(|me| me.life != mine)).await;
        if over.is_err() {
            tracing::debug!("nobody tells of lives any more: the broker is stopping");
        }
    }
}

impl Link {
    async fn run_logged(self: Arc<Link>, shared: &Arc<Shared>, framed: Framed<Stream>) -> End {
        tracing::debug!(peer = %self.peer, side = ?self.side, "peer connected");
        let end = self.run(shared, framed).await;
        match &end {
            End::Broken(error) => {
                tracing::warn!(peer = %self.peer, side = ?self.side, reason = error.message, "peer connection broken off");
            }
            End::Reset | End::Silent | End::Closed => {
                tracing::info!(peer = %self.peer, side = ?self.side, ?end, "peer disconnected");
            }
        }
        end
    }
}
