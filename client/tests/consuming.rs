//! What a consumer promises, told against brokers that the test plays.

mod support;

use std::time::Duration;

use bellwether_client::{Client, ConsumeError, Consumer, Delivery, Outcome, SettleError, Settled};
use bellwether_protocol::client::{BrokerFrame, ClientFrame, Request, Settlement};
use bellwether_protocol::error::{BrokerAddress, ErrorBody, ErrorCode, Outcome as WireOutcome};
use bellwether_protocol::ids::{ConsumerHandle, Offset, OffsetRange};
use support::{FakeBroker, Session, brokers, patient, soon};

struct Given {
    client: Client,
    consumer: Consumer,
    session: Session,
    handle: ConsumerHandle,
}

async fn connected(broker: &FakeBroker) -> (Client, Session) {
    let connecting = patient().connect([broker.socket().to_string()]);
    let (client, session) = tokio::join!(connecting, broker.accept());
    (client.unwrap(), session)
}

/// A consumer attached in this epoch, with three messages on their way.
async fn given(broker: &FakeBroker, epoch: u64) -> Given {
    let (client, mut session) = connected(broker).await;
    let starting = tokio::spawn(client.consumer("orders").prefetch(10).start());
    let handle = session.attach_consumer(epoch).await;
    session.deliver(handle, epoch, 100, &["a", "b", "c"]).await;
    let consumer = tokio::select! {
        consumer = soon("a consumer", starting) => consumer.unwrap().unwrap(),
        settle = session.settle() => panic!("nothing to settle yet: {settle:?}"),
    };
    Given { client, consumer, session, handle }
}

async fn next(consumer: &mut Consumer) -> Delivery {
    soon("a delivery", consumer.next()).await.expect("the stream goes on").unwrap()
}

fn ranges(ranges: &[(u64, u64)]) -> Vec<OffsetRange> {
    ranges.iter().map(|(first, end)| OffsetRange::new(Offset(*first), Offset(*end))).collect()
}

#[tokio::test]
async fn deliveries_carry_what_was_published_and_acks_go_out_as_one_range() {
    let [broker] = brokers().await;
    let mut given = given(&broker, 3).await;
    let first = next(&mut given.consumer).await;
    assert_eq!((&first.body()[..], first.offset(), first.epoch()), (&b"a"[..], 100, 3));
    assert_eq!((first.exchange(), first.routing_key()), ("", "orders"));
    let second = next(&mut given.consumer).await;
    let third = next(&mut given.consumer).await;
    let acks = [first.ack(), third.ack(), second.ack()];
    let settle = given.session.settle().await;
    assert_eq!((settle.number, settle.epoch.0, settle.settlement), (1, 3, Settlement::Ack));
    assert_eq!(settle.ranges, ranges(&[(100, 103)]));
    given.session.settled(given.handle, 1).await;
    for ack in acks {
        soon("the confirm of an ack", ack).await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_delivery_returns_to_its_queue() {
    let [broker] = brokers().await;
    let mut given = given(&broker, 1).await;
    drop(next(&mut given.consumer).await);
    let settle = given.session.settle().await;
    assert_eq!(settle.settlement, Settlement::Return);
    assert_eq!(settle.ranges, ranges(&[(100, 101)]));
}

#[tokio::test]
async fn each_kind_of_settlement_has_a_frame_of_its_own_in_the_order_of_their_numbers() {
    let [broker] = brokers().await;
    let mut given = given(&broker, 1).await;
    let (a, b, c) = (
        next(&mut given.consumer).await,
        next(&mut given.consumer).await,
        next(&mut given.consumer).await,
    );
    let settled = [a.reject(), b.return_(), c.ack()];
    let mut seen = Vec::new();
    for number in 1..=3 {
        let settle = given.session.settle().await;
        assert_eq!(settle.number, number);
        seen.push(settle.settlement);
    }
    assert_eq!(seen, [Settlement::Reject, Settlement::Return, Settlement::Ack]);
    let error = ErrorBody::not_done(ErrorCode::Stale, "not held");
    let refused = BrokerFrame::SettleFailed { consumer: given.handle, number: 2, error };
    given.session.send(refused).await;
    given.session.settled(given.handle, 3).await;
    let [reject, return_, ack] = settled;
    soon("the reject", reject).await.unwrap();
    soon("the ack", ack).await.unwrap();
    let error = soon("the return", return_).await.unwrap_err();
    assert!(matches!(error, SettleError::Stale { .. }), "{error:?}");
}

#[tokio::test]
async fn ranges_settle_what_is_held_and_nothing_else() {
    let [broker] = brokers().await;
    let mut given = given(&broker, 1).await;
    let a = next(&mut given.consumer).await;
    let b = next(&mut given.consumer).await;
    let c = next(&mut given.consumer).await;
    drop(b.return_());
    let up_to = given.consumer.ack_up_to(&c);
    assert_eq!(given.session.settle().await.ranges, ranges(&[(101, 102)]));
    assert_eq!(given.session.settle().await.ranges, ranges(&[(100, 101), (102, 103)]));
    given.session.settled(given.handle, 2).await;
    soon("the range", up_to).await.unwrap();
    // They are settled: dropping them returns nothing, and settling them again is stale.
    drop(a);
    let error = soon("a second ack", c.ack()).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotDone);
    given.session.deliver(given.handle, 1, 103, &["d", "e"]).await;
    let rest = [next(&mut given.consumer).await, next(&mut given.consumer).await];
    let all = given.consumer.ack_all(rest);
    let settle = given.session.settle().await;
    assert_eq!((settle.number, settle.ranges), (3, ranges(&[(103, 105)])));
    given.session.settled(given.handle, 3).await;
    soon("the batch", all).await.unwrap();
}

#[tokio::test]
async fn deliveries_of_an_older_epoch_than_was_seen_are_dropped() {
    let [broker] = brokers().await;
    let mut given = given(&broker, 5).await;
    given.session.deliver(given.handle, 4, 200, &["from a deposed leader"]).await;
    given.session.deliver(given.handle, 5, 103, &["d"]).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(next(&mut given.consumer).await);
    }
    let offsets: Vec<u64> = seen.iter().map(Delivery::offset).collect();
    assert_eq!(offsets, [100, 101, 102, 103]);
}

