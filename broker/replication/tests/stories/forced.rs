//! Leaders by an operator's order: each guard as the history that would lose more than was shown.

use std::time::Duration;

use bellwether_coordinator::records::{Cleared, Committed, Past, QueueState, Taint, Trigger};
use bellwether_protocol::ids::{BrokerId, Epoch, Offset, StoreId};
use bellwether_protocol::peer::Position;
use bellwether_replication::{CasOutcome, Effect, Event, Force, NotForced};
use uuid::Uuid;

use crate::given::*;

/// The rest of the in-sync set, brokers 1 and 2, is given up; neither is live.
fn order() -> Force {
    Force {
        version: version(0),
        last_epoch: Epoch(1),
        log_end: Offset(1),
        given_up: vec![member(1), member(2)],
        ask: Vec::new(),
        lost: 5,
        more: true,
    }
}

/// Broker 3 follows broker 1, is not in sync, and knows that its session is over.
fn survivor() -> Given {
    let mut three = Given::follower(3, &[1, 2]);
    three.happens(Event::Gone { life: life(1) });
    three.take_effects();
    three
}

fn outcome(given: &Given) -> Option<Result<Box<QueueState>, NotForced>> {
    given.effects().iter().rev().find_map(|effect| match effect {
        Effect::Forced(outcome) => Some(outcome.clone()),
        _ => None,
    })
}

fn refused(given: &Given) -> NotForced {
    assert_eq!(given.cas(), None, "nothing was asked for");
    outcome(given).expect("it answers").expect_err("it refuses")
}

#[test]
fn the_last_copy_leads_alone_and_the_state_says_what_that_cost() {
    let mut three = survivor();
    three.wall(9_000);
    three.happens(Event::Force(order()));
    let (at, state) = three.cas().expect("it asks to lead");
    assert_eq!((at, state.epoch, state.leader), (version(0), Epoch(2), Some(life(3))));
    assert_eq!((state.isr.as_slice(), state.min_isr), (&[member(3)][..], 1));
    assert_eq!(state.replicas, [1, 2, 3].map(BrokerId), "copies are made there again");
    let taint = Taint {
        epoch: Epoch(2),
        by: life(3),
        at_ms: 9_000,
        end: Offset(1),
        lost: 5,
        more: true,
        cleared: None,
    };
    assert_eq!(state.past.taint, Some(taint));
    assert_eq!(state.past.elections.last().map(|e| e.trigger.clone()), Some(Trigger::Forced));
    let cas = (at, state);
    three.answers(&cas, CasOutcome::Done { version: version(1) });
    assert_eq!(three.leads(), Some(Epoch(2)));
    three.durable_here();
    assert_eq!(three.serves(), Some(Epoch(2)), "it needs nobody else");
}

/// Held against what was noted before, the queue would seem to lose the same messages again.
#[test]
fn what_was_noted_and_lost_is_forgotten_and_what_each_forced_leader_lacked_adds_up() {
    let mut three = survivor();
    let noted = Committed { end: Offset(9), enqueued: 8, settled: 0, at_ms: 7 };
    let taint = Taint {
        epoch: Epoch(1),
        by: life(2),
        at_ms: 1,
        end: Offset(0),
        lost: 4,
        more: false,
        cleared: None,
    };
    let past = Past { committed: Some(noted), taint: Some(taint), ..Past::default() };
    let past = Box::new(past);
    three.reads(QueueState { past, ..state(1, Some(1), &[1, 2]) }, 1);
    three.happens(Event::Force(Force { version: version(1), ..order() }));
    let (_, forced) = three.cas().expect("it asks to lead");
    assert_eq!(forced.past.committed, None);
    let taint = forced.past.taint.expect("it is tainted");
    assert_eq!((taint.epoch, taint.lost, taint.more), (Epoch(2), 9, true));
}

/// An operator has dealt with what was lost before. The epoch stays: a log of before that one is another still.
#[test]
fn what_was_cleared_is_not_counted_again_when_another_leader_is_forced() {
    let mut three = survivor();
    let cleared = Some(Cleared { at_ms: 2, by: "user ops".to_owned() });
    let (end, lost, more) = (Offset(0), 4, true);
    let taint = Taint { epoch: Epoch(1), by: life(2), at_ms: 1, end, lost, more, cleared };
    let past = Box::new(Past { taint: Some(taint), ..Past::default() });
    three.reads(QueueState { past, ..state(1, Some(1), &[1, 2]) }, 1);
    three.happens(Event::Force(Force { version: version(1), more: false, ..order() }));
    let taint = three.cas().expect("it asks to lead").1.past.taint.expect("it is tainted anew");
    assert_eq!((taint.epoch, taint.lost, taint.more), (Epoch(2), 5, false));
    assert_eq!(taint.cleared, None);
}

