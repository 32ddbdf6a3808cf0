//! Stories of a connection: over an in-memory pipe, with a shard that only takes notes.

mod admission;
mod bounds;
mod browsing;
mod deliveries;
mod keeping;
mod login;
mod publishing;
mod secured;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_protocol::client::{
    BrokerFrame, ClientFrame, ConsumerAttached, Deliver, DeliveredRun, Hello, Publish, Request,
    Response, Settle, Settlement,
};
use bellwether_protocol::error::{ErrorBody, ErrorCode, Outcome};
use bellwether_protocol::ids::{
    ConsumerHandle, Epoch, Offset, OffsetRange, ProducerHandle, QueueId, RequestId, Seq, SeqRange,
};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::{ExchangeName, ProducerName, RoutingKey, VirtualHost};
use bellwether_protocol::{Frame, FrameCodec, Limits as FrameLimits};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;
use tokio_util::codec::Framed;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::catalog::doubles::{PATIENCE, Surroundings, host, life, queue};
use crate::config::{Limits, Timing};
use crate::login::Origin;
use crate::shard::input::{
    AttachConsumer, ConsumerSink, Lease, Leases, Promises, QueuePublish, ShardInput,
};

const PRODUCER: ProducerHandle = ProducerHandle(1);
const CONSUMER: ConsumerHandle = ConsumerHandle(1);

/// A broker with one connection to it.
struct World {
    around: Surroundings,
    orders: QueueId,
    metrics: Arc<Metrics>,
    service: Arc<Service>,
    client: Framed<DuplexStream, FrameCodec<BrokerFrame>>,
    requests: u64,
    shutdown: CancellationToken,
}

fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        client_name: "test".to_owned(),
        heartbeat_ms: 0,
        virtual_host: VirtualHost::default(),
        login: None,
    }
}

fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_secs(30),
        handshake_timeout: Duration::from_secs(15),
        ..Timing::default()
    }
}

impl World {
    async fn new() -> World {
        World::with(timing(), Limits::default()).await
    }

    /// Connected and past the handshake, with a queue `orders` led by this broker.
    async fn with(timing: Timing, limits: Limits) -> World {
        let mut world = World::before_hello(timing, limits).await;
        world.send(ClientFrame::Hello(hello())).await;
        assert!(matches!(world.next().await, BrokerFrame::Welcome(_)));
        world
    }

    async fn before_hello(timing: Timing, limits: Limits) -> World {
        World::at_the_door(timing, limits, false, Origin::default()).await
    }

    async fn at_the_door(
        timing: Timing,
        limits: Limits,
        login_required: bool,
        origin: Origin,
    ) -> World {
        World::over(timing, limits, login_required, origin, |socket| socket).await
    }

    /// Over a socket made of the broker's end of the pipe.
    async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static>(
        timing: Timing,
        limits: Limits,
        login_required: bool,
        origin: Origin,
        socket: impl FnOnce(DuplexStream) -> S,
    ) -> World {
        let around = Surroundings::new().await;
        let orders = around.declare("orders").await;
        World::among(around, orders, timing, limits, login_required, origin, socket)
    }

    fn among<S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static>(
        around: Surroundings,
        orders: QueueId,
        timing: Timing,
        limits: Limits,
        login_required: bool,
        origin: Origin,
        socket: impl FnOnce(DuplexStream) -> S,
    ) -> World {
        let metrics: Arc<Metrics> = Arc::default();
        let service = Service::new(
            around.catalog.clone(),
            Arc::clone(&around.shard) as Arc<dyn ShardGate>,
            Arc::clone(&around.peers) as Arc<dyn PeerGate>,
            Arc::clone(&metrics),
            limits,
            &timing,
        );
        let service = Arc::new(service.with_login(login_required));
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        let shutdown = CancellationToken::new();
        tokio::spawn(serve_connection(
            socket(theirs),
            origin,
            Arc::clone(&service),
            shutdown.clone(),
        ));
        let client = Framed::new(ours, FrameCodec::new(FrameLimits::CLIENT));
        World { around, orders, metrics, service, client, requests: 0, shutdown }
    }

    /// One more connection to the same broker, past the handshake.
    async fn another(&self) -> Framed<DuplexStream, FrameCodec<BrokerFrame>> {
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        let (service, shutdown) = (Arc::clone(&self.service), self.shutdown.clone());
        tokio::spawn(serve_connection(theirs, Origin::default(), service, shutdown));
        let mut client = Framed::new(ours, FrameCodec::new(FrameLimits::CLIENT));
        client.send(ClientFrame::Hello(hello())).await.unwrap();
        assert!(matches!(client.next().await, Some(Ok(BrokerFrame::Welcome(_)))));
        client
    }

    async fn send(&mut self, frame: ClientFrame) {
        self.client.send(frame).await.unwrap();
    }

    async fn next(&mut self) -> BrokerFrame {
        let next = timeout(PATIENCE, self.client.next()).await.expect("the broker answers in time");
        next.expect("the connection is open").unwrap()
    }

    /// The first offset of the delivery that comes next.
    async fn delivered(&mut self) -> Offset {
        match self.answer().await {
            BrokerFrame::Deliver(deliver) => deliver.runs[0].first,
            other => panic!("{other:?} is no delivery"),
        }
    }

    /// The next frame that is not credit or a heartbeat.
    async fn answer(&mut self) -> BrokerFrame {
        loop {
            match self.next().await {
                BrokerFrame::PublishCredit { .. } | BrokerFrame::Heartbeat => {}
                frame => return frame,
            }
        }
    }

