//! A leader whose disk no longer answers: it gives the leadership up while it still can, and does not take it back too soon.

use std::time::Duration;

use bellwether_coordinator::records::{QueueState, Trigger};
use bellwether_protocol::ids::{Epoch, Member, Offset, StoreId};
use bellwether_replication::{CasOutcome, Effect, Event};
use uuid::Uuid;

use crate::given::*;

/// What a state remembers of the leader that resigned, for people.
fn why(state: &QueueState) -> &str {
    &state.past.resignation.as_ref().expect("somebody resigned").why
}

/// "Resigned", and no word why: what `bellwether elections` showed of a disk that stalled.
#[test]
fn the_election_after_a_stalled_disk_tells_why_the_leader_resigned() {
    let mut one = Given::leader_of_three();
    one.happens(Event::DiskStalls(true));
    let resigned = one.cas().unwrap().1;
    let mut two = Given::follower_of_three(2);
    two.reads(resigned, 1);
    two.positions_agree(&[1, 3]);
    two.later(Duration::from_secs(1));
    let elected = two.cas().expect("it is the next in turn").1;
    let last = elected.past.elections.last().unwrap();
    assert_eq!((&last.trigger, last.from), (&Trigger::Resigned, Some(life(1))));
    assert_eq!(last.why.as_deref(), Some("its disk stalls: no write or sync returns"));
}

#[test]
fn a_leader_whose_disk_stalls_resigns_and_confirms_nothing_when_the_sync_returns_after_all() {
    let mut one = Given::leader_of_three();
    one.appends(5);
    one.durable_at(2, 6);
    one.durable_at(3, 6);
    assert_eq!(one.high_watermark(), Offset(1), "its own disk has not synced");
    one.happens(Event::DiskStalls(true));
    assert_eq!(one.leads(), None);
    let stops = one.effects().iter().position(|e| matches!(e, Effect::StopLeading { .. }));
    let asks = one.effects().iter().position(|e| matches!(e, Effect::Cas { .. }));
    assert!(stops.unwrap() < asks.unwrap(), "first it stops, then it says so");
    let resigns = one.cas().unwrap();
    assert_eq!((resigns.1.leader, resigns.1.epoch), (None, Epoch(1)));
    assert_eq!(brokers(&resigns.1.isr), [1, 2, 3], "who is in sync stays as it was");
    assert_eq!(why(&resigns.1), "its disk stalls: no write or sync returns");
    // The sync returns before anybody has read that: a successor may lack what it would confirm (promise G2).
    one.durable_here();
    assert_eq!(one.high_watermark(), Offset(1));
    assert_eq!(one.lease_members(), None, "nothing is delivered beside the successor (promise G3)");
}

#[test]
fn with_nobody_to_follow_a_leader_whose_disk_stalls_stays_and_resigns_once_there_is_somebody() {
    let mut one = Given::leader_of_three();
    one.happens(Event::AcceptedDown { peer: life(2) });
    one.happens(Event::AcceptedDown { peer: life(3) });
    one.take_effects();
    one.happens(Event::DiskStalls(true));
    assert_eq!((one.leads(), one.cas()), (Some(Epoch(1)), None), "the queue would have no leader");
    one.follower_joins(2, Some(1), 1);
    one.happens(Event::DiskStalls(true));
    assert_eq!(one.cas().unwrap().1.leader, None);
}

/// The disk of a new leader stalled before anybody knew: its epoch start is not synced, so that it answers no follower. Seen in
/// simulated histories as a queue without service for as long as the stall lasted, beside two sound members of its in-sync set.
#[test]
fn a_leader_whose_disk_stalls_before_its_epoch_start_is_synced_resigns_for_those_that_ask_to_follow()
 {
    let mut one = Given::fresh_leader();
    one.happens(Event::DiskStalls(true));
    assert_eq!((one.leads(), one.cas()), (Some(Epoch(1)), None), "nobody is there yet");
    one.follower_joins(2, None, 0);
    one.happens(Event::DiskStalls(true));
    assert_eq!(one.leads(), None);
    assert_eq!(one.cas().expect("the other can lead").1.leader, None);
    one.durable_here();
    assert_eq!(one.serves(), None, "the sync that returns after all begins nothing");
}

