//! What is said in each situation.

use bellwether_client::{BrokerId, CopyRole, Drain, Resigned, TaintCleared, TaintNote};

use super::facts::Said;
use super::given::{Given, life};
use super::words::{Explanation, Verdict, explain};

fn said(given: &Given) -> Explanation {
    explain(&given.0)
}

/// The words stand somewhere in what is said to be missing, or to be done.
fn speaks_of(lines: &[String], words: &str) {
    assert!(lines.iter().any(|line| line.contains(words)), "{words:?} is not in {lines:#?}");
}

#[test]
fn a_queue_that_is_well_is_said_to_be_well_and_nothing_else() {
    let said = said(&Given::whole());
    assert_eq!(said.verdict, Verdict::Healthy);
    assert_eq!(
        said.sentence,
        "Queue orders is well: broker 1 leads it in epoch 4, and all 3 copies are in sync."
    );
    assert!(said.missing.is_empty() && said.advice.is_empty());
}

#[test]
fn below_min_isr_it_is_said_who_is_missing_and_what_would_help() {
    let mut given = Given::whole().in_sync(&[1, 2]).down(2).down(3);
    given.copy(1).starved = true;
    let said = said(&given);
    assert_eq!(said.verdict, Verdict::BelowMinIsr);
    assert!(said.sentence.contains("1 copy is in sync and at work, and a confirm needs 2"));
    speaks_of(&said.missing, "Broker 2 (in sync) is not live");
    speaks_of(&said.missing, "Broker 3 (not in sync) is not live");
    speaks_of(&said.advice, "Start broker 2 again");
    speaks_of(&said.advice, "bellwether recover orders");
}

#[test]
fn one_copy_that_lags_is_no_reason_to_get_up() {
    let said = said(&Given::whole().in_sync(&[1, 2]).holds(3, 900));
    assert_eq!(said.verdict, Verdict::CopyMissing);
    assert_eq!(
        said.sentence,
        "Queue orders is led by broker 1 and confirms messages, but only 2 of 3 copies are in sync: the one of broker 3 is not."
    );
    speaks_of(&said.missing, "The copy on broker 3 is not in sync: 100 records behind");
    speaks_of(&said.advice, "Nothing is at risk yet");
}

#[test]
fn several_copies_that_lag_are_named_as_those_that_do() {
    let mut given = Given::whole().in_sync(&[1]).holds(2, 900).holds(3, 900);
    given.0.condition.queue.min_isr = 1;
    let said = said(&given);
    assert!(
        said.sentence.ends_with("only 1 of 3 copies is in sync: those of brokers 2 and 3 are not."),
        "{}",
        said.sentence
    );
}

#[test]
fn a_name_is_quoted_where_a_command_is_suggested() {
    let mut given = Given::whole().in_sync(&[1]).down(1).holds(2, 900);
    given.0.condition.queue.name = bellwether_client::QueueName::new("two words").unwrap();
    speaks_of(&said(&given).advice, "`bellwether recover 'two words'`");
}

#[test]
fn without_its_only_in_sync_copy_it_is_said_whose_disk_is_needed() {
    let said = said(&Given::whole().in_sync(&[1]).down(1).holds(2, 900));
    assert_eq!(said.verdict, Verdict::NoLeader);
    assert_eq!(
        said.sentence,
        "Queue orders has no leader: the only in-sync copy is down (broker 1)."
    );
    speaks_of(&said.advice, "Start broker 1 with the disk that it had");
    speaks_of(&said.advice, "bellwether recover orders");
}

#[test]
fn a_member_that_is_live_and_cannot_lead_is_quoted() {
    for why in ["its log on this broker is damaged: a bad checksum", "a write failed: I/O error"] {
        let said = said(&Given::whole().in_sync(&[1, 2]).down(1).stopped(2, why));
        assert_eq!(said.verdict, Verdict::Stopped);
        assert!(said.sentence.contains("although broker 2 with an in-sync copy is live"));
        assert!(said.sentence.contains(why), "{}", said.sentence);
    }
}

