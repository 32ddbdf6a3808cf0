//! The checker finds each kind of broken promise in a history made for it, and nothing in a legal one.

use super::*;

const STALE_FOR: Duration = Duration::from_secs(2);

/// A history with one producer and one queue, told step by step.
struct History {
    checker: Checker,
    queue: QueueIndex,
    producer: ProducerIndex,
    now: Duration,
}

impl History {
    fn new() -> History {
        let mut checker = Checker::new(STALE_FOR);
        let queue = checker.queue("orders", Consumers::One);
        let producer = checker.producer(&[queue]);
        History { checker, queue, producer, now: Duration::ZERO }
    }

    /// Publishes `count` messages, all with this outcome.
    fn publish(mut self, count: u64, outcome: Outcome) -> Self {
        for _ in 0..count {
            let message = self.checker.publish(self.producer);
            self.checker.published(message, outcome);
        }
        self
    }

    fn message(&self, number: u64) -> MessageId {
        MessageId { producer: self.producer.0, number }
    }

    fn deliver_as(mut self, number: u64, offset: u64, epoch: u64, redelivered: bool) -> Self {
        let message = Ok(self.message(number));
        let (queue, at) = (self.queue, self.now);
        self.checker.delivered(&Delivered { queue, message, offset, epoch, redelivered, at });
        self
    }

    fn deliver(self, number: u64, offset: u64) -> Self {
        self.deliver_as(number, offset, 1, false)
    }

    fn redeliver(self, number: u64, offset: u64, epoch: u64) -> Self {
        self.deliver_as(number, offset, epoch, true)
    }

    fn settle_as(mut self, number: u64, epoch: u64, outcome: Outcome) -> Self {
        let message = self.message(number);
        self.checker.settled(self.queue, &[message], epoch, outcome, self.now);
        self
    }

    fn settle(self, number: u64) -> Self {
        self.settle_as(number, 1, Outcome::Done)
    }

    fn after(mut self, time: Duration) -> Self {
        self.now += time;
        self
    }

    fn verdict(self) -> Verdict {
        self.checker.finish(&[])
    }

    fn counting(self, counts: Counts) -> Verdict {
        let queue = self.queue;
        self.checker.finish(&[(queue, counts)])
    }
}

fn only(verdict: &Verdict, kind: &str, times: u64) {
    assert_eq!(
        verdict.violations.iter().map(|(k, n)| (*k, *n)).collect::<Vec<_>>(),
        [(kind, times)],
        "{verdict:#?}"
    );
}

#[test]
fn a_legal_history_with_unknowns_and_redeliveries_is_accepted() {
    let verdict = History::new()
        .publish(3, Outcome::Done)
        .publish(1, Outcome::Unknown)
        .publish(1, Outcome::Unknown)
        .publish(1, Outcome::NotDone)
        .publish(1, Outcome::Done)
        .deliver(1, 1)
        .deliver(2, 2)
        .settle(1)
        .settle_as(2, 1, Outcome::Unknown)
        .redeliver(2, 2, 2)
        .redeliver(3, 3, 2)
        .settle_as(3, 2, Outcome::NotDone)
        .redeliver(3, 3, 3)
        .settle_as(2, 3, Outcome::Done)
        .settle_as(3, 3, Outcome::Done)
        // The fourth was stored although nobody knew, the fifth was not.
        .deliver_as(4, 7, 3, false)
        .deliver_as(7, 8, 3, false)
        .settle_as(4, 3, Outcome::Done)
        .settle_as(7, 3, Outcome::Done)
        .counting(Counts { enqueued: 5, settled: 5, ..Counts::default() });
    assert!(verdict.is_clean(), "{verdict:#?}");
    assert_eq!(
        (verdict.published, verdict.confirmed, verdict.unknown, verdict.refused),
        (7, 4, 2, 1)
    );
    assert_eq!((verdict.deliveries, verdict.redeliveries, verdict.settled), (7, 3, 5));
}

#[test]
fn a_confirmed_message_that_never_comes_is_lost() {
    let verdict = History::new().publish(2, Outcome::Done).deliver(1, 1).settle(1).verdict();
    only(&verdict, "lost", 1);
    assert_eq!(verdict.evidence, ["orders: p0#2 was confirmed and never delivered"]);
}

