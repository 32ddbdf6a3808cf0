//! A crash is an image of the disk: at every sync of a workload the power goes, with whatever part of the
//! un-synced writes on the disk. What comes back is the journal as it was after one of its steps: everything that was reported
//! durable, and no mixture.

use super::history::{History, holds_one_of};
use super::story::{Story, config};
use crate::JournalConfig;
use crate::disk::crash::CrashDisk;

/// Segments so small, and so little dead data allowed, that the cleaner never rests.
fn busy() -> JournalConfig {
    JournalConfig { segment_bytes: 24 * 1024, dead_bytes_max: 0, cache_bytes: 4096, ..config() }
}

/// Runs a workload on a disk whose power goes, and checks every image that the crash may have left.
fn crash(seed: u64, disk: CrashDisk, steps: u64, images: u64) {
    let Ok(story) = Story::try_on(disk.clone(), busy()) else {
        // The power went before anything could be promised: it must open all the same.
        for image in 0..images {
            Story::on(disk.image(image), busy());
        }
        return;
    };
    let mut history = History::new(story, seed);
    history.run(steps);
    history.story.stop();
    let durable = history.durable;
    for image in 0..images {
        let after = disk.image(image);
        let story = Story::on(after, busy());
        if let Err(what) = holds_one_of(&story, &history.worlds[durable..]) {
            panic!("seed {seed}, image {image} after {} syncs:\n{what}", disk.syncs());
        }
    }
}

#[test]
fn whatever_sync_the_power_goes_at_the_journal_comes_back_whole() {
    for crash_at in 1..130 {
        crash(7, CrashDisk::crashing_at(crash_at), 100, 4);
    }
}

#[test]
fn workloads_of_many_kinds_survive_a_crash_somewhere() {
    for seed in 0..100 {
        let crash_at = 20 + (seed * 37) % 400;
        crash(seed, CrashDisk::crashing_at(crash_at), 250, 3);
    }
}

#[test]
fn a_crash_while_coming_back_from_a_crash_changes_nothing() {
    for seed in 0..40 {
        let disk = CrashDisk::crashing_at(30 + seed * 5);
        let Ok(story) = Story::try_on(disk.clone(), busy()) else { continue };
        let mut history = History::new(story, 1000 + seed);
        history.run(200);
        history.story.stop();
        for syncs in 1..6 {
            let again = disk.image(2 + seed);
            again.crash_after(syncs);
            match Story::try_on(again.clone(), busy()) {
                Ok(mut story) => story.stop(),
                Err(error) => assert!(error.to_string().contains("power"), "{error}"),
            }
            let story = Story::on(again.image(seed + syncs), busy());
            let held = holds_one_of(&story, &history.worlds[history.durable..]);
            assert!(held.is_ok(), "seed {seed}, syncs {syncs}: {held:?}");
        }
    }
}

#[test]
fn a_journal_without_a_crash_holds_what_it_should() {
    for seed in 0..20 {
        let disk = CrashDisk::default();
        let mut history = History::new(Story::on(disk.clone(), busy()), seed);
        history.run(600);
        history.story.stop();
        let story = Story::on(disk.restarted(), busy());
        let last = &history.worlds[history.worlds.len() - 1..];
        let held = holds_one_of(&story, last);
        assert!(held.is_ok(), "seed {seed}: {held:?}");
    }
}

/// More of the same, a few by default and whichever one likes: `JOURNAL_SEEDS=1000..2000 cargo test -p bellwether-journal seeds`.
#[test]
fn whatever_seeds_are_asked_for_the_journal_comes_back_whole() {
    let range = std::env::var("JOURNAL_SEEDS").unwrap_or_else(|_| "1000..1008".to_owned());
    let (from, to) = range.split_once("..").expect("JOURNAL_SEEDS is FROM..TO");
    for seed in from.parse::<u64>().unwrap()..to.parse().unwrap() {
        crash(seed, CrashDisk::crashing_at(5 + (seed * 37) % 700), 400, 6);
    }
}
