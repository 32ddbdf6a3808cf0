//! Leaders by an operator's order: each guard as the history that would lose more than was shown.

use std::time::Duration;

use bellwether_coordinator::records::{Cleared, Committed, Past, QueueState, Taint, Trigger};
use bellwether_protocol::ids::{BrokerId, Epoch, Member, Offset, StoreId};
use bellwether_protocol::peer::{NoPosition, Position};
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
    let noted = Committed { end: Offset(9), enqueued: 8, settled: 0, at_ms: 7, term: None };
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

/// How much is lost the client says, and it may say anything: a shard that panics serves no queue any more.
#[test]
fn what_is_lost_beyond_counting_stays_there() {
    let mut three = survivor();
    let (end, lost, more, cleared) = (Offset(0), 4, false, None);
    let taint = Taint { epoch: Epoch(1), by: life(2), at_ms: 1, end, lost, more, cleared };
    let past = Box::new(Past { taint: Some(taint), ..Past::default() });
    three.reads(QueueState { past, ..state(1, Some(1), &[1, 2]) }, 1);
    three.happens(Event::Force(Force { version: version(1), lost: u64::MAX, ..order() }));
    let taint = three.cas().expect("it asks to lead").1.past.taint.expect("it is tainted");
    assert_eq!(taint.lost, u64::MAX);
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
    three.happens(Event::Force(Force { ask: vec![life(2)], ..order() }));
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
    three.happens(Event::Force(Force { ask: vec![life(2)], ..order() }));
    three.reads(state(2, Some(2), &[1, 2]), 1);
    three.later(Duration::from_secs(2));
    assert!(matches!(refused(&three), NotForced::Changed { .. }));
}

/// The disk is another: what the member held is gone with the old one.
#[test]
fn a_broker_that_answers_with_another_disk_holds_nothing_of_the_in_sync_set() {
    let emptied = Member { store: StoreId(Uuid::from_u128(22)), ..member(2) };
    let mut three = survivor();
    three.happens(Event::Force(Force { ask: vec![life(2)], ..order() }));
    let (seen, last_epoch, log_end) = (Epoch(1), Epoch(0), Offset(0));
    let position = Position { queue: queue(), member: emptied, seen, last_epoch, log_end };
    three.happens(Event::Position { from: life(2), position });
    assert!(three.cas().is_some());

    let mut three = survivor();
    three.happens(Event::Force(Force { ask: vec![life(2)], ..order() }));
    three.says_nothing(life(2), emptied, false);
    assert!(three.cas().is_some(), "it is starting, and not with that copy");
}

#[test]
fn a_copy_that_has_stopped_says_so_and_is_passed_over() {
    let mut three = survivor();
    three.happens(Event::Force(Force { ask: vec![life(2)], ..order() }));
    three.says_nothing(life(2), member(2), true);
    assert!(three.cas().is_some(), "its words were shown");
}

/// Both in-sync brokers had crashed, and the operator was shown that. Broker 2 came up again with its disk whole, and was reading its
/// states when the order came. Its silence was taken for consent after half a second: what it alone held was gone (promise G1). The
/// same with one that is live and frozen.
#[test]
fn one_that_is_live_and_stays_silent_is_never_passed_over() {
    let mut three = survivor();
    three.happens(Event::Force(Force { ask: vec![life(2)], ..order() }));
    three.later(Duration::from_secs(60));
    assert_eq!(refused(&three), NotForced::Silent(life(2)));
    assert!(refused(&three).to_string().contains("stop that broker for good"));
    // Its operator stopped it, so that its path is gone: nobody has to be asked.
    three.take_effects();
    three.happens(Event::Force(order()));
    assert!(three.cas().is_some());
}

#[test]
fn one_that_is_starting_with_the_in_sync_copy_is_never_passed_over() {
    let mut three = survivor();
    three.happens(Event::Force(Force { ask: vec![life(2)], ..order() }));
    three.says_nothing(life(2), member(2), false);
    three.later(Duration::from_secs(60));
    assert_eq!(refused(&three), NotForced::Silent(life(2)));
}

/// It had stopped, and was asked about that; the answer was long under way. Then it was started anew, with a disk that works again.
#[test]
fn what_an_earlier_life_said_does_not_speak_for_the_one_that_is_live() {
    let mut three = survivor();
    three.happens(Event::Force(Force { ask: vec![another_life(2)], ..order() }));
    three.says_nothing(life(2), member(2), true);
    let emptied = Member { store: StoreId(Uuid::from_u128(22)), ..member(2) };
    three.says_nothing(life(2), emptied, false);
    three.later(Duration::from_secs(60));
    assert_eq!(refused(&three), NotForced::Silent(another_life(2)));
}

#[test]
fn each_of_those_that_are_live_has_to_agree() {
    let mut three = survivor();
    three.happens(Event::Force(Force { ask: vec![life(1), life(2)], ..order() }));
    three.says_nothing(life(1), member(1), true);
    three.later(Duration::from_secs(60));
    assert_eq!(refused(&three), NotForced::Silent(life(2)));
}

