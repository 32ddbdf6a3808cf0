//! Two real `Peers` on loopback, or one and a peer played by hand.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use bellwether_coordinator::records::{BrokerRecord, UnknownFields};
use bellwether_log::{Batch, Enqueue, Record};
use bellwether_protocol::error::{ErrorBody, ErrorCode, Outcome};
use bellwether_protocol::ids::{Incarnation, Member, Offset, OffsetRange, Seq};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::{ExchangeName, RoutingKey};
use bellwether_protocol::peer::{AppendRun, PeerHello, Purpose, Subscription};
use bytes::Bytes;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::*;
use crate::seams::{SnapshotHead, SnapshotMore, SnapshotPart};
use crate::shard::input::{Promises, PublishOrigin};

/// T in these tests; long enough for a busy machine.
const PROMISE: Duration = Duration::from_millis(300);
/// Nothing here takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

fn queue(number: u128) -> QueueId {
    QueueId(Uuid::from_u128(number))
}

fn life(broker: u32, incarnation: u64) -> BrokerLife {
    BrokerLife { broker: BrokerId(broker), incarnation: Incarnation(incarnation) }
}

fn store(broker: u32) -> StoreId {
    StoreId(Uuid::from_u128(u128::from(broker)))
}

const CLUSTER: ClusterId = ClusterId(Uuid::from_u128(7));

/// Shards that tell the test what they hear: one, or two.
struct Ear {
    heard: mpsc::Sender<(usize, ShardInput)>,
    shards: usize,
}

#[async_trait]
impl ShardGate for Ear {
    fn shards(&self) -> usize {
        self.shards
    }

    fn shard_of(&self, queue: QueueId) -> usize {
        (queue.0.as_u128() % self.shards as u128) as usize
    }

    async fn send(&self, shard: usize, input: ShardInput) {
        self.heard.send((shard, input)).await.expect("the test still listens");
    }

    fn try_send(&self, shard: usize, input: ShardInput) -> Result<(), Box<ShardInput>> {
        self.heard.try_send((shard, input)).map_err(|error| Box::new(error.into_inner().1))
    }

    async fn room(&self, _shard: usize) {}
}

/// One broker's peers, and all that its shards heard.
struct Broker {
    peers: Arc<Peers>,
    address: SocketAddr,
    me: watch::Sender<Option<Me>>,
    heard: mpsc::Receiver<(usize, ShardInput)>,
    /// Frames that were heard and not asked for yet.
    frames: VecDeque<PeerFrame>,
    leases: Arc<Leases>,
    shutdown: CancellationToken,
}

impl Broker {
    async fn start(broker: u32) -> Broker {
        Broker::with(broker, 1, CLUSTER, 8 * 1024 * 1024).await
    }

    async fn with(
        broker: u32,
        shards: usize,
        cluster: ClusterId,
        outbox_bytes_max: usize,
    ) -> Broker {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (me, mine) = watch::channel(Some(Me { life: life(broker, 1), ready: true }));
        let (sender, heard) = mpsc::channel(10_000);
        let leases = Arc::new(Leases::default());
        let shutdown = CancellationToken::new();
        let config = PeersConfig {
            cluster,
            store: store(broker),
            promise: PROMISE,
            outbox_bytes_max,
            snapshot_bytes_per_second: 64 * 1024 * 1024,
        };
        let surroundings = Surroundings {
            me: mine,
            shards: Arc::new(Ear { heard: sender, shards }),
            leases: leases.clone(),
            metrics: Arc::default(),
            tracker: TaskTracker::new(),
            shutdown: shutdown.clone(),
        };
        let peers = Peers::begin(config, listener, surroundings);
        Broker { peers, address, me, heard, frames: VecDeque::new(), leases, shutdown }
    }

    fn dials(&self, broker: u32, address: SocketAddr) {
        self.peers.brokers(&LiveBrokers { brokers: vec![record(broker, address)] });
    }

    /// The next thing heard of which `wanted` makes something; what comes before it is let go.
    async fn hears<T>(&mut self, mut wanted: impl FnMut(usize, ShardInput) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let (shard, input) = self.heard.recv().await.expect("the peers are gone");
                if let Some(found) = wanted(shard, input) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("it was never heard")
    }

    async fn hears_up(&mut self, side: Side) -> (BrokerLife, Option<Arc<Promises>>) {
        self.hears(|_, input| match input {
            ShardInput::Peer(PeerNews::Up { peer, side: on, promises, .. }) if on == side => {
                Some((peer, promises))
            }
            _ => None,
        })
        .await
    }

