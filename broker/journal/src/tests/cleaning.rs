//! Space comes back: dead segments are freed, pinned ones emptied, and nothing that is needed goes.

use bellwether_protocol::ids::{Offset, OffsetRange, QueueId};
use bytes::Bytes;

use super::story::{Story, config, enqueue, queue, range, settle};
use crate::disk::crash::CrashDisk;
use crate::{DiskLevel, Evacuation, JournalConfig, QueueLive, Read};

fn tight() -> JournalConfig {
    JournalConfig { dead_bytes_max: 128 * 1024, ..config() }
}

/// Answers the cleaner as a shard does: with checkpoints, and with what is unsettled.
fn answer(story: &mut Story, evacuation: Evacuation, unsettled: &[(QueueId, Vec<OffsetRange>)]) {
    let mut live = Vec::new();
    for need in &evacuation.queues {
        if need.checkpoint_wanted {
            let at = story.logs.durable(need.queue);
            story.logs.checkpoint(need.queue, at, at, Bytes::from_static(b"state"));
        }
        let known = unsettled.iter().find(|(queue, _)| *queue == need.queue);
        let unsettled = known.map(|(_, ranges)| ranges.clone()).unwrap_or_default();
        live.push(QueueLive { queue: need.queue, unsettled });
    }
    story.logs.evacuate(evacuation, &live);
}

/// Publishes and settles `count` messages on `busy`, answering the cleaner; `idle` keeps its messages.
fn turn_over(story: &mut Story, busy: QueueId, idle: &[(QueueId, Vec<OffsetRange>)], count: u64) {
    for number in 0..count {
        let body = format!("{number} {}", "x".repeat(900));
        let base = story.publish(busy, 1, &body);
        story.logs.append(settle(busy, 1, base + 1, &[range(base, base + 1)]));
        story.settle_down(busy);
        story.logs.settled(busy, range(base, base + 1));
        while let Some(evacuation) = story.evacuation() {
            answer(story, evacuation, idle);
        }
    }
}

#[test]
fn the_disk_does_not_grow_while_messages_come_and_go() {
    let mut story = Story::on(CrashDisk::default(), tight());
    let busy = queue(1);
    story.logs.create(busy);
    turn_over(&mut story, busy, &[], 2000);
    assert!(story.disk.used() < 700 * 1024, "{} bytes on the disk", story.disk.used());
    assert!(story.logs.start(busy) > Offset(1000));
    let end = story.logs.end(busy);
    let story = story.again();
    assert_eq!(story.logs.end(busy), end);
    assert!(story.logs.start(busy) > Offset(1000));
}

/// A consumer acknowledged 500 of the 1000 messages of a batch, and the shard never came out of the loop that counted
/// them: behind the last settled message the same batch was found again and again.
#[test]
fn a_settle_that_ends_inside_a_batch_is_counted_and_over() {
    let mut story = Story::on(CrashDisk::default(), config());
    let orders = queue(1);
    story.logs.create(orders);
    let bodies = ["a", "b", "c"].map(|body| Bytes::from_static(body.as_bytes()));
    story.logs.append(enqueue(orders, 1, 0, &bodies));
    story.settle_down(orders);
    story.logs.settled(orders, range(0, 2));
    story.logs.settled(orders, range(2, 3));
}

#[test]
fn messages_that_nobody_takes_stay_readable_while_others_come_and_go() {
    let mut story = Story::on(CrashDisk::default(), tight());
    let (busy, idle) = (queue(1), queue(2));
    story.logs.create(busy);
    story.logs.create(idle);
    // The idle queue's messages lie among the busy one's, so that every segment holds a few.
    let mut kept = Vec::new();
    for round in 0..40 {
        let base = story.publish(idle, 1, &format!("idle {round}"));
        story.settle_down(idle);
        kept.push(range(base, base + 1));
        turn_over(&mut story, busy, &[(idle, kept.clone())], 40);
    }
    assert!(story.disk.used() < 900 * 1024, "{} bytes on the disk", story.disk.used());
    let check = |story: &Story| {
        for (round, range) in kept.iter().enumerate() {
            assert_eq!(story.bodies(idle, *range), [format!("idle {round}")]);
        }
    };
    check(&story);
    check(&story.again());
}

#[test]
fn of_a_batch_only_the_unsettled_messages_are_kept() {
    let mut story = Story::on(CrashDisk::default(), JournalConfig { dead_bytes_max: 0, ..tight() });
    let (busy, idle) = (queue(1), queue(2));
    story.logs.create(busy);
    story.logs.create(idle);
    let bodies: Vec<Bytes> = (0..10).map(|number| Bytes::from(format!("idle {number}"))).collect();
    story.logs.append(super::story::enqueue(idle, 1, 0, &bodies));
    story.settle_down(idle);
    story.logs.settled(idle, range(0, 3));
    story.logs.settled(idle, range(5, 9));
    let left = vec![range(3, 5), range(9, 10)];
    turn_over(&mut story, busy, &[(idle, left)], 1000);
    assert_eq!(story.logs.start(idle), Offset(10));
    let check = |story: &Story| {
        assert_eq!(story.bodies(idle, range(3, 5)), ["idle 3", "idle 4"]);
        assert_eq!(story.bodies(idle, range(9, 10)), ["idle 9"]);
        assert!(matches!(story.logs.read_live(idle, &[range(1, 2)], 1000), Read::Gone));
    };
    check(&story);
    check(&story.again());
}

