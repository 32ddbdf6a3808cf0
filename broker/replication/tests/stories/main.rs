//! The rules of election, confirming, following and ISR changes, each as the history that would break a promise without it.

mod damage;
mod elections;
mod forced;
mod given;
mod moves;
mod stalls;

use std::time::Duration;

use bellwether_protocol::ids::{Epoch, Offset};
use bellwether_replication::{CasOutcome, Effect, Event};
use given::*;

#[test]
fn a_confirm_waits_for_every_in_sync_member() {
    let mut one = Given::leader_of_three();
    one.appends(5);
    one.durable_here();
    one.durable_at(2, 6);
    assert_eq!(one.high_watermark(), Offset(1), "broker 3 has not reported");
    one.durable_at(3, 6);
    assert_eq!(one.high_watermark(), Offset(6));
}

#[test]
fn a_report_of_an_older_epoch_counts_for_nothing() {
    let mut one = Given::leader_of_three();
    one.appends(5);
    one.durable_here();
    one.durable_at(2, 6);
    one.happens(Event::Durable { from: life(3), epoch: Epoch(0), end: Offset(6) });
    assert_eq!(one.high_watermark(), Offset(1));
}

#[test]
fn while_a_shrink_is_undecided_a_confirm_needs_both_sets() {
    let mut one = Given::leader_of_three();
    one.appends(1);
    one.durable_here();
    one.durable_at(2, 2);
    one.later(Duration::from_millis(1500));
    let shrink = one.cas().expect("broker 3 lags: the leader asks for a smaller set");
    assert_eq!(brokers(&shrink.1.isr), [1, 2]);
    one.answers(&shrink, CasOutcome::Undecided);
    assert_eq!(one.high_watermark(), Offset(1), "the larger set may still be the one that counts");
    one.later(Duration::from_millis(100));
    assert_eq!(one.cas().as_ref(), Some(&shrink), "the very same CAS is sent again");
    one.answers(&shrink, CasOutcome::Done { version: version(1) });
    assert_eq!(one.high_watermark(), Offset(2));
}

#[test]
fn a_synced_read_of_the_old_version_decides_nothing() {
    let mut one = Given::leader_of_three();
    one.appends(1);
    one.durable_here();
    one.durable_at(2, 2);
    one.later(Duration::from_millis(1500));
    let shrink = one.cas().expect("the leader shrinks");
    one.answers(&shrink, CasOutcome::Undecided);
    one.reads(state(1, Some(1), &[1, 2, 3]), 0);
    assert_eq!(one.high_watermark(), Offset(1), "the request may still be queued");
    one.reads(state(1, Some(1), &[1, 2]), 1);
    assert_eq!(one.high_watermark(), Offset(2));
}

#[test]
fn a_cas_whose_answer_was_lost_is_found_by_reading() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::Dead { life: life(1) });
    two.positions_agree(&[3]);
    let stand = two.cas().expect("it stands");
    two.answers(&stand, CasOutcome::Undecided);
    two.later(Duration::from_millis(50));
    let again = two.cas().expect("the same CAS is sent again");
    assert_eq!(again, stand);
    two.answers(&again, CasOutcome::Refused);
    assert_eq!(
        two.leads(),
        None,
        "refused by its own first sending, or by another: only the state tells"
    );
    two.reads(stand.1.clone(), 1);
    assert_eq!(two.leads(), Some(Epoch(2)));
}

#[test]
fn nobody_is_dropped_below_min_isr_and_publishes_are_refused_instead() {
    let mut one = Given::leader_of_three();
    one.appends(1);
    one.durable_here();
    one.durable_at(2, 2);
    one.later(Duration::from_millis(1500));
    let shrink = one.cas().expect("the leader shrinks");
    one.answers(&shrink, CasOutcome::Done { version: version(1) });
    assert!(!one.starved());
    one.appends(1);
    one.later(Duration::from_millis(1500));
    assert_eq!(one.cas(), None, "two members are needed");
    assert!(one.starved());
}

#[test]
fn a_lost_member_with_the_coordinator_away_refuses_publishes() {
    let mut one = Given::leader_of_three();
    one.happens(Event::Connected(false));
    assert!(!one.starved(), "whole and disconnected: serving goes on");
    one.appends(1);
    one.later(Duration::from_millis(1500));
    assert_eq!(one.cas(), None);
    assert!(one.starved());
}

