//! Stories of a connection: over an in-memory pipe, with a shard that only takes notes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_protocol::client::{
    BrokerFrame, ClientFrame, Deliver, DeliveredRun, Hello, Publish, Request, Response, Settle,
    Settlement,
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
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::time::timeout;
use tokio_util::codec::Framed;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::catalog::doubles::{PATIENCE, Surroundings, host, life, queue};
use crate::config::{Limits, Timing};
use crate::shard::input::{
    AttachConsumer, ConsumerSink, Lease, Leases, Promises, QueuePublish, ShardInput,
};

const PRODUCER: ProducerHandle = ProducerHandle(1);
const CONSUMER: ConsumerHandle = ConsumerHandle(1);

/// A broker with one connection to it.
struct World {
    around: Surroundings,
    orders: QueueId,
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
    }
}

fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_secs(30),
        handshake_timeout: Duration::from_secs(5),
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
        let around = Surroundings::new().await;
        let orders = around.declare("orders").await;
        let service = Service::new(
            around.catalog.clone(),
            Arc::clone(&around.shard) as Arc<dyn ShardGate>,
            Arc::clone(&around.peers) as Arc<dyn PeerGate>,
            Arc::default(),
            limits,
            &timing,
        );
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        let shutdown = CancellationToken::new();
        tokio::spawn(serve_connection(theirs, Arc::new(service), shutdown.clone()));
        let client = Framed::new(ours, FrameCodec::new(FrameLimits::CLIENT));
        World { around, orders, client, requests: 0, shutdown }
    }

    async fn send(&mut self, frame: ClientFrame) {
        self.client.send(frame).await.unwrap();
    }

    async fn next(&mut self) -> BrokerFrame {
        let next = timeout(PATIENCE, self.client.next()).await.expect("the broker answers in time");
        next.expect("the connection is open").unwrap()
    }

    /// The next frame that is not credit or a heartbeat.
    /// The first offset of the delivery that comes next.
    async fn delivered(&mut self) -> Offset {
        match self.answer().await {
            BrokerFrame::Deliver(deliver) => deliver.runs[0].first,
            other => panic!("{other:?} is no delivery"),
        }
    }

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

    /// A consumer, attached in epoch 1.
    async fn attach_consumer(&mut self) -> AttachedConsumer {
        let asked = self.ask(attach_consumer("orders")).await;
        let attach = self.shard_takes_attach().await;
        attach.reply.send(Ok(Epoch(1))).unwrap();
        match self.answer().await {
            BrokerFrame::Response {
                id,
                response: Response::ConsumerAttached { epoch: Epoch(1) },
            } => assert_eq!(id, asked),
            other => panic!("{other:?}"),
        }
        AttachedConsumer { sink: attach.sink }
    }
}

/// The shard's side of a consumer.
struct AttachedConsumer {
    sink: Arc<dyn ConsumerSink>,
}

fn attach_consumer(name: &str) -> Request {
    Request::AttachConsumer {
        consumer: CONSUMER,
        queue: queue(name),
        prefetch: 10,
        prefetch_bytes: 0,
    }
}