#[test]
fn a_confirmed_message_that_was_delivered_but_not_settled_and_does_not_come_back_is_lost() {
    let verdict = History::new()
        .publish(1, Outcome::Done)
        .deliver(1, 1)
        .settle_as(1, 1, Outcome::NotDone)
        .verdict();
    only(&verdict, "lost", 1);
}

#[test]
fn a_message_that_nobody_published_is_invented() {
    let verdict =
        History::new().publish(1, Outcome::Done).deliver(1, 1).settle(1).deliver(2, 2).verdict();
    only(&verdict, "invented", 1);
}

#[test]
fn a_body_that_was_changed_is_invented() {
    let mut history = History::new();
    history.checker.delivered(&Delivered {
        queue: history.queue,
        message: Err("a body with a wrong checksum".to_owned()),
        offset: 4,
        epoch: 1,
        redelivered: false,
        at: Duration::ZERO,
    });
    let verdict = history.verdict();
    only(&verdict, "invented", 1);
    assert_eq!(verdict.evidence, ["orders: offset 4 holds a body with a wrong checksum"]);
}

#[test]
fn a_message_in_a_queue_it_was_not_routed_to_is_invented() {
    let mut history = History::new().publish(1, Outcome::Done).deliver(1, 1).settle(1);
    history.queue = history.checker.queue("invoices", Consumers::One);
    only(&history.deliver(1, 1).verdict(), "invented", 1);
}

#[test]
fn a_refused_message_must_not_be_delivered() {
    only(
        &History::new().publish(1, Outcome::NotDone).deliver(1, 1).settle(1).verdict(),
        "refused_but_delivered",
        1,
    );
}

#[test]
fn a_delivered_message_must_not_be_refused_afterwards() {
    let mut history = History::new();
    let message = history.checker.publish(history.producer);
    history = history.deliver(1, 1).settle(1);
    history.checker.published(message, Outcome::NotDone);
    only(&history.verdict(), "refused_but_delivered", 1);
}

#[test]
fn a_message_delivered_after_its_settle_was_confirmed_is_resurrected() {
    let history =
        History::new().publish(1, Outcome::Done).deliver(1, 1).settle(1).redeliver(1, 1, 2);
    only(&history.verdict(), "resurrected", 1);
    let history =
        History::new().publish(1, Outcome::Done).deliver(1, 1).settle(1).redeliver(1, 1, 1);
    only(&history.verdict(), "resurrected", 1);
}

#[test]
fn a_deposed_leader_may_have_a_message_under_way_for_the_length_of_its_lease() {
    let settled = |time| {
        let history = History::new().publish(1, Outcome::Done).deliver_as(1, 1, 2, true).settle_as(
            1,
            2,
            Outcome::Done,
        );
        history.after(time).redeliver(1, 1, 1).verdict()
    };
    assert!(settled(STALE_FOR).is_clean());
    only(&settled(STALE_FOR + Duration::from_millis(1)), "resurrected", 1);
}

#[test]
fn a_message_at_two_offsets_is_duplicated() {
    only(
        &History::new().publish(1, Outcome::Done).deliver(1, 1).settle(1).deliver(1, 5).verdict(),
        "duplicated",
        1,
    );
}

#[test]
fn two_messages_at_one_offset_are_two_histories() {
    let history =
        History::new().publish(2, Outcome::Done).deliver(1, 1).settle(1).deliver(2, 1).settle(2);
    only(&history.verdict(), "offset_taken_twice", 1);
}

#[test]
fn messages_stored_in_another_order_than_published_are_reordered() {
    let history =
        History::new().publish(3, Outcome::Done).deliver(1, 1).deliver(3, 2).deliver(2, 3);
    let verdict = history.settle(1).settle(2).settle(3).verdict();
    only(&verdict, "reordered", 1);
    assert_eq!(verdict.evidence, ["orders: p0#2 is stored at offset 3, behind p0#3 at offset 2"]);
}