#[test]
fn a_candidate_stops_answering_before_it_asks_to_lead() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::Dead { life: life(1) });
    two.positions_agree(&[3]);
    let effects = two.effects();
    let unsubscribes =
        effects.iter().position(|e| matches!(e, Effect::Unsubscribe { epoch: Epoch(1), .. }));
    let asks = effects.iter().position(|e| matches!(e, Effect::Cas { .. }));
    assert!(unsubscribes.expect("it stops answering") < asks.expect("it stands"));
}

#[test]
fn a_candidate_reports_nothing_more_in_the_epoch_it_wants_to_end() {
    let mut two = Given::follower_of_three(2);
    two.streamed(1, 3);
    two.happens(Event::Dead { life: life(1) });
    two.positions_agree(&[3]);
    two.take_effects();
    two.happens(Event::LocalDurable { end: Offset(4) });
    assert!(!two.effects().iter().any(|e| matches!(e, Effect::ReportDurable { .. })));
}

#[test]
fn a_candidate_that_lost_answers_the_old_epoch_only_when_its_cas_cannot_apply() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::Dead { life: life(1) });
    two.positions_agree(&[3]);
    let stand = two.cas().expect("it stands");
    two.answers(&stand, CasOutcome::Undecided);
    two.reads(state(1, Some(1), &[1, 2, 3]), 0);
    assert_eq!(two.follows(), None, "its CAS may apply yet");
    // The old leader lives and changed the ISR: the version has passed the one that the CAS names.
    two.reads(state(1, Some(1), &[1, 2]), 1);
    assert!(two.follows().is_some() || two.cas().is_some_and(|again| again.0 == version(1)));
}

#[test]
fn the_member_with_the_longer_log_goes_first() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::Dead { life: life(1) });
    two.position_of(3, 1, 10);
    assert_eq!(two.cas(), None, "broker 3 holds more");
    two.later(Duration::from_millis(31));
    assert!(two.cas().is_some(), "it did not stand in its turn");
}

#[test]
fn a_dead_leader_leaves_the_set_but_never_below_min_isr() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::Dead { life: life(1) });
    two.positions_agree(&[3]);
    assert_eq!(brokers(&two.cas().expect("it stands").1.isr), [2, 3]);

    let mut two = Given::follower(2, &[1, 2]);
    two.happens(Event::Dead { life: life(1) });
    two.later(Duration::from_millis(40));
    assert_eq!(brokers(&two.cas().expect("it stands").1.isr), [1, 2]);
}

/// Five thousand queues lost their leader at once, and the answers took longer than a step: both members took themselves for the first of
/// every queue, and half of what the coordinator was asked to do was in vain.
#[test]
fn a_member_that_has_not_heard_from_one_before_it_lets_that_one_go_first_all_the_same() {
    let mut three = Given::follower_of_three(3);
    three.happens(Event::Dead { life: life(1) });
    three.later(Duration::from_millis(50));
    assert_eq!(three.cas(), None, "broker 2 comes first, though it has not answered");
    three.later(Duration::from_millis(10));
    assert_eq!(three.cas().expect("it is not waited for long").1.leader, Some(life(3)));

    let mut two = Given::follower_of_three(2);
    two.happens(Event::Dead { life: life(1) });
    two.later(Duration::from_millis(30));
    assert_eq!(two.cas().expect("nobody comes before it").1.leader, Some(life(2)));
}

#[test]
fn in_a_crowd_those_behind_wait_as_long_as_the_elections_of_those_before_may_take() {
    let mut three = Given::follower_of_three(3);
    three.crowd(1, 5_000);
    three.happens(Event::Dead { life: life(1) });
    three.positions_agree(&[2]);
    three.later(Duration::from_millis(3_000));
    assert_eq!(three.cas(), None, "broker 2 has thousands to stand for");
    three.later(Duration::from_millis(40));
    assert!(three.cas().is_some(), "it may not be able to stand at all (promise G10)");

    let mut two = Given::follower_of_three(2);
    two.crowd(1, 5_000);
    two.happens(Event::Dead { life: life(1) });
    two.positions_agree(&[3]);
    assert!(two.cas().is_some(), "the first waits for nobody");

    let mut three = Given::follower_of_three(3);
    three.crowd(1, 1_000_000);
    three.happens(Event::Gone { life: life(1) });
    three.positions_agree(&[2]);
    three.later(Duration::from_millis(3_040));
    assert!(three.cas().is_some(), "however many there are");
}

