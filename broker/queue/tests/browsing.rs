//! Looking at a queue takes nothing, and shows what is there.

mod given;

use bellwether_protocol::ids::Offset;
use bellwether_queue::{BROWSE_RUNS_MAX, Queue, Shown};
use given::{Given, again, fresh, range};

const EVERYTHING: (u64, u64) = (0, u64::MAX);

/// All looks from here on until the end, as first, end, redelivered, returns.
fn seen(given: &Given, (mut from, until): (u64, u64), most: u64) -> Vec<(u64, u64, bool, u32)> {
    let mut seen = Vec::new();
    loop {
        let (shown, next) = given.queue.browse(range(from, until), most);
        assert!(shown.iter().map(|shown| shown.run.count()).sum::<u64>() <= most);
        for Shown { run, redelivered, returns } in shown {
            seen.push((run.first.0, run.end.0, redelivered, returns));
        }
        if next.0 >= until.min(given.queue.applied().0) {
            return seen;
        }
        assert!(next.0 > from, "it gets on");
        from = next.0;
    }
}

#[test]
fn what_is_ready_and_what_is_held_is_shown_in_order_and_stays_where_it_is() {
    let mut queue = Given::queue().messages(6).consumer("a", 4);
    assert_eq!(queue.delivers(), [fresh("a", 1, 5)]);
    queue.acks("a", &[(2, 3)]).unwrap(); // takes offset 7
    let before = queue.counts();
    assert_eq!(seen(&queue, EVERYTHING, 100), [(1, 2, false, 0), (3, 7, false, 0)]);
    assert_eq!(queue.counts(), before);
    assert_eq!(queue.delivers(), [fresh("a", 5, 6)], "looking counted as no delivery");
}

#[test]
fn what_is_not_committed_is_not_shown() {
    let mut queue = Given::queue().messages(2).holding_commits_back().messages(3);
    assert_eq!(seen(&queue, EVERYTHING, 100), [(1, 3, false, 0)]);
    queue.commits();
    assert_eq!(seen(&queue, EVERYTHING, 100), [(1, 6, false, 0)]);
}

#[test]
fn a_look_ends_at_its_limit_and_the_next_one_goes_on_there() {
    let mut queue = Given::queue().messages(10).consumer("a", 10);
    queue.delivers();
    queue.acks("a", &[(3, 5), (7, 8)]).unwrap();
    assert_eq!(
        seen(&queue, EVERYTHING, 3),
        [
            (1, 3, false, 0),
            (5, 6, false, 0),
            (6, 7, false, 0),
            (8, 10, false, 0),
            (10, 11, false, 0)
        ]
    );
    assert_eq!(seen(&queue, (2, 9), 100), [(2, 3, false, 0), (5, 7, false, 0), (8, 9, false, 0)]);
}

#[test]
fn marks_are_those_that_a_consumer_would_be_told() {
    let mut queue = Given::queue().messages(4).consumer("a", 4);
    queue.delivers();
    queue.returns("a", &[(2, 3)]);
    assert_eq!(
        seen(&queue, EVERYTHING, 100),
        [(1, 2, false, 0), (2, 3, true, 1), (3, 5, false, 0)]
    );
    queue.fails_over(&Queue::new().checkpoint());
    assert_eq!(
        seen(&queue, EVERYTHING, 100),
        [(1, 2, true, 0), (2, 3, true, 1), (3, 5, true, 0)],
        "what may have been out comes marked"
    );
    queue.joins("b", 1);
    assert_eq!(queue.delivers(), [again("b", 1, 2, 0)]);
}

#[test]
fn a_look_shows_a_bounded_number_of_runs() {
    let messages = 2 * (BROWSE_RUNS_MAX as u64) + 10;
    let mut queue = Given::queue().messages(messages as u32).consumer("a", messages as u32);
    queue.delivers();
    let every_other: Vec<_> = (1..=messages).step_by(2).map(|first| (first, first + 1)).collect();
    queue.acks("a", &every_other).unwrap();
    let (shown, next) = queue.queue.browse(range(0, u64::MAX), u64::MAX);
    assert_eq!(shown.len(), BROWSE_RUNS_MAX);
    assert_eq!(next, shown.last().unwrap().run.end);
    assert_eq!(seen(&queue, EVERYTHING, u64::MAX).len() as u64, messages / 2);
}

#[test]
fn an_empty_queue_and_a_look_behind_the_end_show_nothing() {
    let queue = Given::queue();
    assert_eq!(queue.queue.browse(range(0, u64::MAX), 10), (Vec::new(), Offset(1)));
    let (shown, next) = queue.queue.browse(range(50, u64::MAX), 10);
    assert_eq!((shown, next), (Vec::new(), Offset(50)));
}
