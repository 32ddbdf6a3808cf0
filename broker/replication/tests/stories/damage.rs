//! Logs that are damaged: given up, and fetched anew as another member's.

use std::time::Duration;

use bellwether_protocol::ids::{Epoch, Offset, StoreId};
use bellwether_replication::{CasOutcome, Effect, Event};
use uuid::Uuid;

use crate::given::*;

fn log_is_lost(store: u128) -> Event {
    let store = StoreId(Uuid::from_u128(store));
    Event::LogLost { store, why: "a record is damaged".to_owned() }
}

/// As the member it was it would be counted on for what it no longer has.
#[test]
fn a_follower_whose_log_is_damaged_begins_anew_as_another_member() {
    let mut two = Given::follower_of_three(2);
    two.happens(log_is_lost(22));
    let leaves = Effect::Unsubscribe { leader: life(1), epoch: Epoch(1) };
    assert_eq!(two.effects()[0], leaves);
    assert!(two.effects().contains(&Effect::Renewed));
    two.take_effects();
    two.reads(state(1, Some(1), &[1, 2, 3]), 0);
    let fetch = Effect::FetchSnapshot { leader: life(1), epoch: Epoch(1) };
    assert_eq!((two.effects(), two.subscription()), (&[fetch.clone()][..], None));
    two.happens(Event::SnapshotFailed { epoch: Epoch(1) });
    two.take_effects();
    two.later(Duration::from_millis(500));
    assert!(two.effects().contains(&fetch) && two.subscription().is_none(), "again, and only that");
    let epochs = vec![(Epoch(1), Offset(0))];
    two.happens(Event::SnapshotInstalled { epoch: Epoch(1), at: Offset(1), epochs });
    let subscription = two.subscription().expect("the tail comes as a stream");
    assert_eq!((subscription.member.store.0.as_u128(), subscription.log_end), (22, Offset(1)));
}

#[test]
fn one_that_has_lost_its_log_does_not_stand_though_its_old_member_is_in_sync() {
    let mut two = Given::follower_of_three(2);
    two.happens(log_is_lost(22));
    two.reads(state(1, Some(1), &[1, 2, 3]), 0);
    two.happens(Event::Gone { life: life(1) });
    two.later(Duration::from_secs(1));
    assert_eq!((two.cas(), two.leads()), (None, None));
}

/// As long as the state names it nobody else may stand.
#[test]
fn a_leader_whose_log_is_damaged_resigns_before_it_begins_anew() {
    let mut one = Given::leader_of_three();
    one.happens(log_is_lost(11));
    assert_eq!(one.leads(), None);
    let resigns = one.cas().expect("another copy should lead");
    assert_eq!((resigns.1.leader, resigns.1.epoch), (None, Epoch(1)));
    one.answers(&resigns, CasOutcome::Undecided);
    one.later(Duration::from_millis(500));
    assert!(!one.effects().contains(&Effect::Renewed) && one.stopped().is_some());
    one.reads(state(1, None, &[1, 2, 3]), 1);
    assert!(one.effects().contains(&Effect::Renewed) && one.stopped().is_none());
    one.take_effects();
    one.later(Duration::from_millis(500));
    assert_eq!(one.cas(), None, "it is no member now");
    one.reads(state(2, Some(2), &[1, 2, 3]), 2);
    let fetch = Effect::FetchSnapshot { leader: life(2), epoch: Epoch(2) };
    assert!(one.effects().contains(&fetch));
}

/// A candidate finds the damage while its election is undecided, and is elected after it has begun anew.
#[test]
fn one_that_is_elected_after_its_log_was_lost_resigns() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::Dead { life: life(1) });
    two.later(Duration::from_millis(100));
    let stands = two.cas().expect("it stands");
    two.answers(&stands, CasOutcome::Undecided);
    two.happens(log_is_lost(22));
    assert!(two.effects().contains(&Effect::Renewed), "the state read names somebody else");
    two.take_effects();
    two.reads(stands.1.clone(), 1);
    assert_eq!(
        (two.leads(), two.cas()),
        (None, None),
        "the old leader may deliver for a while yet"
    );
    two.later(Duration::from_millis(400));
    let resigns = two.cas().expect("nobody else may stand while it is named");
    assert_eq!((resigns.1.leader, resigns.1.epoch), (None, Epoch(2)));
    two.reads(state(2, None, &[2, 3]), 2);
    assert!(two.stopped().is_none());
}

#[test]
fn a_damaged_log_is_found_before_there_is_a_session() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::Life(None));
    two.happens(log_is_lost(22));
    two.take_effects();
    two.happens(Event::Life(Some(another_life(2))));
    two.reads(state(1, Some(1), &[1, 2, 3]), 0);
    let fetch = Effect::FetchSnapshot { leader: life(1), epoch: Epoch(1) };
    assert!(two.effects().contains(&fetch));
}

/// A disk that failed is not asked for anything again.
#[test]
fn a_store_that_failed_does_not_begin_anew() {
    let mut one = Given::leader_of_three();
    one.happens(log_is_lost(11));
    one.happens(Event::StoreFailed { why: "fdatasync failed".to_owned() });
    one.reads(state(1, None, &[1, 2, 3]), 1);
    assert!(one.stopped().is_some() && !one.effects().contains(&Effect::Renewed));
}

/// The leader's answer to the old member came after the snapshot, and its log seemed to end below what is committed.
#[test]
fn an_answer_to_an_older_subscription_says_nothing_of_this_log() {
    let mut two = Given::follower_of_three(2);
    two.reads(state(2, Some(3), &[1, 2, 3]), 1);
    let asked = two.subscription().expect("it subscribes");
    two.happens(log_is_lost(22));
    two.reads(state(2, Some(3), &[1, 2, 3]), 1);
    let epochs = vec![(Epoch(1), Offset(0)), (Epoch(2), Offset(1))];
    two.happens(Event::SnapshotInstalled { epoch: Epoch(2), at: Offset(90), epochs });
    two.happens(Event::EpochEnd {
        from: life(3),
        epoch: Epoch(2),
        last_epoch: Some(Epoch(1)),
        end: Offset(1),
        number: asked.number,
    });
    assert!(two.stopped().is_none());
    two.epoch_ends(3, 2, Some(2), 95);
    assert!(two.stopped().is_none() && two.follows().is_some());
}
