//! Two real `Peers` on loopback, or one and a peer played by hand.

mod changeover;
mod evidence;
mod exchange;
mod lanes;
mod secured;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;
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
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::*;
use crate::seams::{SnapshotHead, SnapshotMore, SnapshotPart};
use crate::shard::input::{Lease, Promises, PublishOrigin};

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
        Broker::secured(broker, shards, cluster, outbox_bytes_max, None).await
    }

    async fn secured(
        broker: u32,
        shards: usize,
        cluster: ClusterId,
        outbox_bytes_max: usize,
        tls: Option<Arc<PeerTls>>,
    ) -> Broker {
        Broker::in_change_over(broker, shards, cluster, outbox_bytes_max, tls, false).await
    }

    async fn in_change_over(
        broker: u32,
        shards: usize,
        cluster: ClusterId,
        outbox_bytes_max: usize,
        tls: Option<Arc<PeerTls>>,
        plain_too: bool,
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
            tls,
            plain_too,
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

    /// The same, where the other one says that it speaks TLS.
    fn dials_who_speaks_tls(&self, broker: u32, address: SocketAddr) {
        let record = BrokerRecord { peer_tls: true, ..record(broker, address) };
        self.peers.brokers(&LiveBrokers { brokers: vec![record] });
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
            ShardInput::Peer(PeerNews::Down { peer, side: on, .. }) if on == side => Some(peer),
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
        peer_tls: false,
        disk_stalls: false,
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
        promise_ms: PROMISE.as_millis() as u32,
    }
}

impl Played {
    async fn accepts(listener: &TcpListener, hello: &PeerHello) -> Played {
        let (stream, _) = listener.accept().await.unwrap();
        let mut framed = Framed::new(stream);
        hello::welcome(&mut framed, hello, None).await.unwrap();
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
    Subscription { queue, epoch, member, last_epoch: None, log_end: Offset(0), number: 1 }
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
