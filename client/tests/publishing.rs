//! What a producer promises, told against brokers that the test plays.

mod support;

use std::time::Duration;

use bellwether_client::{Client, Message, Outcome, Producer, PublishError, Withheld};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use support::{FakeBroker, Session, bodies, brokers, numbers, patient, soon};

/// A client and a producer attached to the broker, with all the credit they want.
async fn given(broker: &FakeBroker) -> Given {
    given_with(broker, Duration::from_secs(30)).await
}

struct Given {
    client: Client,
    producer: Producer,
    session: Session,
    handle: bellwether_protocol::ids::ProducerHandle,
    name: String,
}

async fn given_with(broker: &FakeBroker, deadline: Duration) -> Given {
    let connecting = patient().connect([broker.socket().to_string()]);
    let (client, mut session) = tokio::join!(connecting, broker.accept());
    let client = client.unwrap();
    let starting = client.producer().to_queue("orders").deadline(deadline).start();
    let (producer, (handle, name, next)) = tokio::join!(starting, session.attach_producer());
    assert_eq!(next.0, 1);
    Given { client, producer: producer.unwrap(), session, handle, name }
}

#[tokio::test]
async fn messages_that_gather_while_a_write_is_under_way_go_out_as_one_batch() {
    let [broker] = brokers().await;
    let mut given = given(&broker).await;
    // One thread: the writer does not run before this task waits, so all of these have gathered by then.
    let mut receipts = Vec::new();
    for number in 0..100 {
        receipts.push(given.producer.send(format!("message {number}")).await.unwrap());
    }
    let publishes = given.session.publishes(100).await;
    assert!(publishes.len() <= 3, "100 messages came in {} frames", publishes.len());
    assert_eq!(bodies(&publishes[0])[0], "message 0");
    given.session.confirm(given.handle, 1, 100).await;
    for receipt in receipts {
        soon("a confirm", receipt).await.unwrap();
    }
}

#[tokio::test]
async fn messages_with_different_addresses_keep_their_order() {
    let [broker] = brokers().await;
    let mut given = given(&broker).await;
    for key in ["a", "a", "b", "a"] {
        let message = Message::new(key).with_key(key).unwrap();
        drop(given.producer.send(message).await.unwrap());
    }
    let publishes = given.session.publishes(4).await;
    let seen: Vec<(u64, String)> = publishes
        .iter()
        .map(|publish| (publish.first.0, publish.routing_key.to_string()))
        .collect();
    assert_eq!(seen, [(1, "a".to_owned()), (3, "b".to_owned()), (4, "a".to_owned())]);
}

#[tokio::test]
async fn a_full_window_holds_the_sender_until_a_confirm_comes() {
    let [broker] = brokers().await;
    let (client, mut session) =
        tokio::join!(patient().connect([broker.socket().to_string()]), broker.accept());
    let client = client.unwrap();
    let starting = client.producer().to_queue("orders").window(2).start();
    let (producer, (handle, ..)) = tokio::join!(starting, session.attach_producer());
    let producer = producer.unwrap();
    drop(producer.send("1").await.unwrap());
    drop(producer.send("2").await.unwrap());
    let mut third = Box::pin(producer.send("3"));
    session.publishes(2).await;
    assert!(futures::poll!(&mut third).is_pending(), "the window of 2 is full");
    session.confirm(handle, 1, 1).await;
    drop(soon("room for the third message", third).await.unwrap());
    assert_eq!(numbers(&session.publishes(1).await), [(3, 1, false)]);
}

#[tokio::test]
async fn no_more_is_sent_than_the_broker_has_granted() {
    let [broker] = brokers().await;
    let (client, mut session) =
        tokio::join!(patient().connect([broker.socket().to_string()]), broker.accept());
    let client = client.unwrap();
    let starting = client.producer().to_queue("orders").start();
    let (producer, (handle, ..)) = tokio::join!(starting, session.attach_producer_without_credit());
    let producer = producer.unwrap();
    for number in 0..10 {
        drop(producer.send(format!("{number}")).await.unwrap());
    }
    session.credit(handle, 3, u64::MAX).await;
    assert_eq!(numbers(&session.publishes(3).await), [(1, 3, false)]);
    session.credit(handle, 4, u64::MAX).await;
    assert_eq!(numbers(&session.publishes(1).await), [(4, 1, false)]);
    // Each message takes five bytes of a block.
    session.credit(handle, 100, 4 * 5 + 10).await;
    assert_eq!(session.publish().await.messages.len(), 10);
    session.credit(handle, 100, 1000).await;
    assert_eq!(numbers(&session.publishes(4).await), [(7, 4, false)]);
}

#[tokio::test]
async fn a_producer_that_waits_for_a_brokers_memory_says_so_until_it_gets_credit_again() {
    let [broker] = brokers().await;
    let (client, mut session) =
        tokio::join!(patient().connect([broker.socket().to_string()]), broker.accept());
    let client = client.unwrap();
    let starting = client.producer().to_queue("orders").start();
    let (producer, (handle, ..)) = tokio::join!(starting, session.attach_producer_without_credit());
    let producer = producer.unwrap();
    for number in 0..4 {
        drop(producer.send(format!("{number}")).await.unwrap());
    }
    assert_eq!(producer.withheld(), None);
    // What was granted may be used, and no more.
    session.withhold(handle, 3, u64::MAX).await;
    session.publishes(3).await;
    assert_eq!(producer.withheld(), Some(Withheld::Memory));
    session.credit(handle, 4, u64::MAX).await;
    session.publishes(1).await;
    assert_eq!(producer.withheld(), None);
}