#[test]
fn a_copy_that_is_not_in_sync_and_asks_to_follow_is_nobody_to_resign_for() {
    let mut one = Given::fresh_leader_with_isr(&[1, 2]);
    one.follower_joins(3, None, 0);
    one.happens(Event::DiskStalls(true));
    assert_eq!((one.leads(), one.cas()), (Some(Epoch(1)), None));
}

#[test]
fn a_resignation_that_crossed_a_change_of_the_in_sync_set_is_asked_for_again() {
    let mut one = Given::leader_of_three();
    one.happens(Event::DiskStalls(true));
    let resigns = one.cas().unwrap();
    one.answers(&resigns, CasOutcome::Refused);
    assert!(one.effects().contains(&Effect::ReadState), "the state tells why");
    // An earlier change of its own was applied: it is named still.
    one.reads(state(1, Some(1), &[1, 2]), 1);
    let again = one.cas().expect("as long as it is named nobody else may stand");
    assert_eq!((again.0, again.1.leader, brokers(&again.1.isr)), (version(1), None, vec![1, 2]));
    assert_eq!(one.leads(), None, "an epoch that was left is never led again");
    assert_eq!(why(&again.1), why(&resigns.1), "and it says why every time");
    one.answers(&again, CasOutcome::Undecided);
    one.reads(state(1, None, &[1, 2]), 2);
    one.take_effects();
    one.later(Duration::from_secs(5));
    assert_eq!(one.cas(), None, "done, and it does not stand while the disk stalls");
}

#[test]
fn one_whose_disk_stalls_does_not_stand_until_syncs_have_been_fine_for_a_while() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::DiskStalls(true));
    two.reads(state(1, None, &[1, 2, 3]), 1);
    two.positions_agree(&[1, 3]);
    two.later(Duration::from_secs(5));
    assert_eq!(two.cas(), None);
    two.happens(Event::DiskStalls(false));
    two.positions_agree(&[1, 3]);
    two.later(Duration::from_secs(1));
    assert_eq!(two.cas().expect("it is as good as the others again").1.leader, Some(life(2)));
}

#[test]
fn one_that_is_named_while_its_disk_stalls_declines_not_before_an_older_leader_delivers_no_more() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::DiskStalls(true));
    two.take_effects();
    two.reads(state(2, Some(2), &[1, 2, 3]), 1);
    assert_eq!((two.leads(), two.cas()), (None, None), "an older leader may deliver still");
    two.later(Duration::from_millis(500));
    let declines = two.cas().expect("another one should lead");
    assert_eq!((declines.1.leader, declines.1.epoch), (None, Epoch(2)));
    assert_eq!(why(&declines.1), "its disk stalls: it was to lead, and declined");
    assert_eq!(two.leads(), None);
}

#[test]
fn a_new_life_does_not_resign_what_the_former_one_gave_up() {
    let mut one = Given::leader_of_three();
    one.happens(Event::DiskStalls(true));
    one.happens(Event::Life(Some(another_life(1))));
    one.happens(Event::DiskStalls(false));
    one.take_effects();
    one.reads(state(1, None, &[1, 2, 3]), 1);
    one.position_of(2, 1, 1);
    one.position_of(3, 1, 1);
    one.later(Duration::from_secs(1));
    assert_eq!(one.cas().expect("it stands").1.leader, Some(another_life(1)));
}

/// Its connection is up, so the leader resigned; and then nobody led, for the one that could stand was frozen, and the leader before
/// waited for its own disk (promise G10).
#[test]
fn a_follower_that_lags_is_nobody_to_resign_to() {
    let mut one = Given::leader_with_isr(&[1, 2]);
    one.appends(3);
    one.later(Duration::from_millis(1_500));
    one.take_effects();
    one.happens(Event::DiskStalls(true));
    assert_eq!((one.leads(), one.cas()), (Some(Epoch(1)), None), "broker 2 reports nothing");
    one.durable_at(2, 4);
    one.happens(Event::DiskStalls(true));
    assert_eq!(one.cas().expect("now somebody is there").1.leader, None);
}