#[test]
fn in_a_crowd_one_that_is_dead_too_or_does_not_answer_is_not_waited_for_that_long() {
    let mut three = Given::follower_of_three(3);
    three.crowd(1, 5_000);
    three.happens(Event::Dead { life: life(2) });
    three.happens(Event::Dead { life: life(1) });
    three.later(Duration::from_millis(30));
    assert!(three.cas().is_some(), "broker 2 was killed with broker 1");

    let mut three = Given::follower_of_three(3);
    three.crowd(1, 5_000);
    three.happens(Event::Gone { life: life(1) });
    three.later(Duration::from_millis(1_050));
    assert_eq!(three.cas(), None, "its answer may be on its way");
    three.later(Duration::from_millis(10));
    assert!(three.cas().is_some());
}

#[test]
fn a_crowd_that_waited_for_another_leader_makes_nobody_wait_for_this_one() {
    let mut three = Given::follower_of_three(3);
    three.crowd(2, 5_000);
    three.happens(Event::Dead { life: life(1) });
    three.positions_agree(&[2]);
    three.later(Duration::from_millis(30));
    assert!(three.cas().is_some());
}

#[test]
fn a_silent_leader_is_no_reason_to_stand() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::DialedDown { peer: life(1) });
    two.later(Duration::from_secs(60));
    assert_eq!(two.cas(), None);
}

#[test]
fn a_member_outside_the_in_sync_set_never_stands() {
    let mut three = Given::follower(3, &[1, 2]);
    three.happens(Event::Gone { life: life(1) });
    three.later(Duration::from_secs(60));
    assert_eq!(three.cas(), None);
}

#[test]
fn the_same_broker_with_another_disk_never_stands() {
    let mut two = Given::follower_with_store(2, 99, &[1, 2, 3]);
    two.happens(Event::Gone { life: life(1) });
    two.later(Duration::from_secs(60));
    assert_eq!(two.cas(), None);
}

#[test]
fn a_resigned_leader_is_followed_by_the_next_without_waiting_for_promises() {
    let mut two = Given::follower_of_three(2);
    two.reads(state(1, None, &[1, 2, 3]), 1);
    two.positions_agree(&[1, 3]);
    two.later(Duration::from_millis(31));
    let stand = two.cas().expect("nobody leads, and broker 1 did not stand in its turn");
    assert_eq!(brokers(&stand.1.isr), [1, 2, 3]);
    two.answers(&stand, CasOutcome::Done { version: version(2) });
    two.whole_at(Epoch(2), &[1, 3]);
    assert_eq!(two.deliver_from(), Some(two.now()));
}

#[test]
fn a_new_leader_delivers_only_when_what_it_promised_has_passed() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::Dead { life: life(1) });
    two.positions_agree(&[3]);
    let stood = two.now();
    let stand = two.cas().expect("it stands");
    two.answers(&stand, CasOutcome::Done { version: version(1) });
    two.whole_at(Epoch(2), &[3]);
    assert_eq!(two.deliver_from(), Some(stood + Duration::from_millis(300)));
}

#[test]
fn a_leader_serves_only_when_its_epoch_start_is_committed() {
    let mut one = Given::fresh_leader();
    one.durable_here();
    assert_eq!(one.serves(), None);
    one.follower_joins(2, None, 0);
    one.follower_joins(3, None, 0);
    one.durable_at(2, 1);
    assert_eq!(one.serves(), None);
    one.durable_at(3, 1);
    assert_eq!(one.serves(), Some(Epoch(1)));
}

#[test]
fn no_follower_is_answered_before_the_epoch_start_is_synced() {
    let mut one = Given::fresh_leader();
    one.follower_joins(2, None, 0);
    assert!(
        !one.effects()
            .iter()
            .any(|e| matches!(e, Effect::TellEpochEnd { .. } | Effect::Stream { .. }))
    );
    one.durable_here();
    assert!(one.effects().iter().any(|e| matches!(e, Effect::Stream { .. })));
}