#[tokio::test]
async fn unconfirmed_messages_are_sent_again_in_order_with_their_numbers_after_a_lost_connection() {
    let [first, second] = brokers().await;
    let mut given = given(&first).await;
    let mut receipts = Vec::new();
    for number in 1..=6 {
        receipts.push(given.producer.send(format!("{number}")).await.unwrap());
    }
    given.session.publishes(6).await;
    // Confirms need not come in order.
    given.session.confirm(given.handle, 1, 2).await;
    given.session.confirm(given.handle, 4, 4).await;
    for receipt in [receipts.remove(0), receipts.remove(0), receipts.remove(1)] {
        soon("an early confirm", receipt).await.unwrap();
    }
    drop((given.session, first));

    let mut session = second.accept().await;
    let (handle, name, next) = session.attach_producer().await;
    assert_eq!((name, next.0), (given.name, 3), "the same producer, from the lowest unconfirmed");
    let publishes = session.publishes(3).await;
    assert_eq!(numbers(&publishes), [(3, 1, true), (5, 2, true)]);
    assert_eq!(bodies(&publishes[1]), ["5", "6"]);
    session.confirm(handle, 3, 6).await;
    for receipt in receipts {
        soon("a late confirm", receipt).await.unwrap();
    }
}

#[tokio::test]
async fn after_a_refusal_that_may_pass_everything_is_sent_anew_and_in_order() {
    let [broker] = brokers().await;
    let mut given = given(&broker).await;
    let mut receipts = Vec::new();
    for number in 1..=3 {
        receipts.push(given.producer.send(format!("{number}")).await.unwrap());
    }
    given.session.publishes(3).await;
    let error = ErrorBody::not_done(ErrorCode::NotEnoughReplicas, "one replica is away");
    given.session.fail_publish(given.handle, 1, 1, error).await;
    let error = ErrorBody::not_done(ErrorCode::OutOfSequence, "1 is missing");
    given.session.fail_publish(given.handle, 2, 3, error).await;
    let publishes = given.session.publishes(3).await;
    assert_eq!(numbers(&publishes), [(1, 3, false)], "refused copies are no copies");
    given.session.confirm(given.handle, 1, 3).await;
    for receipt in receipts {
        soon("a confirm", receipt).await.unwrap();
    }
}

#[tokio::test]
async fn a_late_refusal_of_an_earlier_copy_says_nothing_about_the_one_under_way() {
    let [broker] = brokers().await;
    let mut given = given(&broker).await;
    let first = given.producer.send("1").await.unwrap();
    given.session.publishes(1).await;
    let mut second = given.producer.send("2").await.unwrap();
    given.session.publishes(1).await;
    let error = ErrorBody::not_done(ErrorCode::NotEnoughReplicas, "one replica is away");
    given.session.fail_publish(given.handle, 1, 1, error).await;
    let publishes = given.session.publishes(2).await;
    assert_eq!(publishes.len(), 2);
    assert!(publishes[1].resent, "its first copy is not answered yet");
    let error = ErrorBody::not_done(ErrorCode::NoSuchQueue, "of the first copy");
    given.session.fail_publish(given.handle, 2, 2, error).await;
    given.session.confirm(given.handle, 1, 1).await;
    soon("the first confirm", first).await.unwrap();
    assert!(futures::poll!(&mut second).is_pending());
    given.session.confirm(given.handle, 2, 2).await;
    soon("the second confirm", second).await.unwrap();
}

