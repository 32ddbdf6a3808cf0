//! What a recovery is said to cost, to the message, and where that ends.

use bellwether_client::{BrokerId, CopyRole, Epoch, Offset};

use super::agree;
use super::preview::{given_up, preview, warning};
use super::tails::{Tail, tail};
use crate::commands::explain::facts::Said;
use crate::commands::explain::given::{Given, member};
use crate::outcome::Failure;

/// Brokers 1 and 2 were in sync and are gone with their disks; broker 3 lagged.
fn survivor(messages: u64) -> Given {
    Given::whole().in_sync(&[1, 2]).down(1).down(2).holds(3, messages).role(3, CopyRole::Waits)
}

#[test]
fn what_the_leader_noted_makes_the_loss_exact_to_the_message() {
    let given = survivor(900).noted(1_400);
    let preview = preview(&given.0);
    let best = &preview.prospects[0];
    assert_eq!((best.broker, best.lost, best.more), (BrokerId(3), 500, true));
    assert_eq!(preview.obstacle, None);
    let words = best.words(&given.0);
    assert!(words.contains("at least 500 confirmed messages are lost"), "{words}");
    assert!(words.contains("its copy ends at offset 901 with 900 messages"), "{words}");
    assert!(words.contains("confirmed messages after offset 1401 may exist"), "{words}");
    assert_eq!(given_up(&given.0, member(3)), [member(1), member(2)]);
    let warned = warning(&given.0, member(3)).expect("they may still run");
    assert!(warned.contains("brokers 1 and 2"), "{warned}");
}

/// With --yes, and with --json, nobody was warned of an old leader that goes on confirming.
#[test]
fn whoever_gives_copies_up_is_warned_whether_asked_or_not() {
    let given = survivor(900);
    let prospects = preview(&given.0).prospects;
    let agreed = |yes, answer: Option<&str>| {
        let mut said = Vec::new();
        let terminal = answer.map(str::as_bytes);
        let agreed = agree(&given.0, &prospects[0], yes, terminal, &mut said);
        (agreed, String::from_utf8(said).unwrap())
    };
    let warned = "an old leader that still runs, cut off together with its whole in-sync set";
    for (yes, answer) in [(true, None), (true, Some("")), (false, Some("y\n"))] {
        let (agreed, said) = agreed(yes, answer);
        assert!(agreed.is_ok() && said.contains(warned), "{yes} {answer:?}: {said}");
        assert_eq!(said.contains("[y/N]"), !yes);
    }
    assert!(matches!(agreed(false, Some("\n")).0, Err(Failure::NotDone(_))));
    assert!(matches!(agreed(false, None), (Err(Failure::Usage(_)), said) if said.is_empty()));
}

#[test]
fn without_a_note_it_is_said_what_cannot_be_known() {
    let given = survivor(900);
    let words = preview(&given.0).prospects[0].words(&given.0);
    assert!(words.contains("no confirmed message is known to be lost"), "{words}");
    assert!(words.contains("after offset 901 may exist; none of the surviving copies"), "{words}");
}

#[test]
fn what_the_survivor_heard_from_its_leader_counts_as_known() {
    let mut given = survivor(900);
    given.copy(3).heard_committed = bellwether_client::Offset(950);
    let words = preview(&given.0).prospects[0].words(&given.0);
    assert!(words.contains("after offset 950 may exist"), "{words}");
}

#[test]
fn of_two_that_lag_the_one_that_loses_less_is_first_and_the_other_costs_the_difference() {
    let mut given = Given::whole().in_sync(&[1]).down(1).holds(2, 800).holds(3, 900);
    given.0.condition.queue.min_isr = 1;
    let prospects = preview(&given.0).prospects;
    let costs: Vec<_> = prospects.iter().map(|p| (p.broker.0, p.lost)).collect();
    assert_eq!(costs, [(3, 0), (2, 100)]);
    let words = prospects[1].words(&given.0);
    assert!(words.contains("at least 100 confirmed messages are lost: another copy has them"));
}

/// The disks of the two others are gone, and the leader has everything: exactly nothing is lost.
#[test]
fn a_survivor_that_is_in_sync_loses_exactly_nothing() {
    let mut given = Given::whole().in_sync(&[1, 2]).down(2).down(3);
    given.copy(1).starved = true;
    given.copy(1).role = CopyRole::Leads;
    let preview = preview(&given.0);
    assert_eq!(preview.obstacle, None);
    let best = &preview.prospects[0];
    assert_eq!((best.broker, best.lost, best.more), (BrokerId(1), 0, false));
    assert!(best.words(&given.0).contains("exactly 0 confirmed messages are lost"));
    assert_eq!(given_up(&given.0, member(1)), [member(2)]);
}

fn obstacle(given: Given) -> String {
    preview(&given.0).obstacle.expect("it must not be done")
}

#[test]
fn nothing_is_forced_on_a_queue_that_is_well_or_can_be() {
    assert!(obstacle(Given::whole()).contains("nothing to recover"));
    let fit = Given::whole().in_sync(&[1, 2]).down(1).role(2, CopyRole::Waits);
    assert!(obstacle(fit).contains("broker 2 is live with a copy that has everything"));
    let silent = Said::Silent("frozen".to_owned());
    let silent = Given::whole().in_sync(&[1, 2]).down(1).says(2, silent);
    assert!(obstacle(silent).contains("does not answer: stop it, or bring it back"));
    let mut away = survivor(900);
    away.0.condition.fresh = false;
    assert!(obstacle(away).contains("the coordinator cannot be reached"));
    assert!(obstacle(survivor(900).stopped(3, "damaged")).contains("no broker that is live"));
}