/// Nothing else would say why the leader went, or why the set is small, once another leads.
#[test]
fn a_copy_whose_disk_stalls_is_quoted_in_sync_or_not() {
    let why = "its disk stalls: no write or sync returns";
    let mut given = Given::whole();
    given.copy(2).why = Some(why.to_owned());
    let in_sync = said(&given);
    speaks_of(&in_sync.missing, &format!("The copy on broker 2 (in sync) is not well: {why}."));
    let mut left = given.in_sync(&[1, 3]);
    left.copy(2).log_end.0 = 1;
    let left = said(&left);
    speaks_of(
        &left.missing,
        &format!("The copy on broker 2 is not in sync: 1,000 records behind ({why})."),
    );
}

#[test]
fn a_member_that_came_back_with_an_empty_disk_is_not_taken_for_the_one_that_was() {
    let said = said(&Given::whole().in_sync(&[2]).down(1).emptied(2));
    assert_eq!(said.verdict, Verdict::Stopped);
    assert!(said.sentence.contains("the copy that it has now is another"), "{}", said.sentence);
}

#[test]
fn an_election_that_is_due_is_told_from_one_that_cannot_be() {
    let mut given = Given::whole().in_sync(&[1, 2]).down(1).role(2, CopyRole::Waits);
    given.0.condition.leader = None;
    let why = "its disk failed".to_owned();
    given.0.condition.resigned = Some(Resigned { by: life(1), why });
    let said = said(&given);
    assert_eq!(said.verdict, Verdict::Electing);
    assert!(said.sentence.contains("broker 2 holds everything and can lead"));
    speaks_of(&said.missing, "Broker 1 led it and gave that up: its disk failed");
}

#[test]
fn with_the_ensemble_away_it_is_said_who_goes_on_serving() {
    let mut given = Given::whole();
    given.0.condition.fresh = false;
    let serves = said(&given);
    assert_eq!(serves.verdict, Verdict::CoordinatorUnreachable);
    assert!(serves.sentence.contains("broker 1 leads queue orders and goes on serving it"));
    let nobody = said(&Given(given.down(1).0));
    assert!(nobody.sentence.contains("nobody serves queue orders"), "{}", nobody.sentence);
    speaks_of(&nobody.advice, "Bring the ensemble back");
}

#[test]
fn a_queue_that_is_being_moved_is_well() {
    let mut given = Given::whole();
    given.0.condition.drained = vec![(BrokerId(3), Drain::Copies)];
    let said = said(&given);
    assert_eq!(said.verdict, Verdict::Moving);
    speaks_of(&said.advice, "Broker 3 is being drained: its copies are moved to others");
}

#[test]
fn one_that_does_not_answer_is_not_said_to_be_down() {
    let frozen = Said::Silent("no answer within 5.0s".to_owned());
    let said = said(&Given::whole().in_sync(&[1, 2]).says(3, frozen));
    speaks_of(&said.missing, "Broker 3 (not in sync) is live and does not answer");
}

#[test]
fn a_leader_that_hangs_is_not_said_to_confirm_messages() {
    let frozen = Said::Silent("no answer within 5.0s".to_owned());
    let said = said(&Given::whole().says(1, frozen));
    assert_eq!(said.verdict, Verdict::LeaderSilent);
    assert!(said.sentence.contains("led by broker 1, which does not answer"), "{}", said.sentence);
    speaks_of(&said.advice, "restart broker 1");
}

#[test]
fn a_leader_that_was_forced_is_never_forgotten() {
    let mut given = Given::whole();
    given.0.condition.taint = Some(TaintNote {
        epoch: bellwether_client::Epoch(3),
        by: life(1),
        at_ms: 1_700_000_000_000,
        end: bellwether_client::Offset(500),
        lost: 500,
        more: true,
        cleared: None,
    });
    let tainted = said(&given);
    assert_eq!(tainted.verdict, Verdict::Healthy);
    speaks_of(&tainted.missing, "500 confirmed messages are known to be lost, perhaps more");
    speaks_of(&tainted.advice, "bellwether recover --clear-taint orders");

    // Once somebody has dealt with it, it needs nobody any more.
    let by = "user ops".to_owned();
    let taint = given.0.condition.taint.as_mut().unwrap();
    taint.cleared = Some(TaintCleared { at_ms: 1_700_000_360_000, by });
    assert_eq!(said(&given), said(&Given::whole()));
}