/// What a broker answers that is asked about a queue: a log that nobody may use yet is not the same as one that is of no use.
#[test]
fn a_copy_says_whether_it_is_starting_or_has_stopped() {
    let mut two = Given::follower_of_three(2);
    assert_eq!(two.position().map(|position| position.log_end), Ok(Offset(1)));
    two.holds(&[(1, 0)], 4, 2);
    let starting = NoPosition { queue: queue(), member: member(2), stopped: false };
    assert_eq!(two.position(), Err(starting), "it has not read its state in this life");
    two.happens(Event::StoreFailed { why: "a sync failed".to_owned() });
    assert_eq!(two.position(), Err(NoPosition { stopped: true, ..starting }));
}

#[test]
fn a_broker_without_the_coordinator_is_not_led_with() {
    let mut three = survivor();
    three.happens(Event::Connected(false));
    three.happens(Event::Force(order()));
    assert!(matches!(refused(&three), NotForced::Unusable { .. }));
}

/// What it has read may be older than what its own former life did.
#[test]
fn a_copy_that_has_not_read_the_state_after_a_sync_is_not_led_with() {
    let mut three = Given::follower(3, &[1, 2]);
    three.holds(&[(1, 0)], 1, 1);
    let synced =
        |synced| Event::State { state: state(1, Some(1), &[1, 2]), version: version(0), synced };
    three.happens(synced(false));
    three.happens(Event::Gone { life: life(1) });
    three.happens(Event::Force(order()));
    assert!(matches!(refused(&three), NotForced::Unusable { .. }));
    three.take_effects();
    three.happens(synced(true));
    three.happens(Event::Force(order()));
    assert!(three.cas().is_some());
}

#[test]
fn a_copy_that_waits_for_a_snapshot_is_not_led_with() {
    let mut three = survivor();
    let store = StoreId(Uuid::from_u128(33));
    three.happens(Event::LogLost { store, why: "a record is damaged".to_owned() });
    three.reads(state(1, Some(1), &[1, 2]), 0);
    three.take_effects();
    three.happens(Event::Force(Force { last_epoch: Epoch(0), log_end: Offset(0), ..order() }));
    let words = refused(&three);
    assert!(words.to_string().contains("holds nothing yet"), "{words}");
}

#[test]
fn a_copy_that_is_giving_its_log_up_is_not_led_with() {
    let mut three = survivor();
    let moved =
        QueueState { replicas: [1, 2].map(BrokerId).to_vec(), ..state(1, Some(1), &[1, 2]) };
    three.reads(moved, 1);
    assert_eq!(three.cas().expect("it parts").1.given_up, [member(3)]);
    three.take_effects();
    three.happens(Event::Force(Force { version: version(1), ..order() }));
    let words = refused(&three);
    assert!(words.to_string().contains("given up"), "{words}");
}

#[test]
fn a_copy_that_has_stopped_is_not_led_with() {
    let mut three = survivor();
    three.happens(Event::Broken { why: "a record is missing".to_owned() });
    three.take_effects();
    three.happens(Event::Force(order()));
    let why = "a record is missing".to_owned();
    assert_eq!(refused(&three), NotForced::Unusable { why });
}

/// Who gave the order waits for an answer.
#[test]
fn a_copy_that_stops_while_the_order_waits_says_so() {
    let mut three = survivor();
    three.happens(Event::Force(Force { ask: vec![life(2)], ..order() }));
    three.happens(Event::StoreFailed { why: "a sync failed".to_owned() });
    let why = "a sync failed".to_owned();
    assert_eq!(refused(&three), NotForced::Unusable { why });
    three.take_effects();
    three.says_nothing(life(2), member(2), true);
    assert_eq!((three.cas(), outcome(&three)), (None, None), "it was answered");
}

/// It resigned, or its path is gone, and this copy is about to stand: by an order it would give the others up for nothing.
#[test]
fn a_copy_that_is_in_sync_needs_no_order() {
    let mut two = Given::follower(2, &[1, 2]);
    two.reads(state(1, None, &[1, 2]), 1);
    two.take_effects();
    let given_up = vec![member(1)];
    two.happens(Event::Force(Force { version: version(1), given_up, ..order() }));
    assert!(matches!(refused(&two), NotForced::NotNeeded { .. }));
}

fn leader_left_alone() -> (Given, Force) {
    let mut one = Given::leader_with_isr(&[1, 2]);
    one.appends(1);
    one.durable_here();
    one.happens(Event::AcceptedDown { peer: life(2) });
    one.later(Duration::from_millis(1_500));
    assert!(one.starved());
    one.take_effects();
    (one, Force { given_up: vec![member(2)], lost: 0, more: false, ..order() })
}

#[test]
fn a_leader_that_has_asked_for_another_change_is_not_ordered_to_a_second() {
    let (mut one, order) = leader_left_alone();
    let term = None;
    let note = Committed { end: Offset(1), enqueued: 0, settled: 0, at_ms: 7, term };
    one.happens(Event::Note(note));
    assert!(one.cas().is_some(), "undecided");
    one.take_effects();
    one.happens(Event::Force(order));
    assert!(matches!(refused(&one), NotForced::Changed { .. }));
}

#[test]
fn a_leader_that_is_leaving_is_not_ordered_to_go_on_alone() {
    let (mut one, order) = leader_left_alone();
    one.happens(Event::HandOver);
    one.take_effects();
    one.happens(Event::Force(order));
    assert!(matches!(refused(&one), NotForced::Changed { .. }));
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
