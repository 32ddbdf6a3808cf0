//! A shard by itself, with a journal on a real disk: what its queues are told, and what it answers for those that it does not have.

use std::sync::Mutex;

use async_trait::async_trait;
use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::{QueueDefinition, QueueState, UnknownFields};
use bellwether_journal::disk::RealDisk;
use bellwether_journal::{Journal, JournalConfig, JournalThread};
use bellwether_protocol::error::{ErrorCode, Outcome};
use bellwether_protocol::ids::{
    BrokerId, BrokerLife, ClusterId, Epoch, Incarnation, Member, StoreId,
};
use bellwether_protocol::names::{QueueName, VirtualHost};
use bellwether_protocol::peer::{NoPosition, PeerFrame};
use bellwether_replication::{CasOutcome, Timing};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::input::{ConnectionId, Leases, PeerNews, QueueNews, Side};
use super::*;
use crate::admin::Health;
use crate::metrics::Metrics;
use crate::seams::{PeerLinks, SendOutcome, StateKeeper};

/// Nothing here takes that long; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn life(broker: u32) -> BrokerLife {
    BrokerLife { broker: BrokerId(broker), incarnation: Incarnation(1) }
}

fn member(broker: u32) -> Member {
    Member { broker: BrokerId(broker), store: StoreId(Uuid::from_u128(u128::from(broker))) }
}

const QUEUE: QueueId = QueueId(Uuid::from_u128(7));

/// Peers that are told things and never say any.
#[derive(Default)]
struct Told(Mutex<Vec<PeerFrame>>);

impl PeerLinks for Told {
    fn to_leader(&self, _to: BrokerLife, frame: PeerFrame) -> bool {
        self.0.lock().unwrap().push(frame);
        true
    }

    fn to_follower(&self, _to: BrokerLife, frame: PeerFrame) -> SendOutcome {
        self.0.lock().unwrap().push(frame);
        SendOutcome::Sent
    }

    fn to_broker(&self, _to: BrokerId, frame: PeerFrame) -> bool {
        self.0.lock().unwrap().push(frame);
        true
    }

    fn fetch_snapshot(&self, _from: BrokerLife, _queue: QueueId, _epoch: Epoch, _fetch: u64) {}
}

/// A coordinator that hears everything and answers nothing.
struct Silent;

#[async_trait]
impl StateKeeper for Silent {
    async fn cas(&self, _: BrokerLife, _: QueueId, _: Version, _: QueueState) -> CasOutcome {
        std::future::pending().await
    }

    fn reread(&self, _queues: Vec<QueueId>) {}
}

struct World {
    shard: Shard,
    told: Arc<Told>,
    thread: Option<JournalThread>,
    _folder: tempfile::TempDir,
}

impl Drop for World {
    /// Before its folder goes: it would go on making files there.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.stop();
        }
    }
}