#[tokio::test]
async fn a_definite_refusal_reaches_its_receipt_and_no_other() {
    let [broker] = brokers().await;
    let mut given = given(&broker).await;
    let first = given.producer.send("1").await.unwrap();
    let second = given.producer.send("2").await.unwrap();
    given.session.publishes(2).await;
    let error = ErrorBody::not_done(ErrorCode::NoSuchQueue, "no queue \"orders\"");
    given.session.fail_publish(given.handle, 1, 1, error).await;
    given.session.confirm(given.handle, 2, 2).await;
    let error = soon("the refusal", first).await.unwrap_err();
    assert!(matches!(error, PublishError::NoSuchQueue { .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::NotDone);
    soon("the confirm", second).await.unwrap();
    let flushed = soon("a flush", given.producer.flush()).await.unwrap_err();
    assert_eq!(flushed.failed, 1);
    soon("another flush", given.producer.flush()).await.unwrap();
}

#[tokio::test]
async fn at_the_deadline_a_sent_message_is_unknown_and_an_unsent_one_is_not_done() {
    let [broker] = brokers().await;
    let mut given = given_with(&broker, Duration::from_millis(300)).await;
    let sent = given.producer.send("sent").await.unwrap();
    given.session.publishes(1).await;
    drop((given.session, broker));
    let unsent = {
        // Wait for the fact that the client knows the connection to be gone: only then is a message surely unsent.
        loop {
            let receipt = given.producer.send("unsent").await.unwrap();
            match soon("an outcome", receipt).await {
                Err(error) if error.outcome() == Outcome::NotDone => break error,
                other => assert!(other.is_err(), "there is no broker to confirm it"),
            }
        }
    };
    assert!(matches!(unsent, PublishError::Unavailable { .. }), "{unsent:?}");
    let error = soon("an outcome", sent).await.unwrap_err();
    assert!(matches!(error, PublishError::Unconfirmed { .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::Unknown);
}

#[tokio::test]
async fn a_message_refused_for_now_until_the_deadline_is_not_done() {
    let [broker] = brokers().await;
    let mut given = given_with(&broker, Duration::from_millis(400)).await;
    let receipt = given.producer.send("1").await.unwrap();
    let refusing = async {
        loop {
            given.session.publish().await;
            let error = ErrorBody::not_done(ErrorCode::DiskFull, "the disk is nearly full");
            given.session.fail_publish(given.handle, 1, 1, error).await;
        }
    };
    let error = tokio::select! {
        outcome = soon("an outcome", receipt) => outcome.unwrap_err(),
        () = refusing => unreachable!("refuses for ever"),
    };
    assert_eq!(error.outcome(), Outcome::NotDone);
    assert!(error.to_string().contains("the disk is nearly full"), "{error}");
}

#[tokio::test]
async fn a_refusal_of_a_message_that_was_sent_before_a_failover_is_unknown() {
    let [first, second] = brokers().await;
    let mut given = given(&first).await;
    let receipt = given.producer.send("1").await.unwrap();
    given.session.publishes(1).await;
    drop((given.session, first));
    let mut session = second.accept().await;
    let (handle, ..) = session.attach_producer().await;
    session.publishes(1).await;
    let error = ErrorBody::not_done(ErrorCode::NoSuchQueue, "no queue \"orders\"");
    session.fail_publish(handle, 1, 1, error).await;
    let error = soon("an outcome", receipt).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "the first broker may have stored it: {error}");
}

#[tokio::test]
async fn a_dropped_receipt_cancels_nothing_and_a_closed_producer_has_sent_everything() {
    let [broker] = brokers().await;
    let mut given = given(&broker).await;
    drop(given.producer.send("1").await.unwrap());
    let closing = tokio::spawn(given.producer.close());
    assert_eq!(bodies(&given.session.publish().await), ["1"]);
    assert!(!closing.is_finished());
    given.session.confirm(given.handle, 1, 1).await;
    soon("the close", closing).await.unwrap().unwrap();
    drop(given.client);
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_before_it_is_sent() {
    let [mut broker] = brokers().await;
    broker.message_bytes_max = 100;
    let mut given = given(&broker).await;
    let error = given.producer.send(vec![0; 101]).await.unwrap_err();
    assert_eq!(error, PublishError::TooLarge { bytes: 101, bytes_max: 100 });
    drop(given.producer.send(vec![0; 100]).await.unwrap());
    assert_eq!(given.session.publish().await.first.0, 1);
}

#[tokio::test]
async fn a_forgotten_name_is_replaced_and_nothing_doubtful_is_sent_under_the_new_one() {
    let [first, second] = brokers().await;
    let mut given = given(&first).await;
    let doubtful = given.producer.send("doubtful").await.unwrap();
    given.session.publishes(1).await;
    drop((given.session, first));
    let mut session = second.accept().await;
    let (handle, ..) = session.attach_producer().await;
    session.publishes(1).await;
    let error = ErrorBody::not_done(ErrorCode::ProducerForgotten, "the producer was forgotten");
    session.fail_publish(handle, 1, 1, error).await;
    let error = soon("an outcome", doubtful).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    let fresh = given.producer.send("fresh").await.unwrap();
    let (handle, name, next) = session.attach_producer().await;
    assert_ne!(name, given.name);
    assert_eq!(numbers(&session.publishes(1).await), [(next.0, 1, false)]);
    session.confirm(handle, next.0, next.0).await;
    soon("a confirm", fresh).await.unwrap();
}

#[tokio::test]
async fn a_confirm_of_what_was_never_sent_is_not_believed() {
    let [broker] = brokers().await;
    let (client, mut session) =
        tokio::join!(patient().connect([broker.socket().to_string()]), broker.accept());
    let client = client.unwrap();
    let starting = client.producer().to_queue("orders").start();
    let (producer, (handle, ..)) = tokio::join!(starting, session.attach_producer_without_credit());
    let producer = producer.unwrap();
    let mut receipt = producer.send("1").await.unwrap();
    session.confirm(handle, 1, 1000).await;
    session.credit(handle, 10, 1000).await;
    assert_eq!(numbers(&session.publishes(1).await), [(1, 1, false)]);
    assert!(futures::poll!(&mut receipt).is_pending());
    session.confirm(handle, 1, 1).await;
    soon("the true confirm", receipt).await.unwrap();
}