    async fn hears_down(&mut self, side: Side) -> BrokerLife {
        self.hears(|_, input| match input {
            ShardInput::Peer(PeerNews::Down { peer, side: on }) if on == side => Some(peer),
            _ => None,
        })
        .await
    }

    async fn hears_dead(&mut self) -> BrokerLife {
        self.hears(|_, input| match input {
            ShardInput::Peer(PeerNews::Dead { peer }) => Some(peer),
            _ => None,
        })
        .await
    }

    async fn hears_frame<T>(&mut self, mut wanted: impl FnMut(PeerFrame) -> Option<T>) -> T {
        loop {
            if let Some(found) =
                std::iter::from_fn(|| self.frames.pop_front()).find_map(&mut wanted)
            {
                return found;
            }
            let frames = self.hears(|_, input| match input {
                ShardInput::Peer(PeerNews::Frames { frames, .. }) => Some(frames),
                _ => None,
            });
            let frames = frames.await;
            self.frames.extend(frames);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn record(broker: u32, address: SocketAddr) -> BrokerRecord {
    BrokerRecord {
        life: life(broker, 1),
        store: store(broker),
        client_address: String::new(),
        peer_address: address.to_string(),
        host: String::new(),
        version: String::new(),
        rack: None,
        unknown: UnknownFields::new(),
    }
}

/// Broker 2 follows broker 1: connected, both sides heard of.
async fn follower_and_leader() -> (Broker, Broker, Arc<Promises>) {
    let mut leader = Broker::start(1).await;
    let mut follower = Broker::start(2).await;
    follower.dials(1, leader.address);
    follower.hears_up(Side::Dialed).await;
    let (_, promises) = leader.hears_up(Side::Accepted).await;
    (follower, leader, promises.expect("an accepted connection has a lease clock"))
}

/// A broker played by hand.
struct Played {
    framed: Framed<TcpStream>,
}

fn hello_of(broker: u32, incarnation: u64, cluster: ClusterId) -> PeerHello {
    PeerHello {
        version_min: 1,
        version_max: 1,
        cluster,
        life: life(broker, incarnation),
        store: store(broker),
        purpose: Purpose::Stream,
        ready: true,
    }
}

impl Played {
    async fn accepts(listener: &TcpListener, hello: &PeerHello) -> Played {
        let (stream, _) = listener.accept().await.unwrap();
        let mut framed = Framed::new(stream);
        hello::welcome(&mut framed, hello).await.unwrap();
        Played { framed }
    }

    async fn next(&mut self) -> PeerFrame {
        let read = tokio::time::timeout(PATIENCE, self.framed.read());
        read.await.expect("nothing arrived").unwrap().expect("the connection ended")
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn subscription(queue: QueueId, epoch: Epoch) -> Subscription {
    let member = Member { broker: BrokerId(2), store: store(2) };
    Subscription { queue, epoch, member, last_epoch: None, log_end: Offset(0) }
}

fn batch_of(queue: QueueId, base: u64, bytes: usize) -> Batch {
    let record = Record::Enqueue(Enqueue {
        producer: None,
        time_ms: 0,
        exchange: ExchangeName::default(),
        routing_key: RoutingKey::new("orders").unwrap(),
        messages: MessageBlock::from_messages([(None, Bytes::from(vec![base as u8; bytes]))]),
    });
    Batch::encode(queue, Epoch(1), Offset(base), &record)
}

fn run_of(queue: QueueId, batches: &[Batch]) -> AppendRun {
    let mut bytes = bytes::BytesMut::new();
    batches.iter().for_each(|batch| bytes.extend_from_slice(batch.bytes()));
    AppendRun { queue, epoch: Epoch(1), high_watermark: Offset(3), batches: bytes.freeze() }
}

fn decoded(mut bytes: Bytes) -> Vec<Batch> {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        batches.push(Batch::decode(&mut bytes).unwrap());
    }
    batches
}

#[tokio::test]
async fn two_brokers_find_each_other_and_talk() {
    let (follower, mut leader, _) = follower_and_leader().await;
    let subscribe = PeerFrame::Subscribe(vec![subscription(queue(1), Epoch(4))]);
    assert!(follower.peers.to_leader(life(1, 1), subscribe.clone()));
    let heard =
        leader.hears_frame(|frame| matches!(frame, PeerFrame::Subscribe(_)).then_some(frame)).await;
    assert_eq!(heard, subscribe);
    assert_eq!(
        leader.peers.to_follower(life(2, 9), PeerFrame::Heartbeat),
        SendOutcome::Down,
        "another life"
    );
    assert!(leader.peers.to_broker(BrokerId(2), PeerFrame::PositionAsk(vec![queue(1)])));
}

#[tokio::test]
async fn a_frame_about_many_queues_is_split_by_shard() {
    let mut leader = Broker::with(1, 2, CLUSTER, 1 << 20).await;
    let mut follower = Broker::start(2).await;
    follower.dials(1, leader.address);
    follower.hears_up(Side::Dialed).await;
    let ends = (1..=4).map(|number| (queue(number), Epoch(1), Offset(9))).collect();
    assert!(follower.peers.to_leader(life(1, 1), PeerFrame::Durable(ends)));
    let mut heard = [0, 0];
    while heard != [2, 2] {
        let (shard, ends) = leader
            .hears(|shard, input| match input {
                ShardInput::Peer(PeerNews::Frames { frames, .. }) => match &frames[..] {
                    [PeerFrame::Durable(ends)] => Some((shard, ends.clone())),
                    _ => None,
                },
                _ => None,
            })
            .await;
        assert!(ends.iter().all(|(queue, _, _)| queue.0.as_u128() % 2 == shard as u128));
        heard[shard] += ends.len();
    }
}

#[tokio::test]
async fn a_control_frame_overtakes_bodies_that_wait() {
    let outbox = outbox::Outbox::new(8 * 1024 * 1024);
    for base in 0..20 {
        let run = run_of(queue(1), &[batch_of(queue(1), base, 200_000)]);
        assert_eq!(outbox.push(PeerFrame::Append(vec![run])), Pushed::Taken);
    }
    outbox.next().await.unwrap();
    outbox.push(PeerFrame::PromiseAsk { number: 1 });
    outbox.push(PeerFrame::Committed(vec![(queue(1), Epoch(1), Offset(9))]));
    let next = outbox.next().await.unwrap().frames;
    assert_eq!(next[0], PeerFrame::PromiseAsk { number: 1 });
    assert_eq!(next[1], PeerFrame::Committed(vec![(queue(1), Epoch(1), Offset(9))]));
    assert!(matches!(next[2], PeerFrame::Append(_)));
}

#[tokio::test]
async fn reports_of_a_queue_that_wait_become_one() {
    let outbox = outbox::Outbox::new(1);
    for end in [5, 9, 7] {
        outbox.push(PeerFrame::Durable(vec![(queue(1), Epoch(2), Offset(end))]));
    }
    let next = outbox.next().await.unwrap().frames;
    assert_eq!(next, [PeerFrame::Durable(vec![(queue(1), Epoch(2), Offset(9))])]);
}

/// With a report behind its `Unsubscribe` a deposed leader could confirm what its successor lacks.
#[tokio::test]
async fn no_report_goes_out_behind_the_end_of_its_subscription() {
    let outbox = outbox::Outbox::new(1);
    outbox.push(PeerFrame::Durable(vec![
        (queue(1), Epoch(2), Offset(5)),
        (queue(2), Epoch(2), Offset(6)),
    ]));
    outbox.push(PeerFrame::Unsubscribe(vec![(queue(1), Epoch(2))]));
    let next = outbox.next().await.unwrap().frames;
    assert_eq!(
        next,
        [
            PeerFrame::Unsubscribe(vec![(queue(1), Epoch(2))]),
            PeerFrame::Durable(vec![(queue(2), Epoch(2), Offset(6))]),
        ]
    );
}

#[tokio::test]
async fn a_full_outbox_says_so_and_tells_of_room() {
    let outbox = outbox::Outbox::new(400_000);
    let append = || PeerFrame::Append(vec![run_of(queue(1), &[batch_of(queue(1), 0, 200_000)])]);
    assert_eq!(outbox.push(append()), Pushed::Taken);
    assert_eq!(outbox.push(append()), Pushed::Taken);
    assert_eq!(outbox.push(append()), Pushed::Full);
    assert_eq!(
        outbox.push(PeerFrame::PromiseAsk { number: 1 }),
        Pushed::Taken,
        "promises are never refused"
    );
    while !outbox.next().await.unwrap().room {}
    outbox.close();
    assert_eq!(outbox.push(append()), Pushed::Closed);
}

#[tokio::test]
async fn a_batch_larger_than_a_frame_arrives_whole() {
    let (mut follower, leader, _) = follower_and_leader().await;
    let batches = [
        batch_of(queue(1), 0, 100),
        batch_of(queue(1), 1, 3_000_000),
        batch_of(queue(1), 2, 100_000),
        batch_of(queue(1), 3, 200_000),
    ];
    let run = run_of(queue(1), &batches);
    assert!(run.batches.len() > bellwether_protocol::frame::PEER_FRAME_BYTES_MAX);
    assert_eq!(
        leader.peers.to_follower(life(2, 1), PeerFrame::Append(vec![run])),
        SendOutcome::Sent
    );
    let mut arrived = Vec::new();
    while arrived.len() < batches.len() {
        let runs = follower.hears_frame(|frame| match frame {
            PeerFrame::Append(runs) => Some(runs),
            _ => None,
        });
        for run in runs.await {
            assert_eq!((run.queue, run.high_watermark), (queue(1), Offset(3)));
            arrived.extend(decoded(run.batches));
        }
    }
    assert_eq!(arrived, batches);
}

#[tokio::test]
async fn a_promise_prolongs_the_lease_and_a_lost_connection_ends_it() {
    let (follower, mut leader, promises) = follower_and_leader().await;
    eventually("a promise", || promises.holds(Instant::now())).await;
    let in_the_far_future = Instant::now() + PROMISE;
    assert!(
        !promises.holds(in_the_far_future),
        "the lease is two thirds of T from the ask at most"
    );
    eventually("a later promise", || promises.holds(in_the_far_future)).await;
    drop(follower);
    leader.hears_down(Side::Accepted).await;
    assert!(!promises.holds(Instant::now()));
}

#[tokio::test]
async fn an_unsubscribe_ends_the_lease_of_its_queue_before_any_later_promise() {
    let (follower, mut leader, _) = follower_and_leader().await;
    let leads = Arc::new(AtomicBool::new(true));
    leader.leases.grant(queue(1), leads.clone());
    assert!(
        follower.peers.to_leader(life(1, 1), PeerFrame::Unsubscribe(vec![(queue(1), Epoch(1))]))
    );
    leader.hears_frame(|frame| matches!(frame, PeerFrame::Unsubscribe(_)).then_some(())).await;
    assert!(!leads.load(Ordering::Acquire));
}

#[tokio::test]
async fn a_reset_and_then_a_refused_connection_prove_a_broker_dead() {
    let mut broker = Broker::start(2).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    broker.dials(1, listener.local_addr().unwrap());
    let played = Played::accepts(&listener, &hello_of(1, 1, CLUSTER)).await;
    broker.hears_up(Side::Dialed).await;
    drop(listener);
    drop(played);
    assert_eq!(broker.hears_dead().await, life(1, 1));
}

#[tokio::test]
async fn a_new_life_of_the_same_store_proves_the_old_one_dead() {
    let mut broker = Broker::start(2).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    broker.dials(1, listener.local_addr().unwrap());
    drop(Played::accepts(&listener, &hello_of(1, 1, CLUSTER)).await);
    broker.hears_up(Side::Dialed).await;
    let _again = Played::accepts(&listener, &hello_of(1, 2, CLUSTER)).await;
    assert_eq!(broker.hears_dead().await, life(1, 1));
    assert_eq!(broker.hears_up(Side::Dialed).await.0, life(1, 2));
}

/// A frozen broker holds its listener: connections are made and nobody says hello. It may lead yet.
#[tokio::test]
async fn a_broker_that_does_not_answer_is_not_dead() {
    let mut broker = Broker::start(2).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    broker.dials(1, listener.local_addr().unwrap());
    drop(Played::accepts(&listener, &hello_of(1, 1, CLUSTER)).await);
    broker.hears_down(Side::Dialed).await;
    // The next connection gets no hello, until the dialer gives it up.
    let (silent, _) = listener.accept().await.unwrap();
    let (_other, _) = listener.accept().await.unwrap();
    drop(silent);
    while let Ok((_, input)) = broker.heard.try_recv() {
        assert!(
            !matches!(input, ShardInput::Peer(PeerNews::Dead { .. })),
            "silence was taken for death"
        );
    }
}

#[tokio::test]
async fn a_refused_connection_alone_proves_nothing() {
    let mut broker = Broker::start(2).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    broker.dials(1, address);
    let listener = loop {
        // Refused meanwhile, perhaps several times.
        tokio::time::sleep(Duration::from_millis(50)).await;
        if let Ok(listener) = TcpListener::bind(address).await {
            break listener;
        }
    };
    let _played = Played::accepts(&listener, &hello_of(1, 1, CLUSTER)).await;
    broker
        .hears(|_, input| match input {
            ShardInput::Peer(PeerNews::Dead { .. }) => {
                panic!("refused before it was ever connected")
            }
            ShardInput::Peer(PeerNews::Up { .. }) => Some(()),
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn a_broker_that_is_not_ready_answers_its_hello_and_no_more() {
    let mut broker = Broker::start(2).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    broker.dials(1, listener.local_addr().unwrap());
    let unready = PeerHello { ready: false, ..hello_of(1, 1, CLUSTER) };
    let _played = Played::accepts(&listener, &unready).await;
    let not_ready = broker.hears(|_, input| match input {
        ShardInput::Peer(PeerNews::NotReady { broker }) => Some(broker),
        ShardInput::Peer(PeerNews::Up { .. }) => panic!("up before it was ready"),
        _ => None,
    });
    assert_eq!(not_ready.await, BrokerId(1));
}

async fn refusal(broker: &Broker, hello: &PeerHello) -> ErrorBody {
    let mut framed = Framed::new(TcpStream::connect(broker.address).await.unwrap());
    framed.write(&PeerFrame::Hello(hello.clone())).await.unwrap();
    match (Played { framed }).next().await {
        PeerFrame::Goodbye(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn strangers_are_refused_with_a_reason() {
    let broker = Broker::start(2).await;
    let other_cluster = ClusterId(Uuid::from_u128(8));
    let error = refusal(&broker, &hello_of(1, 1, other_cluster)).await;
    assert_eq!(error.code, ErrorCode::NotAllowed);
    assert!(error.message.contains(&other_cluster.to_string()), "{}", error.message);

    let from_the_future = PeerHello { version_min: 7, version_max: 9, ..hello_of(1, 1, CLUSTER) };
    assert_eq!(refusal(&broker, &from_the_future).await.code, ErrorCode::UnsupportedVersion);
    assert_eq!(
        refusal(&broker, &hello_of(2, 5, CLUSTER)).await.code,
        ErrorCode::NotAllowed,
        "the same id"
    );
}

#[tokio::test]
async fn a_new_life_ends_the_connections_of_the_old_one() {
    let (mut follower, mut leader, _) = follower_and_leader().await;
    follower.me.send_replace(None);
    assert_eq!(leader.hears_down(Side::Accepted).await, life(2, 1));
    assert_eq!(follower.hears_down(Side::Dialed).await, life(1, 1));
    follower.me.send_replace(Some(Me { life: life(2, 2), ready: true }));
    assert_eq!(leader.hears_up(Side::Accepted).await.0, life(2, 2));
}

/// Outcomes of publishes, as their origin hears them.
#[derive(Default)]
struct Origin(Mutex<Vec<(u64, Result<(), ErrorBody>)>>);

impl PublishOrigin for Origin {
    fn outcomes(&self, outcomes: Vec<(u64, Result<(), ErrorBody>)>) {
        self.0.lock().unwrap().extend(outcomes);
    }
}

fn publish_of(origin: &Arc<Origin>, token: u64, bytes: usize) -> QueuePublish {
    QueuePublish {
        queue: queue(1),
        token,
        origin: origin.clone(),
        producer: None,
        previous: Seq(0),
        chained: false,
        first: Seq(token),
        resent: false,
        exchange: ExchangeName::default(),
        routing_key: RoutingKey::new("orders").unwrap(),
        messages: MessageBlock::from_messages([(None, Bytes::from(vec![1; bytes]))]),
    }
}

#[tokio::test]
async fn a_forwarded_publish_brings_its_outcome_home() {
    let (follower, mut leader, _) = follower_and_leader().await;
    let origin = Arc::new(Origin::default());
    // Small, larger than a chunk, and one that the leader does not answer.
    for (token, bytes) in [(1, 100), (2, 2_000_000), (3, 100)] {
        assert!(follower.peers.forward(life(1, 1), publish_of(&origin, token, bytes)).is_ok());
    }
    let mut arrived = Vec::new();
    while arrived.len() < 3 {
        arrived.extend(
            leader
                .hears(|_, input| match input {
                    ShardInput::Publish(publishes) => Some(publishes),
                    _ => None,
                })
                .await,
        );
    }
    let sizes: Vec<usize> =
        arrived.iter().map(|publish| publish.messages.iter().next().unwrap().size()).collect();
    assert_eq!(sizes, [100, 2_000_000, 100]);
    arrived[0].origin.outcomes(vec![
        (arrived[0].token, Ok(())),
        (arrived[1].token, Err(ErrorBody::not_done(ErrorCode::NotLeader, "not here"))),
    ]);
    eventually("two outcomes", || origin.0.lock().unwrap().len() == 2).await;

    drop(leader);
    eventually("the outcome of the third", || origin.0.lock().unwrap().len() == 3).await;
    let outcomes = origin.0.lock().unwrap();
    assert_eq!(outcomes[0], (1, Ok(())));
    assert_eq!(outcomes[1].1.as_ref().unwrap_err().code, ErrorCode::NotLeader);
    let lost = outcomes[2].1.as_ref().unwrap_err();
    assert_eq!((lost.code, lost.outcome), (ErrorCode::Unconfirmed, Outcome::Unknown));
    drop(outcomes);
    assert!(
        follower.peers.forward(life(1, 1), publish_of(&origin, 4, 1)).is_err(),
        "comes back: no connection"
    );
}

#[tokio::test]
async fn a_snapshot_comes_over_a_connection_of_its_own() {
    let (mut follower, mut leader, _) = follower_and_leader().await;
    let batches =
        [batch_of(queue(1), 0, 600_000), batch_of(queue(1), 4, 10), batch_of(queue(1), 9, 10)];
    let state = Bytes::from(vec![3; 700_000]);
    follower.peers.fetch_snapshot(life(1, 1), queue(1), Epoch(1));

    let reply = leader.hears(|_, input| match input {
        ShardInput::SnapshotAsked { queue: asked, epoch: Epoch(1), reply } if asked == queue(1) => {
            Some(reply)
        }
        _ => None,
    });
    let live =
        vec![OffsetRange::new(Offset(0), Offset(5)), OffsetRange::new(Offset(9), Offset(10))];
    let head = SnapshotHead {
        at: Offset(10),
        high_watermark: Offset(10),
        state: state.clone(),
        epochs: vec![(Epoch(1), Offset(0))],
        live,
    };
    assert!(reply.await.send(Ok(head)).is_ok());
    // One batch at a time, as if they were large.
    for batch in &batches {
        let (ranges, reply) = leader
            .hears(|_, input| match input {
                ShardInput::SnapshotMore { ranges, reply, .. } => Some((ranges, reply)),
                _ => None,
            })
            .await;
        assert!(ranges[0].first <= batch.base(), "{ranges:?}");
        assert!(reply.send(Ok(SnapshotMore::Ready(vec![batch.clone()]))).is_ok());
    }

    let mut arrived = Vec::new();
    loop {
        let part = follower.hears(|_, input| match input {
            ShardInput::Peer(PeerNews::Snapshot { part, .. }) => Some(part),
            _ => None,
        });
        match part.await {
            SnapshotPart::Head { at, state: arrived, .. } => {
                assert_eq!((at, arrived), (Offset(10), state.clone()))
            }
            SnapshotPart::Live(bytes) => arrived.extend(decoded(bytes)),
            SnapshotPart::End => break,
            SnapshotPart::Failed(why) => panic!("{why}"),
        }
    }
    assert_eq!(arrived, batches);
}

#[tokio::test]
async fn a_snapshot_that_is_refused_or_breaks_off_says_so() {
    let (mut follower, mut leader, _) = follower_and_leader().await;
    follower.peers.fetch_snapshot(life(1, 1), queue(1), Epoch(1));
    let reply = leader.hears(|_, input| match input {
        ShardInput::SnapshotAsked { reply, .. } => Some(reply),
        _ => None,
    });
    let refusal = Err(ErrorBody::not_done(ErrorCode::NotLeader, "led elsewhere"));
    assert!(reply.await.send(refusal).is_ok());
    let why = follower.hears(|_, input| match input {
        ShardInput::Peer(PeerNews::Snapshot { part: SnapshotPart::Failed(why), .. }) => Some(why),
        _ => None,
    });
    assert!(why.await.contains("led elsewhere"));
}
