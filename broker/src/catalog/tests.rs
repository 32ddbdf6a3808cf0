//! Stories of the catalog against an embedded coordinator.

use std::time::Duration;

use bellwether_coordinator::coordinator::{Connector, Version, Write};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::QueueState;
use bellwether_protocol::client::QueueClass;
use bellwether_protocol::client::{Binding, Drain, ExchangeKind, Moved, QueueOptions, Response};
use bellwether_protocol::error::{ErrorCode, Outcome};
use bellwether_protocol::ids::{BrokerId, Epoch};
use bellwether_protocol::names::{ExchangeName, RoutingKey};
use uuid::Uuid;

use super::doubles::*;
use super::*;
use crate::publish::Lead;
use crate::shard::input::{Deletable, QueueNews, ShardInput};

fn exchange(name: &str) -> ExchangeName {
    ExchangeName::new(name).unwrap()
}

fn key(key: &str) -> RoutingKey {
    RoutingKey::new(key).unwrap()
}

/// Answers the next prepared delete as a shard would, with the version of the state that it knows.
async fn allow_delete(world: &Surroundings, queue: QueueId) {
    let version = world.shared_version(queue);
    let reply = world.shard.next(|input| match input {
        ShardInput::PrepareDelete { reply, .. } => Some(reply),
        _ => None,
    });
    reply.await.send(Ok(Deletable { version, epoch: Epoch(1) })).unwrap();
}

impl Surroundings {
    fn shared_version(&self, queue: QueueId) -> Version {
        self.catalog.shared.tree().queue(queue).expect("it is known").2
    }

    async fn deleted(&self, queue: QueueId) -> bool {
        self.session.sync().await.unwrap();
        self.session.read(&paths::deleted(queue)).await.unwrap().is_some()
    }
}

#[tokio::test]
async fn a_declared_queue_can_be_used_as_soon_as_the_answer_is_there() {
    let world = Surroundings::new().await;
    let id = world.declare("orders").await;
    assert_eq!(world.catalog.route(&host(), &exchange(""), &key("orders")).unwrap(), [id]);
    assert_eq!(world.catalog.leader(id), Leadership::Led(Lead { life: world.me, epoch: Epoch(1) }));
    let news = world.shard.next(|input| match input {
        ShardInput::Queues(news) => Some(news),
        _ => None,
    });
    assert!(
        matches!(&news.await[..], [QueueNews::State { definition, .. }] if definition.queue == id)
    );
}

#[tokio::test]
async fn a_second_declare_says_which_options_differ_and_how() {
    let world = Surroundings::new().await;
    let (host, name) = (host(), queue("orders"));
    world.catalog.declare_queue(&host, &name, options(1)).await.unwrap();
    match world.catalog.declare_queue(&host, &name, options(1)).await.unwrap() {
        Response::Declared { created, .. } => assert!(!created),
        other => panic!("{other:?}"),
    }
    let other =
        QueueOptions { min_isr: Some(2), class: QueueClass::Bulk, ..QueueOptions::default() };
    let error = world.catalog.declare_queue(&host, &name, other).await.unwrap_err();
    assert_eq!((error.code, error.outcome), (ErrorCode::OptionsDiffer, Outcome::NotDone));
    assert!(error.message.contains("replicas is 1, not 3"), "{}", error.message);
    assert!(error.message.contains("min_isr is 1, not 2"), "{}", error.message);
    assert!(error.message.contains("class is standard, not bulk"), "{}", error.message);
}

#[tokio::test]
async fn options_out_of_range_are_refused_with_what_is_allowed() {
    let world = Surroundings::new().await;
    for (replicas, min_isr) in [(0, None), (8, None), (3, Some(0)), (3, Some(4))] {
        let options = QueueOptions { replicas, min_isr, ..QueueOptions::default() };
        let error =
            world.catalog.declare_queue(&host(), &queue("orders"), options).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidOption, "{replicas} {min_isr:?}");
    }
}

