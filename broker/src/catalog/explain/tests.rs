//! Stories of what operators ask, against an embedded coordinator.

use bellwether_coordinator::coordinator::Write;
use bellwether_coordinator::records::{Past, Taint};
use bellwether_protocol::error::Outcome;
use bellwether_protocol::ids::{BrokerId, Member, Offset, StoreId};
use bellwether_protocol::names::UserName;
use uuid::Uuid;

use super::*;
use crate::catalog::doubles::*;

fn member(broker: u32) -> Member {
    Member { broker: BrokerId(broker), store: StoreId(Uuid::from_u128(u128::from(broker))) }
}

impl Surroundings {
    /// As the coordinator holds it, through another's eyes.
    async fn held(&self, queue: QueueId) -> (QueueState, Version) {
        self.session.sync().await.unwrap();
        let document = self.session.read(&paths::queue_state(queue)).await.unwrap().unwrap();
        (QueueState::parse(&document.bytes).unwrap(), document.version)
    }

    async fn holds(&self, queue: QueueId, change: impl Fn(QueueState) -> QueueState) {
        let (state, version) = self.held(queue).await;
        let bytes = change(state).to_bytes();
        let write = Write::Set { path: paths::queue_state(queue), bytes, version };
        self.session.write(vec![write]).await.unwrap();
        let seen = |catalog: &Catalog| {
            catalog.shared.tree().queue(queue).is_some_and(|(_, _, seen)| seen > version)
        };
        self.until_seen(seen).await;
    }

    /// A state that moves alone wakes nobody who waits for leaders or routes.
    async fn until_seen(&self, seen: impl Fn(&Catalog) -> bool) {
        let waited = async {
            while !seen(&self.catalog) {
                self.catalog.look_closer(PATIENCE).await;
            }
        };
        tokio::time::timeout(PATIENCE, waited).await.expect("the catalog catches up");
    }
}

/// Led by a broker that is gone, with another one in sync; the copy here is not.
fn lost(state: QueueState) -> QueueState {
    let isr = vec![member(7), member(8)];
    QueueState { leader: Some(life(7)), isr, replicas: [7, 8, 1].map(BrokerId).to_vec(), ..state }
}

fn order(name: &str, version: Version) -> Recover {
    Recover {
        queue: queue(name),
        version: u32::try_from(version.0).unwrap(),
        last_epoch: Some(Epoch(1)),
        log_end: Offset(5),
        given_up: vec![member(7), member(8)],
        lost: 3,
        more: true,
    }
}

/// What the copy here would ask for.
fn forced(world: &Surroundings, state: &QueueState) -> QueueState {
    let taint = Taint {
        epoch: Epoch(2),
        by: world.me,
        at_ms: 1,
        end: Offset(5),
        lost: 3,
        more: true,
        cleared: None,
    };
    let past = Box::new(Past { taint: Some(taint), ..Past::clone(&state.past) });
    let (epoch, leader, isr) = (Epoch(2), Some(world.me), vec![member(1)]);
    QueueState { epoch, leader, isr, min_isr: 1, past, ..state.clone() }
}

async fn next_order(world: &Surroundings) -> ForceOrder {
    let next = world.shard.next(|input| match input {
        ShardInput::Force(order) => Some(*order),
        _ => None,
    });
    next.await
}

#[tokio::test]
async fn the_declaration_is_the_first_election_and_the_newest_comes_first() {
    let world = Surroundings::new().await;
    world.declare("a").await;
    let id = world.declare("b").await;
    world
        .holds(id, |state| {
            let mut later = state.past.elections[0].clone();
            later.at_ms += 1_000_000;
            later.epoch = Epoch(2);
            QueueState { epoch: Epoch(2), past: Box::new(state.past.clone().with(later)), ..state }
        })
        .await;
    let shown = |queue, limit| {
        let elections = world.catalog.elections(&host(), queue, limit).unwrap();
        elections.iter().map(|e| (e.queue.to_string(), e.epoch.0)).collect::<Vec<_>>()
    };
    assert_eq!(shown(None, 1), [("b".to_owned(), 2)]);
    assert_eq!(shown(None, 10).len(), 3);
    assert_eq!(shown(Some(&queue("a")), 10), [("a".to_owned(), 1)]);
    let nowhere = world.catalog.elections(&host(), Some(&queue("c")), 10).unwrap_err();
    assert_eq!(nowhere.code, ErrorCode::NoSuchQueue);
}

