//! Copies and leaderships that move: to the preferred leader, to other brokers, and away from those that are to hold nothing.

use std::time::Duration;

use bellwether_coordinator::records::QueueState;
use bellwether_protocol::ids::{BrokerId, Epoch, Offset, StoreId};
use bellwether_replication::{CasOutcome, Effect, Event};
use uuid::Uuid;

use crate::given::*;

fn on(replicas: &[u32], state: QueueState) -> QueueState {
    QueueState { replicas: replicas.iter().copied().map(BrokerId).collect(), ..state }
}

fn three_in_sync() -> QueueState {
    state(1, Some(1), &[1, 2, 3])
}

#[test]
fn the_leadership_goes_to_the_first_of_the_replica_set_once_that_has_settled() {
    let mut one = Given::leader_of_three();
    one.reads(on(&[3, 1, 2], three_in_sync()), 1);
    one.happens(Event::Move);
    assert_eq!(one.cas(), None, "it leads since a moment ago");
    one.later(Duration::from_secs(6));
    one.happens(Event::Move);
    let (_, proposal) = one.cas().expect("it hands over");
    assert_eq!((proposal.leader, proposal.epoch), (Some(life(3)), Epoch(2)));
    assert_eq!(brokers(&proposal.isr), [1, 2, 3], "nobody leaves for that");
    assert_eq!((one.leads(), one.lease_members()), (None, None), "and it delivers nothing more");
}

/// Deciding by itself that the CAS has failed it might lead beside its successor.
#[test]
fn a_move_that_is_undecided_is_waited_for_and_one_that_was_refused_is_given_up_after_a_while() {
    let mut one = Given::leader_of_three();
    one.reads(on(&[3, 1, 2], three_in_sync()), 1);
    one.later(Duration::from_secs(6));
    one.happens(Event::Move);
    let moves = one.cas().expect("it hands over");
    one.answers(&moves, CasOutcome::Undecided);
    one.later(Duration::from_secs(5));
    assert_eq!(one.leads(), None, "its successor may lead already");
    one.answers(&moves, CasOutcome::Refused);
    one.reads(on(&[3, 1, 2], three_in_sync()), 2);
    assert_eq!(one.leads(), Some(Epoch(1)), "decided against it, and its time is over");
    assert!(one.lease_members().is_some());
}

#[test]
fn a_move_waits_until_all_is_committed_and_is_given_up_when_that_takes_too_long() {
    let mut one = Given::leader_of_three();
    one.reads(on(&[3, 1, 2], three_in_sync()), 1);
    one.later(Duration::from_secs(6));
    one.appends(5);
    one.durable_here();
    one.durable_at(3, 6);
    one.happens(Event::Move);
    assert_eq!((one.cas(), one.leads()), (None, None), "broker 2 has not reported");
    one.later(Duration::from_millis(1_100));
    assert_eq!(one.leads(), Some(Epoch(1)), "clients are not kept waiting for it");
}

#[test]
fn a_broker_that_drains_while_a_queue_moves_keeps_nobody_waiting() {
    let mut one = Given::leader_of_three();
    one.reads(on(&[3, 1, 2], three_in_sync()), 1);
    one.later(Duration::from_secs(6));
    one.appends(5);
    one.happens(Event::Move);
    one.happens(Event::HandOver);
    assert!(one.effects().contains(&Effect::Stays) && one.leads().is_none());
    one.durable_here();
    one.durable_at(2, 6);
    one.durable_at(3, 6);
    let (_, proposal) = one.cas().expect("it hands over when all is committed");
    assert_eq!(proposal.leader, Some(life(3)), "to the first of the replica set");
}

#[test]
fn the_leadership_does_not_go_to_one_that_is_behind_or_not_there() {
    let mut one = Given::leader_of_three();
    one.reads(on(&[3, 1, 2], three_in_sync()), 1);
    one.later(Duration::from_secs(6));
    one.happens(Event::AcceptedDown { peer: life(3) });
    one.happens(Event::Move);
    assert_eq!((one.cas(), one.leads()), (None, Some(Epoch(1))));
}