#[tokio::test]
async fn fewer_brokers_than_replicas_are_said_or_refused_when_that_was_asked_for() {
    let world = Surroundings::new().await;
    let strict = QueueOptions { strict: true, ..options(3) };
    let error = world.catalog.declare_queue(&host(), &queue("orders"), strict).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TooFewBrokers);
    match world.catalog.declare_queue(&host(), &queue("orders"), options(3)).await.unwrap() {
        Response::Declared { created: true, queue, warning: Some(_) } => {
            assert_eq!((queue.replicas, queue.min_isr), (vec![BrokerId(1)], 1));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn of_fewer_copies_than_wanted_one_can_still_be_lost() {
    let world = Surroundings::new().await;
    for broker in [2, 3] {
        register(&*world.session, life(broker)).await;
    }
    world.until("three brokers are live", |catalog| catalog.addresses().len() == 3).await;
    for again in [false, true] {
        let declared = world.catalog.declare_queue(&host(), &queue("orders"), options(5)).await;
        let Ok(Response::Declared { created, queue, .. }) = declared else {
            panic!("{declared:?}")
        };
        assert_eq!((created, queue.replicas.len(), queue.min_isr), (!again, 3, 2));
    }
}

/// A cluster of three live brokers, of which 1 is real.
async fn three_brokers() -> Surroundings {
    let world = Surroundings::new().await;
    for broker in [2, 3] {
        register(&*world.session, life(broker)).await;
    }
    world.until("three brokers are live", |catalog| catalog.addresses().len() == 3).await;
    world
}

#[tokio::test]
async fn a_broker_drained_of_its_copies_gets_none_of_a_new_queue_until_that_is_taken_back() {
    let world = three_brokers().await;
    for (drain, copies) in [(Some(Drain::Leaderships), 3), (Some(Drain::Copies), 2), (None, 3)] {
        world.catalog.drain(BrokerId(2), drain, false).await.unwrap();
        // Said again it is no error.
        world.catalog.drain(BrokerId(2), drain, false).await.unwrap();
        let name = queue(&format!("orders-{drain:?}"));
        let declared = world.catalog.declare_queue(&host(), &name, options(3)).await;
        let Ok(Response::Declared { queue, .. }) = declared else { panic!("{declared:?}") };
        assert_eq!(queue.replicas.len(), copies, "{drain:?}");
        assert_eq!(queue.replicas.contains(&BrokerId(2)), copies == 3);
        assert_eq!(world.catalog.status().brokers[1].drain, drain);
    }
    let error = world.catalog.drain(BrokerId(9), Some(Drain::Copies), false).await.unwrap_err();
    assert!(error.message.contains("live are 1, 2, 3"), "{}", error.message);
}

/// Two brokers of three were drained for work on them, and a strict declare failed with "1 broker is live".
#[tokio::test]
async fn brokers_drained_of_leaderships_hold_copies_of_new_queues_and_lead_none() {
    let world = three_brokers().await;
    for broker in [1, 3] {
        world.catalog.drain(BrokerId(broker), Some(Drain::Leaderships), false).await.unwrap();
    }
    for n in 0..8 {
        let strict = QueueOptions { strict: true, ..options(3) };
        let name = queue(&format!("q{n}"));
        match world.catalog.declare_queue(&host(), &name, strict).await.unwrap() {
            Response::Declared { queue, warning: None, .. } => {
                assert_eq!((queue.replicas.len(), queue.min_isr), (3, 2));
                assert_eq!((queue.leader, queue.replicas[0]), (Some(BrokerId(2)), BrokerId(2)));
            }
            other => panic!("{other:?}"),
        }
    }
    // Somebody has to.
    world.catalog.drain(BrokerId(2), Some(Drain::Leaderships), false).await.unwrap();
    let declared = world.catalog.declare_queue(&host(), &queue("last"), options(3)).await;
    assert!(
        matches!(&declared, Ok(Response::Declared { queue, .. }) if queue.leader.is_some()),
        "{declared:?}"
    );
}

#[tokio::test]
async fn too_few_brokers_are_counted_and_the_drained_ones_named_with_the_way_back() {
    let world = three_brokers().await;
    let declare = |options| {
        let name = queue("orders");
        let world = &world;
        async move { world.catalog.declare_queue(&host(), &name, options).await }
    };
    world.catalog.drain(BrokerId(3), Some(Drain::Copies), false).await.unwrap();
    let strict = QueueOptions { strict: true, ..options(3) };
    let error = declare(strict).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TooFewBrokers);
    assert_eq!(
        error.message,
        "3 replicas were asked for, and 3 brokers are live, of which broker 3 is being drained of its copies: start more brokers, \
         or end a drain (bellwether cluster drain 3 --undo), ask for fewer replicas, or declare it without strict"
    );
    world.catalog.drain(BrokerId(2), Some(Drain::Copies), false).await.unwrap();
    let error = declare(QueueOptions { min_isr: Some(2), ..options(3) }).await.unwrap_err();
    let words = &error.message;
    assert!(words.contains("of which brokers 2, 3 are being drained of their copies"), "{words}");
    world.catalog.drain(BrokerId(1), Some(Drain::Copies), false).await.unwrap();
    let error = declare(options(1)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TooFewBrokers);
    let words = &error.message;
    assert!(words.starts_with("nobody can hold a copy: 3 brokers are live, of which"), "{words}");
}

#[tokio::test]
async fn copies_are_spread_evenly_over_the_live_brokers() {
    let world = Surroundings::new().await;
    for broker in [2, 3] {
        register(&*world.session, life(broker)).await;
    }
    world.until("three brokers are live", |catalog| catalog.addresses().len() == 3).await;
    let mut leads = [0; 4];
    for n in 0..12 {
        match world
            .catalog
            .declare_queue(&host(), &queue(&format!("q{n}")), options(3))
            .await
            .unwrap()
        {
            Response::Declared { queue, warning: None, .. } => {
                assert_eq!((queue.replicas.len(), queue.in_sync.len(), queue.min_isr), (3, 3, 2));
                leads[queue.leader.unwrap().0 as usize] += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(leads, [0, 4, 4, 4]);
}

#[tokio::test]
async fn two_brokers_that_declare_the_same_queue_make_one() {
    let one = Surroundings::new().await;
    let two = Surroundings::beside(one.embedded.clone(), 2, Vec::new()).await;
    let (a, b) = tokio::join!(one.declare("orders"), two.declare("orders"));
    assert_eq!(a, b);
}

#[tokio::test]
async fn a_declare_whose_answer_is_lost_is_found_to_be_done() {
    let world = Surroundings::new().await;
    world.faults().lose_replies(1);
    let id = world.declare("orders").await;
    assert_eq!(world.catalog.queue_named(&host(), &queue("orders")), Some(id));
    world.faults().lose_requests(1);
    world.declare("audit").await;
}

#[tokio::test]
async fn without_the_coordinator_a_declare_is_refused_and_not_done() {
    let world = Surroundings::new().await;
    world.set_connected(false);
    let error =
        world.catalog.declare_queue(&host(), &queue("orders"), options(1)).await.unwrap_err();
    assert_eq!((error.code, error.outcome), (ErrorCode::CoordinatorUnavailable, Outcome::NotDone));
    world.set_connected(true);
    world.declare("orders").await;
}

#[tokio::test]
async fn a_deleted_queue_leaves_a_tombstone_and_its_name_is_free_for_another() {
    let world = Surroundings::new().await;
    let id = world.declare("orders").await;
    let (host, name) = (host(), queue("orders"));
    let (deleted, ()) = tokio::join!(
        world.catalog.delete_queue(&host, &name, false, false),
        allow_delete(&world, id)
    );
    deleted.unwrap();
    assert!(world.deleted(id).await);
    let told = world.shard.next(|input| match input {
        ShardInput::DeleteDecided { queue, deleted } => Some((queue, deleted)),
        _ => None,
    });
    assert_eq!(told.await, (id, true));
    let gone = world.shard.next(|input| match input {
        ShardInput::Queues(news) => news.iter().find_map(|news| match news {
            QueueNews::Deleted(id) => Some(*id),
            _ => None,
        }),
        _ => None,
    });
    assert_eq!(gone.await, id);
    assert_eq!(world.catalog.leader(id), Leadership::Gone);
    assert_ne!(world.declare("orders").await, id);
}

#[tokio::test]
async fn a_delete_whose_answer_is_lost_is_found_to_be_done() {
    let world = Surroundings::new().await;
    let id = world.declare("orders").await;
    let (host, name) = (host(), queue("orders"));
    let delete = async {
        allow_delete(&world, id).await;
        world.faults().lose_replies(1);
    };
    let (deleted, ()) =
        tokio::join!(world.catalog.delete_queue(&host, &name, false, false), delete);
    deleted.unwrap();
    assert!(world.deleted(id).await);
}

/// The leader that stopped for the delete is not the leader any more: its successor may have confirmed messages since.
#[tokio::test]
async fn a_delete_is_refused_when_the_state_has_moved_on() {
    let world = Surroundings::new().await;
    let id = world.declare("orders").await;
    let (host, name) = (host(), queue("orders"));
    let version = world.shared_version(id);
    let refuse = async {
        let reply = world.shard.next(|input| match input {
            ShardInput::PrepareDelete { reply, .. } => Some(reply),
            _ => None,
        });
        let reply = reply.await;
        let state = QueueState {
            epoch: Epoch(2),
            leader: None,
            isr: vec![],
            min_isr: 1,
            replicas: Vec::new(),
            given_up: Vec::new(),
            past: Default::default(),
            unknown: Default::default(),
        };
        let write = Write::Set { path: paths::queue_state(id), bytes: state.to_bytes(), version };
        world.session.write(vec![write]).await.unwrap();
        reply.send(Ok(Deletable { version, epoch: Epoch(1) })).unwrap();
    };
    let (deleted, ()) =
        tokio::join!(world.catalog.delete_queue(&host, &name, false, false), refuse);
    assert_eq!(deleted.unwrap_err().outcome, Outcome::NotDone);
    assert!(!world.deleted(id).await);
    let told = world.shard.next(|input| match input {
        ShardInput::DeleteDecided { deleted, .. } => Some(deleted),
        _ => None,
    });
    assert!(!told.await);
}

/// The answer to the delete was lost, and its tombstone, which waited for nobody, was gone before anybody looked for it (promise G11). A
/// leader that went on then would have led a queue that is not there (promise G1).
#[tokio::test]
async fn of_a_queue_that_is_gone_without_a_tombstone_nobody_says_that_it_was_not_deleted() {
    let world = Surroundings::new().await;
    let id = world.declare("orders").await;
    let (host, name) = (host(), queue("orders"));
    let version = world.shared_version(id);
    let vanish = async {
        let reply = world.shard.next(|input| match input {
            ShardInput::PrepareDelete { reply, .. } => Some(reply),
            _ => None,
        });
        let reply = reply.await;
        let gone = [paths::queue_state(id), paths::queue(id), paths::name(&host, &name)];
        let delete = |path| Write::Delete { path, version: None };
        world.session.write(gone.map(delete).into()).await.unwrap();
        reply.send(Ok(Deletable { version, epoch: Epoch(1) })).unwrap();
    };
    let (deleted, ()) =
        tokio::join!(world.catalog.delete_queue(&host, &name, false, false), vanish);
    assert_eq!(deleted.unwrap_err().outcome, Outcome::Unknown);
    let told = world.shard.next(|input| match input {
        ShardInput::DeleteDecided { deleted, .. } => Some(deleted),
        _ => None,
    });
    assert!(told.await, "its leader does not go on");
}

/// It was written down, and the operator was told that it was not (promise G11).
#[tokio::test]
async fn what_is_wanted_of_a_broker_is_done_also_when_that_is_heard_at_the_last_moment() {
    let world = Surroundings::new().await;
    let coordinator = Arc::new(AnswersLate {
        inner: Arc::clone(&world.session),
        after: super::writes::REQUEST_FOR,
    });
    world.lives.send_replace(Some(Life { life: world.me, coordinator, connected: true }));
    tokio::time::pause();
    world.catalog.drain(BrokerId(1), Some(Drain::Copies), false).await.unwrap();
    let drained = world.session.read(&paths::drained(BrokerId(1))).await.unwrap();
    assert!(drained.is_some());
}

#[tokio::test]
async fn only_the_leader_deletes_and_others_say_where_it_is() {
    let one = Surroundings::new().await;
    one.declare("orders").await;
    let two = Surroundings::beside(one.embedded.clone(), 2, Vec::new()).await;
    two.until("the queue is known", |catalog| {
        catalog.queue_named(&host(), &queue("orders")).is_some()
    })
    .await;
    let error =
        two.catalog.delete_queue(&host(), &queue("orders"), false, false).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotLeader);
    assert_eq!(error.leader.unwrap().address, "127.0.0.1:5001");
    let error =
        two.catalog.delete_queue(&host(), &queue("nothing"), false, false).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NoSuchQueue);
}

#[tokio::test]
async fn a_local_log_that_the_coordinator_does_not_know_is_said_to_have_vanished_and_not_to_be_deleted()
 {
    let lost = QueueId(Uuid::from_u128(77));
    let embedded = bellwether_coordinator::embedded::Embedded::start(Default::default()).unwrap();
    let world = Surroundings::beside(embedded, 1, vec![lost]).await;
    let news = world.shard.next(|input| match input {
        ShardInput::Queues(news) => Some(news),
        _ => None,
    });
    assert!(matches!(news.await[..], [QueueNews::Vanished(id)] if id == lost));
}

#[tokio::test]
async fn a_local_log_of_a_queue_deleted_meanwhile_is_deleted() {
    let one = Surroundings::new().await;
    let id = one.declare("orders").await;
    let (host, name) = (host(), queue("orders"));
    let (deleted, ()) =
        tokio::join!(one.catalog.delete_queue(&host, &name, false, false), allow_delete(&one, id));
    deleted.unwrap();
    let two = Surroundings::beside(one.embedded.clone(), 2, vec![id]).await;
    let news = two.shard.next(|input| match input {
        ShardInput::Queues(news) => Some(news),
        _ => None,
    });
    assert!(matches!(news.await[..], [QueueNews::Deleted(gone)] if gone == id));
}

#[tokio::test]
async fn a_synced_reread_tells_the_state_first_and_the_brokers_after_it() {
    let world = Surroundings::new().await;
    let id = world.declare("orders").await;
    world.shard.next(|input| matches!(input, ShardInput::Queues(_)).then_some(())).await;
    world.catalog.reread(vec![id]);
    let synced = world.shard.next(|input| match input {
        ShardInput::Queues(news) => news.iter().find_map(|news| match news {
            QueueNews::State { synced, .. } => Some(*synced),
            _ => None,
        }),
        _ => None,
    });
    assert!(synced.await);
    world.shard.next(|input| matches!(input, ShardInput::Brokers(_)).then_some(())).await;
}

#[tokio::test]
async fn changes_that_were_not_told_are_found_after_a_reconnect() {
    let one = Surroundings::new().await;
    let two = Surroundings::beside(one.embedded.clone(), 2, Vec::new()).await;
    one.faults().drop_changes();
    one.declare("orders").await;
    one.faults().tell_changes();
    one.faults().cut_connections();
    two.until("the queue is known", |catalog| {
        catalog.queue_named(&host(), &queue("orders")).is_some()
    })
    .await;
}

#[tokio::test]
async fn an_exchange_is_declared_once_and_with_one_kind() {
    let world = Surroundings::new().await;
    let (host, events) = (host(), exchange("events"));
    world.catalog.declare_exchange(&host, &events, ExchangeKind::Fanout).await.unwrap();
    world.catalog.declare_exchange(&host, &events, ExchangeKind::Fanout).await.unwrap();
    let error =
        world.catalog.declare_exchange(&host, &events, ExchangeKind::Direct).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::OptionsDiffer);
    assert!(error.message.contains("it is fanout, not direct"), "{}", error.message);
    let error = world
        .catalog
        .declare_exchange(&host, &exchange(""), ExchangeKind::Direct)
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::NotAllowed);
    let listed = world.catalog.exchanges(&host);
    assert_eq!(listed, [(exchange(""), ExchangeKind::Direct), (events, ExchangeKind::Fanout)]);
}

