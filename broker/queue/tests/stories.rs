//! What a queue promises, one story each.

mod given;

use bellwether_protocol::error::ErrorCode;
use bellwether_protocol::ids::{Epoch, Offset};
use bellwether_queue::{Admission, Queue, merged};
use given::{Given, Sent, again, enqueue, epoch_start, fresh, range};

#[test]
fn messages_come_in_the_order_of_their_offsets() {
    let mut queue = Given::queue().messages(3).messages(2).consumer("a", 10);
    assert_eq!(queue.delivers(), [fresh("a", 1, 6)]);
    queue.acks("a", &[(1, 3)]).unwrap(); // takes offset 6 in the log
    queue.publishes(1);
    assert_eq!(queue.delivers(), [fresh("a", 7, 8)]);
}

#[test]
fn nothing_is_delivered_before_it_is_committed() {
    let mut queue = Given::queue().consumer("a", 10).holding_commits_back().messages(3);
    assert_eq!(queue.delivers(), []);
    assert_eq!(queue.commits().delivers(), [fresh("a", 1, 4)]);
}

#[test]
fn a_consumer_never_holds_more_than_its_prefetch() {
    let mut queue = Given::queue().messages(10).consumer("a", 4);
    assert_eq!(queue.delivers(), [fresh("a", 1, 5)]);
    assert_eq!(queue.delivers(), []);
    queue.acks("a", &[(2, 3), (4, 5)]).unwrap();
    assert_eq!(queue.delivers(), [fresh("a", 5, 7)]);
}

#[test]
fn room_is_there_as_soon_as_a_settle_is_appended() {
    let mut queue = Given::queue().messages(2).consumer("a", 1).holding_commits_back();
    assert_eq!(queue.delivers(), [fresh("a", 1, 2)]);
    queue.acks("a", &[(1, 2)]).unwrap();
    assert_eq!(queue.delivers(), [fresh("a", 2, 3)]);
    assert_eq!(queue.counts().settled, 0, "and yet it is settled only when that is committed");
    assert_eq!(queue.commits().counts().settled, 1);
}

#[test]
fn consumers_with_room_share_what_is_there() {
    let mut queue = Given::queue().messages(10).consumer("a", 100).consumer("b", 100);
    assert_eq!(queue.delivers(), [fresh("a", 1, 6), fresh("b", 6, 11)]);
    queue.publishes(1);
    assert_eq!(queue.delivers(), [fresh("a", 11, 12)]);
    queue.publishes(1);
    assert_eq!(queue.delivers(), [fresh("b", 12, 13)]);
}

#[test]
fn a_returned_message_goes_back_to_its_place_marked_and_counted() {
    let mut queue = Given::queue().messages(5).consumer("a", 2);
    assert_eq!(queue.delivers(), [fresh("a", 1, 3)]);
    queue.returns("a", &[(2, 3)]);
    assert_eq!(queue.delivers(), [again("a", 2, 3, 1)]);
    queue.returns("a", &[(1, 3)]);
    assert_eq!(queue.delivers(), [again("a", 1, 2, 1), again("a", 2, 3, 2)]);
}

#[test]
fn messages_return_to_their_place_when_their_consumer_leaves() {
    let mut queue = Given::queue().messages(3).consumer("a", 2).consumer("b", 10);
    queue.queue.pause(2);
    assert_eq!(queue.delivers(), [fresh("a", 1, 3)]);
    queue.resumes("b").leaves("a");
    assert_eq!(queue.delivers(), [again("b", 1, 3, 1), fresh("b", 3, 4)]);
}

#[test]
fn what_a_leaving_consumer_held_is_in_flight_until_its_return_is_committed() {
    let mut queue = Given::queue().messages(2).consumer("a", 2).holding_commits_back();
    queue.delivers();
    queue.joins("b", 10).leaves("a");
    assert_eq!((queue.delivers(), queue.counts().delivered), (vec![], 2));
    assert_eq!(queue.commits().delivers(), [again("b", 1, 3, 1)]);
}

#[test]
fn a_paused_consumer_gets_nothing_until_it_is_resumed() {
    let mut queue = Given::queue().messages(6).consumer("a", 4);
    assert_eq!(queue.delivers(), [fresh("a", 1, 5)]);
    queue.acks("a", &[(1, 5)]).unwrap();
    assert_eq!(queue.pauses("a").delivers(), []);
    assert_eq!(queue.resumes("a").delivers(), [fresh("a", 5, 7)]);
}