/// A consumer with "a" (100) in its hand, an ack of "b" (101) sent, one of "c" (102) sent as well, and its leader gone.
struct Failover {
    consumer: Consumer,
    held: Delivery,
    b: Settled,
    c: Settled,
    /// At the new leader.
    session: Session,
    _new: FakeBroker,
}

async fn failover() -> Failover {
    let [old, new] = brokers().await;
    let mut given = given(&old, 1).await;
    let held = next(&mut given.consumer).await;
    let b = next(&mut given.consumer).await.ack();
    given.session.settle().await;
    let c = next(&mut given.consumer).await.ack();
    given.session.settle().await;
    drop((given.session, old));
    let mut session = new.accept().await;
    // The cluster does not know the new leader at once.
    for _ in 0..2 {
        let (id, request) = session.request().await;
        assert!(matches!(request, Request::AttachConsumer { .. }), "{request:?}");
        session.redirect(id, None).await;
    }
    Failover { consumer: given.consumer, held, b, c, session, _new: new }
}

#[tokio::test]
async fn a_consumer_takes_what_it_holds_to_the_next_leader_and_settles_it_there() {
    let mut given = failover().await;
    let (handle, claim) = given.session.attach_claimant(2, 7, &[(100, 102)], &[(102, 103)]).await;
    let claim = claim.unwrap();
    assert_eq!((claim.epoch.0, claim.ranges), (1, ranges(&[(100, 103)])));
    soon("the ack that was committed", given.c).await.unwrap();
    let settle = given.session.settle().await;
    assert_eq!((settle.number, settle.epoch.0), (1, 2), "numbers begin anew");
    assert_eq!(settle.ranges, ranges(&[(101, 102)]), "what was not committed is sent again");
    let acked = given.held.ack();
    let settle = given.session.settle().await;
    assert_eq!((settle.number, settle.epoch.0), (3, 2), "one number was for what is done");
    assert_eq!(settle.ranges, ranges(&[(100, 101)]));
    given.session.settled(handle, 3).await;
    soon("the ack that was sent again", given.b).await.unwrap();
    soon("the ack of what was in hand", acked).await.unwrap();
    given.session.deliver(handle, 2, 103, &["d"]).await;
    assert_eq!(next(&mut given.consumer).await.offset(), 103);
}

