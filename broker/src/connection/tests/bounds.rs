//! What a connection may take of the broker: frames that never end, credit under a memory limit, answers that nobody reads.

use bellwether_protocol::client::Withheld;

use super::*;
use crate::config::Bounds;
use crate::memory::{Pool, PoolLimits};

const MIB: u64 = 1024 * 1024;

fn limits(bounds: Bounds) -> Limits {
    Limits { bounds, ..Limits::default() }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_comes_byte_by_byte_is_cut_off_though_the_client_is_never_silent() {
    let frame_timeout = Duration::from_secs(5);
    let mut world =
        World::with(timing(), limits(Bounds { frame_timeout, ..Bounds::default() })).await;
    let began = tokio::time::Instant::now();
    // Sixty bytes are announced, and one comes each second.
    world.client.get_mut().write_all(&[0, 0, 0, 60, 3]).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.client.get_mut().write_all(&[0]).await.unwrap();
    }
    let error = world.goodbye().await;
    assert_eq!(error.code, ErrorCode::FrameTimeout);
    assert!(error.message.contains("frame-timeout"), "{}", error.message);
    assert!(began.elapsed() >= frame_timeout && began.elapsed() < 2 * frame_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_large_frame_has_more_time_than_a_small_one_and_whole_frames_begin_anew() {
    let frame_timeout = Duration::from_secs(5);
    let mut world =
        World::with(timing(), limits(Bounds { frame_timeout, ..Bounds::default() })).await;
    // 8 MiB in 32 s more.
    world.client.get_mut().write_all(&[0, 0x80, 0, 0, 3]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.client.get_mut().write_all(&[0; 100]).await.unwrap();
    let began = tokio::time::Instant::now();
    assert_eq!(world.goodbye().await.code, ErrorCode::FrameTimeout);
    assert!(began.elapsed() > Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn many_whole_frames_with_a_partial_one_behind_each_are_no_late_frame() {
    let frame_timeout = Duration::from_secs(5);
    let mut world =
        World::with(timing(), limits(Bounds { frame_timeout, ..Bounds::default() })).await;
    let mut heartbeat = BytesMut::new();
    ClientFrame::Heartbeat.encode(&mut heartbeat);
    let (head, tail) = heartbeat.split_at(2);
    world.client.get_mut().write_all(head).await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        world.client.get_mut().write_all(tail).await.unwrap();
        world.client.get_mut().write_all(head).await.unwrap();
    }
    world.client.get_mut().write_all(tail).await.unwrap();
    assert!(matches!(world.done(Request::ListExchanges).await, Response::Exchanges(_)));
}

#[tokio::test(start_paused = true)]
async fn above_the_memory_limit_producers_wait_for_credit_and_get_it_when_it_has_drained() {
    let mut world = World::with(timing(), Limits::default()).await;
    let metrics = Arc::clone(&world.metrics);
    metrics.memory.limit(PoolLimits::split(1000 * MIB, MIB, MIB));
    metrics.memory.held(Pool::Queues).set(500 * MIB);
    assert_eq!(metrics.memory.look(), Some(true));
    world.attach_producer().await;
    // It is told once what it waits for.
    match world.next().await {
        BrokerFrame::PublishCredit { producer, messages: 0, bytes: 0, withheld } => {
            assert_eq!((producer, withheld), (PRODUCER, Some(Withheld::Memory)))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(metrics.producers_withheld.get(), 1);
    // Then nothing but silence, however long: and settles, requests and heartbeats are served.
    assert!(matches!(world.done(Request::ListExchanges).await, Response::Exchanges(_)));
    assert!(timeout(Duration::from_secs(20), world.client.next()).await.is_err());
    world.send(ClientFrame::Heartbeat).await;
    metrics.memory.held(Pool::Queues).set(0);
    assert_eq!(metrics.memory.look(), Some(false));
    match world.next().await {
        BrokerFrame::PublishCredit { producer, messages, withheld, .. } => {
            assert!(producer == PRODUCER && messages > 0 && withheld.is_none())
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(metrics.producers_withheld.get(), 0);
}

#[tokio::test]
async fn a_large_frame_waits_for_room_in_the_socket_and_comes_in_when_there_is_some() {
    let limits =
        Limits { message_bytes_max: MIB, frame_bytes_max: MIB + 65_536, ..Limits::default() };
    let mut world = World::with(timing(), limits).await;
    world.attach_producer().await;
    assert!(matches!(world.next().await, BrokerFrame::PublishCredit { .. }));
    let all = world.service.frame_room.take_all();
    let publish = Publish {
        producer: PRODUCER,
        first: Seq(1),
        resent: false,
        exchange: ExchangeName::default(),
        routing_key: RoutingKey::new("orders").unwrap(),
        messages: big(200_000),
    };
    let mut bytes = BytesMut::new();
    ClientFrame::Publish(publish).encode(&mut bytes);
    // The pipe takes all of it; the broker no more than what it reads before it knows the length.
    world.client.get_mut().write_all(&bytes).await.unwrap();
    let reads = world.metrics.memory.held(Pool::Connections);
    world.around.until("the broker has begun to read", |_| reads.get() > 0).await;
    assert!(reads.get() < 100_000, "{} bytes are held", reads.get());
    assert_eq!(world.metrics.published_messages.get(), 0);
    drop(all);
    assert_eq!(world.shard_takes_publishes().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_and_never_reads_is_cut_off_before_its_answers_fill_the_memory() {
    let outbox = outbox::Outbox::new(1024, Arc::default());
    let answer = || {
        let exchanges =
            vec![
                (ExchangeName::default(), bellwether_protocol::client::ExchangeKind::Direct);
                10_000
            ];
        BrokerFrame::Response { id: RequestId(1), response: Response::Exchanges(exchanges) }
    };
    let mut pushed = 0;
    while !outbox.is_overflown() {
        outbox.push(answer());
        pushed += 1;
        assert!(pushed < 20, "each is two megabytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_gone_after_the_write_timeout() {
    let write_timeout = Duration::from_secs(3);
    let mut world =
        World::with(timing(), limits(Bounds { write_timeout, ..Bounds::default() })).await;
    let consumer = world.attach_consumer().await;
    // More than the pipe holds.
    consumer.sink.deliver(Epoch(1), lease(), vec![run(0, big(1024 * 1024))]);
    let gone = |input| matches!(input, ShardInput::Detach { .. }).then_some(());
    world.around.shard.next(gone).await;
    let metrics = Arc::clone(&world.metrics);
    world
        .around
        .until("its memory is free", |_| metrics.memory.held(Pool::Outboxes).get() == 0)
        .await;
}

#[tokio::test]
async fn with_the_outbox_pool_full_each_consumer_still_gets_a_run_at_a_time() {
    let mut world = World::with(timing(), Limits::default()).await;
    world.metrics.memory.limit(PoolLimits::split(100 * MIB, MIB, MIB));
    let others = 99 * MIB;
    world.metrics.memory.held(Pool::Outboxes).add(others);
    let consumer = world.attach_consumer().await;
    for first in 0..5 {
        let room = consumer.sink.deliver(Epoch(1), lease(), vec![run(first, block(1))]);
        assert!(!room, "held back behind each run");
        assert_eq!(world.delivered().await, Offset(first));
        world.shard_hears_that_it_may_go_on().await;
    }
}

#[tokio::test]
async fn producers_and_consumers_of_all_connections_have_a_limit_that_is_named() {
    let bounds = Bounds { producers_max: 1, consumers_max: 1, ..Bounds::default() };
    let mut world = World::with(timing(), limits(bounds)).await;
    world.attach_producer().await;
    world.attach_consumer().await;
    let another = |producer| Request::AttachProducer { producer, name: None, next: Seq(1) };
    let error = world.refused(another(ProducerHandle(2))).await;
    assert_eq!(error.code, ErrorCode::BrokerLimit);
    assert!(error.message.contains("producers-max"), "{}", error.message);
    let consumer = Request::AttachConsumer {
        consumer: ConsumerHandle(2),
        queue: queue("orders"),
        prefetch: 1,
        prefetch_bytes: 0,
        claim: None,
    };
    assert!(world.refused(consumer).await.message.contains("consumers-max"));
    world.done(Request::DetachProducer { producer: PRODUCER }).await;
    assert_eq!(world.done(another(ProducerHandle(2))).await, Response::ProducerAttached);
}

/// Waits for a fact that nothing tells of. With time that stands still while anybody has something to do.
async fn come_true(fact: &str, holds: impl Fn() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("{fact}"));
}

/// A frame that announces so many bytes, and nothing of them.
fn head(length: u32) -> BytesMut {
    BytesMut::from(&[&length.to_be_bytes()[..], &[3]].concat()[..])
}

/// A hundred connections to one broker, each with a part of a frame of 900 kB, and room for three of them: those that hold it have to
/// go on or to go.
#[tokio::test(start_paused = true)]
async fn half_frames_of_many_hold_no_more_than_their_room_and_those_that_hold_it_longest_go_first()
{
    let mut world = World::new().await;
    let mut attackers = Vec::new();
    for _ in 0..100 {
        attackers.push(world.another().await);
    }
    let room = 3 * 910_000;
    let others = world.service.frame_room.leave(room);
    for attacker in &mut attackers {
        attacker.get_mut().write_all(&head(900_000)).await.unwrap();
        attacker.get_mut().write_all(&[0; 100_000]).await.unwrap();
    }
    let metrics = Arc::clone(&world.metrics);
    let held = |pool| metrics.memory.held(pool).get();
    come_true("the room is used", || held(Pool::Frames) > 2_500_000).await;
    assert!(held(Pool::Frames) <= room);
    // Buffers of those that wait, and of the three that hold room.
    assert!(held(Pool::Connections) < 100 * 16 * 1024, "{}", held(Pool::Connections));
    let began = tokio::time::Instant::now();
    match attackers[0].next().await.unwrap().unwrap() {
        BrokerFrame::Goodbye(error) => {
            assert_eq!(error.code, ErrorCode::FrameTimeout);
            assert!(error.message.contains("other clients wait"), "{}", error.message);
        }
        other => panic!("{other:?}"),
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // Those that never get room do not wait for ever either.
    match attackers[99].next().await.unwrap().unwrap() {
        BrokerFrame::Goodbye(error) => {
            assert!(error.message.contains("there was no memory"), "{}", error.message);
        }
        other => panic!("{other:?}"),
    }
    drop(others);
    attackers.clear();
    come_true("all is given back", || held(Pool::Frames) == 0).await;
    assert!(matches!(world.done(Request::ListExchanges).await, Response::Exchanges(_)));
}

#[tokio::test(start_paused = true)]
async fn a_small_frame_needs_no_room_and_a_connection_earns_a_larger_buffer_only_with_whole_frames()
{
    let mut world = World::new().await;
    let all = world.service.frame_room.take_all();
    let metrics = Arc::clone(&world.metrics);
    // Half of 6 KiB, and then the rest: no room is asked for.
    let mut request = BytesMut::new();
    let name = "x".repeat(200);
    let ask = Request::PurgeQueue { queue: queue(&name) };
    ClientFrame::Request { id: RequestId(7), request: ask }.encode(&mut request);
    let (first, rest) = request.split_at(100);
    world.client.get_mut().write_all(first).await.unwrap();
    world.client.get_mut().write_all(rest).await.unwrap();
    assert!(matches!(world.answer().await, BrokerFrame::Failure { id: RequestId(7), .. }));
    world.client.get_mut().write_all(&head(MIB as u32)).await.unwrap();
    world.client.get_mut().write_all(&[0; 200_000]).await.unwrap();
    let held = || metrics.memory.held(Pool::Connections).get();
    come_true("a part of the frame has arrived", || held() > 0).await;
    assert!(held() < 16 * 1024, "{} bytes for a frame that has no room", held());
    drop(all);
}

/// Asks without end and reads nothing: the broker stops reading long before the answers are a burden, and the writer's patience
/// ends it.
#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_its_answers_unread_is_not_read_any_more_until_it_reads() {
    let world = World::new().await;
    for number in 0..200 {
        world.around.declare(&format!("queue-{number}")).await;
    }
    let metrics = Arc::clone(&world.metrics);
    let held = |pool| metrics.memory.held(pool).get();
    let mut asks = BytesMut::new();
    for id in 0..200 {
        // Long asks: the pipe holds few of them.
        let after = Some(queue(&"a".repeat(250)));
        let request = Request::ListQueues { after, limit: 200 };
        ClientFrame::Request { id: RequestId(1_000 + id), request }.encode(&mut asks);
    }
    // More than the pipe takes, so that it is the broker who leaves them there.
    const ROUNDS: u64 = 30;
    let (reading, mut writing) = tokio::io::split(world.client.into_inner());
    let asking = tokio::spawn(async move {
        let mut asked = 0_u64;
        for _ in 0..ROUNDS {
            writing.write_all(&asks).await.unwrap();
            asked += 200;
        }
        asked
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!asking.is_finished(), "the broker has stopped reading");
    let most = (ANSWERS_BYTES_MAX + 200 * 192 * 2) as u64;
    assert!(held(Pool::Answers) <= most, "{} bytes of answers are kept", held(Pool::Answers));
    // It reads: everything that was asked is answered, or refused for want of room among the open requests.
    let mut reading = tokio_util::codec::FramedRead::new(
        reading,
        FrameCodec::<BrokerFrame>::new(FrameLimits::CLIENT),
    );
    let mut answers = 0;
    while answers < ROUNDS * 200 {
        match reading.next().await.unwrap().unwrap() {
            BrokerFrame::Response { .. } | BrokerFrame::Failure { .. } => answers += 1,
            BrokerFrame::Heartbeat => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(asking.await.unwrap(), ROUNDS * 200);
    come_true("nothing is left", || held(Pool::Answers) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn with_the_pool_of_answers_used_up_a_long_answer_waits_and_a_short_one_does_not() {
    let mut world = World::new().await;
    world.metrics.memory.limit(PoolLimits::split(100 * MIB, MIB, MIB));
    let full = world.metrics.memory.limit_of(Pool::Answers).unwrap();
    world.metrics.memory.held(Pool::Answers).add(full);
    let listed = world.ask(Request::ListExchanges).await;
    world.attach_producer().await;
    assert!(
        timeout(Duration::from_secs(5), world.client.next())
            .await
            .is_ok_and(|frame| matches!(frame, Some(Ok(BrokerFrame::PublishCredit { .. }))))
    );
    // Somebody reads.
    world.metrics.memory.held(Pool::Answers).subtract(full);
    world.metrics.memory.answers_read.notify_one();
    assert!(matches!(world.answer().await, BrokerFrame::Response { id, .. } if id == listed));
}