#[test]
fn a_settle_is_done_wholly_or_not_at_all() {
    let mut queue = Given::queue().messages(4).consumer("a", 2).consumer("b", 2);
    assert_eq!(queue.delivers(), [fresh("a", 1, 3), fresh("b", 3, 5)]);
    assert_eq!(queue.acks("a", &[(1, 2), (3, 4)]), Err(ErrorCode::Stale), "b holds offset 3");
    assert_eq!(queue.queue.held_by(1), [range(1, 3)]);
    queue.acks("a", &[(1, 3)]).unwrap();
    assert_eq!(queue.acks("a", &[(1, 3)]), Err(ErrorCode::Stale), "settled already");
    for nonsense in [&[][..], &[(4, 4)], &[(3, 5), (4, 6)]] {
        assert_eq!(queue.acks("b", nonsense), Err(ErrorCode::InvalidOption), "{nonsense:?}");
    }
    assert_eq!(queue.counts().settled, 2);
}

#[test]
fn a_settle_of_an_older_epoch_is_stale() {
    let mut queue = Given::queue().messages(1).consumer("a", 1);
    queue.delivers();
    let checkpoint = queue.queue.checkpoint();
    queue.fails_over(&checkpoint).joins("a", 1);
    queue.delivers();
    let old = queue.queue.settle(1, Epoch(1), &[range(1, 2)]).unwrap_err();
    assert_eq!(old.code, ErrorCode::Stale);
    queue.queue.settle(1, Epoch(2), &[range(1, 2)]).unwrap();
}

#[test]
fn after_a_failover_everything_unsettled_comes_again_and_is_marked() {
    let mut queue = Given::queue().messages(4).consumer("a", 3);
    let early = queue.queue.checkpoint();
    queue.delivers();
    queue.acks("a", &[(1, 2)]).unwrap();
    queue.returns("a", &[(2, 3)]);
    queue.fails_over(&early).publishes(1).joins("b", 10);
    let deliveries = queue.delivers();
    assert_eq!(deliveries, [again("b", 2, 3, 1), again("b", 3, 5, 0), fresh("b", 8, 9)]);
}

#[test]
fn a_leader_that_stops_forgets_its_consumers_and_what_they_held() {
    let mut queue = Given::queue().messages(2).consumer("a", 2);
    queue.delivers();
    queue.queue.stop_leading();
    assert_eq!((queue.counts().ready, queue.counts().delivered), (2, 0));
    assert!(!queue.queue.has_consumers() && queue.queue.serves().is_none());
    assert_eq!(queue.delivers(), []);
}

#[test]
fn a_purge_takes_what_is_ready_and_spares_what_is_out() {
    let mut queue = Given::queue().messages(6).consumer("a", 3);
    queue.delivers();
    queue.returns("a", &[(1, 2)]);
    queue.queue.pause(1);
    queue.acks("a", &[(2, 3)]).unwrap();
    queue.purges();
    assert_eq!(queue.purged, [4], "1 came back; 4, 5 and 6 never left");
    let counts = queue.counts();
    assert_eq!((counts.ready, counts.delivered, counts.settled, counts.purged), (0, 1, 1, 4));
    queue.acks("a", &[(3, 4)]).unwrap();
    assert!(!queue.queue.has_messages());
}

#[test]
fn nothing_that_is_being_purged_is_handed_out_meanwhile() {
    let mut queue = Given::queue().messages(3).consumer("a", 1).holding_commits_back();
    assert_eq!(queue.delivers(), [fresh("a", 1, 2)]);
    queue.purges().joins("b", 10).publishes(1);
    queue.returns("a", &[(1, 2)]);
    assert_eq!(queue.delivers(), []);
    assert_eq!(queue.counts().ready, 2, "they are there until the purge is committed");
    queue.commits();
    assert_eq!(queue.purged, [2]);
    assert_eq!(queue.delivers(), [again("b", 1, 2, 1), fresh("a", 5, 6)]);
}

#[test]
fn the_shell_hears_which_messages_are_gone() {
    let mut queue = Given::queue().messages(5).consumer("a", 3);
    queue.delivers();
    queue.acks("a", &[(1, 2), (3, 4)]).unwrap();
    queue.purges();
    assert_eq!(queue.gone, [range(1, 2), range(3, 4), range(4, 6)]);
    assert_eq!(queue.queue.unsettled().collect::<Vec<_>>(), [range(2, 3)]);
    assert_eq!(queue.queue.unsettled_in(range(3, 100)), []);
}

