//! Consumers: deliveries under a lease, and settles.

use super::*;

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
    attach.sink.attached(attached());
    attach.sink.deliver(Epoch(1), lease(), vec![run(0, block(1))]);
    attach.reply.send(Ok(())).unwrap();
    assert!(matches!(world.answer().await, BrokerFrame::Response { .. }));
    assert!(matches!(world.answer().await, BrokerFrame::Deliver(_)));
}

/// A deposed leader that wrote it would deliver what its successor may have let somebody settle.
#[tokio::test]
async fn nothing_is_written_once_the_lease_is_over() {
    let mut world = World::new().await;
    let consumer = world.attach_consumer().await;
    // More than the pipe takes: the second waits in the writer while the client does not read.
    consumer.sink.deliver(Epoch(1), lease(), vec![run(0, big(1024 * 1024))]);
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

/// A queue without a lease, perhaps for hours, would take the room of all others.
#[tokio::test]
async fn what_waits_for_its_lease_takes_no_room_from_other_queues() {
    let limits = Limits { outbox_bytes_max: 100_000, ..Limits::default() };
    let mut world = World::with(timing(), limits).await;
    let consumer = world.attach_consumer().await;
    let withdrawn = lease();
    withdrawn.withdraw();
    let big = || big(400_000);
    assert!(!consumer.sink.deliver(Epoch(1), withdrawn, vec![run(0, big())]));
    assert!(!consumer.sink.deliver(Epoch(1), lease(), vec![run(1, big())]));
    assert_eq!(world.delivered().await, Offset(1), "as of another queue");
    world.shard_hears_that_it_may_go_on().await;
}

/// Its rest, minutes later, would make whole what a successor may have delivered and let somebody settle.
#[tokio::test]
async fn the_rest_of_a_delivery_is_kept_back_when_the_lease_ends_in_the_middle_of_it() {
    let mut world = World::new().await;
    let consumer = world.attach_consumer().await;
    let ends = lease();
    // More than the pipe takes.
    consumer.sink.deliver(Epoch(1), ends.clone(), vec![run(0, big(1024 * 1024))]);
    let mut first = [0];
    world.client.get_mut().read_exact(&mut first).await.unwrap();
    ends.end();
    let mut rest = Vec::new();
    timeout(PATIENCE, world.client.get_mut().read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.len() < 1024 * 1024, "{} bytes", rest.len());
}

#[tokio::test]
async fn a_consumer_that_does_not_read_is_held_back_until_there_is_room() {
    let limits = Limits { outbox_bytes_max: 100_000, ..Limits::default() };
    let mut world = World::with(timing(), limits).await;
    let consumer = world.attach_consumer().await;
    let big = || big(400_000);
    assert!(!consumer.sink.deliver(Epoch(1), lease(), vec![run(0, big())]));
    assert!(!consumer.sink.deliver(Epoch(1), lease(), vec![run(1, big())]));
    world.answer().await;
    world.answer().await;
    world.shard_hears_that_it_may_go_on().await;
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