#[tokio::test]
async fn both_ends_of_a_binding_have_to_be_there() {
    let world = Surroundings::new().await;
    let (host, events, orders) = (host(), exchange("events"), queue("orders"));
    let error = world.catalog.bind(&host, &events, &orders, &key("")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NoSuchExchange);
    world.catalog.declare_exchange(&host, &events, ExchangeKind::Fanout).await.unwrap();
    let error = world.catalog.bind(&host, &events, &orders, &key("")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NoSuchQueue);
    let id = world.declare("orders").await;
    world.catalog.bind(&host, &events, &orders, &key("")).await.unwrap();
    world.catalog.bind(&host, &events, &orders, &key("")).await.unwrap();
    assert_eq!(world.catalog.route(&host, &events, &key("any")).unwrap(), [id]);
    world.catalog.unbind(&host, &events, &orders, &key("")).await.unwrap();
    assert_eq!(world.catalog.route(&host, &events, &key("any")).unwrap(), []);
}

#[tokio::test]
async fn many_binds_at_once_all_come_through() {
    let world = Surroundings::new().await;
    let (host, events) = (host(), exchange("events"));
    world.catalog.declare_exchange(&host, &events, ExchangeKind::Fanout).await.unwrap();
    let names: Vec<_> = (0..8).map(|n| format!("q{n}")).collect();
    for name in &names {
        world.declare(name).await;
    }
    let binds = names.iter().map(|name| {
        let (catalog, host, events, name) = (&world.catalog, &host, &events, queue(name));
        async move { catalog.bind(host, events, &name, &key("")).await }
    });
    for bound in futures::future::join_all(binds).await {
        bound.unwrap();
    }
    assert_eq!(world.catalog.route(&host, &events, &key("")).unwrap().len(), 8);
}