/// The disk of the preferred leader had stalled, and its syncs returned. For as long as it calmed down the leadership was handed to it
/// every few seconds, it declined, and the queue had no leader until another one stood.
#[test]
fn the_leadership_does_not_go_to_one_whose_disk_calms_down_and_goes_when_it_is_ready() {
    let mut one = Given::leader_of_three();
    one.reads(on(&[3, 1, 2], three_in_sync()), 1);
    one.unready(&[3]);
    one.later(Duration::from_secs(60));
    one.happens(Event::Move);
    assert_eq!((one.cas(), one.leads()), (None, Some(Epoch(1))), "it would decline");
    one.unready(&[]);
    one.happens(Event::Move);
    assert_eq!(one.cas().expect("it is ready").1.leader, Some(life(3)));
}

#[test]
fn a_move_to_one_whose_disk_begins_to_stall_is_given_up_at_once() {
    let mut one = Given::leader_of_three();
    one.reads(on(&[3, 1, 2], three_in_sync()), 1);
    one.later(Duration::from_secs(6));
    one.appends(1);
    one.happens(Event::Move);
    assert_eq!(one.leads(), None, "it waits for broker 2 and 3");
    one.unready(&[3]);
    one.later(Duration::from_millis(10));
    assert_eq!((one.cas(), one.leads()), (None, Some(Epoch(1))));
    assert!(one.effects().contains(&Effect::Stays), "who was held back is served");
}

#[test]
fn a_broker_that_drains_hands_over_to_one_that_is_ready_and_to_another_rather_than_to_nobody() {
    let mut one = Given::leader_of_three();
    one.unready(&[2]);
    one.happens(Event::HandOver);
    assert_eq!(one.cas().expect("it hands over").1.leader, Some(life(3)), "later in order");

    let mut one = Given::leader_of_three();
    one.unready(&[2, 3]);
    one.happens(Event::HandOver);
    assert_eq!(one.cas().expect("it leaves all the same").1.leader, Some(life(2)));
}

#[test]
fn a_leader_outside_the_replica_set_gives_way_to_the_first_that_can_lead() {
    let mut one = Given::leader_of_three();
    one.reads(on(&[4, 3, 2], three_in_sync()), 1);
    one.later(Duration::from_secs(6));
    one.happens(Event::Move);
    let (_, proposal) = one.cas().expect("it hands over");
    assert_eq!(proposal.leader, Some(life(3)), "broker 4 holds nothing yet");
}

/// Promise G1: taken back into the set it could be counted on for what it is about to drop.
#[test]
fn a_copy_outside_the_replica_set_gives_its_log_up_only_when_that_is_written_down() {
    let mut three = Given::follower_of_three(3);
    three.reads(on(&[1, 2, 4], three_in_sync()), 1);
    assert_eq!(three.cas(), None, "it is in sync: the others count on it");
    three.reads(on(&[1, 2, 4], state(1, Some(1), &[1, 2, 4])), 2);
    let leaves = Effect::Unsubscribe { leader: life(1), epoch: Epoch(1) };
    assert!(three.effects().contains(&leaves), "it reports no more");
    let parts = three.cas().expect("it asks for leave");
    assert_eq!(parts.1.given_up, [member(3)]);
    assert!(!three.effects().contains(&Effect::Parted));
    three.answers(&parts, CasOutcome::Undecided);
    assert!(!three.effects().contains(&Effect::Parted), "perhaps it is to hold a copy again");
    three.answers(&parts, CasOutcome::Done { version: version(3) });
    assert!(three.effects().contains(&Effect::Parted));
}

/// It may be the last that holds what the in-sync ones are about to lose.
#[test]
fn a_copy_outside_the_replica_set_keeps_its_log_until_all_of_the_set_are_in_sync() {
    let mut three = Given::follower_of_three(3);
    three.reads(on(&[1, 2, 4], state(1, Some(1), &[1, 2])), 1);
    assert_eq!(three.cas(), None, "broker 4 has nothing yet");
    three.reads(on(&[1, 2, 4], state(1, Some(1), &[1, 2, 4])), 2);
    assert!(three.cas().is_some());
}

