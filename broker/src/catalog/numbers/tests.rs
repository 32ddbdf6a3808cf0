//! Histories of declarations at their limits.

use bellwether_coordinator::coordinator::Write;
use bellwether_coordinator::paths;
use bellwether_coordinator::records::{HoldingStore, TombstoneRecord, UnknownFields};
use bellwether_protocol::client::ExchangeKind;
use bellwether_protocol::ids::{BrokerId, QueueId};
use bellwether_protocol::names::{ExchangeName, RoutingKey};

use super::super::doubles::*;
use super::*;

fn exchange(name: &str) -> ExchangeName {
    ExchangeName::new(name).unwrap()
}

async fn declares(world: &Surroundings, name: &str) -> Result<(), ErrorBody> {
    world.catalog.declare_queue(&host(), &queue(name), options(1)).await.map(drop)
}

async fn declares_exchange(world: &Surroundings, name: &str) -> Result<(), ErrorBody> {
    world.catalog.declare_exchange(&host(), &exchange(name), ExchangeKind::Direct).await
}

async fn binds(world: &Surroundings, name: &str, key: &str) -> Result<(), ErrorBody> {
    let key = RoutingKey::new(key).unwrap();
    world.catalog.bind(&host(), &exchange("e"), &queue(name), &key).await
}

#[track_caller]
fn expect_full(answer: Result<(), ErrorBody>, parts: &[&str]) {
    let error = answer.unwrap_err();
    assert_eq!(error.code, ErrorCode::LimitReached, "{}", error.message);
    for part in parts {
        assert!(error.message.contains(part), "{part}: {}", error.message);
    }
}

#[tokio::test]
async fn queues_beyond_the_limit_are_refused_until_it_is_raised_or_one_is_gone_and_what_is_there_is_found()
 {
    let world = Surroundings::new().await;
    world.set_numbers(|numbers| numbers.queues_max = 2);
    for name in ["a", "b"] {
        declares(&world, name).await.unwrap();
    }
    let parts = ["there are 2 queues", "queues-max allows 2", "config set queues-max"];
    expect_full(declares(&world, "c").await, &parts);
    declares(&world, "a").await.expect("it is there already");
    assert_eq!(world.catalog.refused_for_number(), 1);
    world.set_numbers(|numbers| numbers.queues_max = 3);
    declares(&world, "c").await.unwrap();
    let queues = world.catalog.counted().into_iter().find(|one| one.of == NumberOf::Queues);
    assert_eq!(queues, Some(Number { of: NumberOf::Queues, used: 3, most: 3 }));
}

/// A broker whose copy is behind does not take that for room.
#[tokio::test]
async fn what_was_declared_on_another_broker_counts_at_once() {
    let one = Surroundings::new().await;
    let two = Surroundings::beside(one.embedded.clone(), 2, Vec::new()).await;
    for world in [&one, &two] {
        world.set_numbers(|numbers| numbers.queues_max = 4);
    }
    for round in 0..2 {
        for (broker, world) in [&one, &two].into_iter().enumerate() {
            declares(world, &format!("q{broker}{round}")).await.unwrap();
        }
    }
    expect_full(declares(&one, "one more").await, &["there are 4 queues"]);
    expect_full(declares(&two, "one more").await, &["there are 4 queues"]);
    declares(&one, "q10").await.expect("made elsewhere, it is there");
}

/// Brokers do not ask each other: each lets one through that it cannot know of, and no more.
#[tokio::test]
async fn brokers_that_race_come_to_one_too_many_each_but_for_the_first() {
    let one = Surroundings::new().await;
    let two = Surroundings::beside(one.embedded.clone(), 2, Vec::new()).await;
    for world in [&one, &two] {
        world.set_numbers(|numbers| numbers.queues_max = 10);
    }
    let names: Vec<String> = (0..40).map(|number| format!("q{number}")).collect();
    let all = names.iter().enumerate().map(|(at, name)| {
        let world = if at % 2 == 0 { &one } else { &two };
        declares(world, name)
    });
    let answers = futures::future::join_all(all).await;
    let made = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((10..=11).contains(&made), "{made} were made");
    for answer in answers.into_iter().filter(Result::is_err) {
        expect_full(answer, &["queues-max allows 10"]);
    }
}