#[test]
fn a_log_that_cannot_be_checkpointed_is_moved_as_it_is() {
    let mut story = Story::on(CrashDisk::default(), tight());
    let (busy, stuck) = (queue(1), queue(2));
    story.logs.create(busy);
    story.logs.create(stuck);
    for number in 0..5 {
        story.publish(stuck, 1, &format!("stuck {number}"));
    }
    story.settle_down(stuck);
    for number in 0..1000 {
        let body = format!("{number} {}", "x".repeat(900));
        let base = story.publish(busy, 1, &body);
        story.settle_down(busy);
        story.logs.settled(busy, range(base, base + 1));
        while let Some(evacuation) = story.evacuation() {
            let at = story.logs.durable(busy);
            story.logs.checkpoint(busy, at, at, Bytes::new());
            let live = [QueueLive { queue: busy, unsettled: Vec::new() }];
            story.logs.evacuate(evacuation, &live);
        }
    }
    assert_eq!(story.logs.start(stuck), Offset(0));
    assert_eq!(story.read(stuck, 0).len(), 5);
    let story = story.again();
    assert_eq!(story.recovered.len(), 2);
    assert_eq!(story.logs.end(stuck), Offset(5));
    assert_eq!(story.read(stuck, 0).len(), 5);
}

#[test]
fn a_dropped_log_stays_gone_when_the_segment_that_says_so_is_freed() {
    let mut story = Story::on(CrashDisk::default(), tight());
    let (busy, dropped, pinned) = (queue(1), queue(2), queue(3));
    story.logs.create(busy);
    story.logs.create(dropped);
    story.logs.create(pinned);
    story.publish(dropped, 1, "dropped");
    story.publish(pinned, 1, "pinned");
    story.settle_down(pinned);
    turn_over(&mut story, busy, &[(pinned, vec![range(0, 1)])], 100);
    story.logs.remove(dropped);
    for _ in 0..10 {
        turn_over(&mut story, busy, &[(pinned, vec![range(0, 1)])], 100);
        story = {
            story.stop();
            Story::on(story.disk.restarted(), tight())
        };
        assert!(!story.logs.contains(dropped));
        assert_eq!(story.bodies(pinned, range(0, 1)), ["pinned"]);
    }
}

#[test]
fn a_read_that_has_begun_succeeds_although_its_segment_is_freed() {
    let mut story = Story::on(CrashDisk::default(), tight());
    let busy = queue(1);
    story.logs.create(busy);
    turn_over(&mut story, busy, &[], 40);
    let Read::OnDisk(request) = story.logs.read(busy, Offset(0), 4096) else {
        panic!("the beginning is in memory");
    };
    turn_over(&mut story, busy, &[], 1000);
    assert!(matches!(story.logs.read(busy, Offset(0), 4096), Read::Gone));
    let batches = request.run().unwrap();
    assert_eq!(batches[0].base(), Offset(0));
}

#[test]
fn a_disk_that_fills_says_so_in_steps_before_its_reserve_is_used() {
    let disk = CrashDisk::default();
    disk.limit(Some(1024 * 1024));
    let mut story = Story::on(disk, JournalConfig { disk_low_bytes: 512 * 1024, ..tight() });
    let orders = queue(1);
    story.logs.create(orders);
    let mut levels = vec![story.logs.disk()];
    while *levels.last().unwrap() < DiskLevel::Scarce {
        let published = story.publish(orders, 1, &"x".repeat(900));
        story.settle_down(orders);
        assert!(published < 2000, "the disk never fills: {levels:?}");
        levels.push(story.logs.disk());
    }
    levels.dedup();
    assert_eq!(levels, [DiskLevel::Ok, DiskLevel::Low, DiskLevel::Scarce]);
}

#[test]
fn a_full_disk_refuses_publishes_while_settles_free_it() {
    let disk = CrashDisk::default();
    disk.limit(Some(640 * 1024));
    let mut story = Story::on(disk, tight());
    let orders = queue(1);
    story.logs.create(orders);
    let mut published = 0;
    while story.logs.disk() == DiskLevel::Ok {
        published = story.publish(orders, 1, &"x".repeat(900)) + 1;
        story.settle_down(orders);
        assert!(published < 2000, "the disk never fills");
    }
    // What is settled still finds room, and its space comes back.
    for offset in 0..published {
        let base = story.logs.end(orders).0;
        story.logs.append(settle(orders, 1, base, &[range(offset, offset + 1)]));
        story.settle_down(orders);
        story.logs.settled(orders, range(offset, offset + 1));
        while let Some(evacuation) = story.evacuation() {
            answer(&mut story, evacuation, &[(orders, vec![range(offset + 1, published)])]);
        }
    }
    while story.logs.disk() != DiskLevel::Ok {
        match story.evacuation() {
            Some(evacuation) => answer(&mut story, evacuation, &[]),
            None => story.hear_more(),
        }
    }
}