#[test]
fn a_publish_without_messages_or_numbered_from_zero_is_refused() {
    use bellwether_protocol::ids::Seq;
    let queue = Given::queue();
    let named = given::producer("p");
    for (producer, first, count) in
        [(None, 1, 0), (Some(&named), 1, 0), (Some(&named), 0, 1), (Some(&named), u64::MAX, 1)]
    {
        let admission = queue.queue.admit(producer, Seq(0), false, Seq(first), count, false);
        let Admission::Refused(error) = admission else { panic!("{producer:?} {first} {count}") };
        assert_eq!(error.code, ErrorCode::InvalidOption);
    }
}

#[test]
fn a_retry_is_stored_once() {
    let mut queue = Given::queue().holding_commits_back();
    assert_eq!(queue.sends("p", 1, 3, Sent::New), Admission::Append { skip: 0 });
    assert_eq!(queue.sends("p", 1, 3, Sent::Again), Admission::Duplicate, "though uncommitted");
    queue.commits();
    assert_eq!(queue.sends("p", 1, 3, Sent::Again), Admission::Duplicate);
    assert_eq!(queue.sends("p", 2, 4, Sent::Again), Admission::Append { skip: 2 });
    assert_eq!(queue.commits().counts().enqueued, 5);
}

#[test]
fn a_retry_is_stored_once_also_across_a_failover() {
    let mut queue = Given::queue();
    queue.sends("p", 1, 3, Sent::New);
    let checkpoint = queue.queue.checkpoint();
    queue.sends("p", 4, 2, Sent::New);
    queue.fails_over(&checkpoint);
    assert_eq!(queue.sends("p", 1, 5, Sent::Again), Admission::Duplicate);
    assert_eq!(queue.sends("p", 4, 3, Sent::Again), Admission::Append { skip: 2 });
}

#[test]
fn gaps_are_fine_for_a_producer_that_publishes_to_other_queues_too() {
    let mut queue = Given::queue();
    assert_eq!(queue.sends("p", 5, 1, Sent::New), Admission::Append { skip: 0 });
    assert_eq!(queue.sends("p", 90, 2, Sent::After(5)), Admission::Append { skip: 0 });
}

#[test]
fn a_message_never_overtakes_an_earlier_one_that_is_not_confirmed() {
    let mut queue = Given::queue();
    queue.sends("p", 1, 2, Sent::New);
    // 3 and 4 were refused on the way; 5 comes on their heels.
    let Admission::Refused(error) = queue.sends("p", 5, 1, Sent::After(4)) else { panic!() };
    assert_eq!(error.code, ErrorCode::OutOfSequence);
    queue.sends("p", 3, 2, Sent::Again);
    assert_eq!(queue.sends("p", 5, 1, Sent::After(4)), Admission::Append { skip: 0 });

    let Admission::Refused(error) = queue.sends("unknown", 5, 1, Sent::After(4)) else { panic!() };
    assert_eq!(error.code, ErrorCode::OutOfSequence);
}

#[test]
fn a_forgotten_producer_gets_an_error_and_not_a_second_copy() {
    const WEEK: u64 = 7 * 24 * 60 * 60 * 1000;
    let mut queue = Given::queue();
    queue.sends("old", 1, 1, Sent::New);
    queue.time_ms += WEEK;
    queue.sends("new", 1, 1, Sent::New);
    assert_eq!(queue.sends("old", 1, 1, Sent::Again), Admission::Duplicate, "a week is kept");

    queue.time_ms += 1;
    queue.sends("new", 2, 1, Sent::New);
    let Admission::Refused(error) = queue.sends("old", 1, 1, Sent::Again) else { panic!() };
    assert_eq!(error.code, ErrorCode::ProducerForgotten);
    assert_eq!(queue.sends("old", 2, 1, Sent::New), Admission::Append { skip: 0 }, "never sent");
    assert_eq!(queue.queue.producers(), 2);
}

#[test]
fn a_retry_of_a_producer_unknown_to_a_queue_that_forgot_nobody_is_new() {
    let mut queue = Given::queue();
    assert_eq!(queue.sends("p", 7, 1, Sent::Again), Admission::Append { skip: 0 });
}