#[test]
fn a_leader_that_hears_of_a_higher_epoch_stops_at_once() {
    let mut one = Given::leader_of_three();
    one.follower_joins_epoch(2, Epoch(2), Some(1), 1);
    assert_eq!(one.leads(), None);
    assert!(one.effects().iter().any(|e| matches!(e, Effect::StopLeading { .. })));
    one.reads(state(1, Some(1), &[1, 2, 3]), 0);
    assert_eq!(one.leads(), None, "an epoch that was stopped is never led again");
}

#[test]
fn an_expired_session_ends_every_leadership() {
    let mut one = Given::leader_of_three();
    one.happens(Event::Life(None));
    assert_eq!(one.leads(), None);
    one.happens(Event::Life(Some(another_life(1))));
    one.reads(state(1, Some(1), &[1, 2, 3]), 0);
    assert_eq!(one.leads(), None, "the state names the life that is over");
    one.later(Duration::from_millis(200));
    let stand = one.cas().expect("its own former life is gone: it may stand");
    assert_eq!(stand.1.leader, Some(another_life(1)));
}

#[test]
fn a_log_is_cut_to_where_the_leaders_ends() {
    let mut three = Given::follower(3, &[1, 2, 3]);
    three.holds(&[(1, 0)], 8, 2);
    three.reads(state(2, Some(2), &[2, 3]), 1);
    three.epoch_ends(2, 2, Some(1), 5);
    assert!(three.effects().contains(&Effect::Truncate { to: Offset(5) }));
    let asked = three.subscription().expect("it asks again");
    assert_eq!((asked.last_epoch, asked.log_end), (Some(Epoch(1)), Offset(5)));
}

#[test]
fn epochs_that_the_leader_never_had_are_cut_whole() {
    let mut three = Given::follower(3, &[1, 2, 3]);
    three.holds(&[(1, 0), (2, 4), (3, 6)], 8, 2);
    three.reads(state(4, Some(2), &[2, 3]), 5);
    three.epoch_ends(2, 4, Some(1), 7);
    assert!(three.effects().contains(&Effect::Truncate { to: Offset(4) }));
}

#[test]
fn a_log_is_never_cut_below_what_is_known_committed() {
    let mut three = Given::follower(3, &[1, 2, 3]);
    three.holds(&[(1, 0)], 8, 6);
    three.reads(state(2, Some(2), &[2, 3]), 1);
    three.epoch_ends(2, 2, Some(1), 5);
    assert!(three.stopped().is_some());
    assert!(!three.effects().iter().any(|e| matches!(e, Effect::Truncate { .. })));
}

#[test]
fn nothing_is_reported_before_the_logs_agree() {
    let mut three = Given::follower(3, &[1, 2, 3]);
    three.holds(&[(1, 0)], 8, 2);
    three.reads(state(2, Some(2), &[2, 3]), 1);
    three.happens(Event::LocalDurable { end: Offset(8) });
    assert!(!three.effects().iter().any(|e| matches!(e, Effect::ReportDurable { .. })));
}

#[test]
fn a_coordinator_restored_to_an_older_state_stops_the_queue() {
    let mut three = Given::follower(3, &[1, 2, 3]);
    three.holds(&[(1, 0), (5, 4)], 8, 2);
    three.reads(state(3, Some(2), &[2, 3]), 9);
    assert!(three.stopped().expect("it stops and says why").contains("restored"));
}

/// A restarted broker was shown the state of an epoch before the last in its log by a server that lagged, and
/// stopped its replica for good as if the ensemble had been restored.
#[test]
fn an_older_state_that_was_not_read_after_a_sync_stops_nothing() {
    let mut three = Given::follower(3, &[1, 2, 3]);
    three.holds(&[(1, 0), (5, 4)], 8, 2);
    three.happens(Event::State {
        state: state(3, Some(2), &[2, 3]),
        version: version(9),
        synced: false,
    });
    assert_eq!(three.stopped(), None);
    three.reads(state(5, Some(1), &[1, 2, 3]), 12);
    assert_eq!(three.follows(), Some((life(1), Epoch(5))));
}