#[tokio::test]
async fn a_deleted_exchange_takes_its_bindings_with_it() {
    let world = Surroundings::new().await;
    let (host, events, other) = (host(), exchange("events"), exchange("other"));
    for exchange in [&events, &other] {
        world.catalog.declare_exchange(&host, exchange, ExchangeKind::Fanout).await.unwrap();
    }
    world.declare("orders").await;
    world.catalog.bind(&host, &events, &queue("orders"), &key("a")).await.unwrap();
    world.catalog.bind(&host, &other, &queue("orders"), &key("b")).await.unwrap();
    let error = world.catalog.delete_exchange(&host, &events, true).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InUse);
    world.catalog.delete_exchange(&host, &events, false).await.unwrap();
    let left = Binding { exchange: other, queue: queue("orders"), routing_key: key("b") };
    assert_eq!(world.catalog.bindings(&host, None), [left]);
    world.catalog.declare_exchange(&host, &events, ExchangeKind::Fanout).await.unwrap();
    assert_eq!(world.catalog.route(&host, &events, &key("a")).unwrap(), []);
    let error =
        world.catalog.delete_exchange(&host, &exchange("nothing"), false).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NoSuchExchange);
}

#[tokio::test]
async fn bindings_of_a_deleted_queue_do_not_lead_to_the_next_one_of_its_name() {
    let world = Surroundings::new().await;
    let (host, events, orders) = (host(), exchange("events"), queue("orders"));
    world.catalog.declare_exchange(&host, &events, ExchangeKind::Fanout).await.unwrap();
    let id = world.declare("orders").await;
    world.catalog.bind(&host, &events, &orders, &key("")).await.unwrap();
    let (deleted, ()) = tokio::join!(
        world.catalog.delete_queue(&host, &orders, false, false),
        allow_delete(&world, id)
    );
    deleted.unwrap();
    world.declare("orders").await;
    assert_eq!(world.catalog.route(&host, &events, &key("")).unwrap(), []);
    assert!(world.session.read(&paths::bindings(id)).await.unwrap().is_none());
}