#[test]
fn without_the_coordinator_a_leader_whose_disk_stalls_stays() {
    let mut one = Given::leader_of_three();
    one.happens(Event::Connected(false));
    one.take_effects();
    one.happens(Event::DiskStalls(true));
    assert_eq!((one.leads(), one.cas()), (Some(Epoch(1)), None), "it could not say so");
    one.happens(Event::Connected(true));
    one.happens(Event::DiskStalls(true));
    assert_eq!(one.cas().expect("now it can").1.leader, None);
}

/// All copies lie on one storage that stalled for a while: each left it to the others, for as long as it took for a disk to be called
/// fine (promise G10).
#[test]
fn when_nobody_else_stands_one_whose_syncs_return_does() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::DiskStalls(true));
    two.reads(state(1, None, &[1, 2, 3]), 1);
    two.later(Duration::from_secs(10));
    assert_eq!(two.cas(), None, "no sync returns: it could not lead");
    two.happens(Event::DiskReturns);
    let stands = {
        two.later(Duration::from_millis(100));
        two.cas().expect("nobody else stood in all that time")
    };
    two.answers(&stands, CasOutcome::Done { version: version(2) });
    assert_eq!(two.leads(), Some(Epoch(2)), "and it does not decline what it asked for");
}

#[test]
fn one_whose_syncs_have_just_returned_lets_the_others_go_first() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::DiskStalls(true));
    two.happens(Event::DiskReturns);
    two.reads(state(1, None, &[1, 2, 3]), 1);
    two.positions_agree(&[1, 3]);
    assert!(two.wants_ticks(), "time alone will make it stand");
    two.later(Duration::from_secs(2));
    assert_eq!(two.cas(), None);
    // Somebody stood, and resigned again: from then on it is waited anew.
    two.reads(state(2, None, &[1, 2, 3]), 3);
    two.later(Duration::from_secs(2));
    assert_eq!(two.cas(), None);
    two.happens(Event::DiskStalls(true));
    two.later(Duration::from_secs(5));
    assert_eq!(two.cas(), None, "it stalls again");
    two.happens(Event::DiskReturns);
    two.later(Duration::from_millis(100));
    assert!(two.cas().is_some());
}

#[test]
fn one_that_is_named_by_another_declines_until_its_disk_is_fine() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::DiskStalls(true));
    two.happens(Event::DiskReturns);
    two.reads(state(2, Some(2), &[1, 2, 3]), 1);
    assert_eq!(two.leads(), None, "the others may be better off");
}

/// Resigning, it would leave the queue to nobody.
#[test]
fn the_only_in_sync_member_declines_nothing() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::DiskStalls(true));
    two.reads(state(2, Some(2), &[2]), 1);
    assert_eq!(two.leads(), Some(Epoch(2)));
}

/// A damaged copy began anew while its disk was stalling. "The disk is fine" was said while it was stopped, and not heard: it never stood
/// again (promise G10). And the other way round: told of a stall while it was stopped it led nobody anywhere.
#[test]
fn what_is_said_of_the_disk_is_heard_while_the_copy_is_stopped() {
    let store = StoreId(Uuid::from_u128(22));
    let anew = |before: bool, meanwhile: bool| {
        let mut two = Given::follower_of_three(2);
        two.happens(Event::DiskStalls(before));
        // Named still, it stays stopped until the state names somebody else.
        two.reads(state(2, Some(2), &[1, 2, 3]), 1);
        two.happens(Event::LogLost { store, why: "a record is damaged".to_owned() });
        assert!(two.stopped().is_some());
        two.happens(Event::DiskStalls(meanwhile));
        two.reads(state(3, Some(1), &[1, 2, 3]), 2);
        assert_eq!(two.stopped(), None, "it begins anew");
        two.reads(state(3, Some(1), &[1, 2, 3]), 2);
        two.happens(Event::SnapshotInstalled {
            epoch: Epoch(3),
            at: Offset(4),
            epochs: vec![(Epoch(1), Offset(0)), (Epoch(3), Offset(2))],
        });
        // Taken in again, and then nobody leads.
        let mut vacant = state(3, None, &[1, 3]);
        vacant.isr.push(Member { store, ..member(2) });
        two.take_effects();
        two.reads(vacant, 3);
        two.later(Duration::from_secs(1));
        two.cas().is_some()
    };
    assert!(anew(true, false), "it is as good as the others again");
    assert!(!anew(false, true), "the others go first");
}