#[tokio::test]
async fn what_the_next_leader_has_given_to_another_is_stale_and_unknown_if_an_ack_was_on_its_way() {
    let mut given = failover().await;
    let (handle, _) = given.session.attach_claimant(2, 7, &[], &[(102, 103)]).await;
    let error = soon("the ack that was sent", given.b).await.unwrap_err();
    assert!(matches!(error, SettleError::Unsettled { .. }), "{error:?}");
    let error = soon("the ack of what was in hand", given.held.ack()).await.unwrap_err();
    assert!(matches!(error, SettleError::Stale { stale: 1, .. }), "{error:?}");
    // The other has left, and now it comes here.
    given.session.deliver(handle, 2, 100, &["a", "b"]).await;
    let again = next(&mut given.consumer).await;
    assert_eq!((again.offset(), again.epoch()), (100, 2));
    let acked = again.ack();
    let settle = given.session.settle().await;
    assert_eq!((settle.number, settle.ranges), (1, ranges(&[(100, 101)])));
    given.session.settled(handle, 1).await;
    soon("the ack", acked).await.unwrap();
}

/// The connection was lost and the leader was not: it may be about to commit the settle.
#[tokio::test]
async fn what_the_same_leader_neither_gives_back_nor_has_settled_is_unknown() {
    let [broker] = brokers().await;
    let mut given = given(&broker, 3).await;
    let sent = next(&mut given.consumer).await.ack();
    given.session.settle().await;
    drop(given.session);
    let mut session = broker.accept().await;
    session.attach_claimant(3, 7, &[], &[]).await;
    let error = soon("the ack that was sent", sent).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
}

/// A leadership that moves: what it can no longer settle it says so of, and the next one is asked.
#[tokio::test]
async fn a_settle_that_the_leader_hands_on_is_settled_by_the_next_one() {
    let [broker] = brokers().await;
    let mut given = given(&broker, 1).await;
    let acked = next(&mut given.consumer).await.ack();
    let number = given.session.settle().await.number;
    let error = ErrorBody::not_done(ErrorCode::NotLeader, "being handed over");
    let consumer = given.handle;
    given.session.send(BrokerFrame::SettleFailed { consumer, number, error: error.clone() }).await;
    given.session.send(BrokerFrame::ConsumerClosed { consumer, error }).await;
    let (handle, _) = given.session.attach_claimant(2, 7, &[(100, 101)], &[]).await;
    assert_eq!(given.session.settle().await.ranges, ranges(&[(100, 101)]));
    given.session.settled(handle, 1).await;
    soon("the ack", acked).await.unwrap();
}

#[tokio::test]
async fn a_consumer_that_is_closed_during_a_failover_settles_with_the_next_leader() {
    let mut given = failover().await;
    // What nobody claims goes back.
    drop(given.held);
    let closing = tokio::spawn(given.consumer.close());
    let (handle, claim) = given.session.attach_claimant(2, 7, &[(101, 103)], &[]).await;
    assert_eq!(claim.unwrap().ranges, ranges(&[(101, 103)]));
    given.session.settle().await;
    let last = given.session.settle().await;
    given.session.settled(handle, last.number).await;
    soon("one ack", given.b).await.unwrap();
    soon("the other", given.c).await.unwrap();
    soon("the close", closing).await.unwrap();
}

#[tokio::test]
async fn a_redirect_is_followed_to_the_leader() {
    let [entry, leader] = brokers().await;
    let (client, mut session) = connected(&entry).await;
    let starting = tokio::spawn(client.consumer("orders").start());
    let (id, _) = session.request().await;
    session.redirect(id, Some(leader.address())).await;
    let mut at_leader = leader.accept().await;
    let handle = at_leader.attach_consumer(1).await;
    at_leader.deliver(handle, 1, 0, &["a"]).await;
    let mut consumer = tokio::select! {
        consumer = soon("a consumer", starting) => consumer.unwrap().unwrap(),
        settle = at_leader.settle() => panic!("nothing to settle yet: {settle:?}"),
    };
    assert_eq!(next(&mut consumer).await.offset(), 0);
}