#[tokio::test]
async fn queues_are_listed_in_pages_in_order_of_name() {
    let world = Surroundings::new().await;
    for name in ["c", "a", "d", "b"] {
        world.declare(name).await;
    }
    let names = |queues: Vec<bellwether_protocol::client::QueueSummary>| {
        queues.into_iter().map(|queue| queue.name.to_string()).collect::<Vec<_>>()
    };
    let host = host();
    let page = world.catalog.queues(&host, None, 3, |_| true).await;
    assert_eq!(names(page), ["a", "b", "c"]);
    assert_eq!(names(world.catalog.queues(&host, Some(queue("c")), 3, |_| true).await), ["d"]);
    let status = world.catalog.status();
    assert_eq!(
        (status.queues, status.queues_without_leader, status.queues_under_replicated),
        (4, 0, 0)
    );
    assert_eq!(status.brokers[0].leads, 4);
}

#[tokio::test]
async fn who_is_shown_few_of_many_queues_gets_whole_pages_of_them() {
    let world = Surroundings::new().await;
    for number in 0..1_100 {
        world.declare(&format!("other-{number:04}")).await;
    }
    for name in ["mine-1", "zz-mine-2", "zz-mine-3"] {
        world.declare(name).await;
    }
    let mine = |name: &QueueName| name.as_str().contains("mine");
    let page = world.catalog.queues(&host(), None, 2, mine).await;
    let names: Vec<_> = page.iter().map(|queue| queue.name.as_str()).collect();
    assert_eq!(names, ["mine-1", "zz-mine-2"]);
    let rest = world.catalog.queues(&host(), Some(queue("zz-mine-2")), 2, mine).await;
    assert_eq!(rest.len(), 1);
    assert!(world.catalog.queues(&host(), Some(queue("zz-mine-3")), 2, mine).await.is_empty());
}