impl World {
    /// Broker 1 in its first life, with the coordinator, and no queue.
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let mut config = JournalConfig::new(folder.path());
        config.segment_bytes = 64 * 1024;
        config.waiting_bytes_max = 32 * 1024;
        config.disk_low_bytes = 0;
        let disk = Arc::new(RealDisk::new(folder.path()).unwrap());
        let (journal, recovered) = Journal::open_on(disk, config, BrokerId(1)).unwrap();
        assert!(recovered.is_empty());
        journal.folder().claim(ClusterId(Uuid::from_u128(0xc1))).unwrap();
        let wake = Arc::new(Notify::new());
        let wakes = wake.clone();
        let (mut logs, thread) = journal.start(1, |_| 0, move |_| wakes.notify_one()).unwrap();
        let (metrics, told) = (Arc::new(Metrics::default()), Arc::new(Told::default()));
        let (reads, reads_max) = Environment::reads(&metrics);
        let environment = Arc::new(Environment {
            member: member(1),
            timing: Timing::default(),
            started: Instant::now(),
            peers: told.clone(),
            keeper: Arc::new(Silent),
            leases: Arc::new(Leases::new(metrics.clone())),
            metrics,
            traces: None,
            health: Arc::new(Health::default()),
            runtime: tokio::runtime::Handle::current(),
            reads,
            reads_max,
        });
        let (internals, internal) = mpsc::channel(INTERNAL_MAX);
        let mut shard = Shard {
            mailbox: mpsc::channel(1).1,
            internal,
            wake,
            queues: HashMap::new(),
            attention: Attention::default(),
            shards: 1,
            store_failed: None,
            unready: Vec::new(),
            disk_stalls: false,
            ticks: 0,
            tools: Tools::new(logs.remove(0), environment, internals),
            shutdown: CancellationToken::new(),
        };
        shard.take(ShardInput::CoordinatorConnected(true));
        shard.take(ShardInput::Life(Some(life(1))));
        World { shard, told, thread: Some(thread), _folder: folder }
    }

    fn reads(&mut self, state: QueueState, version: i32) {
        let definition = QueueDefinition {
            queue: QUEUE,
            virtual_host: VirtualHost::default(),
            name: QueueName::new("orders").unwrap(),
            replicas_wanted: 2,
            min_isr: 1,
            class: bellwether_protocol::client::QueueClass::Standard,
            unknown: UnknownFields::new(),
        };
        let (definition, version) = (Arc::new(definition), Version(version));
        let news = QueueNews::State { definition, state, version, synced: true };
        self.shard.take(ShardInput::Queues(vec![news]));
        self.shard.end_turn();
    }

    /// Until the journal has synced so much that the queue is served here.
    async fn serves(&mut self) {
        let waits = async {
            while self.shard.queues[&QUEUE].replica.serves().is_none() {
                self.shard.wake.notified().await;
                self.shard.tools.begin(Instant::now());
                self.shard.journal_done();
                self.shard.end_turn();
            }
        };
        tokio::time::timeout(PATIENCE, waits).await.expect("the queue is served");
    }

    fn asked_for_positions(&mut self) -> PeerFrame {
        let frames = vec![PeerFrame::PositionAsk(vec![QUEUE])];
        let (peer, side) = (life(2), Side::Accepted);
        let connection = ConnectionId::next();
        self.shard.take(ShardInput::Peer(PeerNews::Frames { peer, side, connection, frames }));
        let told = self.told.0.lock().unwrap().pop();
        told.expect("it answers")
    }
}

/// Brokers 1 and 2 are to hold copies; these are in sync.
fn state(leader: Option<u32>, isr: &[u32]) -> QueueState {
    QueueState {
        epoch: Epoch(1),
        leader: leader.map(life),
        isr: isr.iter().map(|broker| member(*broker)).collect(),
        min_isr: 1,
        replicas: [1, 2].map(BrokerId).to_vec(),
        given_up: Vec::new(),
        past: Box::default(),
        unknown: UnknownFields::new(),
    }
}

/// A copy that began while the disk stalled was not told, and led nobody anywhere (promise G10).
#[tokio::test]
async fn a_copy_that_begins_while_the_disk_stalls_knows_that_it_does() {
    let leads = |stalls: bool| {
        let mut world = World::new();
        world.shard.take(ShardInput::DiskStalls(stalls));
        world.reads(state(Some(1), &[1, 2]), 0);
        world.shard.queues[&QUEUE].replica.leads().is_some()
    };
    assert!(leads(false));
    assert!(!leads(true), "it is named, and declines");
}

