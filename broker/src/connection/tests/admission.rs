//! The handshake, heartbeats, limits, and what is no frame.

use super::*;

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
async fn handles_in_use_and_a_prefetch_of_nothing_are_refused() {
    let mut world = World::new().await;
    world.attach_consumer().await;
    assert_eq!(world.refused(attach_consumer("orders")).await.code, ErrorCode::InvalidOption);
    let attach = Request::AttachConsumer {
        consumer: ConsumerHandle(2),
        queue: queue("orders"),
        prefetch: 0,
        prefetch_bytes: 0,
        claim: None,
    };
    assert_eq!(world.refused(attach).await.code, ErrorCode::InvalidOption);
    let unknown = Request::AttachConsumer {
        consumer: ConsumerHandle(2),
        queue: queue("nothing"),
        prefetch: 1,
        prefetch_bytes: 0,
        claim: None,
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

/// Over real sockets: what a client that is turned away reads.
#[tokio::test]
async fn whoever_is_turned_away_hears_why_and_gets_in_when_there_is_room() {
    let world = World::new().await;
    let bounds = crate::config::Bounds { handshakes_max: 1, ..Default::default() };
    let limits = Limits { bounds, ..Limits::default() };
    let service = Service::new(
        world.around.catalog.clone(),
        Arc::clone(&world.around.shard) as Arc<dyn ShardGate>,
        Arc::clone(&world.around.peers) as Arc<dyn PeerGate>,
        Arc::default(),
        limits,
        &timing(),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(serve(listener, service, unchanging(), world.shutdown.clone()));
    let connect = || async {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        Framed::new(socket, FrameCodec::<BrokerFrame>::new(FrameLimits::CLIENT))
    };
    let mut silent = connect().await;
    let mut turned_away = connect().await;
    turned_away.send(ClientFrame::Hello(hello())).await.unwrap();
    match turned_away.next().await.unwrap().unwrap() {
        BrokerFrame::Goodbye(error) => {
            assert_eq!(error.code, ErrorCode::TooManyHandshakes);
            assert!(error.code.is_worth_retrying() && error.message.contains("handshakes-max"));
        }
        other => panic!("{other:?}"),
    }
    silent.send(ClientFrame::Hello(hello())).await.unwrap();
    assert!(matches!(silent.next().await.unwrap().unwrap(), BrokerFrame::Welcome(_)));
    let mut next = connect().await;
    next.send(ClientFrame::Hello(hello())).await.unwrap();
    assert!(matches!(next.next().await.unwrap().unwrap(), BrokerFrame::Welcome(_)));
    world.shutdown.cancel();
    serving.await.unwrap();
}
