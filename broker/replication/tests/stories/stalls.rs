//! A leader whose disk no longer answers: it gives the leadership up while it still can, and does not take it back too soon.

use std::time::Duration;

use bellwether_coordinator::records::{QueueState, Trigger};
use bellwether_protocol::ids::{Epoch, Offset};
use bellwether_replication::{CasOutcome, Effect, Event};

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