#[tokio::test]
async fn what_needs_a_person_is_counted_and_named_up_to_a_limit() {
    let world = Surroundings::new().await;
    for name in ["a", "b", "c"] {
        let id = world.declare(name).await;
        if name != "c" {
            world.holds(id, |state| lost(forced(&world, &state))).await;
        }
    }
    let attention = world.catalog.attention(1);
    for troubled in [&attention.without_leader, &attention.tainted, &attention.below_min_isr] {
        assert_eq!(troubled.count, 2, "{attention:?}");
        assert_eq!(troubled.first, [(host(), queue("a"))]);
    }
    assert_eq!(attention.under_replicated.count, 0);
}

#[tokio::test]
async fn without_the_coordinator_a_queue_is_shown_as_it_was_last_heard_of() {
    let world = Surroundings::new().await;
    world.declare("orders").await;
    assert!(world.catalog.condition(&host(), &queue("orders")).await.unwrap().fresh);
    world.set_connected(false);
    let heard = world.catalog.condition(&host(), &queue("orders")).await.unwrap();
    assert_eq!((heard.fresh, heard.leader), (false, Some(world.me)));
}

#[tokio::test]
async fn an_order_for_a_state_that_was_shown_before_reaches_no_copy() {
    let world = Surroundings::new().await;
    let id = world.declare("orders").await;
    let (_, shown) = world.held(id).await;
    world.holds(id, lost).await;
    let refused = world.catalog.recover(&host(), order("orders", shown)).await.unwrap_err();
    assert_eq!((refused.code, refused.outcome), (ErrorCode::Changed, Outcome::NotDone));
}

#[tokio::test]
async fn an_order_reaches_the_copy_with_what_was_read_and_is_answered_by_what_is_held_then() {
    let world = Surroundings::new().await;
    let id = world.declare("orders").await;
    world.holds(id, lost).await;
    register(&*world.session, life(8)).await;
    let (state, version) = world.held(id).await;
    let (catalog, host) = (world.catalog.clone(), host());
    let copy = async {
        let asked = next_order(&world).await;
        assert_eq!((asked.version, asked.gone), (version, Some(life(7))));
        assert_eq!(asked.order.ask, [life(8)], "broker 7 is not live, and is not waited for");
        let proposal = forced(&world, &asked.state);
        let bytes = proposal.to_bytes();
        asked.reply.send(Ok(Box::new(proposal))).unwrap();
        let write = Write::Set { path: paths::queue_state(id), bytes, version };
        world.session.write(vec![write]).await.unwrap();
    };
    let (now, ()) = tokio::join!(catalog.recover(&host, order("orders", version)), copy);
    let now = now.unwrap();
    assert_eq!((now.leader, now.epoch, now.min_isr), (Some(BrokerId(1)), Epoch(2), 1));
    assert_eq!(state.epoch, Epoch(1));
}

/// An in-sync member came back, and was quicker.
#[tokio::test]
async fn an_order_that_another_election_came_before_is_said_to_be_not_done() {
    let world = Surroundings::new().await;
    let id = world.declare("orders").await;
    world.holds(id, lost).await;
    let (_, version) = world.held(id).await;
    let (catalog, host) = (world.catalog.clone(), host());
    let copy = async {
        let asked = next_order(&world).await;
        let proposal = forced(&world, &asked.state);
        let (epoch, leader) = (Epoch(2), Some(life(8)));
        let elected = QueueState { epoch, leader, ..asked.state };
        let write = Write::Set { path: paths::queue_state(id), bytes: elected.to_bytes(), version };
        world.session.write(vec![write]).await.unwrap();
        asked.reply.send(Ok(Box::new(proposal))).unwrap();
    };
    let (refused, ()) = tokio::join!(catalog.recover(&host, order("orders", version)), copy);
    let refused = refused.unwrap_err();
    assert_eq!((refused.code, refused.outcome), (ErrorCode::Changed, Outcome::NotDone));
}

#[tokio::test]
async fn what_the_copy_refuses_is_refused() {
    let world = Surroundings::new().await;
    let id = world.declare("orders").await;
    world.holds(id, lost).await;
    let (_, version) = world.held(id).await;
    let (catalog, host) = (world.catalog.clone(), host());
    let copy = async {
        let asked = next_order(&world).await;
        asked.reply.send(Err(NotForced::InSync(BrokerId(8)))).unwrap();
    };
    let (refused, ()) = tokio::join!(catalog.recover(&host, order("orders", version)), copy);
    assert_eq!(refused.unwrap_err().code, ErrorCode::InSyncCopyLives);
}