/// Else the leader would take members out until there are fewer than that.
#[test]
fn a_min_isr_that_is_raised_while_the_leadership_is_about_to_move_counts_at_once() {
    let mut one = Given::leader_of_three();
    let few = QueueState { min_isr: 1, ..on(&[3, 1, 2], three_in_sync()) };
    one.reads(few, 1);
    one.later(Duration::from_secs(6));
    one.appends(1);
    one.durable_here();
    one.happens(Event::Move);
    one.reads(on(&[3, 1, 2], three_in_sync()), 2);
    one.take_effects();
    one.later(Duration::from_millis(2_500));
    assert_eq!(one.leads(), Some(Epoch(1)), "neither follower reported in time");
    let (_, proposal) = one.cas().expect("both lag");
    assert_eq!(proposal.isr.len(), 2, "one of them has to stay");
}

#[test]
fn a_copy_that_is_wanted_again_before_it_is_given_up_follows_again() {
    let mut three = Given::follower_of_three(3);
    three.reads(on(&[1, 2, 4], state(1, Some(1), &[1, 2, 4])), 1);
    let parts = three.cas().expect("it asks for leave");
    three.answers(&parts, CasOutcome::Refused);
    three.reads(state(1, Some(1), &[1, 2]), 2);
    assert!(!three.effects().contains(&Effect::Parted));
    assert_eq!(three.follows(), Some((life(1), Epoch(1))));
    assert!(three.subscription().is_some());
}

/// The history: broker 3 reported everything and then gave its log up; it was taken into the replica set again before the leader
/// heard that it follows no more.
#[test]
fn what_a_copy_reported_before_it_gave_up_does_not_bring_it_back() {
    let mut one = Given::leader_with_isr(&[1, 2]);
    one.follower_joins(3, Some(1), 1);
    let mut gave_up = state(1, Some(1), &[1, 2]);
    gave_up.given_up = vec![member(3)];
    one.reads(gave_up, 1);
    one.durable_at(3, 1);
    one.later(Duration::from_millis(100));
    assert_eq!(one.cas(), None, "its log is gone");
    one.reads(state(1, Some(1), &[1, 2]), 2);
    one.later(Duration::from_millis(100));
    let joins = one.cas().expect("without that note it would be taken back");
    assert_eq!(brokers(&joins.1.isr), [1, 2, 3]);
}

#[test]
fn nobody_joins_from_outside_the_replica_set() {
    let mut one = Given::leader_with_isr(&[1, 2]);
    one.reads(on(&[1, 2], state(1, Some(1), &[1, 2])), 1);
    one.follower_joins(3, Some(1), 1);
    one.durable_at(3, 1);
    one.later(Duration::from_millis(100));
    assert_eq!(one.cas(), None);
}

/// A leader that had not heard of the damage handed over to what the follower was before.
#[test]
fn one_that_has_begun_anew_resigns_when_its_old_member_is_named_as_leader() {
    let mut two = Given::follower_of_three(2);
    let store = StoreId(Uuid::from_u128(22));
    two.happens(Event::LogLost { store, why: "a record is damaged".to_owned() });
    two.reads(state(1, Some(1), &[1, 2, 3]), 0);
    let epochs = vec![(Epoch(1), Offset(0))];
    two.happens(Event::SnapshotInstalled { epoch: Epoch(1), at: Offset(1), epochs });
    two.take_effects();
    two.reads(state(2, Some(2), &[1, 2, 3]), 1);
    assert_eq!(two.leads(), None);
    let resigns = two.cas().expect("another must be able to stand");
    assert_eq!(resigns.1.leader, None);
    two.reads(QueueState { leader: None, ..state(2, None, &[1, 2, 3]) }, 2);
    assert_eq!(two.stopped(), None, "it takes part again");
}