#[tokio::test]
async fn a_new_life_reads_everything_anew_on_its_own_session() {
    let world = Surroundings::new().await;
    world.lives.send_replace(None);
    let other = Surroundings::beside(world.embedded.clone(), 2, Vec::new()).await;
    other.declare("orders").await;
    assert!(world.catalog.queue_named(&host(), &queue("orders")).is_none());
    let session = world.embedded.connector(Duration::from_secs(10)).connect().await.unwrap();
    let next = life(9);
    world.lives.send_replace(Some(Life { life: next, coordinator: session, connected: true }));
    world
        .until("the queue is known", |catalog| {
            catalog.queue_named(&host(), &queue("orders")).is_some()
        })
        .await;
}

/// "No such queue" is final to a client: it would give up, and the queue is there.
#[tokio::test]
async fn without_the_coordinator_nothing_is_said_not_to_exist() {
    let world = Surroundings::new().await;
    let code = |world: &Surroundings| {
        let routed = world.catalog.route(&host(), &exchange(""), &key("orders")).unwrap_err().code;
        (routed, world.catalog.led_here(&host(), &queue("orders")).unwrap_err().code)
    };
    assert_eq!(code(&world), (ErrorCode::NoSuchQueue, ErrorCode::NoSuchQueue));
    world.set_connected(false);
    let away = ErrorCode::CoordinatorUnavailable;
    assert_eq!(code(&world), (away, away));
}