#[test]
fn a_returning_copy_joins_only_past_the_epoch_start_and_the_high_watermark() {
    let mut one = Given::leader_with_isr(&[1, 2]);
    one.appends(4);
    one.durable_here();
    one.durable_at(2, 5);
    assert_eq!(one.high_watermark(), Offset(5));
    one.follower_joins(3, None, 0);
    one.durable_at(3, 4);
    assert_eq!(one.cas(), None);
    one.durable_at(3, 5);
    let expand = one.cas().expect("it has everything");
    assert_eq!(brokers(&expand.1.isr), [1, 2, 3]);
    one.appends(1);
    one.durable_here();
    one.durable_at(2, 6);
    assert_eq!(one.high_watermark(), Offset(5), "it counts from before the CAS is sent");
    one.durable_at(3, 6);
    assert_eq!(one.high_watermark(), Offset(6));
}

#[test]
fn after_a_pause_the_silence_of_the_others_means_nothing() {
    let mut one = Given::leader_of_three();
    one.appends(1);
    one.durable_here();
    one.jump(Duration::from_secs(5));
    one.happens(Event::Paused);
    one.happens(Event::Tick);
    assert_eq!(one.cas(), None);
}

#[test]
fn a_leader_that_drains_names_a_member_that_holds_everything() {
    let mut one = Given::leader_of_three();
    one.appends(2);
    one.happens(Event::HandOver);
    assert_eq!(one.leads(), None, "nothing new is taken");
    assert_eq!(one.cas(), None, "not everything is committed");
    one.durable_here();
    one.durable_at(2, 3);
    one.durable_at(3, 3);
    let hand_over = one.cas().expect("all is committed");
    assert_eq!(hand_over.1.leader, Some(life(2)));
    assert_eq!(hand_over.1.epoch, Epoch(2));
    assert_eq!(brokers(&hand_over.1.isr), [1, 2, 3]);
    assert_eq!(one.lease_members(), None, "it delivers nothing from then on");
}

#[test]
fn a_delivery_needs_the_promise_of_every_other_member_also_of_one_that_is_about_to_join() {
    let mut one = Given::leader_with_isr(&[1, 2]);
    assert_eq!(one.lease_members(), Some(vec![life(2)]));
    one.follower_joins(3, None, 0);
    one.durable_at(3, 1);
    assert!(one.cas().is_some());
    assert_eq!(one.lease_members(), Some(vec![life(2), life(3)]));
    one.happens(Event::Unsubscribe { from: life(2), epoch: Epoch(1) });
    assert_eq!(one.lease_members(), None);
}

#[test]
fn a_restarted_broker_answers_nobody_and_stands_for_nothing_before_a_synced_read() {
    let mut two = Given::follower(2, &[1, 2, 3]);
    two.holds(&[(1, 0)], 4, 2);
    two.happens(Event::State {
        state: state(1, None, &[1, 2, 3]),
        version: version(3),
        synced: false,
    });
    two.later(Duration::from_secs(1));
    assert_eq!(two.cas(), None);
    assert_eq!(two.follows(), None);
    two.reads(state(2, Some(1), &[1, 2, 3]), 4);
    assert_eq!(two.follows(), Some((life(1), Epoch(2))));
}

/// Two members that had once taken each other for dead deposed each other a dozen times a second, for ever.
#[test]
fn a_leader_that_is_heard_from_is_not_taken_for_dead_any_more() {
    let mut two = Given::follower(2, &[1, 2, 3]);
    two.holds(&[(1, 0)], 4, 2);
    two.happens(Event::Dead { life: life(1) });
    two.happens(Event::Dialed { peer: life(1) });
    two.reads(state(2, Some(1), &[1, 2, 3]), 3);
    two.later(Duration::from_secs(1));
    assert_eq!(two.cas(), None);
    assert_eq!(two.follows(), Some((life(1), Epoch(2))));
}

