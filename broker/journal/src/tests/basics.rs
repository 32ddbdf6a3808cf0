//! Appending, reading, cutting, checkpoints, snapshots, restarts.

use bellwether_log::EpochHistory;
use bellwether_protocol::ids::{Epoch, Offset};
use bytes::Bytes;

use super::story::{Story, config, message, queue, range, store};
use crate::disk::crash::CrashDisk;
use crate::{Checkpoint, Condition, Progress};

#[test]
fn what_was_reported_durable_is_there_after_a_restart() {
    let mut story = Story::begin();
    let orders = queue(1);
    story.logs.create(orders);
    for number in 0..100 {
        story.publish(orders, 1, &format!("message {number}"));
    }
    story.settle_down(orders);

    let story = story.again();
    assert_eq!(story.recovered.len(), 1);
    assert_eq!(story.recovered[0].condition, Condition::Ok);
    assert_eq!(story.logs.end(orders), Offset(100));
    let bodies = story.bodies(orders, range(0, 100));
    assert_eq!(bodies[0], "message 0");
    assert_eq!(bodies[99], "message 99");
    assert_eq!(story.logs.epochs(orders).starts(), [(Epoch(1), Offset(0))]);
}

#[test]
fn a_log_goes_on_behind_its_end_over_many_restarts_and_segments() {
    let mut story = Story::begin();
    let orders = queue(1);
    story.logs.create(orders);
    for round in 1..=8 {
        for number in 0..40 {
            story.publish(orders, round, &format!("{round} {number} {}", "x".repeat(500)));
        }
        story.settle_down(orders);
        story = story.again();
        assert_eq!(story.logs.end(orders), Offset(round * 40));
    }
    let bodies = story.bodies(orders, range(0, 320));
    for round in 1..=8 {
        assert!(bodies[(round - 1) * 40].starts_with(&format!("{round} 0 ")));
    }
    assert_eq!(story.logs.epochs(orders).starts().len(), 8);
}

#[test]
fn recent_batches_come_from_memory_and_older_ones_from_the_disk() {
    let mut story = Story::begin();
    let orders = queue(1);
    story.logs.create(orders);
    for number in 0..200 {
        story.publish(orders, 1, &format!("{number} {}", "x".repeat(300)));
        if number % 20 == 0 {
            story.settle_down(orders);
        }
    }
    story.settle_down(orders);
    assert!(matches!(story.logs.read(orders, Offset(0), 1000), crate::Read::OnDisk(_)));
    assert!(matches!(story.logs.read(orders, Offset(199), 1000), crate::Read::Ready(_)));
    let all = story.read(orders, 0);
    assert_eq!(all.len(), 200);
    assert!(all.iter().zip(0..).all(|(batch, base)| batch.base() == Offset(base)));
}

#[test]
fn what_was_cut_off_never_comes_back() {
    let mut story = Story::begin();
    let orders = queue(1);
    story.logs.create(orders);
    for number in 0..10 {
        story.publish(orders, 1, &format!("old {number}"));
    }
    story.settle_down(orders);
    assert_eq!(story.logs.truncate(orders, Offset(4)), Offset(4));
    story.until("the cut", |_, one| matches!(one, Progress::Durable { .. }));

    let mut story = story.again();
    assert_eq!(story.logs.end(orders), Offset(4));
    for number in 4..6 {
        story.publish(orders, 2, &format!("new {number}"));
    }
    story.settle_down(orders);
    let story = story.again();
    let bodies = story.bodies(orders, range(0, 6));
    assert_eq!(bodies, ["old 0", "old 1", "old 2", "old 3", "new 4", "new 5"]);
    assert_eq!(story.logs.end(orders), Offset(6));
    let epochs = [(Epoch(1), Offset(0)), (Epoch(2), Offset(4))];
    assert_eq!(story.logs.epochs(orders).starts(), epochs);
}

#[test]
fn a_restart_finds_the_last_checkpoint() {
    let mut story = Story::begin();
    let orders = queue(1);
    story.logs.create(orders);
    for number in 0..10 {
        story.publish(orders, 3, &format!("{number}"));
        let at = Offset(number + 1);
        story.logs.checkpoint(orders, at, at, Bytes::from(format!("state {number}")));
    }
    story.publish(orders, 3, "after");
    story.settle_down(orders);
    let story = story.again();
    let at = Offset(10);
    let state = Bytes::from_static(b"state 9");
    let last = Some(Checkpoint { at, high_watermark: at, state });
    assert_eq!(story.recovered[0].checkpoint, last);
    assert_eq!(story.logs.checkpointed(orders), Some((at, at)));
}