    async fn goodbye(&mut self) -> ErrorBody {
        let error = match self.answer().await {
            BrokerFrame::Goodbye(error) => error,
            other => panic!("{other:?}"),
        };
        assert!(
            timeout(PATIENCE, self.client.next()).await.unwrap().is_none(),
            "closed behind the goodbye"
        );
        error
    }

    async fn ask(&mut self, request: Request) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.send(ClientFrame::Request { id, request }).await;
        id
    }

    async fn refused(&mut self, request: Request) -> ErrorBody {
        let asked = self.ask(request).await;
        match self.answer().await {
            BrokerFrame::Failure { id, error } if id == asked => error,
            other => panic!("{other:?}"),
        }
    }

    async fn done(&mut self, request: Request) -> Response {
        let asked = self.ask(request).await;
        match self.answer().await {
            BrokerFrame::Response { id, response } if id == asked => response,
            other => panic!("{other:?}"),
        }
    }

    async fn attach_producer(&mut self) {
        let name = Some(ProducerName::new("shop").unwrap());
        let attach = Request::AttachProducer { producer: PRODUCER, name, next: Seq(1) };
        assert_eq!(self.done(attach).await, Response::ProducerAttached);
    }

    async fn publish(&mut self, first: u64, key: &str) {
        let publish = Publish {
            producer: PRODUCER,
            first: Seq(first),
            resent: false,
            exchange: ExchangeName::default(),
            routing_key: RoutingKey::new(key).unwrap(),
            messages: block(1),
        };
        self.send(ClientFrame::Publish(publish)).await;
    }

    async fn shard_takes_publishes(&self) -> Vec<QueuePublish> {
        let publishes = self.around.shard.next(|input| match input {
            ShardInput::Publish(publishes) => Some(publishes),
            _ => None,
        });
        publishes.await
    }

    async fn shard_takes_attach(&self) -> AttachConsumer {
        let attach = self.around.shard.next(|input| match input {
            ShardInput::Attach(attach) => Some(attach),
            _ => None,
        });
        attach.await
    }

    async fn shard_hears_that_it_may_go_on(&self) {
        let drained = |input| matches!(input, ShardInput::Drained { .. }).then_some(());
        self.around.shard.next(drained).await;
    }

    /// A consumer, attached in epoch 1.
    async fn attach_consumer(&mut self) -> AttachedConsumer {
        let asked = self.ask(attach_consumer("orders")).await;
        let attach = self.shard_takes_attach().await;
        attach.sink.attached(attached());
        attach.reply.send(Ok(())).unwrap();
        let response = Response::ConsumerAttached(attached());
        assert_eq!(self.answer().await, BrokerFrame::Response { id: asked, response });
        AttachedConsumer { sink: attach.sink }
    }
}

/// The shard's side of a consumer.
struct AttachedConsumer {
    sink: Arc<dyn ConsumerSink>,
}

/// What a shard tells a consumer in epoch 1.
fn attached() -> ConsumerAttached {
    ConsumerAttached {
        epoch: Epoch(1),
        queue: QueueId(uuid::Uuid::from_u128(1)),
        held: Vec::new(),
        settled: Vec::new(),
    }
}

/// A configuration that stays as it is.
fn unchanging() -> tokio::sync::watch::Receiver<Arc<crate::config::BrokerConfig>> {
    let addresses = crate::config::Addresses { client: String::new(), peer: String::new() };
    let id = bellwether_protocol::ids::BrokerId(1);
    let config = crate::config::BrokerConfig::new(id, "unused".into(), addresses);
    tokio::sync::watch::channel(Arc::new(config)).1
}

fn attach_consumer(name: &str) -> Request {
    Request::AttachConsumer {
        consumer: CONSUMER,
        queue: queue(name),
        prefetch: 10,
        prefetch_bytes: 0,
        claim: None,
    }
}

fn block(messages: usize) -> MessageBlock {
    MessageBlock::from_messages((0..messages).map(|_| (None, Bytes::from_static(b"body"))))
}

/// One message with a body of so many bytes.
fn big(bytes: usize) -> MessageBlock {
    MessageBlock::from_messages([(None, Bytes::from(vec![0; bytes]))])
}

fn run(first: u64, messages: MessageBlock) -> DeliveredRun {
    DeliveredRun {
        first: Offset(first),
        redelivered: false,
        returns: 0,
        time_ms: 0,
        exchange: ExchangeName::default(),
        routing_key: RoutingKey::new("orders").unwrap(),
        messages,
    }
}

/// A lease that holds for a long time.
fn lease() -> Lease {
    let lease = Lease::default();
    grant(&lease);
    lease
}

fn grant(lease: &Lease) {
    let promises = Promises::none();
    promises.extend(Instant::now() + Duration::from_secs(600));
    Leases::default().grant(QueueId(uuid::Uuid::from_u128(1)), lease, vec![Arc::new(promises)]);
}

/// Another broker is elected.
async fn move_leader(world: &World, to: u32) {
    use bellwether_coordinator::coordinator::Write;
    use bellwether_coordinator::{paths, records::QueueState};
    let path = paths::queue_state(world.orders);
    let document = world.around.session.read(&path).await.unwrap().unwrap();
    let mut state = QueueState::parse(&document.bytes).unwrap();
    (state.leader, state.epoch) = (Some(life(to)), state.epoch.next());
    let write = Write::Set { path, bytes: state.to_bytes(), version: document.version };
    world.around.session.write(vec![write]).await.unwrap();
    let orders = world.orders;
    let moved = |catalog: &crate::catalog::Catalog| {
        catalog.leader_address(orders).is_some_and(|leader| leader.broker.0 == to)
    };
    world.around.until("the new leader is known", moved).await;
}