/// A broker that handed its queues over and ended was waited for until the lag limit whenever its end was noticed before
/// its successor read that it leads: the pause of a stop was a second, not milliseconds.
#[test]
fn a_leader_that_handed_over_and_ended_is_not_waited_for() {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::Dead { life: life(1) });
    two.reads(state(2, Some(2), &[1, 2, 3]), 1);
    assert_eq!(two.leads(), Some(Epoch(2)));
    two.take_effects();
    two.follower_joins_epoch(3, Epoch(2), Some(1), 1);
    two.durable_here();
    two.later(Duration::from_millis(50));
    assert_eq!(brokers(&two.cas().expect("broker 1 leaves the set at once").1.isr), [2, 3]);
}

/// A leader that took a follower for dead, wrongly, waited for ever for a word of it: there was nothing to say.
#[test]
fn a_follower_whose_connection_is_up_is_not_dead() {
    let mut one = Given::leader_of_three();
    one.happens(Event::Dead { life: life(2) });
    assert_eq!(one.cas(), None);
    assert!(!one.starved());
    one.happens(Event::AcceptedDown { peer: life(2) });
    assert_eq!(brokers(&one.cas().expect("now the evidence counts").1.isr), [1, 3]);
}

#[test]
fn a_leader_that_stops_resigns_until_the_state_names_somebody_else() {
    let mut one = Given::leader_of_three();
    one.happens(Event::Broken { why: "a record is damaged".to_owned() });
    let resigns = one.cas().expect("the other copies may be sound: one of them should lead");
    assert_eq!((resigns.1.leader, resigns.1.epoch), (None, Epoch(1)));
    one.answers(&resigns, CasOutcome::Undecided);
    one.later(Duration::from_millis(500));
    assert_eq!(one.cas().as_ref(), Some(&resigns), "nobody may stand while it is named");
    one.reads(state(1, None, &[1, 2, 3]), 1);
    one.take_effects();
    one.later(Duration::from_millis(500));
    assert_eq!(one.cas(), None);
}

/// Broker 2 took over on evidence, and the leader before it, cut off from it alone, may deliver for a while yet. Whoever
/// follows one that left in order does not wait: so the waiting is up to the one that leaves.
fn elected_while_the_old_leader_may_deliver() -> Given {
    let mut two = Given::follower_of_three(2);
    two.happens(Event::Dead { life: life(1) });
    two.later(Duration::from_millis(100));
    let stands = two.cas().expect("it stands");
    two.answers(&stands, CasOutcome::Done { version: version(1) });
    two.whole_at(Epoch(2), &[3]);
    two.take_effects();
    two
}

#[test]
fn a_leader_that_may_not_deliver_yet_does_not_hand_over() {
    let mut two = elected_while_the_old_leader_may_deliver();
    two.happens(Event::HandOver);
    two.later(Duration::from_millis(200));
    assert_eq!(two.cas(), None, "broker 3 would deliver at once");
    two.later(Duration::from_millis(200));
    assert_eq!(two.cas().expect("now it may").1.leader, Some(life(3)));
}

#[test]
fn a_leader_that_may_not_deliver_yet_does_not_resign() {
    let mut two = elected_while_the_old_leader_may_deliver();
    two.happens(Event::StoreFailed { why: "fdatasync failed".to_owned() });
    two.later(Duration::from_millis(200));
    assert_eq!(two.cas(), None, "broker 3 would deliver at once");
    two.later(Duration::from_millis(200));
    assert_eq!(two.cas().expect("now it may").1.leader, None);
}

/// Between the two a delivery could be written that the member to be counted on has not agreed to.
#[test]
fn a_lease_is_asked_for_anew_before_the_change_of_the_set_is() {
    let before_the_cas = |given: &Given| {
        let at = |is: fn(&Effect) -> bool| given.effects().iter().position(is);
        let lease = at(|effect| matches!(effect, Effect::LeaseChanged));
        lease.expect("it changes") < at(|effect| matches!(effect, Effect::Cas { .. })).unwrap()
    };
    let mut one = Given::leader_with_isr(&[1, 2]);
    one.follower_joins(3, Some(1), 1);
    one.take_effects();
    one.durable_at(3, 1);
    assert!(before_the_cas(&one), "a member joins");
    let mut one = Given::leader_of_three();
    one.happens(Event::HandOver);
    assert!(before_the_cas(&one), "another is to lead");
}