/// The change had been sent when the disk stalled. Had the coordinator applied the resignation in its place, or both, somebody could be
/// counted on, or not be counted on, against the state: each names its version, and so one of them at most is done.
#[test]
fn a_stall_that_meets_a_change_of_the_set_under_way_resigns_by_the_version_that_was_read() {
    let mut one = Given::leader_of_three();
    one.appends(1);
    one.durable_at(2, 2);
    one.later(Duration::from_millis(1_500));
    let shrink = one.cas().expect("broker 3 lags");
    assert_eq!(brokers(&shrink.1.isr), [1, 2]);
    one.take_effects();
    one.happens(Event::DiskStalls(true));
    let resigns = one.cas().expect("broker 2 is there");
    let order: Vec<bool> = one
        .effects()
        .iter()
        .filter_map(|effect| match effect {
            Effect::StopLeading { .. } => Some(true),
            Effect::Cas { .. } => Some(false),
            _ => None,
        })
        .collect();
    assert_eq!(order, [true, false], "it stops leading before anything more is sent");
    assert_eq!((resigns.0, brokers(&resigns.1.isr)), (shrink.0, vec![1, 2, 3]));
    // The one that was sent first is applied first: the answer means nothing to one that leads no more, and the resignation is refused.
    one.answers(&shrink, CasOutcome::Done { version: version(1) });
    assert_eq!(one.leads(), None);
    assert!(one.effects().contains(&Effect::ReadState));
    one.durable_here();
    assert_eq!(one.high_watermark(), Offset(1), "nothing is confirmed by one that has resigned");
    one.answers(&resigns, CasOutcome::Refused);
    one.reads(shrink.1.clone(), 1);
    let again = one.cas().expect("it is named still");
    assert_eq!((again.0, again.1.leader, brokers(&again.1.isr)), (version(1), None, vec![1, 2]));
}

#[test]
fn a_stall_that_meets_a_hand_over_under_way_leaves_it_to_the_coordinator_which_is_done() {
    let mut one = Given::leader_of_three();
    one.happens(Event::HandOver);
    let hands_over = one.cas().expect("all is committed");
    assert_eq!(hands_over.1.leader, Some(life(2)));
    one.take_effects();
    one.happens(Event::DiskStalls(true));
    let resigns = one.cas().expect("the hand-over may have been lost on the way");
    assert_eq!((resigns.0, resigns.1.leader), (hands_over.0, None));
    // In the order of sending the hand-over is done, and the resignation is not.
    one.answers(&hands_over, CasOutcome::Done { version: version(1) });
    one.answers(&resigns, CasOutcome::Refused);
    one.reads(hands_over.1.clone(), 1);
    assert_eq!(one.cas(), None, "it is named no more");
    assert_eq!(one.follows(), Some((life(2), Epoch(2))));
    // The hand-over was lost, and the resignation is done: nothing stays of the hand-over.
    let mut one = Given::leader_of_three();
    one.happens(Event::HandOver);
    one.happens(Event::DiskStalls(true));
    let resigns = one.cas().expect("it resigns");
    one.answers(&resigns, CasOutcome::Done { version: version(1) });
    one.reads(resigns.1.clone(), 1);
    one.take_effects();
    one.later(Duration::from_secs(1));
    assert_eq!((one.cas(), one.leads()), (None, None));
}