#[tokio::test]
async fn a_consumer_closed_by_its_broker_goes_where_it_is_told() {
    let [old, new] = brokers().await;
    let mut given = given(&old, 1).await;
    let error = ErrorBody {
        code: ErrorCode::NotLeader,
        outcome: WireOutcome::NotDone,
        message: "handed over".to_owned(),
        leader: Some(new.address()),
    };
    let closed = BrokerFrame::ConsumerClosed { consumer: given.handle, error };
    given.session.send(closed).await;
    let mut session = new.accept().await;
    let handle = session.attach_consumer(2).await;
    session.deliver(handle, 2, 100, &["a"]).await;
    assert_eq!(next(&mut given.consumer).await.epoch(), 2);
}

#[tokio::test]
async fn a_leader_that_was_named_but_is_silent_does_not_hold_the_consumer_up() {
    let [entry, frozen, new] = brokers().await;
    let (client, mut session) = connected(&entry).await;
    let starting = tokio::spawn(client.consumer("orders").start());
    let (id, _) = session.request().await;
    session.redirect(id, Some(frozen.address())).await;
    let _silent = frozen.accept_silently().await;
    let (id, _) = session.request().await;
    session.redirect(id, Some(new.address())).await;
    let mut at_new = new.accept().await;
    at_new.attach_consumer(2).await;
    soon("a consumer", starting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_leader_that_is_just_slow_is_reached_on_the_connection_that_was_begun() {
    let [entry, slow] = brokers().await;
    let (client, mut session) = connected(&entry).await;
    let starting = tokio::spawn(client.consumer("orders").start());
    let (id, _) = session.request().await;
    session.redirect(id, Some(slow.address())).await;
    let mut at_slow = slow.accept_unwelcomed().await;
    // Others are asked again meanwhile, and know no better.
    let (id, _) = session.request().await;
    session.redirect(id, Some(slow.address())).await;
    at_slow.hello().await;
    at_slow.send(BrokerFrame::Welcome(slow.welcome())).await;
    at_slow.attach_consumer(1).await;
    soon("a consumer", starting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_deposed_leader_that_still_answers_is_left() {
    let [old, new] = brokers().await;
    let mut given = given(&old, 5).await;
    drop(given.session);
    // It is there again, and believes in an older epoch.
    let mut deposed = tokio::select! {
        session = old.accept() => session,
        mut session = new.accept() => {
            let (id, _) = session.request().await;
            let address = BrokerAddress { ..old.address() };
            session.redirect(id, Some(address)).await;
            old.accept().await
        }
    };
    deposed.attach_consumer(4).await;
    // Same identity, older epoch: it is the old leader, and it is asked again until it knows better.
    let handle = deposed.attach_consumer(6).await;
    deposed.deliver(handle, 6, 100, &["a"]).await;
    assert_eq!(next(&mut given.consumer).await.epoch(), 6);
}

#[tokio::test]
async fn a_queue_declared_anew_under_the_same_name_ends_the_stream() {
    let [broker] = brokers().await;
    let mut given = given(&broker, 5).await;
    drop(given.session);
    let mut session = broker.accept().await;
    let serving = async {
        session.attach_consumer_of(1, 8).await;
        session.attach_consumer_of(1, 8).await;
    };
    let ended = tokio::select! {
        ended = soon("the end of the stream", given.consumer.next()) => ended.unwrap(),
        () = serving => panic!("attached to another queue of the same name"),
    };
    assert!(matches!(ended, Err(ConsumeError::NoSuchQueue { .. })), "{ended:?}");
    assert!(soon("the end", given.consumer.next()).await.is_none());
}

/// A leader was killed and started again within a moment; it took clients before it had read the catalog, knew of no
/// queue, and the stream ended although nothing was lost.
#[tokio::test]
async fn a_broker_that_does_not_know_the_queue_after_a_failover_is_asked_twice() {
    let [broker] = brokers().await;
    let mut given = given(&broker, 1).await;
    drop(given.session);
    let mut session = broker.accept().await;
    let (id, _) = session.request().await;
    session.refuse(id, ErrorCode::NoSuchQueue, "there is no queue orders").await;
    let handle = session.attach_consumer(2).await;
    session.deliver(handle, 2, 100, &["a"]).await;
    assert_eq!(next(&mut given.consumer).await.epoch(), 2);
}

#[tokio::test]
async fn a_queue_that_is_gone_after_a_failover_ends_the_stream() {
    let [broker] = brokers().await;
    let mut given = given(&broker, 1).await;
    drop(given.session);
    let mut session = broker.accept().await;
    for _ in 0..2 {
        let (id, _) = session.request().await;
        session.refuse(id, ErrorCode::NoSuchQueue, "there is no queue orders").await;
    }
    let end = soon("the end of the stream", given.consumer.next()).await.unwrap();
    assert!(matches!(end, Err(ConsumeError::NoSuchQueue { .. })), "{end:?}");
}

#[tokio::test]
async fn a_deleted_queue_ends_the_stream_with_its_reason() {
    let [broker] = brokers().await;
    let mut given = given(&broker, 1).await;
    let error = ErrorBody::not_done(ErrorCode::NoSuchQueue, "queue \"orders\" was deleted");
    let closed = BrokerFrame::ConsumerClosed { consumer: given.handle, error };
    given.session.send(closed).await;
    let end = loop {
        match soon("the end", given.consumer.next()).await.expect("an error comes first") {
            Ok(delivery) => drop(delivery),
            Err(error) => break error,
        }
    };
    assert!(matches!(end, ConsumeError::NoSuchQueue { .. }), "{end:?}");
    assert!(soon("the end", given.consumer.next()).await.is_none());
}

#[tokio::test]
async fn more_messages_than_the_prefetch_end_the_connection() {
    let [broker] = brokers().await;
    let mut given = given(&broker, 1).await;
    given.session.deliver(given.handle, 1, 103, &["x"; 8]).await;
    assert_eq!(given.session.next_or_end().await, None);
}

#[tokio::test]
async fn a_dropped_consumer_settles_what_it_was_told_and_detaches() {
    let [broker] = brokers().await;
    let mut given = given(&broker, 1).await;
    drop(next(&mut given.consumer).await.ack());
    drop(given.consumer);
    assert_eq!(given.session.settle().await.ranges, ranges(&[(100, 101)]));
    given.session.settled(given.handle, 1).await;
    let (_, request) = given.session.request().await;
    assert_eq!(request, Request::DetachConsumer { consumer: given.handle });
}

#[tokio::test]
async fn a_closed_consumer_waits_for_its_confirms_and_then_detaches() {
    let [broker] = brokers().await;
    let mut given = given(&broker, 1).await;
    let acked = next(&mut given.consumer).await.ack();
    let closing = tokio::spawn(given.consumer.close());
    given.session.settle().await;
    assert!(!closing.is_finished());
    given.session.settled(given.handle, 1).await;
    soon("the ack", acked).await.unwrap();
    soon("the close", closing).await.unwrap();
    let (_, request) = given.session.request().await;
    assert_eq!(request, Request::DetachConsumer { consumer: given.handle });
}

#[tokio::test]
async fn a_settle_that_nobody_confirms_is_unknown_at_the_deadline() {
    let [broker] = brokers().await;
    // Long enough to connect on a busy machine.
    let deadline = Duration::from_secs(1);
    let connecting = patient().deadline(deadline).connect([broker.socket().to_string()]);
    let (client, mut session) = tokio::join!(connecting, broker.accept());
    let client = client.unwrap();
    let starting = tokio::spawn(client.consumer("orders").start());
    let handle = session.attach_consumer(1).await;
    session.deliver(handle, 1, 0, &["a"]).await;
    let mut consumer = tokio::select! {
        consumer = soon("a consumer", starting) => consumer.unwrap().unwrap(),
        settle = session.settle() => panic!("nothing to settle yet: {settle:?}"),
    };
    let error = soon("the deadline", next(&mut consumer).await.ack()).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
}

#[tokio::test]
async fn a_closed_client_confirms_its_settles_and_says_goodbye() {
    let [broker] = brokers().await;
    let mut given = given(&broker, 1).await;
    let acked = next(&mut given.consumer).await.ack();
    let closing = tokio::spawn(given.client.close());
    given.session.settle().await;
    given.session.settled(given.handle, 1).await;
    soon("the ack", acked).await.unwrap();
    assert_eq!(given.session.next().await, ClientFrame::Goodbye);
    assert_eq!(given.session.next_or_end().await, None);
    soon("the close", closing).await.unwrap().unwrap();
    let end = loop {
        match soon("the end of the stream", given.consumer.next()).await {
            Some(Ok(delivery)) => drop(delivery),
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(ConsumeError::Closed))), "{end:?}");
}