/// A restarted broker knew a fanout exchange a moment before its bindings: hundreds of messages were confirmed as bound to
/// nothing, and reached none of the three queues that were bound.
#[tokio::test]
async fn an_exchange_routes_nothing_before_all_of_its_bindings_are_read() {
    let world = Surroundings::new().await;
    let id = world.declare("orders").await;
    let copies = exchange("copies");
    world.catalog.declare_exchange(&host(), &copies, ExchangeKind::Fanout).await.unwrap();

    world.catalog.shared.complete.store(false, Ordering::Release);
    let refused = world.catalog.route(&host(), &copies, &key("")).unwrap_err();
    assert_eq!(refused.code, ErrorCode::CoordinatorUnavailable);
    assert!(refused.code.is_worth_retrying());
    assert_eq!(world.catalog.route(&host(), &exchange(""), &key("orders")).unwrap(), [id]);

    world.catalog.shared.complete.store(true, Ordering::Release);
    assert_eq!(world.catalog.route(&host(), &copies, &key("")).unwrap(), []);
}

/// A drain whose copies had nowhere to go waited for ever, and said that all was well.
#[tokio::test]
async fn what_nobody_can_take_is_named_before_and_after_it_is_asked_for() {
    let one = Surroundings::new().await;
    one.declare("orders").await;
    let two = Surroundings::beside(one.embedded.clone(), 2, Vec::new()).await;
    let both = |catalog: &Catalog| catalog.live() == 2;
    one.until("both are known", both).await;
    two.until("both are known", both).await;
    let named = async |world: &Surroundings, suppose| {
        let stuck = world.catalog.stuck(suppose, 10).await.unwrap();
        let queues = stuck.queues.iter().map(|one| {
            let first: Vec<_> = one.queues.first.iter().map(|(_, name)| name.as_str()).collect();
            (one.what, one.missing, one.copies, first.join(","))
        });
        (stuck.takers.iter().map(|broker| broker.0).collect::<Vec<_>>(), queues.collect::<Vec<_>>())
    };
    assert_eq!(named(&one, None).await, (vec![1, 2], vec![]));
    // Broker 2 takes the copy, but no broker that holds one takes the leadership alone.
    let drained = Some((BrokerId(1), Drain::Copies));
    assert_eq!(named(&one, drained).await, (vec![2], vec![]));
    let resigned = Some((BrokerId(1), Drain::Leaderships));
    let stuck = (Moved::Leadership, false, 1, "orders".to_owned());
    assert_eq!(named(&one, resigned).await, (vec![2], vec![stuck]));

    two.catalog
        .declare_queue(&host(), &queue("wide"), QueueOptions { replicas: 3, ..options(3) })
        .await
        .unwrap();
    one.until("the queue is known", |catalog| {
        catalog.queue_named(&host(), &queue("wide")).is_some()
    })
    .await;
    let missing = (Moved::Copy, true, 3, "wide".to_owned());
    assert_eq!(named(&one, None).await, (vec![1, 2], vec![missing]));
    // What was only supposed is what is, once it was asked for.
    one.catalog.drain(BrokerId(2), Some(Drain::Copies), false).await.unwrap();
    let leaving = (Moved::Copy, false, 3, "wide".to_owned());
    let now = named(&one, None).await;
    assert_eq!(now, (vec![1], vec![leaving]));
    assert_eq!(named(&one, Some((BrokerId(2), Drain::Copies))).await, now);
}