/// Whoever might write to a queue could publish there under the name of another user's producer, with the number 2^62; all that this one sent
/// afterwards was confirmed as a retry, and lost.
#[test]
fn a_producer_of_one_user_makes_no_retry_of_what_another_user_publishes_under_its_name() {
    let mut queue = Given::queue();
    assert_eq!(queue.sends("@7:mallory/p", 1 << 62, 1, Sent::New), Admission::Append { skip: 0 });
    assert_eq!(queue.sends("@7:billing/p", 1, 3, Sent::New), Admission::Append { skip: 0 });
    assert_eq!(queue.sends("@7:billing/p", 4, 3, Sent::Again), Admission::Append { skip: 0 });
    assert_eq!(queue.sends("@7:billing/p", 4, 3, Sent::Again), Admission::Duplicate);
}

/// Somebody who did not log in used the bare name, with a number as high as can be. A retry of the user's first messages, at a leader
/// that does not have them, is stored all the same: whose the bare name was nobody can tell.
#[test]
fn a_bare_name_says_nothing_of_a_users_producer() {
    let mut queue = Given::queue();
    queue.sends("p", u64::MAX - 2, 1, Sent::New);
    assert_eq!(queue.sends("@7:billing/p", 1, 3, Sent::Again), Admission::Append { skip: 0 });
    assert_eq!(queue.sends("@7:billing/p", 4, 1, Sent::After(3)), Admission::Append { skip: 0 });
}

#[test]
fn of_too_many_producers_the_one_unused_for_longest_is_forgotten() {
    let (mut queue, mut base) = (Queue::new(), 0);
    let mut publish = |name: &str, first| {
        let record = enqueue(Some((name, first)), 1, 5);
        queue.apply(Offset(base), &record, &mut Vec::new()).unwrap();
        base += 1;
    };
    for number in 0..bellwether_queue::PRODUCERS_MAX {
        publish(&format!("p{number}"), 1);
    }
    publish("p0", 2);
    publish("one more", 1);
    assert_eq!(queue.producers(), bellwether_queue::PRODUCERS_MAX);
    let known = |name| {
        use bellwether_protocol::ids::Seq;
        let name = given::producer(name);
        queue.admit(Some(&name), Seq(0), false, Seq(1), 1, true) == Admission::Duplicate
    };
    assert!(known("p0") && known("p2") && !known("p1"));
}

/// Promise G7: another user's names without end cost this one nothing; and what was kept and what was forgotten is the same for a replica
/// that was restored in between.
#[test]
fn a_user_who_opens_names_without_end_makes_the_queue_forget_only_its_own() {
    let (mut queue, mut base) = (Queue::new(), 0);
    let mut publish = |queue: &mut Queue, name: &str| {
        let record = enqueue(Some((name, 1)), 1, 5);
        queue.apply(Offset(base), &record, &mut Vec::new()).unwrap();
        base += 1;
        record
    };
    publish(&mut queue, "@7:billing/p");
    for number in 0..bellwether_queue::PRODUCERS_MAX {
        publish(&mut queue, &format!("@5:crowd/{number}"));
    }
    let mut restored = Queue::restore(&queue.checkpoint()).unwrap();
    let next = restored.applied();
    let record = publish(&mut queue, "@5:crowd/one more");
    restored.apply(next, &record, &mut Vec::new()).unwrap();
    assert_eq!(queue.checkpoint(), restored.checkpoint());
    assert_eq!(queue.producers(), bellwether_queue::PRODUCERS_MAX);
    use bellwether_protocol::ids::Seq;
    let billing = given::producer("@7:billing/p");
    let retried = queue.admit(Some(&billing), Seq(0), false, Seq(1), 1, true);
    assert_eq!(retried, Admission::Duplicate);
}

/// A replica that ran an earlier version forgot other producers than the leader, which takes one of those that it still knows from 1 on
/// again. It goes on: what is in the log is what was decided.
#[test]
fn a_producer_that_the_leader_has_forgotten_and_this_replica_has_not_stops_nothing() {
    let mut queue = Queue::new();
    queue.apply(Offset(0), &enqueue(Some(("old", 1)), 1, 5), &mut Vec::new()).unwrap();
    let later = 6 + bellwether_queue::PRODUCER_KEPT_MS;
    queue.apply(Offset(1), &enqueue(Some(("p", 1)), 5, later), &mut Vec::new()).unwrap();
    let anew = enqueue(Some(("p", 1)), 2, later);
    queue.apply(Offset(6), &anew, &mut Vec::new()).unwrap();
    let in_the_middle = enqueue(Some(("p", 2)), 2, later);
    queue.apply(Offset(8), &in_the_middle, &mut Vec::new()).unwrap_err();
}