#[tokio::test]
async fn far_below_a_limit_nobody_waits_for_another_declaration() {
    let world = Surroundings::new().await;
    let deadline = Instant::now() + PATIENCE;
    let rooms = futures::future::join_all(
        (0..100).map(|_| world.catalog.room_for(Declared::Queue, deadline)),
    );
    let rooms: Vec<Room> = rooms.await.into_iter().map(Result::unwrap).collect();
    assert_eq!(
        world.catalog.shared.under_way.of(Declared::Queue).count.load(Ordering::Acquire),
        100
    );
    drop(rooms);
    assert_eq!(world.catalog.shared.under_way.of(Declared::Queue).count.load(Ordering::Acquire), 0);
    let number = |used| Number { of: NumberOf::Queues, used, most: 10_000 };
    assert!(is_far(&number(8_900), 99) && !is_far(&number(8_900), 100));
    assert!(!is_far(&Number { most: 1_000, ..number(0) }, 0), "a small limit is always counted");
}

#[tokio::test]
async fn exchanges_and_bindings_have_limits_of_their_own() {
    let world = Surroundings::new().await;
    world.set_numbers(|numbers| {
        numbers.exchanges_max = 1;
        numbers.bindings_max = 3;
        numbers.bindings_per_queue_max = 2;
    });
    for name in ["q", "r"] {
        declares(&world, name).await.unwrap();
    }
    declares_exchange(&world, "e").await.unwrap();
    expect_full(declares_exchange(&world, "f").await, &["1 exchanges", "exchanges-max allows 1"]);
    declares_exchange(&world, "e").await.expect("it is there already");
    binds(&world, "q", "1").await.unwrap();
    binds(&world, "q", "2").await.unwrap();
    expect_full(binds(&world, "q", "3").await, &["the queue has 2", "bindings-per-queue-max"]);
    binds(&world, "q", "2").await.expect("it is bound already");
    binds(&world, "r", "1").await.unwrap();
    expect_full(binds(&world, "r", "2").await, &["3 bindings in the cluster", "bindings-max"]);
    let key = RoutingKey::new("1").unwrap();
    world.catalog.unbind(&host(), &exchange("e"), &queue("q"), &key).await.unwrap();
    binds(&world, "r", "2").await.expect("one made room");
}

/// Each broker keeps every tombstone in memory: with one broker away, queues that come and go by the second would fill all others.
#[tokio::test]
async fn queues_that_come_and_go_while_a_broker_is_away_are_bounded_and_the_refusal_says_who_is_away()
 {
    let world = Surroundings::new().await;
    world.set_numbers(|numbers| numbers.deleted_queues_max = 1);
    let id = QueueId(uuid::Uuid::from_u128(77));
    let away = HoldingStore { broker: BrokerId(9), store: None, unknown: UnknownFields::new() };
    let tombstone = TombstoneRecord {
        queue: id,
        virtual_host: host(),
        name: queue("gone"),
        stores: Some(vec![away]),
        unknown: UnknownFields::new(),
    };
    let path = paths::deleted(id);
    world.session.make_parents(&path.parent().unwrap()).await.unwrap();
    let write = Write::Create { path, bytes: tombstone.to_bytes(), ephemeral: false };
    world.session.write(vec![write]).await.unwrap();
    let refused = declares(&world, "one more").await;
    let parts = ["1 deleted queues", "broker 9, which is away", "cluster retire", "allows 1"];
    expect_full(refused, &parts);
    let delete = Write::Delete { path: paths::deleted(id), version: None };
    world.session.write(vec![delete]).await.unwrap();
    declares(&world, "one more").await.unwrap();
}

#[tokio::test]
async fn without_the_coordinator_nobody_can_tell_and_nothing_is_declared() {
    let world = Surroundings::new().await;
    world.set_numbers(|numbers| numbers.exchanges_max = 1);
    world.set_connected(false);
    let deadline = Instant::now() + PATIENCE;
    let error = world.catalog.room_for(Declared::Exchange, deadline).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::CoordinatorUnavailable);
}