#[test]
fn a_dropped_log_is_gone_and_may_be_made_again() {
    let mut story = Story::begin();
    let orders = queue(1);
    story.logs.create(orders);
    story.publish(orders, 1, "old");
    story.settle_down(orders);
    story.logs.remove(orders);
    story.logs.create(orders);
    story.publish(orders, 1, "new");
    story.settle_down(orders);
    let mut story = story.again();
    assert_eq!(story.bodies(orders, range(0, 1)), ["new"]);
    story.logs.remove(orders);
    let other = queue(2);
    story.logs.create(other);
    story.publish(other, 1, "other");
    story.settle_down(other);
    let story = story.again();
    assert!(!story.logs.contains(orders));
    assert!(story.logs.contains(other));
}

/// Who says that it holds nothing of a deleted queue is not asked again: after a crash nothing may be there (promise G8).
#[test]
fn a_dropped_log_is_durably_gone_once_its_drop_is_on_the_disk_and_no_sooner() {
    let mut story = Story::begin();
    let (orders, other, never) = (queue(1), queue(2), queue(3));
    story.logs.create(orders);
    story.publish(orders, 1, "old");
    story.settle_down(orders);
    let all = [orders, other, never];
    assert_eq!(story.logs.durably_gone(&all), [other, never], "of these there never was a log");

    story.logs.remove(orders);
    assert_eq!(story.logs.durably_gone(&all), [other, never], "the power may go now");
    story.logs.create(other);
    story.publish(other, 1, "other");
    story.settle_down(other);
    assert_eq!(story.logs.durably_gone(&all), [orders, never]);
    let story = story.again();
    assert_eq!(story.logs.durably_gone(&all), [orders, never]);
}

#[test]
fn a_snapshot_replaces_a_log_all_or_nothing() {
    let mut story = Story::begin();
    let orders = queue(1);
    story.logs.create(orders);
    for number in 0..5 {
        story.publish(orders, 1, &format!("old {number}"));
    }
    story.settle_down(orders);
    let epochs = EpochHistory::new(vec![(Epoch(1), Offset(0)), (Epoch(4), Offset(50))]).unwrap();
    let (at, hw) = (Offset(100), Offset(100));
    let stage = |story: &mut Story| {
        let state = Bytes::from_static(b"snapshot");
        story.logs.stage_snapshot(orders, store(), at, hw, epochs.clone(), state);
        story.logs.stage_live(message(orders, 1, 7, "live 7"));
        story.logs.stage_live(message(orders, 4, 60, "live 60"));
        story.logs.flush();
    };

    // Staged and not committed: the old log is what a restart finds.
    stage(&mut story);
    let mut story = story.again();
    assert_eq!(story.logs.end(orders), Offset(5));
    assert_eq!(story.bodies(orders, range(4, 5)), ["old 4"]);

    stage(&mut story);
    story.logs.commit_snapshot(orders);
    story.until("the snapshot", |logs, one| {
        matches!(one, Progress::Installed { .. }) && logs.end(orders) == at
    });
    let check = |story: &Story| {
        assert_eq!((story.logs.start(orders), story.logs.end(orders)), (at, at));
        assert_eq!(story.bodies(orders, range(7, 8)), ["live 7"]);
        assert_eq!(story.bodies(orders, range(60, 61)), ["live 60"]);
        assert_eq!(story.logs.epochs(orders), &epochs);
        assert!(matches!(story.logs.read(orders, Offset(4), 100), crate::Read::Gone));
    };
    check(&story);
    let story = story.again();
    check(&story);
    assert_eq!(story.recovered[0].checkpoint.as_ref().unwrap().state, "snapshot");
}

#[test]
fn a_batch_longer_than_what_is_left_of_a_segment_goes_to_the_next() {
    let mut story = Story::on(CrashDisk::default(), config());
    let orders = queue(1);
    story.logs.create(orders);
    for number in 0..6 {
        story.publish(orders, 1, &format!("{number} {}", "x".repeat(40_000)));
        story.settle_down(orders);
    }
    let story = story.again();
    assert_eq!(story.logs.end(orders), Offset(6));
    let bodies = story.bodies(orders, range(0, 6));
    assert!(bodies.iter().zip(0..).all(|(body, number)| body.starts_with(&format!("{number} "))));
}