#[test]
fn record_times_never_go_back() {
    let mut queue = Given::queue().holding_commits_back();
    queue.time_ms = 9_000;
    queue.publishes(1);
    assert_eq!(queue.queue.time_ms(), 9_000);
    let checkpoint = queue.commits().queue.checkpoint();
    assert_eq!(Queue::restore(&checkpoint).unwrap().time_ms(), 9_000);
}

#[test]
fn a_record_that_no_sound_leader_wrote_stops_the_queue() {
    use bellwether_log::{Record, SettleKind};
    let mut queue = Queue::new();
    queue.apply(Offset(0), &epoch_start(1, 5), &mut Vec::new()).unwrap();
    queue.apply(Offset(1), &enqueue(Some(("p", 1)), 2, 5), &mut Vec::new()).unwrap();
    let future = Record::Settle { kind: SettleKind::Ack, ranges: vec![range(2, 4)] };
    let twice = enqueue(Some(("p", 2)), 2, 5);
    for (base, record) in [(5, &epoch_start(2, 5)), (3, &future), (3, &twice)] {
        let before = queue.checkpoint();
        let broken = queue.apply(Offset(base), record, &mut Vec::new()).unwrap_err();
        assert_eq!(broken.at, Offset(base));
        assert_eq!(queue.checkpoint(), before, "and nothing of it was done");
    }
}

#[test]
fn ten_million_waiting_messages_are_no_event() {
    let mut queue = Queue::new();
    let batch = enqueue(None, 1_000, 5);
    for base in 0..10_000 {
        queue.apply(Offset(base * 1_000), &batch, &mut Vec::new()).unwrap();
    }
    assert_eq!(queue.counts().ready, 10_000_000);
    assert!(queue.checkpoint().len() < 3_000);

    queue.lead(Epoch(2));
    queue.attach(1, 100);
    let mut effects = Vec::new();
    queue.dispatch(&mut effects);
    assert_eq!(queue.held_by(1), [range(0, 100)]);
}

#[test]
fn settles_of_one_turn_become_few_ranges() {
    let ranges = vec![range(7, 9), range(1, 2), range(4, 5), range(2, 4), range(9, 10)];
    assert_eq!(merged(ranges), [range(1, 5), range(7, 10)]);
}

/// The bytes of checkpoints on disks and of snapshots between versions. They change only with the version byte.
#[test]
fn a_checkpoint_is_written_as_it_always_was() {
    let mut queue = Given::queue();
    queue.sends("p", 1, 3, Sent::New);
    queue.publishes(2).joins("a", 3);
    queue.delivers();
    queue.acks("a", &[(2, 3)]).unwrap();
    queue.returns("a", &[(3, 4)]);
    let bytes = queue.queue.checkpoint();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
    let restored = Queue::restore(&bytes).unwrap();
    assert_eq!(restored.checkpoint(), bytes);
    assert_eq!(restored.counts().ready, 4);
}

const GOLDEN: &str = "0108050100e807000100183a30000001000000000003001000000001000300040005000103040101017003\
     01e807";

#[test]
fn a_checkpoint_that_was_cut_changed_or_comes_from_the_future_is_refused() {
    let mut queue = Given::queue();
    queue.sends("p", 1, 3, Sent::New);
    let bytes = queue.queue.checkpoint();
    for length in 0..bytes.len() {
        assert!(Queue::restore(&bytes[..length]).is_err(), "cut to {length}");
    }
    let mut future = bytes.clone();
    future[0] = 2;
    let error = Queue::restore(&future).err().unwrap().to_string();
    assert_eq!(error, "the state of a queue is of version 2; this build reads version 1");
    for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << bit;
        // Some changes make another valid state; none may make a panic.
        if let Ok(queue) = Queue::restore(&changed) {
            assert_eq!(queue.counts().ready, queue.unsettled().map(|run| run.count()).sum::<u64>());
        }
    }
}

