//! A broker played by the test: a listener that speaks frames and does exactly what the test says.
#![allow(dead_code, reason = "each test file plays another part")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bellwether_client::{Client, ClientBuilder};
use bellwether_protocol::FrameCodec;
use bellwether_protocol::client::{
    BrokerFrame, Claim, ClientFrame, ConsumerAttached, Deliver, DeliveredRun, Hello, Publish,
    QueueClass, QueueCounts, QueueSummary, Request, Response, Settle, Welcome, Withheld,
};
use bellwether_protocol::error::{BrokerAddress, ErrorBody, ErrorCode, Outcome};
use bellwether_protocol::frame::Limits;
use bellwether_protocol::ids::{
    BrokerId, ClusterId, ConsumerHandle, Epoch, Offset, OffsetRange, ProducerHandle, QueueId,
    RequestId, Seq, SeqRange,
};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::{ExchangeName, QueueName, RoutingKey};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::Framed;
use uuid::Uuid;

/// Longest that anything in these tests may take. Nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(20);

/// What happens in time, or the test has failed.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("this did not happen within {PATIENCE:?}: {what}"),
    }
}

pub struct FakeBroker {
    pub id: u32,
    listener: TcpListener,
    pub peers: Vec<BrokerAddress>,
    pub message_bytes_max: u32,
}

/// One accepted connection, past the handshake.
pub struct Session {
    framed: Framed<TcpStream, FrameCodec<ClientFrame>>,
    broker: BrokerAddress,
}

/// A client that never gives a silent broker up: the tests are silent while they think.
pub fn patient() -> ClientBuilder {
    Client::builder().heartbeat(Duration::from_secs(600))
}

/// A loopback address that no other test has: a port that one test has closed may be opened by another one, whose broker
/// would then get clients that look for the first.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let process = std::process::id() % 62_500;
    Ipv4Addr::new(127, 1 + (process / 250) as u8, (process % 250) as u8 ^ high, low)
}

/// A cluster of fakes that know each other.
pub async fn brokers<const N: usize>() -> [FakeBroker; N] {
    let mut brokers = Vec::new();
    for id in 1..=N as u32 {
        let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
        brokers.push(FakeBroker { id, listener, peers: Vec::new(), message_bytes_max: 1 << 20 });
    }
    let addresses: Vec<BrokerAddress> = brokers.iter().map(FakeBroker::address).collect();
    for broker in &mut brokers {
        broker.peers.clone_from(&addresses);
    }
    brokers.try_into().ok().unwrap()
}

impl FakeBroker {
    pub fn address(&self) -> BrokerAddress {
        BrokerAddress { broker: BrokerId(self.id), address: self.socket().to_string() }
    }

    pub fn socket(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Takes a connection and says nothing, as a frozen process does.
    pub async fn accept_silently(&self) -> TcpStream {
        soon("a connection", self.listener.accept()).await.unwrap().0
    }

    /// Takes a connection and shakes hands.
    pub async fn accept(&self) -> Session {
        let mut session = self.accept_unwelcomed().await;
        soon("a hello", session.hello()).await;
        session.send(BrokerFrame::Welcome(self.welcome())).await;
        session
    }

    pub async fn accept_unwelcomed(&self) -> Session {
        let stream = self.accept_silently().await;
        stream.set_nodelay(true).unwrap();
        Session {
            framed: Framed::new(stream, FrameCodec::new(Limits::CLIENT)),
            broker: self.address(),
        }
    }

    pub fn welcome(&self) -> Welcome {
        Welcome {
            version: 1,
            cluster: ClusterId(Uuid::from_u128(1)),
            broker: BrokerId(self.id),
            heartbeat_ms: 0,
            frame_bytes_max: Limits::CLIENT.frame_bytes_max as u32,
            message_bytes_max: self.message_bytes_max,
            brokers: self.peers.clone(),
            proof: None,
        }
    }
}

impl Session {
    pub async fn hello(&mut self) -> Hello {
        match self.any_frame().await {
            Some(ClientFrame::Hello(hello)) => hello,
            other => panic!("a hello was expected, not {other:?}"),
        }
    }

    pub async fn send(&mut self, frame: BrokerFrame) {
        self.framed.send(frame).await.unwrap();
    }