fn block(messages: usize) -> MessageBlock {
    MessageBlock::from_messages((0..messages).map(|_| (None, Bytes::from_static(b"body"))))
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

#[tokio::test]
async fn a_version_from_the_future_is_told_which_versions_are_spoken() {
    let mut world = World::before_hello(timing(), Limits::default()).await;
    world.send(ClientFrame::Hello(Hello { version_min: 7, version_max: 9, ..hello() })).await;
    let error = world.goodbye().await;
    assert_eq!(error.code, ErrorCode::UnsupportedVersion);
    assert!(error.message.contains("7 to 9"), "{}", error.message);
}

#[tokio::test]
async fn nothing_is_done_for_who_has_not_said_hello() {
    let mut world = World::before_hello(timing(), Limits::default()).await;
    world.ask(Request::ListExchanges).await;
    assert_eq!(world.goodbye().await.code, ErrorCode::UnexpectedFrame);
}

#[tokio::test]
async fn a_long_frame_before_the_handshake_is_refused_by_its_length() {
    let mut world = World::before_hello(timing(), Limits::default()).await;
    world.client.get_mut().write_all(&[0, 1, 0, 0]).await.unwrap();
    assert_eq!(world.goodbye().await.code, ErrorCode::FrameTooLarge);
}

#[tokio::test]
async fn bytes_that_are_no_frame_are_answered_with_what_is_wrong_with_them() {
    let mut world = World::new().await;
    world.client.get_mut().write_all(&[0, 0, 0, 1, 0xc1]).await.unwrap();
    assert_eq!(world.goodbye().await.code, ErrorCode::MalformedFrame);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_closed_after_two_heartbeats_and_one_that_beats_is_not() {
    let heartbeat = Duration::from_secs(5);
    let mut world = World::with(Timing { heartbeat, ..timing() }, Limits::default()).await;
    for _ in 0..5 {
        tokio::time::sleep(heartbeat).await;
        world.send(ClientFrame::Heartbeat).await;
    }
    let silent_since = tokio::time::Instant::now();
    assert_eq!(world.goodbye().await.code, ErrorCode::HeartbeatMissed);
    assert!(silent_since.elapsed() >= 2 * heartbeat - Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_client_hears_something_as_often_as_it_asked_for() {
    let mut world = World::before_hello(
        Timing { heartbeat: Duration::from_secs(600), ..timing() },
        Limits::default(),
    )
    .await;
    world.send(ClientFrame::Hello(Hello { heartbeat_ms: 1_000, ..hello() })).await;
    assert!(matches!(world.next().await, BrokerFrame::Welcome(_)));
    for _ in 0..3 {
        let asked = tokio::time::Instant::now();
        assert_eq!(world.next().await, BrokerFrame::Heartbeat);
        assert!(asked.elapsed() <= Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_publish_goes_to_the_queues_shard_and_is_confirmed_when_that_says_so() {
    let mut world = World::new().await;
    world.attach_producer().await;
    world.publish(1, "orders").await;
    let publishes = world.shard_takes_publishes().await;
    assert_eq!((publishes[0].queue, publishes[0].first), (world.orders, Seq(1)));
    publishes[0].origin.outcomes(vec![(publishes[0].token, Ok(()))]);
    let ranges = vec![SeqRange { first: Seq(1), last: Seq(1) }];
    assert_eq!(world.answer().await, BrokerFrame::Confirmed { producer: PRODUCER, ranges });
}

#[tokio::test]
async fn the_first_credit_comes_with_the_attach() {
    let mut world = World::new().await;
    world.ask(Request::AttachProducer { producer: PRODUCER, name: None, next: Seq(1) }).await;
    assert!(matches!(world.next().await, BrokerFrame::Response { .. }));
    let limits = Limits::default();
    let (messages, bytes) = (limits.producer_credit_messages, limits.producer_credit_bytes);
    assert_eq!(
        world.next().await,
        BrokerFrame::PublishCredit { producer: PRODUCER, messages, bytes }
    );
}

#[tokio::test]
async fn a_publish_to_an_unknown_queue_is_refused_by_name() {
    let mut world = World::new().await;
    world.attach_producer().await;
    world.publish(1, "oders").await;
    match world.answer().await {
        BrokerFrame::PublishFailed { error, .. } => {
            assert_eq!((error.code, error.outcome), (ErrorCode::NoSuchQueue, Outcome::NotDone));
            assert!(error.message.contains("oders"), "{}", error.message);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_publish_to_a_queue_declared_elsewhere_a_moment_ago_finds_it() {
    let mut world = World::new().await;
    world.attach_producer().await;
    world.around.faults().delay_changes();
    let other = Surroundings::beside(world.around.embedded.clone(), 2, Vec::new()).await;
    other.declare("fresh").await;
    world.around.faults().tell_changes();
    world.publish(1, "fresh").await;
    world.publish(2, "orders").await;
    let publishes = world.shard_takes_publishes().await;
    assert!(!publishes.is_empty());
}

#[tokio::test]
async fn settles_and_requests_do_not_wait_behind_publishes_to_a_full_shard() {
    let mut world = World::new().await;
    world.attach_producer().await;
    world.around.shard.set_full(true);
    world.publish(1, "orders").await;
    assert!(matches!(world.done(Request::ListExchanges).await, Response::Exchanges(_)));
    world.around.shard.set_full(false);
    assert_eq!(world.shard_takes_publishes().await[0].first, Seq(1));
}

#[tokio::test]
async fn deliveries_reach_the_client_and_settles_the_shard() {
    let mut world = World::new().await;
    let consumer = world.attach_consumer().await;
    assert!(consumer.sink.deliver(Epoch(1), lease(), vec![run(5, block(3))]));
    let expected = Deliver { consumer: CONSUMER, epoch: Epoch(1), runs: vec![run(5, block(3))] };
    assert_eq!(world.answer().await, BrokerFrame::Deliver(expected));
    let ranges = vec![OffsetRange::new(Offset(5), Offset(8))];
    let settle = Settle {
        consumer: CONSUMER,
        number: 1,
        epoch: Epoch(1),
        settlement: Settlement::Ack,
        ranges,
    };
    world.send(ClientFrame::Settle(settle)).await;
    let settles = world.around.shard.next(|input| match input {
        ShardInput::Settle(settles) => Some(settles),
        _ => None,
    });
    assert_eq!(settles.await[0].number, 1);
    consumer.sink.settled(1);
    assert_eq!(world.answer().await, BrokerFrame::Settled { consumer: CONSUMER, up_to: 1 });
}

#[tokio::test]
async fn the_answer_to_an_attach_goes_before_the_first_delivery() {
    let mut world = World::new().await;
    world.ask(attach_consumer("orders")).await;
    let attach = world.shard_takes_attach().await;
    attach.sink.deliver(Epoch(1), lease(), vec![run(0, block(1))]);
    attach.reply.send(Ok(Epoch(1))).unwrap();
    assert!(matches!(world.answer().await, BrokerFrame::Response { .. }));
    assert!(matches!(world.answer().await, BrokerFrame::Deliver(_)));
}

/// A deposed leader that wrote it would deliver what its successor may have let somebody settle.
#[tokio::test]
async fn nothing_is_written_once_the_lease_is_over() {
    let mut world = World::new().await;
    let consumer = world.attach_consumer().await;
    // More than the pipe takes: the second waits in the writer while the client does not read.
    let big = MessageBlock::from_messages([(None, Bytes::from(vec![0; 1024 * 1024]))]);
    consumer.sink.deliver(Epoch(1), lease(), vec![run(0, big)]);
    let lost = lease();
    consumer.sink.deliver(Epoch(1), lost.clone(), vec![run(1, block(2))]);
    lost.end();
    assert_eq!(world.delivered().await, Offset(0));
    consumer.sink.settled(9);
    assert!(matches!(world.answer().await, BrokerFrame::Settled { .. }), "and not the delivery");
}

/// Were it dropped and handed out again, what was handed out behind it would be delivered before it.
#[tokio::test]
async fn what_the_lease_does_not_cover_for_the_moment_is_held_back_in_its_order() {
    let mut world = World::new().await;
    let consumer = world.attach_consumer().await;
    let shaky = lease();
    shaky.withdraw();
    consumer.sink.deliver(Epoch(1), shaky.clone(), vec![run(0, block(1))]);
    consumer.sink.settled(1);
    assert!(
        matches!(world.answer().await, BrokerFrame::Settled { .. }),
        "others do not wait for it"
    );
    consumer.sink.deliver(Epoch(1), shaky.clone(), vec![run(1, block(1))]);
    grant(&shaky);
    consumer.sink.deliver(Epoch(1), shaky, vec![run(2, block(1))]);
    for offset in 0..3 {
        assert_eq!(world.delivered().await, Offset(offset));
    }
}

#[tokio::test]
async fn a_consumer_that_does_not_read_is_held_back_until_there_is_room() {
    let limits = Limits { outbox_bytes_max: 100_000, ..Limits::default() };
    let mut world = World::with(timing(), limits).await;
    let consumer = world.attach_consumer().await;
    let big = || MessageBlock::from_messages([(None, Bytes::from(vec![0; 400_000]))]);
    assert!(!consumer.sink.deliver(Epoch(1), lease(), vec![run(0, big())]));
    assert!(!consumer.sink.deliver(Epoch(1), lease(), vec![run(1, big())]));
    world.answer().await;
    world.answer().await;
    world
        .around
        .shard
        .next(|input| matches!(input, ShardInput::Drained { .. }).then_some(()))
        .await;
}

#[tokio::test]
async fn a_consumer_whose_queue_moves_is_told_where_to_go() {
    let mut world = World::new().await;
    let consumer = world.attach_consumer().await;
    let two = Surroundings::beside(world.around.embedded.clone(), 2, Vec::new()).await;
    world.around.until("the other broker is known", |catalog| catalog.addresses().len() == 2).await;
    move_leader(&world, 2).await;
    consumer.sink.closed(ErrorBody::not_done(ErrorCode::NotLeader, "led elsewhere"));
    match world.answer().await {
        BrokerFrame::ConsumerClosed { consumer: CONSUMER, error } => {
            assert_eq!(error.leader.unwrap().address, "127.0.0.1:5002");
        }
        other => panic!("{other:?}"),
    }
    let error = world.refused(attach_consumer("orders")).await;
    assert_eq!((error.code, error.leader.unwrap().broker), (ErrorCode::NotLeader, two.me.broker));
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

#[tokio::test]
async fn publishes_follow_the_leader_to_another_broker() {
    let mut world = World::new().await;
    world.attach_producer().await;
    world.publish(1, "orders").await;
    world.publish(2, "orders").await;
    world.shard_takes_publishes().await;
    let _two = Surroundings::beside(world.around.embedded.clone(), 2, Vec::new()).await;
    world.around.until("the other broker is known", |catalog| catalog.addresses().len() == 2).await;
    world.around.peers.up.store(true, Ordering::Release);
    move_leader(&world, 2).await;
    let forwarded = eventually(|| {
        let forwarded = world.around.peers.forwarded.lock().unwrap();
        (forwarded.len() == 2).then(|| {
            forwarded
                .iter()
                .map(|(to, publish)| (to.broker.0, publish.first.0, publish.resent))
                .collect::<Vec<_>>()
        })
    });
    assert_eq!(forwarded.await, [(2, 1, true), (2, 2, true)]);
}

async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let looked = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, looked).await.expect("it happens in time")
}

#[tokio::test]
async fn what_a_leaving_client_holds_goes_back() {
    let mut world = World::new().await;
    world.attach_consumer().await;
    world.send(ClientFrame::Goodbye).await;
    let orders = world.orders;
    let detached = world.around.shard.next(|input| match input {
        ShardInput::Detach { queue, .. } => Some(queue),
        _ => None,
    });
    assert_eq!(detached.await, orders);
}

#[tokio::test]
async fn settles_of_unknown_and_of_closed_consumers_are_refused() {
    let mut world = World::new().await;
    let settle = |number| {
        let ranges = vec![OffsetRange::new(Offset(0), Offset(1))];
        ClientFrame::Settle(Settle {
            consumer: CONSUMER,
            number,
            epoch: Epoch(1),
            settlement: Settlement::Ack,
            ranges,
        })
    };
    world.send(settle(1)).await;
    match world.answer().await {
        BrokerFrame::SettleFailed { error, .. } => {
            assert_eq!(error.code, ErrorCode::NoSuchConsumer)
        }
        other => panic!("{other:?}"),
    }
    let consumer = world.attach_consumer().await;
    consumer.sink.closed(ErrorBody::not_done(ErrorCode::NoSuchQueue, "deleted"));
    assert!(matches!(world.answer().await, BrokerFrame::ConsumerClosed { .. }));
    world.send(settle(1)).await;
    match world.answer().await {
        BrokerFrame::SettleFailed { error, .. } => {
            assert_eq!((error.code, error.outcome), (ErrorCode::Stale, Outcome::NotDone))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn handles_in_use_and_a_prefetch_of_nothing_are_refused() {
    let mut world = World::new().await;
    world.attach_consumer().await;
    assert_eq!(world.refused(attach_consumer("orders")).await.code, ErrorCode::InvalidOption);
    let attach = Request::AttachConsumer {
        consumer: ConsumerHandle(2),
        queue: queue("orders"),
        prefetch: 0,
        prefetch_bytes: 0,
    };
    assert_eq!(world.refused(attach).await.code, ErrorCode::InvalidOption);
    let unknown = Request::AttachConsumer {
        consumer: ConsumerHandle(2),
        queue: queue("nothing"),
        prefetch: 1,
        prefetch_bytes: 0,
    };
    let error = world.refused(unknown).await;
    assert_eq!(error.code, ErrorCode::NoSuchQueue);
    assert!(error.message.contains(host().as_str()), "{}", error.message);
    let detach = Request::DetachConsumer { consumer: ConsumerHandle(9) };
    assert_eq!(world.refused(detach).await.code, ErrorCode::NoSuchConsumer);
}

#[tokio::test]
async fn requests_over_the_limit_are_refused_at_once() {
    let limits = Limits { requests_in_flight_max: 2, ..Limits::default() };
    let mut world = World::with(timing(), limits).await;
    for _ in 0..3 {
        world.ask(Request::DescribeQueue { queue: queue("orders") }).await;
    }
    match world.answer().await {
        BrokerFrame::Failure { id, error } => {
            assert_eq!((id, error.code), (RequestId(3), ErrorCode::ConnectionLimit))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stopping_broker_says_goodbye() {
    let mut world = World::new().await;
    world.shutdown.cancel();
    assert_eq!(world.goodbye().await.code, ErrorCode::ShuttingDown);
}

#[tokio::test]
async fn frames_cut_anywhere_are_put_together() {
    let mut world = World::new().await;
    let mut bytes = BytesMut::new();
    ClientFrame::Request { id: RequestId(1), request: Request::ListExchanges }.encode(&mut bytes);
    for byte in bytes {
        world.client.get_mut().write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(matches!(world.answer().await, BrokerFrame::Response { .. }));
}
