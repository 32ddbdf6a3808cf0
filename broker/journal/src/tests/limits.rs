//! A disk that fails, and what waits for it.

use bellwether_protocol::ids::Offset;

use super::story::{Story, queue};
use crate::{DiskLevel, Progress};

#[test]
fn a_failed_sync_is_reported_once_and_nothing_is_durable_after_it() {
    let mut story = Story::begin();
    let orders = queue(1);
    story.logs.create(orders);
    story.publish(orders, 1, "durable");
    story.settle_down(orders);

    story.disk.fail_next_sync();
    story.publish(orders, 1, "lost");
    story.until("the failure", |_, one| matches!(one, Progress::Failed(_)));
    let syncs = story.disk.syncs();
    for _ in 0..10 {
        story.publish(orders, 1, "refused");
        story.logs.flush();
    }
    story.stop();
    // The disk would sync again, but nobody asks it to: what the kernel dropped would be taken for durable.
    assert_eq!(story.disk.syncs(), syncs);
    assert!(story.logs.completed().is_empty());
    assert_eq!(story.logs.durable(orders), Offset(1));

    // Nor does a later life of the broker trust the folder.
    let Err(error) = Story::try_on(story.disk.restarted(), super::story::config()) else {
        panic!("it was opened");
    };
    assert!(error.to_string().contains("a sync failed"), "{error}");
}

#[test]
fn appends_that_the_disk_does_not_take_are_held_back() {
    let mut story = Story::begin();
    let orders = queue(1);
    story.logs.create(orders);
    assert!(story.logs.has_room());
    while story.logs.has_room() {
        story.publish(orders, 1, &"x".repeat(1000));
    }
    assert!(story.logs.end(orders) < Offset(40));
    story.settle_down(orders);
    assert!(story.logs.has_room());
}

/// Whoever used up the descriptors of a broker, for instance by connections to its port for metrics, ended its store: the next segment could not be
/// opened, and that was taken for a failure of the disk.
#[test]
fn a_want_of_file_descriptors_holds_appends_back_and_ends_nothing() {
    let mut story = Story::begin();
    let orders = queue(1);
    story.logs.create(orders);
    story.disk.set_no_descriptors(true);
    // More than the segment, and the spare ones, which cannot be opened.
    let body = "x".repeat(8_000);
    let mut published = 0;
    while published < 30 && story.logs.has_room() {
        story.publish(orders, 1, &body);
        published += 1;
    }
    story.until("the first are durable", |logs, _| logs.durable(orders) > Offset(0));
    while story.logs.has_room() {
        story.publish(orders, 1, &body);
    }
    assert!(story.logs.durable(orders) < story.logs.end(orders), "some wait");
    // Whoever frees space for it does so in vain.
    story.until("it is said why", |logs, _| logs.disk() == DiskLevel::Starved);

    story.disk.set_no_descriptors(false);
    story.settle_down(orders);
    story.until("there are descriptors again", |logs, _| logs.disk() == DiskLevel::Ok);
    let end = story.logs.end(orders);
    assert_eq!(story.logs.durable(orders), end);
    let story = story.again();
    assert_eq!(story.logs.end(orders), end);
}

#[test]
fn a_log_that_has_become_long_wants_a_checkpoint() {
    let disk = crate::disk::crash::CrashDisk::default();
    let config = crate::JournalConfig { checkpoint_batches: 10, ..super::story::config() };
    let mut story = Story::on(disk, config);
    let orders = queue(1);
    story.logs.create(orders);
    for _ in 0..10 {
        story.publish(orders, 1, "message");
    }
    assert!(story.logs.wants_checkpoint().is_empty());
    for _ in 0..10 {
        story.publish(orders, 1, "message");
    }
    assert_eq!(story.logs.wants_checkpoint(), [orders]);
    assert!(story.logs.wants_checkpoint().is_empty());
    // The shard could not take one then: it is reminded.
    for _ in 0..10 {
        story.publish(orders, 1, "message");
    }
    assert_eq!(story.logs.wants_checkpoint(), [orders]);
    story.logs.checkpoint(orders, Offset(30), Offset(30), bytes::Bytes::new());
    for _ in 0..11 {
        story.publish(orders, 1, "message");
    }
    assert_eq!(story.logs.wants_checkpoint(), [orders]);
}