    pub async fn any_frame(&mut self) -> Option<ClientFrame> {
        self.framed.next().await.map(|frame| frame.expect("the client sends well-formed frames"))
    }

    /// The next frame that says something; none: the client has closed the connection.
    pub async fn next_or_end(&mut self) -> Option<ClientFrame> {
        soon("a frame, or the end of the connection", async {
            loop {
                match self.framed.next().await {
                    Some(Ok(ClientFrame::Heartbeat)) => {}
                    Some(Ok(frame)) => return Some(frame),
                    Some(Err(_)) | None => return None,
                }
            }
        })
        .await
    }

    pub async fn next(&mut self) -> ClientFrame {
        self.next_or_end().await.expect("the client keeps the connection")
    }

    pub async fn request(&mut self) -> (RequestId, Request) {
        match self.next().await {
            ClientFrame::Request { id, request } => (id, request),
            other => panic!("a request was expected, not {other:?}"),
        }
    }

    pub async fn respond(&mut self, id: RequestId, response: Response) {
        self.send(BrokerFrame::Response { id, response }).await;
    }

    pub async fn refuse(&mut self, id: RequestId, code: ErrorCode, message: &str) {
        let error = ErrorBody::not_done(code, message);
        self.send(BrokerFrame::Failure { id, error }).await;
    }

    pub async fn redirect(&mut self, id: RequestId, leader: Option<BrokerAddress>) {
        let error = ErrorBody {
            code: ErrorCode::NotLeader,
            outcome: Outcome::NotDone,
            message: "not led here".to_owned(),
            leader,
        };
        self.send(BrokerFrame::Failure { id, error }).await;
    }

    /// Takes a producer in, with all the credit it could want; answers as the leader on the way.
    pub async fn attach_producer(&mut self) -> (ProducerHandle, String, Seq) {
        let attached = self.attach_producer_without_credit().await;
        self.credit(attached.0, u64::MAX, u64::MAX).await;
        attached
    }

    pub async fn attach_producer_without_credit(&mut self) -> (ProducerHandle, String, Seq) {
        loop {
            let (id, request) = self.request().await;
            match request {
                Request::AttachProducer { producer, name, next } => {
                    self.respond(id, Response::ProducerAttached).await;
                    let name = name.expect("the client always names its producers");
                    return (producer, name.to_string(), next);
                }
                Request::DescribeQueue { queue } => self.describe(id, &queue, 7).await,
                Request::DetachProducer { .. } | Request::DetachConsumer { .. } => {
                    self.respond(id, Response::Done).await;
                }
                other => panic!("a producer was expected, not {other:?}"),
            }
        }
    }

    pub async fn describe(&mut self, id: RequestId, queue: &QueueName, identity: u128) {
        let summary = summary(queue, identity, self.broker.broker);
        let counts = QueueCounts::default();
        self.respond(id, Response::Queue { summary, counts }).await;
    }

    pub async fn credit(&mut self, producer: ProducerHandle, messages: u64, bytes: u64) {
        self.send(BrokerFrame::PublishCredit { producer, messages, bytes, withheld: None }).await;
    }

    /// No more than was granted, for now.
    pub async fn withhold(&mut self, producer: ProducerHandle, messages: u64, bytes: u64) {
        let withheld = Some(Withheld::Memory);
        self.send(BrokerFrame::PublishCredit { producer, messages, bytes, withheld }).await;
    }

    /// The next publish; answers what is asked before it.
    pub async fn publish(&mut self) -> Publish {
        loop {
            match self.next().await {
                ClientFrame::Publish(publish) => return publish,
                ClientFrame::Request { id, request: Request::DescribeQueue { queue } } => {
                    self.describe(id, &queue, 7).await;
                }
                other => panic!("a publish was expected, not {other:?}"),
            }
        }
    }

    /// Publishes until so many messages have come.
    pub async fn publishes(&mut self, messages: u64) -> Vec<Publish> {
        let mut publishes = Vec::new();
        let mut count = 0;
        while count < messages {
            let publish = self.publish().await;
            count += u64::from(publish.messages.count());
            publishes.push(publish);
        }
        publishes
    }

    pub async fn confirm(&mut self, producer: ProducerHandle, first: u64, last: u64) {
        let ranges = vec![SeqRange { first: Seq(first), last: Seq(last) }];
        self.send(BrokerFrame::Confirmed { producer, ranges }).await;
    }