/// A note of what is committed moved the version that the delete names, and the delete was refused.
#[tokio::test]
async fn a_queue_that_is_being_deleted_notes_nothing_down() {
    let mut world = World::new();
    world.reads(state(Some(1), &[1]), 0);
    world.serves().await;
    let delete = |reply| ShardInput::PrepareDelete {
        queue: QUEUE,
        if_unused: false,
        if_empty: false,
        reply,
    };
    let (reply, mut prepared) = oneshot::channel();
    world.shard.take(delete(reply));
    assert_eq!(prepared.try_recv().unwrap().unwrap().version, Version(0));
    world.shard.note_committed();
    assert_eq!(world.shard.queues[&QUEUE].noted_at, None);
    world.shard.take(ShardInput::DeleteDecided { queue: QUEUE, deleted: false });
    world.shard.note_committed();
    assert!(world.shard.queues[&QUEUE].noted_at.is_some(), "copy 2 is missing");
}

/// A note was under way when the delete was asked for: the version that the delete named was moved by it, and the delete refused.
#[tokio::test]
async fn a_delete_waits_for_a_change_of_the_state_that_is_under_way() {
    let mut world = World::new();
    world.reads(state(Some(1), &[1]), 0);
    world.serves().await;
    world.shard.note_committed();
    let delete = |reply| ShardInput::PrepareDelete {
        queue: QUEUE,
        if_unused: false,
        if_empty: false,
        reply,
    };
    let (reply, mut prepared) = oneshot::channel();
    world.shard.take(delete(reply));
    world.shard.end_turn();
    assert!(prepared.try_recv().is_err(), "the note is not decided");
    let (reply, mut second) = oneshot::channel();
    world.shard.take(delete(reply));
    assert_eq!(second.try_recv().unwrap().unwrap_err().code, ErrorCode::InUse);
    world.reads(state(Some(1), &[1]), 1);
    world.shard.tick(false);
    world.shard.end_turn();
    assert_eq!(prepared.try_recv().unwrap().unwrap().version, Version(1), "and not the one before");
}

/// Nothing stops for a delete that the coordinator will not hear of.
#[tokio::test]
async fn a_delete_does_not_wait_for_ever_for_a_change_that_is_not_decided() {
    let mut world = World::new();
    world.reads(state(Some(1), &[1]), 0);
    world.serves().await;
    world.shard.note_committed();
    let (reply, mut prepared) = oneshot::channel();
    let (if_unused, if_empty) = (false, false);
    world.shard.take(ShardInput::PrepareDelete { queue: QUEUE, if_unused, if_empty, reply });
    world.shard.tools.begin(Instant::now() + std::time::Duration::from_secs(6));
    world.shard.tick(false);
    world.shard.end_turn();
    let error = prepared.try_recv().unwrap().unwrap_err();
    assert_eq!((error.code, error.outcome), (ErrorCode::CoordinatorUnavailable, Outcome::NotDone));
    assert!(!world.shard.queues[&QUEUE].is_to_be_deleted());
}

/// From the silence of a broker that was starting it was concluded that it had nothing (promise G1).
#[tokio::test]
async fn a_broker_that_cannot_say_where_a_log_ends_says_why() {
    let mut world = World::new();
    let starting = NoPosition { queue: QUEUE, member: member(1), stopped: false };
    assert_eq!(
        world.asked_for_positions(),
        PeerFrame::Positions(Vec::new(), vec![starting]),
        "there is no copy, and one of its own store may begin"
    );
    world.reads(state(None, &[1, 2]), 0);
    let PeerFrame::Positions(positions, without) = world.asked_for_positions() else {
        panic!("it answers something else");
    };
    assert_eq!((positions.len(), without.len()), (1, 0));
    world.shard.take(ShardInput::Life(None));
    let silent = PeerFrame::Positions(Vec::new(), vec![starting]);
    assert_eq!(world.asked_for_positions(), silent, "not before it has read its states anew");
    let why = "its log is damaged".to_owned();
    world.shard.on(QUEUE, |queue, tools| {
        queue.step(tools, bellwether_replication::Event::Broken { why });
    });
    let stopped = NoPosition { stopped: true, ..starting };
    assert_eq!(world.asked_for_positions(), PeerFrame::Positions(Vec::new(), vec![stopped]));
}