#[test]
fn a_consumer_keeps_across_a_failover_what_it_holds_and_nobody_gets_it_again() {
    let mut queue = Given::queue().messages(6).consumer("a", 4);
    assert_eq!(queue.delivers(), [fresh("a", 1, 5)]);
    queue.fails_over(&Queue::new().checkpoint());
    queue.joins("b", 10).joins("a2", 4);
    queue.queue.pause(1);
    assert_eq!(queue.claims("a2", &[(1, 5)]), (vec![range(1, 5)], vec![]));
    queue.resumes("b");
    assert_eq!(queue.delivers(), [again("b", 5, 7, 0)]);
    queue.acks("a2", &[(1, 5)]).unwrap();
    assert_eq!(queue.counts().settled, 4);
}

#[test]
fn a_claim_tells_what_is_settled_from_what_another_has() {
    let mut queue = Given::queue().messages(4).consumer("a", 4);
    assert_eq!(queue.delivers(), [fresh("a", 1, 5)]);
    queue.acks("a", &[(1, 2)]).unwrap(); // takes offset 5 in the log
    queue.fails_over(&Queue::new().checkpoint()); // whose epoch start offset 6
    queue.joins("b", 1);
    assert_eq!(queue.delivers(), [again("b", 2, 3, 0)]);
    queue.joins("a2", 4);
    assert_eq!(queue.claims("a2", &[(1, 5)]), (vec![range(3, 5)], vec![range(1, 2)]));
    let error = queue.acks("a2", &[(2, 3)]).unwrap_err();
    assert_eq!(error, ErrorCode::Stale, "it is b's");
}

#[test]
fn what_is_claimed_counts_for_the_prefetch() {
    let mut queue = Given::queue().messages(5).consumer("a", 3);
    assert_eq!(queue.delivers(), [fresh("a", 1, 4)]);
    queue.fails_over(&Queue::new().checkpoint());
    queue.joins("a2", 2);
    assert_eq!(queue.claims("a2", &[(1, 4)]).0, [range(1, 4)], "what it has it keeps");
    assert_eq!(queue.delivers(), []);
    queue.acks("a2", &[(1, 3)]).unwrap();
    assert_eq!(queue.delivers(), [again("a2", 4, 5, 0)]);
}

/// One request could make the leader walk a million runs and answer as many, after its author had acked every second message.
#[test]
fn a_claim_is_answered_with_a_bounded_number_of_runs_and_the_rest_comes_again() {
    let most = bellwether_queue::CLAIM_RUNS_MAX as u64;
    let count = 4 * most;
    let mut queue = Given::queue().messages(count as u32).consumer("a", count as u32);
    queue.delivers();
    let every_second: Vec<_> = (1..count).step_by(2).map(|at| (at, at + 1)).collect();
    for settled in every_second.chunks(1000) {
        queue.acks("a", settled).unwrap();
    }
    queue.fails_over(&Queue::new().checkpoint());
    queue.joins("a2", 10);
    let (held, settled) = queue.claims("a2", &[(1, count + 1)]);
    assert_eq!((held.len() as u64, settled.len() as u64), (most, most));
    assert_eq!(queue.queue.held_by(1), held, "it holds what it was told, and no more");
}

#[test]
fn a_claim_of_more_than_is_ever_out_is_refused_and_one_of_what_was_never_delivered_gives_nothing() {
    use bellwether_queue::IN_FLIGHT_MAX;
    let mut queue = Given::queue();
    for _ in 0..=IN_FLIGHT_MAX / 4096 {
        queue.publishes(4096);
    }
    queue.joins("a", 5);
    let claim = |queue: &mut Given, first, end| queue.queue.claim(1, &[range(first, end)]);
    for (first, end) in [(0, 1 << 62), (1, IN_FLIGHT_MAX + 2)] {
        let error = claim(&mut queue, first, end).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidOption, "{error:?}");
    }
    assert_eq!(claim(&mut queue, IN_FLIGHT_MAX + 10, IN_FLIGHT_MAX + 12).unwrap().held, []);
    assert_eq!(claim(&mut queue, IN_FLIGHT_MAX - 3, IN_FLIGHT_MAX - 1).unwrap().held.len(), 1);
}

#[test]
fn a_claim_in_the_middle_leaves_the_others_in_their_order() {
    let mut queue = Given::queue().messages(6).consumer("a", 6);
    queue.delivers();
    queue.fails_over(&Queue::new().checkpoint());
    queue.joins("a2", 6);
    assert_eq!(queue.claims("a2", &[(3, 5)]).0, [range(3, 5)]);
    queue.joins("b", 10);
    queue.queue.pause(1);
    assert_eq!(queue.delivers(), [again("b", 1, 3, 0), again("b", 5, 7, 0)]);
}