    pub async fn fail_publish(
        &mut self,
        producer: ProducerHandle,
        first: u64,
        last: u64,
        error: ErrorBody,
    ) {
        let range = SeqRange { first: Seq(first), last: Seq(last) };
        self.send(BrokerFrame::PublishFailed { producer, range, error }).await;
    }

    /// Takes a consumer in.
    pub async fn attach_consumer(&mut self, epoch: u64) -> ConsumerHandle {
        self.attach_consumer_of(epoch, 7).await
    }

    /// Takes a consumer of a queue with this identity in, and tells the identity.
    pub async fn attach_consumer_of(&mut self, epoch: u64, identity: u128) -> ConsumerHandle {
        self.attach_claimant(epoch, identity, &[], &[]).await.0
    }

    /// Takes a consumer in, with what it holds and what is settled of its claim. Answers the claim, too.
    pub async fn attach_claimant(
        &mut self,
        epoch: u64,
        identity: u128,
        held: &[(u64, u64)],
        settled: &[(u64, u64)],
    ) -> (ConsumerHandle, Option<Claim>) {
        loop {
            let (id, request) = self.request().await;
            match request {
                Request::AttachConsumer { consumer, claim, .. } => {
                    let ranges = |ranges: &[(u64, u64)]| {
                        let range = |(first, end): &(u64, u64)| {
                            OffsetRange::new(Offset(*first), Offset(*end))
                        };
                        ranges.iter().map(range).collect()
                    };
                    let attached = ConsumerAttached {
                        epoch: Epoch(epoch),
                        queue: QueueId(Uuid::from_u128(identity)),
                        held: ranges(held),
                        settled: ranges(settled),
                    };
                    self.respond(id, Response::ConsumerAttached(attached)).await;
                    return (consumer, claim);
                }
                Request::DetachConsumer { .. } => self.respond(id, Response::Done).await,
                other => panic!("a consumer was expected, not {other:?}"),
            }
        }
    }

    pub async fn deliver(
        &mut self,
        consumer: ConsumerHandle,
        epoch: u64,
        first: u64,
        bodies: &[&'static str],
    ) {
        let run = DeliveredRun {
            first: Offset(first),
            redelivered: false,
            returns: 0,
            time_ms: 1_700_000_000_000,
            exchange: ExchangeName::default(),
            routing_key: RoutingKey::new("orders").unwrap(),
            messages: block(bodies),
        };
        let deliver = Deliver { consumer, epoch: Epoch(epoch), runs: vec![run] };
        self.send(BrokerFrame::Deliver(deliver)).await;
    }

    /// The next settle; answers what is asked before it.
    pub async fn settle(&mut self) -> Settle {
        loop {
            match self.next().await {
                ClientFrame::Settle(settle) => return settle,
                ClientFrame::Request { id, request: Request::DescribeQueue { queue } } => {
                    self.describe(id, &queue, 7).await;
                }
                other => panic!("a settle was expected, not {other:?}"),
            }
        }
    }

    pub async fn settled(&mut self, consumer: ConsumerHandle, up_to: u64) {
        self.send(BrokerFrame::Settled { consumer, up_to }).await;
    }
}

pub fn block(bodies: &[&'static str]) -> MessageBlock {
    MessageBlock::from_messages(
        bodies.iter().map(|body| (None, Bytes::from_static(body.as_bytes()))),
    )
}

pub fn bodies(publish: &Publish) -> Vec<String> {
    publish
        .messages
        .iter()
        .map(|message| String::from_utf8(message.body.to_vec()).unwrap())
        .collect()
}

pub fn summary(queue: &QueueName, identity: u128, leader: BrokerId) -> QueueSummary {
    QueueSummary {
        name: queue.clone(),
        id: QueueId(Uuid::from_u128(identity)),
        replicas: vec![leader],
        in_sync: vec![leader],
        min_isr: 1,
        leader: Some(leader),
        epoch: Epoch(1),
        class: QueueClass::default(),
        tainted: false,
    }
}

/// Sequence numbers of publishes, as (first, count, resent).
pub fn numbers(publishes: &[Publish]) -> Vec<(u64, u32, bool)> {
    publishes
        .iter()
        .map(|publish| (publish.first.0, publish.messages.count(), publish.resent))
        .collect()
}
