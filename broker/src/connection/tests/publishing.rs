//! Publishes, their credit and their confirms.

use super::*;

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
        BrokerFrame::PublishCredit { producer: PRODUCER, messages, bytes, withheld: None }
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

/// All of a client's publishes were kept while the catalog was asked about the first, counted by nobody.
#[tokio::test(start_paused = true)]
async fn while_the_catalog_is_asked_about_a_name_little_more_is_read_and_it_is_counted() {
    const BYTES: usize = 64 * 1024;
    let (around, _watcher) = Surroundings::that_is_held_up().await;
    let nowhere = QueueId(uuid::Uuid::from_u128(1));
    let origin = Origin::default();
    let mut world =
        World::among(around, nowhere, timing(), Limits::default(), false, origin, |socket| socket);
    world.send(ClientFrame::Hello(hello())).await;
    assert!(matches!(world.next().await, BrokerFrame::Welcome(_)));
    world.attach_producer().await;
    let metrics = Arc::clone(&world.metrics);
    let (reading, mut writing) = tokio::io::split(world.client.into_inner());
    let publishing = tokio::spawn(async move {
        for first in 1..=60 {
            let publish = Publish {
                producer: PRODUCER,
                first: Seq(first),
                resent: false,
                exchange: ExchangeName::default(),
                routing_key: RoutingKey::new("nowhere").unwrap(),
                messages: big(BYTES),
            };
            let mut bytes = BytesMut::new();
            ClientFrame::Publish(publish).encode(&mut bytes);
            writing.write_all(&bytes).await.unwrap();
        }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let held = metrics.publish_bytes_in_flight.get() as usize;
    assert!((4 * BYTES..=6 * BYTES).contains(&held), "{held} bytes are kept");
    assert!(!publishing.is_finished(), "nothing more is read");
    // The catalog does not catch up: they are refused, and the rest is asked for in turn.
    let limits = FrameLimits::CLIENT;
    let mut reading =
        tokio_util::codec::FramedRead::new(reading, FrameCodec::<BrokerFrame>::new(limits));
    let mut refused = 0;
    while refused < 60 {
        match reading.next().await.unwrap().unwrap() {
            BrokerFrame::PublishFailed { range, error, .. } => {
                assert_eq!(error.outcome, Outcome::NotDone);
                refused += range.last.0 - range.first.0 + 1;
            }
            BrokerFrame::PublishCredit { .. } | BrokerFrame::Heartbeat => {}
            other => panic!("{other:?}"),
        }
    }
    publishing.await.unwrap();
    assert_eq!(metrics.publish_bytes_in_flight.get(), 0);
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
    let forwarded = world.around.peers.forwarded(2).await;
    let forwarded =
        forwarded.iter().map(|(to, publish)| (to.broker.0, publish.first.0, publish.resent));
    assert_eq!(forwarded.collect::<Vec<_>>(), [(2, 1, true), (2, 2, true)]);
}