/// In the other order the old leader could still hear from it.
#[test]
fn it_stops_answering_the_old_epoch_before_it_asks_to_lead() {
    let mut three = survivor();
    three.happens(Event::Force(order()));
    let place = |wanted: fn(&Effect) -> bool| three.effects().iter().position(wanted);
    let unsubscribes = place(|e| matches!(e, Effect::Unsubscribe { epoch: Epoch(1), .. }));
    let asks = place(|e| matches!(e, Effect::Cas { .. }));
    assert!(unsubscribes.is_some() && unsubscribes < asks, "{:?}", three.effects());
}

#[test]
fn without_an_order_it_never_stands() {
    let mut three = survivor();
    three.later(Duration::from_secs(10));
    assert_eq!(three.cas(), None);
}

#[test]
fn a_state_that_has_moved_since_it_was_shown_is_refused() {
    let mut three = survivor();
    three.reads(state(1, Some(1), &[1, 2]), 1);
    three.happens(Event::Force(order()));
    assert!(matches!(refused(&three), NotForced::Changed { .. }));
}

#[test]
fn a_log_that_is_not_the_one_shown_is_refused() {
    let mut three = survivor();
    three.happens(Event::Force(Force { log_end: Offset(2), ..order() }));
    assert!(matches!(refused(&three), NotForced::Changed { .. }));
}

/// Shown as kept, it would be gone with the next loss of power.
#[test]
fn a_log_that_is_not_on_the_disk_yet_is_not_led_with() {
    let mut three = Given::follower(3, &[1, 2]);
    three.streamed(1, 1);
    three.happens(Event::Gone { life: life(1) });
    three.take_effects();
    let order = Force { log_end: Offset(2), ..order() };
    three.happens(Event::Force(order.clone()));
    assert!(matches!(refused(&three), NotForced::Changed { .. }));
    three.durable_here();
    three.take_effects();
    three.happens(Event::Force(order));
    assert!(three.cas().is_some());
}

#[test]
fn an_in_sync_member_that_was_not_given_up_is_not_passed_over() {
    let mut three = survivor();
    three.happens(Event::Force(Force { given_up: vec![member(1)], ..order() }));
    assert_eq!(refused(&three), NotForced::InSync(BrokerId(2)));
}

#[test]
fn nobody_is_forced_beside_a_leader_that_lives() {
    let mut three = Given::follower(3, &[1, 2]);
    three.take_effects();
    three.happens(Event::Force(order()));
    assert_eq!(refused(&three), NotForced::Led(life(1)));
    three.happens(Event::Dead { life: life(1) });
    three.take_effects();
    three.happens(Event::Force(order()));
    assert_eq!(refused(&three), NotForced::Led(life(1)), "that was evidence, and no proof");
}

/// It came back between the look and the order, and is about to stand.
#[test]
fn an_in_sync_member_that_answers_after_all_ends_it() {
    let mut three = survivor();
    three.happens(Event::Force(Force { ask: vec![BrokerId(2)], ..order() }));
    assert_eq!(three.cas(), None, "it asks first");
    assert!(three.effects().contains(&Effect::AskPositions { brokers: vec![BrokerId(2)] }));
    three.position_of(2, 1, 6);
    assert_eq!(refused(&three), NotForced::InSync(BrokerId(2)));
    three.later(Duration::from_secs(2));
    assert_eq!(three.cas(), None);
}

#[test]
fn it_came_back_and_was_elected_while_the_order_waited() {
    let mut three = survivor();
    three.happens(Event::Force(Force { ask: vec![BrokerId(2)], ..order() }));
    three.reads(state(2, Some(2), &[1, 2]), 1);
    three.later(Duration::from_secs(2));
    assert!(matches!(refused(&three), NotForced::Changed { .. }));
}

/// The disk is another: what the member held is gone with the old one.
#[test]
fn a_broker_that_answers_with_another_disk_holds_nothing_of_the_in_sync_set() {
    let mut three = survivor();
    three.happens(Event::Force(Force { ask: vec![BrokerId(2)], ..order() }));
    let emptied = StoreId(Uuid::from_u128(22));
    let position = Position {
        queue: bellwether_protocol::ids::QueueId(Uuid::from_u128(7)),
        member: bellwether_protocol::ids::Member { store: emptied, ..member(2) },
        seen: Epoch(1),
        last_epoch: Epoch(0),
        log_end: Offset(0),
    };
    three.happens(Event::Position { position });
    assert!(three.cas().is_some());
}

/// A copy that has stopped itself does not answer: its words were shown.
#[test]
fn one_that_stays_silent_is_waited_for_only_so_long() {
    let mut three = survivor();
    three.happens(Event::Force(Force { ask: vec![BrokerId(2)], ..order() }));
    three.later(Duration::from_millis(400));
    assert_eq!(three.cas(), None);
    three.later(Duration::from_millis(200));
    assert!(three.cas().is_some());
}