#[test]
fn first_deliveries_come_in_order_of_offset() {
    let history =
        History::new().publish(2, Outcome::Done).deliver(2, 2).deliver(1, 1).settle(1).settle(2);
    only(&history.verdict(), "delivered_out_of_order", 1);
    let history = History::new()
        .publish(2, Outcome::Done)
        .deliver(2, 2)
        .redeliver(1, 1, 1)
        .settle(1)
        .settle(2);
    assert!(history.verdict().is_clean(), "a redelivery goes back to its place");
}

#[test]
fn a_second_delivery_carries_the_mark() {
    let history = History::new().publish(1, Outcome::Done).deliver(1, 1).deliver(1, 1).settle(1);
    only(&history.verdict(), "not_marked_redelivered", 1);
}

#[test]
fn counts_that_do_not_add_up_are_found() {
    let drained =
        || History::new().publish(2, Outcome::Done).deliver(1, 1).deliver(2, 2).settle(1).settle(2);
    let right = Counts { enqueued: 2, settled: 2, ..Counts::default() };
    assert!(drained().counting(right).is_clean());
    only(&drained().counting(Counts { settled: 1, ..right }), "counts_differ", 1);
    only(&drained().counting(Counts { enqueued: 3, settled: 3, ..right }), "counts_differ", 1);
    only(&drained().counting(Counts { settled: 1, ready: 1, ..right }), "counts_differ", 1);
}

#[test]
fn a_flood_of_violations_is_counted_but_not_kept() {
    let verdict = History::new().publish(10_000, Outcome::Done).verdict();
    only(&verdict, "lost", 10_000);
    assert_eq!(verdict.evidence.len(), VIOLATIONS_KEPT);
}

/// Publishes, delivers and settles so many messages, one after the other, from offset 1 on.
fn long(messages: u64) -> History {
    let mut history = History::new();
    for number in 1..=messages {
        history = history.publish(1, Outcome::Done).deliver(number, number).settle(number);
        history.now += Duration::from_millis(1);
    }
    history
}

const OLD: u64 = stream::NEWEST_KEPT as u64 * 2;

#[test]
fn a_long_history_takes_no_more_memory_than_a_short_one_but_for_a_few_bits() {
    let history = long(4 * OLD);
    let held: usize = history.checker.queues[0].streams.values().map(stream::Stream::held).sum();
    assert!(held <= stream::NEWEST_KEPT, "{held}");
    assert!(history.checker.queues[0].recently_settled.len() <= STALE_FOR.as_millis() as usize + 1);
    assert!(history.verdict().is_clean());
}

#[test]
fn what_was_settled_long_ago_and_comes_again_is_found_at_its_place_and_at_another_one() {
    only(&long(OLD).redeliver(5, 5, 1).verdict(), "resurrected", 1);
    let verdict = long(OLD).redeliver(5, OLD + 1, 1).verdict();
    only(&verdict, "duplicated", 1);
}

#[test]
fn what_was_not_settled_is_remembered_however_old_it_is() {
    let mut history = History::new().publish(1, Outcome::Done).deliver(1, 1);
    for number in 2..=OLD {
        history = history.publish(1, Outcome::Done).deliver(number, number).settle(number);
    }
    only(&history.deliver_as(1, 1, 1, false).settle(1).verdict(), "not_marked_redelivered", 1);
}

#[test]
fn what_is_first_delivered_long_after_later_ones_stands_before_them() {
    let late = |offset| {
        let mut history = History::new().publish(1, Outcome::Unknown);
        for number in 2..=OLD {
            history = history.publish(1, Outcome::Done).deliver(number, number).settle(number);
        }
        history.redeliver(1, offset, 1).redeliver(1, offset, 1).settle(1).verdict()
    };
    assert!(late(1).is_clean());
    only(&late(OLD + 1), "reordered", 1);
}

/// Says what the history of a night costs: `--ignored --nocapture`, in a release build.
#[test]
#[ignore = "a measurement"]
fn twenty_million_messages() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned()
    };
    let before = resident();
    let begun = std::time::Instant::now();
    let history = long(20_000_000);
    assert!(history.verdict().is_clean());
    println!("{before} before, {} after, {:?}", resident(), begun.elapsed());
}