#[test]
fn an_in_sync_copy_that_is_damaged_or_of_another_disk_is_no_obstacle() {
    let damaged = Given::whole().in_sync(&[1, 2]).down(1).stopped(2, "damaged").holds(3, 900);
    assert_eq!(preview(&damaged.0).obstacle, None);
    let emptied = Given::whole().in_sync(&[1, 2]).down(1).emptied(2).holds(3, 900);
    let preview = preview(&emptied.0);
    assert_eq!(preview.obstacle, None);
    let order: Vec<u32> = preview.prospects.iter().map(|p| p.broker.0).collect();
    assert_eq!(order, [3, 2], "the empty one comes last");
}

/// Broker 3 led epoch 3 and crashed with messages 80 to 100 unconfirmed. Broker 2 led epoch 4 from 80 on, and confirmed up to 95 before its
/// disk was lost, and broker 1's. What broker 3 holds beyond 80 is not what was confirmed: it was held against it, and nothing seemed lost.
fn with_a_stale_tail() -> Given {
    let mut given = survivor(100).noted(95);
    let copy = given.copy(3);
    (copy.last_epoch, copy.epoch_start) = (Some(Epoch(3)), Some(Offset(40)));
    (copy.high_watermark, copy.heard_committed) = (Offset(70), Offset(70));
    copy.enqueued_below = Some(79);
    given.0.condition.committed.as_mut().unwrap().term = Some((Epoch(4), Offset(80)));
    given
}

#[test]
fn what_was_appended_and_never_confirmed_is_not_held_against_what_was() {
    let given = with_a_stale_tail();
    assert_eq!(
        tail(&given.0, given.0.holders[2].copy().unwrap()),
        Tail::From { at: Offset(80), exact: true }
    );
    let best = &preview(&given.0).prospects[0];
    assert_eq!((best.broker, best.lost, best.more, best.exact), (BrokerId(3), 16, true, true));
    let words = best.words(&given.0);
    assert!(
        words.contains("at least 16 confirmed messages are lost (the leader noted 95"),
        "{words}"
    );
    assert!(words.contains("those from offset 80 on are not the queue's"), "{words}");
}

/// A leader of an older version wrote the note, or wrote the state since.
#[test]
fn a_note_that_does_not_say_of_which_epoch_it_is_is_held_against_nobody_exactly() {
    let mut given = with_a_stale_tail();
    given.0.condition.committed.as_mut().unwrap().term = None;
    given.copy(3).enqueued_below = None;
    let best = &preview(&given.0).prospects[0];
    assert_eq!((best.lost, best.exact), (0, false));
    let words = best.words(&given.0);
    assert!(
        words.contains("whether confirmed messages are lost cannot be told exactly"),
        "{words}"
    );
    let mut given = given.noted(130);
    given.0.condition.committed.as_mut().unwrap().term = None;
    let words = preview(&given.0).prospects[0].words(&given.0);
    assert!(words.contains("at least 30 confirmed messages are lost"), "{words}");
    assert!(words.contains("how many more cannot be told exactly"), "{words}");
}

#[test]
fn a_broker_of_an_older_version_does_not_count_apart() {
    let mut given = with_a_stale_tail();
    given.copy(3).enqueued_below = None;
    let best = &preview(&given.0).prospects[0];
    assert_eq!((best.lost, best.exact), (0, false));
    assert!(best.words(&given.0).contains("cannot be told exactly"));
}

/// Epoch 4 may have begun before 80.
#[test]
fn with_epochs_in_between_the_loss_is_a_bound() {
    let mut given = with_a_stale_tail();
    given.0.condition.committed.as_mut().unwrap().term = Some((Epoch(5), Offset(80)));
    let best = &preview(&given.0).prospects[0];
    assert_eq!((best.lost, best.exact), (16, false));
}

#[test]
fn another_copy_tells_of_a_later_epoch_too() {
    let mut given = with_a_stale_tail();
    given.0.condition.committed = None;
    given = given.in_sync(&[1]);
    let same = Said::Copy(given.0.holders[2].copy().unwrap().clone());
    given = given.says(2, same);
    let other = given.copy(2);
    other.member = member(2);
    (other.last_epoch, other.epoch_start) = (Some(Epoch(4)), Some(Offset(80)));
    (other.log_end, other.high_watermark, other.enqueued) = (Offset(91), Offset(91), 90);
    let prospects = preview(&given.0).prospects;
    let costs: Vec<_> = prospects.iter().map(|p| (p.broker.0, p.lost, p.exact)).collect();
    assert_eq!(costs, [(2, 0, true), (3, 11, true)], "the later epoch first, though it is shorter");
    given.copy(2).epoch_start = None;
    assert!(!preview(&given.0).prospects[1].exact);
}

/// Restarted, a copy does not know yet what of its log is committed. It followed the leader that wrote the note.
#[test]
fn a_copy_of_the_epoch_that_was_noted_counts_whole() {
    let mut given = survivor(900).noted(1_400);
    given.copy(3).high_watermark = Offset(10);
    let best = &preview(&given.0).prospects[0];
    assert_eq!((best.lost, best.exact), (500, true));
}