#[test]
fn a_second_order_at_once_is_refused_and_so_is_one_after_it() {
    let mut three = survivor();
    three.happens(Event::Force(order()));
    let cas = three.cas().expect("it asks to lead");
    three.take_effects();
    three.happens(Event::Force(order()));
    assert!(matches!(refused(&three), NotForced::Changed { .. }));
    three.answers(&cas, CasOutcome::Done { version: version(1) });
    three.durable_here();
    three.take_effects();
    three.happens(Event::Force(order()));
    assert!(matches!(refused(&three), NotForced::Changed { .. }));
    three.happens(Event::Force(Force { version: version(1), ..order() }));
    assert!(matches!(refused(&three), NotForced::NotNeeded { .. }));
}

#[test]
fn decided_against_it_the_copy_is_what_it_was() {
    let mut three = survivor();
    three.happens(Event::Force(order()));
    let cas = three.cas().expect("it asks to lead");
    three.answers(&cas, CasOutcome::Refused);
    three.reads(state(2, Some(2), &[1, 2]), 1);
    assert_eq!((three.leads(), three.follows()), (None, Some((life(2), Epoch(2)))));
}

#[test]
fn an_undecided_order_is_sent_again_as_it_was() {
    let mut three = survivor();
    three.happens(Event::Force(order()));
    let cas = three.cas().expect("it asks to lead");
    three.answers(&cas, CasOutcome::Undecided);
    three.wall(99_000);
    three.later(Duration::from_millis(100));
    assert_eq!(three.cas(), Some(cas));
}

/// Promise G1: it holds everything, so nothing is lost and nothing is tainted.
#[test]
fn a_leader_whose_in_sync_set_is_gone_goes_on_alone() {
    let mut one = Given::leader_with_isr(&[1, 2]);
    let order = Force { given_up: vec![member(2)], lost: 0, more: false, ..order() };
    one.happens(Event::Force(order.clone()));
    assert!(matches!(refused(&one), NotForced::NotNeeded { .. }), "broker 2 is there");
    one.appends(1);
    one.durable_here();
    one.happens(Event::AcceptedDown { peer: life(2) });
    one.later(Duration::from_millis(1_500));
    assert!(one.starved());
    one.take_effects();
    one.happens(Event::Force(order));
    let alone = one.cas().expect("it asks for a smaller set");
    assert_eq!((alone.1.epoch, alone.1.leader), (Epoch(1), Some(life(1))));
    assert_eq!((alone.1.isr.as_slice(), alone.1.min_isr), (&[member(1)][..], 1));
    assert_eq!(*alone.1.past, Past::default());
    assert_eq!(one.high_watermark(), Offset(1), "nothing is confirmed before that is decided");
    one.answers(&alone, CasOutcome::Done { version: version(1) });
    assert_eq!(one.high_watermark(), Offset(2));
    assert!(!one.starved());
}

fn forced_on_three() -> QueueState {
    let taint = Taint {
        epoch: Epoch(2),
        by: life(3),
        at_ms: 1,
        end: Offset(1),
        lost: 4,
        more: false,
        // Somebody has dealt with what was lost: to rules it is what it was.
        cleared: Some(Cleared { at_ms: 2, by: "user ops".to_owned() }),
    };
    let past = Box::new(Past { taint: Some(taint), ..Past::default() });
    QueueState { past, min_isr: 1, ..state(2, Some(3), &[3]) }
}

/// What it confirmed is not in the queue any more, and must not come back (promises G2 and G8).
#[test]
fn the_old_leader_that_comes_back_keeps_its_log_aside_and_begins_anew() {
    let mut one = Given::leader_of_three();
    one.holds(&[(1, 0)], 5, 5);
    one.reads(forced_on_three(), 1);
    one.epoch_ends(3, 2, Some(1), 1);
    let superseded = one.effects().iter().any(|e| matches!(e, Effect::Superseded { .. }));
    assert!(superseded, "{:?}", one.effects());
    assert!(!one.effects().iter().any(|e| matches!(e, Effect::Truncate { .. })));
    assert_eq!(one.stopped(), None);
    let store = StoreId(Uuid::from_u128(11));
    one.happens(Event::LogLost { store, why: "superseded".to_owned() });
    one.take_effects();
    one.reads(forced_on_three(), 1);
    let fetches = Effect::FetchSnapshot { leader: life(3), epoch: Epoch(2) };
    assert!(one.effects().contains(&fetches), "{:?}", one.effects());
}

#[test]
fn what_the_old_follower_had_beyond_it_is_cut_where_nothing_says_that_it_was_confirmed() {
    let mut two = Given::follower_of_three(2);
    two.holds(&[(1, 0)], 5, 1);
    two.reads(forced_on_three(), 1);
    two.epoch_ends(3, 2, Some(1), 1);
    assert!(two.effects().contains(&Effect::Truncate { to: Offset(1) }));
}

/// Only the forced election explains it; a cut like that without one is a defect, and the copy is kept.
#[test]
fn a_log_of_the_forced_epoch_itself_is_never_given_up() {
    let mut one = Given::leader_of_three();
    one.holds(&[(1, 0), (2, 1)], 5, 5);
    one.reads(forced_on_three(), 1);
    one.epoch_ends(3, 2, Some(2), 3);
    assert!(one.stopped().is_some());
}