/// A member that was given up came back, fetched everything and was taken in before the state was read again.
#[tokio::test]
async fn an_order_that_was_carried_out_is_said_to_be_done_though_the_others_are_back() {
    let world = Surroundings::new().await;
    let id = world.declare("orders").await;
    world.holds(id, lost).await;
    let (_, version) = world.held(id).await;
    let (catalog, host) = (world.catalog.clone(), host());
    let copy = async {
        let asked = next_order(&world).await;
        let proposal = forced(&world, &asked.state);
        let whole = QueueState { isr: vec![member(1), member(8)], ..proposal.clone() };
        for (state, version) in [(&proposal, version.0), (&whole, version.0 + 1)] {
            let (path, bytes) = (paths::queue_state(id), state.to_bytes());
            let write = Write::Set { path, bytes, version: Version(version) };
            world.session.write(vec![write]).await.unwrap();
        }
        asked.reply.send(Ok(Box::new(proposal))).unwrap();
    };
    let (now, ()) = tokio::join!(catalog.recover(&host, order("orders", version)), copy);
    assert_eq!(now.unwrap().in_sync, [1, 8].map(BrokerId));
}

#[tokio::test]
async fn what_came_of_an_order_that_does_not_show_any_more_is_unknown() {
    let world = Surroundings::new().await;
    let id = world.declare("orders").await;
    let (_, version) = world.held(id).await;
    let (catalog, host) = (world.catalog.clone(), host());
    let copy = async {
        let asked = next_order(&world).await;
        // The leader here goes on alone; and twice the controller changes the replica set.
        let proposal = QueueState { isr: vec![member(1)], min_isr: 1, ..asked.state.clone() };
        for (other, version) in [(8, version.0), (9, version.0 + 1)] {
            let replicas = [1, other].map(BrokerId).to_vec();
            let state =
                QueueState { replicas, isr: vec![member(1), member(7)], ..asked.state.clone() };
            let (path, bytes) = (paths::queue_state(id), state.to_bytes());
            let write = Write::Set { path, bytes, version: Version(version) };
            world.session.write(vec![write]).await.unwrap();
        }
        asked.reply.send(Ok(Box::new(proposal))).unwrap();
    };
    let (answer, ()) = tokio::join!(catalog.recover(&host, order("orders", version)), copy);
    assert_eq!(answer.unwrap_err().outcome, Outcome::Unknown);
}

#[tokio::test]
async fn a_taint_is_cleared_once_by_whom_it_is_said_and_rules_go_on_knowing_it() {
    let world = Surroundings::new().await;
    let id = world.declare("orders").await;
    let (host, name) = (host(), queue("orders"));
    let clear = |epoch, user: Option<&'static str>| {
        let user = user.map(|user| UserName::new(user).unwrap());
        let (catalog, host, name) = (&world.catalog, &host, &name);
        async move { catalog.clear_taint(host, name, Epoch(epoch), user.as_ref()).await }
    };
    let refused = clear(2, None).await.unwrap_err();
    assert_eq!((refused.code, refused.outcome), (ErrorCode::NothingToRecover, Outcome::NotDone));

    world.holds(id, |state| forced(&world, &state)).await;
    assert_eq!(world.catalog.attention(9).tainted.count, 1);
    let refused = clear(1, None).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Changed, "another one was shown: {}", refused.message);
    // The answer is lost: it is found to be done, once.
    world.faults().lose_replies(1);
    clear(2, Some("ops")).await.unwrap();
    clear(2, Some("late")).await.unwrap();
    assert_eq!(world.catalog.attention(9).tainted.count, 0);

    let (state, _) = world.held(id).await;
    let taint = state.past.taint.as_ref().expect("a log of before still is another");
    assert_eq!((taint.epoch, taint.lost), (Epoch(2), 3));
    assert_eq!(taint.cleared.as_ref().map(|cleared| cleared.by.as_str()), Some("user ops"));
    let shown = world.catalog.elections(&host, Some(&name), 1).unwrap();
    assert_eq!((shown[0].trigger.as_str(), shown[0].to), ("taint cleared", world.me));
    let why = shown[0].why.as_deref().unwrap();
    assert_eq!(why, "by user ops; known to be lost were 3 confirmed messages, perhaps more");
    let condition = world.catalog.condition(&host, &name).await.unwrap();
    assert_eq!(condition.taint.unwrap().cleared.unwrap().by, "user ops");
}
