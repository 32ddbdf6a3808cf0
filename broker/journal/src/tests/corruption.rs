//! Damage to synced data: found, told apart from a torn write, and kept to the log that it struck.

use super::story::{Story, config, queue, range, store};
use crate::disk::Disk;
use crate::disk::crash::CrashDisk;
use crate::format::GROUP_HEADER_BYTES;
use crate::{Condition, RecoveredLog};

fn condition(recovered: &[RecoveredLog], number: u8) -> &Condition {
    let log = recovered.iter().find(|log| log.queue == queue(number));
    &log.expect("a damaged log is not taken for none").condition
}

/// Two queues, three durable messages each, the last one queue 2's.
fn written() -> Story {
    let mut story = Story::begin();
    for number in [1, 2] {
        story.logs.create(queue(number));
    }
    for round in 0..3 {
        for number in [1, 2] {
            story.publish(queue(number), 1, &format!("body {round} of {number}"));
            story.settle_down(queue(number));
        }
    }
    story.stop();
    story
}

/// Where a text stands on the disk: file and byte.
fn find(disk: &CrashDisk, text: &str) -> (String, u64) {
    for name in disk.names().unwrap() {
        let content = disk.content(&name);
        let at = content.windows(text.len()).position(|window| window == text.as_bytes());
        if let Some(at) = at {
            return (name, at as u64);
        }
    }
    panic!("{text:?} is not on the disk");
}

#[test]
fn a_turned_bit_in_a_batch_condemns_its_log_and_no_other() {
    for round in 0..3 {
        let disk = written().disk.restarted();
        let (name, at) = find(&disk, &format!("body {round} of 2"));
        disk.flip(&name, at * 8 + 3);
        let story = Story::on(disk, config());
        assert!(matches!(condition(&story.recovered, 2), Condition::Corrupt(_)), "round {round}");
        assert_eq!(condition(&story.recovered, 1), &Condition::Ok);
        let bodies = story.bodies(queue(1), range(0, 3));
        assert_eq!(bodies, ["body 0 of 1", "body 1 of 1", "body 2 of 1"]);
    }
}

#[test]
fn a_damaged_log_stays_condemned_until_a_snapshot_replaces_it() {
    let disk = written().disk.restarted();
    let (name, at) = find(&disk, "body 1 of 2");
    disk.flip(&name, at * 8);
    let mut story = Story::on(disk, config()).again();
    assert!(matches!(condition(&story.recovered, 2), Condition::Corrupt(_)));
    fetch_anew(&mut story, 2);
    assert_eq!(story.logs.condition(queue(2)), Some(&Condition::Ok));
    let story = story.again();
    assert_eq!(condition(&story.recovered, 2), &Condition::Ok);
    assert_eq!(story.recovered[1].checkpoint.as_ref().unwrap().state, "whole");
    // What the damaged copy once reported durable is not expected of the new one.
    assert_eq!(story.recovered[1].store, store());
    assert_ne!(story.recovered[0].store, store());
}

fn fetch_anew(story: &mut Story, number: u8) {
    let at = bellwether_protocol::ids::Offset(3);
    let state = bytes::Bytes::from_static(b"whole");
    story.logs.stage_snapshot(queue(number), store(), at, at, Default::default(), state);
    story.logs.commit_snapshot(queue(number));
    story.until("the snapshot", |_, one| matches!(one, crate::Progress::Installed { .. }));
}

#[test]
fn no_single_turned_bit_makes_a_log_shorter_unseen() {
    let whole = written();
    let name = "segment-00000000";
    let content = whole.disk.restarted().content(name);
    let used = content.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    for bit in (512 * 8..used * 8).step_by(37) {
        let disk = whole.disk.restarted();
        disk.flip(name, bit);
        let story = Story::on(disk, config());
        for number in [1, 2] {
            if condition(&story.recovered, number) == &Condition::Ok {
                let bodies = story.bodies(queue(number), range(0, 3));
                let expected: Vec<_> =
                    (0..3).map(|round| format!("body {round} of {number}")).collect();
                assert_eq!(bodies, expected, "bit {bit}");
            }
        }
    }
}

#[test]
fn one_damaged_end_of_a_group_does_not_hide_what_it_held() {
    let disk = written().disk.restarted();
    let (name, at) = find(&disk, "body 1 of 2");
    // The group's header stands at the block's beginning, one directory line before the batch.
    let header = at / 512 * 512;
    assert!(at - header > GROUP_HEADER_BYTES as u64);
    disk.flip(&name, header * 8 + 77);
    let story = Story::on(disk, config());
    assert_eq!(condition(&story.recovered, 1), &Condition::Ok);
    let bodies = story.bodies(queue(2), range(0, 3));
    assert_eq!(bodies, ["body 0 of 2", "body 1 of 2", "body 2 of 2"]);
}

#[test]
fn when_it_cannot_be_told_whose_data_was_lost_every_log_is_condemned() {
    let disk = written().disk.restarted();
    let (name, at) = find(&disk, "body 1 of 2");
    let header = at / 512 * 512;
    disk.flip(&name, header * 8 + 77);
    disk.flip(&name, (header + 512 - 30) * 8);
    let mut story = Story::on(disk, config());
    for number in [1, 2] {
        assert!(matches!(condition(&story.recovered, number), Condition::Corrupt(_)));
    }
    assert!(story.disk.names().unwrap().contains(&name), "the damaged segment is evidence");
    // Fetched anew, they must not be condemned for the same damage at every start from now on.
    fetch_anew(&mut story, 1);
    fetch_anew(&mut story, 2);
    story.eventually("the damaged segment is freed", |disk| !disk.names().unwrap().contains(&name));
    let story = story.again();
    for number in [1, 2] {
        assert_eq!(condition(&story.recovered, number), &Condition::Ok);
    }
}

#[test]
fn damage_in_a_sealed_segment_shows_when_it_is_read() {
    let mut story = Story::begin();
    let orders = queue(1);
    story.logs.create(orders);
    for number in 0..200 {
        story.publish(orders, 1, &format!("number {number} {}", "x".repeat(500)));
        story.settle_down(orders);
    }
    story.stop();
    let disk = story.disk.restarted();
    let (name, at) = find(&disk, "number 3 ");
    disk.flip(&name, at * 8);
    let story = Story::on(disk, config());
    let crate::Read::OnDisk(request) =
        story.logs.read(orders, bellwether_protocol::ids::Offset(3), 100)
    else {
        panic!("it is in memory");
    };
    assert!(matches!(request.run(), Err(crate::ReadError::Damaged { .. })));
}
