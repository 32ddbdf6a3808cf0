//! What a state remembers of its elections: who led before, why that ended, and how long it took.

use std::time::Duration;

use bellwether_coordinator::records::{
    Committed, Election, Past, QueueState, Resignation, Trigger,
};
use bellwether_protocol::ids::{BrokerId, Epoch, Offset, StoreId};
use bellwether_replication::{CasOutcome, Effect, Event};
use uuid::Uuid;

use crate::given::*;

fn last(cas: Option<Cas>) -> Election {
    cas.expect("it asks to lead").1.past.elections.pop().expect("that is noted")
}

#[test]
fn the_next_leader_notes_that_the_process_of_the_last_one_was_gone() {
    let mut two = Given::follower_of_three(2);
    two.wall(5_000);
    two.happens(Event::Dead { life: life(1) });
    two.later(Duration::from_millis(20));
    two.positions_agree(&[3]);
    let noted = last(two.cas());
    assert_eq!((noted.epoch, noted.from, noted.to), (Epoch(2), Some(life(1)), life(2)));
    assert_eq!((noted.trigger, noted.at_ms, noted.took_ms), (Trigger::ProcessGone, 5_000, 20));
}

#[test]
fn a_session_that_is_over_is_another_trigger_than_a_process_that_is_dead() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::Gone { life: life(1) });
    two.positions_agree(&[3]);
    assert_eq!(last(two.cas()).trigger, Trigger::SessionExpired);
}

#[test]
fn who_follows_one_that_resigned_notes_why_it_did() {
    let mut one = Given::leader_of_three();
    let why = "its disk failed".to_owned();
    one.happens(Event::StoreFailed { why });
    let (_, vacant) = one.cas().expect("it resigns");
    let by = Resignation { by: life(1), why: "its disk failed".to_owned() };
    assert_eq!(vacant.past.resignation, Some(by));

    let mut two = Given::follower_of_three(2);
    two.reads(vacant, 1);
    two.later(Duration::from_millis(200));
    let noted = last(two.cas());
    assert_eq!((noted.trigger, noted.from), (Trigger::Resigned, Some(life(1))));
    assert_eq!(noted.why.as_deref(), Some("its disk failed"));
}

#[test]
fn a_drain_and_a_move_are_told_apart() {
    let mut one = Given::leader_of_three();
    one.happens(Event::HandOver);
    assert_eq!(last(one.cas()).trigger, Trigger::Drained);

    let mut one = Given::leader_of_three();
    let replicas = [3, 1, 2].map(BrokerId).to_vec();
    one.reads(QueueState { replicas, ..state(1, Some(1), &[1, 2, 3]) }, 1);
    one.later(Duration::from_secs(6));
    one.happens(Event::Move);
    let noted = last(one.cas());
    assert_eq!((noted.trigger, noted.from, noted.to), (Trigger::Moved, Some(life(1)), life(3)));
}

/// Two contents of one CAS: the answer to the first would not be known for an answer to the second.
#[test]
fn an_election_that_is_asked_for_again_is_the_same_to_the_millisecond() {
    let mut two = Given::follower_of_three(2);
    two.wall(5_000);
    two.happens(Event::Dead { life: life(1) });
    two.positions_agree(&[3]);
    let stand = two.cas().expect("it stands");
    two.answers(&stand, CasOutcome::Undecided);
    two.wall(9_000);
    two.later(Duration::from_millis(50));
    assert_eq!(two.cas(), Some(stand));
}

#[test]
fn a_leader_writes_down_what_is_committed_only_while_a_copy_is_missing() {
    let noted = Committed { end: Offset(1), enqueued: 0, settled: 0, at_ms: 7, term: None };
    let mut one = Given::leader_of_three();
    one.happens(Event::Note(noted));
    assert_eq!(one.cas(), None, "every copy holds all of it");
    let mut one = Given::leader_with_isr(&[1, 2]);
    one.happens(Event::Note(noted));
    let note = one.cas().expect("copy 3 lacks what comes now");
    let noted_there = Committed { term: Some((Epoch(1), Offset(0))), ..noted };
    let past = Box::new(Past { committed: Some(noted_there), ..Past::default() });
    assert_eq!(note.1, QueueState { past, ..state(1, Some(1), &[1, 2]) });
    one.answers(&note, CasOutcome::Done { version: version(1) });
    one.happens(Event::Note(noted));
    assert_eq!((one.cas(), one.leads()), (None, Some(Epoch(1))), "that is known already");
}

/// A confirm must not wait for it, and must not come before its time because of it.
#[test]
fn what_is_written_down_changes_nothing_for_confirms() {
    let mut one = Given::leader_with_isr(&[1, 2]);
    let noted = Committed { end: Offset(1), enqueued: 0, settled: 0, at_ms: 7, term: None };
    one.happens(Event::Note(noted));
    one.appends(1);
    one.durable_here();
    assert_eq!(one.high_watermark(), Offset(1), "broker 2 has not reported");
    one.durable_at(2, 2);
    assert_eq!(one.high_watermark(), Offset(2), "the note is not decided yet");
}

#[test]
fn a_damaged_log_is_the_reason_that_is_given() {
    let mut one = Given::leader_of_three();
    let store = StoreId(Uuid::from_u128(11));
    one.happens(Event::LogLost { store, why: "a record is damaged".to_owned() });
    let resigns = one.effects().iter().find_map(|effect| match effect {
        Effect::Cas { state, .. } => state.past.resignation.clone(),
        _ => None,
    });
    assert_eq!(resigns.map(|resigned| resigned.why).as_deref(), Some("a record is damaged"));
}
