//! The power-loss shim keeps what was synced and loses the rest, and the process that writes cannot tell; others make it wait, give it no
//! room, fail its syncs, and turn its clock.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bellwether_integration_tests::preload::{
    Shim, Syncs, bad_disk, power_loss, slow_disk, under, wrong_clock,
};

const HOLE: &str = ".";

#[test]
fn what_was_not_synced_is_gone_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("segment");
    run(&file, Syncs::Kept, &["write:0:kept", "sync", "write:4: lost", "die"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
}

#[test]
fn the_process_reads_what_it_has_not_synced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("segment");
    let output = run(
        &file,
        Syncs::Kept,
        &["write:0:one two", "sync", "write:4:TWO three", "show", "size", "reopen", "size"],
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one TWO three\n13\n13\n");
}

#[test]
fn gathered_and_appended_writes_are_held_back_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("segment");
    let steps =
        ["gather:0:a,b,c", "append:d", "show", "sync", "gather:4:e,f", "append:g", "show", "die"];
    let output = run(&file, Syncs::Kept, &steps);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "abcd\nabcdefg\n");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "abcd");
}

#[test]
fn an_overwritten_page_of_a_preallocated_file_comes_back_as_it_was_synced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("segment");
    run(
        &file,
        Syncs::Kept,
        &["allocate:12", "write:0:old", "sync", "write:0:new", "write:6:new", "die"],
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap().replace('\0', HOLE), "old.........");
}

#[test]
fn writes_over_many_pages_are_kept_and_lost_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("segment");
    let (kept, lost) = ("k".repeat(10_000), "l".repeat(30_000));
    let output = run(
        &file,
        Syncs::Kept,
        &[&format!("write:100:{kept}"), "sync", &format!("write:5000:{lost}"), "show", "die"],
    );
    let seen = format!("{}{}{}\n", HOLE.repeat(100), "k".repeat(4_900), lost);
    assert!(String::from_utf8_lossy(&output.stdout) == seen, "the process reads its own writes");
    let left = std::fs::read_to_string(&file).unwrap().replace('\0', HOLE);
    assert!(left == format!("{}{kept}", HOLE.repeat(100)), "only what was synced is left");
}

#[test]
fn a_file_renamed_before_its_sync_is_empty_after_the_crash() {
    let folder = tempfile::tempdir().unwrap();
    let (aside, file) = (folder.path().join("aside"), folder.path().join("checkpoint"));
    let rename = format!("rename:{}", file.display());
    run(&aside, Syncs::Kept, &["write:0:state", &rename, "show", "die"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
}

#[test]
fn a_shorter_file_does_not_get_its_old_end_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("segment");
    let output = run(
        &file,
        Syncs::Kept,
        &["write:0:abcdef", "truncate:3", "show", "write:5:f", "show", "sync", "die"],
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "abc\nabc..f\n");
    assert_eq!(std::fs::read_to_string(&file).unwrap().replace('\0', HOLE), "abc..f");
}

#[test]
fn a_process_that_ends_by_itself_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("segment");
    run(&file, Syncs::Kept, &["write:0:all of it"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "all of it");
}

#[test]
fn with_syncs_ignored_nothing_survives() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("segment");
    let output = run(&file, Syncs::IgnoredAfter(0), &["write:0:never", "sync", "show", "die"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "never\n");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
}

#[test]
fn with_syncs_ignored_after_some_what_those_carried_survives() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("segment");
    let steps = ["write:0:one", "sync", "write:3: two", "sync", "die"];
    run(&file, Syncs::IgnoredAfter(1), &steps);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one");
}

#[test]
fn a_slow_disk_takes_its_time_for_every_sync_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (file, slow) = (folder.path().join("segment"), folder.path().join("slow"));
    std::fs::write(&slow, "100").unwrap();
    let begun = Instant::now();
    let steps = ["write:0:one", "sync", "write:3: two", "sync", "write:7: three", "die"];
    let shims = vec![slow_disk(&slow).unwrap(), power_loss(folder.path(), Syncs::Kept).unwrap()];
    run_under(&file, shims, &steps);
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one two");
}

#[test]
fn a_sync_that_waits_for_a_disk_that_stalls_goes_on_when_the_disk_does() {
    let folder = tempfile::tempdir().unwrap();
    let (file, slow) = (folder.path().join("segment"), folder.path().join("slow"));
    std::fs::write(&slow, "86400000").unwrap();
    let mut script =
        script(&file, vec![slow_disk(&slow).unwrap()], &["write:0:one", "size", "sync", "show"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
    let mut output = BufReader::new(script.stdout.take().unwrap()).lines();
    assert_eq!(output.next().unwrap().unwrap(), "3", "it is about to sync");
    std::fs::remove_file(&slow).unwrap();
    assert_eq!(output.next().unwrap().unwrap(), "one");
    assert!(script.wait().unwrap().success());
}

#[test]
fn a_full_disk_gives_no_more_room_and_what_was_allocated_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let (file, bad) = (folder.path().join("segment"), folder.path().join("bad"));
    std::fs::write(&file, "............").unwrap();
    std::fs::write(&bad, "full").unwrap();
    let steps =
        ["try:allocate:13", "write:6:within", "try:write:7:beyond", "try:gather:10:a,b,c", "sync"];
    let output = run_under(&file, vec![bad_disk(folder.path(), &bad).unwrap()], &steps);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.matches("No space left").count(), 3, "{said}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "......within");
}

#[test]
fn a_sync_that_has_failed_loses_what_it_did_not_carry_whatever_a_later_one_says() {
    let folder = tempfile::tempdir().unwrap();
    let (file, bad) = (folder.path().join("segment"), folder.path().join("bad"));
    std::fs::write(&bad, "sync").unwrap();
    let shims = vec![
        bad_disk(folder.path(), &bad).unwrap(),
        power_loss(folder.path(), Syncs::Kept).unwrap(),
    ];
    let output = run_under(&file, shims, &["write:0:gone", "try:sync", "try:sync", "show", "die"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said: Vec<&str> = said.lines().collect();
    assert!(said[0].contains("Input/output error"), "{said:?}");
    assert_eq!(said[1..], ["done", "gone"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
    for told in ["bad.failed", "bad.again"] {
        let paths = std::fs::read_to_string(folder.path().join(told)).unwrap();
        assert_eq!(paths.lines().collect::<Vec<_>>(), [file.to_str().unwrap()], "{told}");
    }
}

#[test]
fn a_clock_that_is_wrong_is_wrong_by_what_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (file, clock) = (folder.path().join("segment"), folder.path().join("clock"));
    let day = |ahead: &str| -> i64 {
        std::fs::write(&clock, ahead).unwrap();
        let output = run_under(&file, vec![wrong_clock(&clock).unwrap()], &["clock"]);
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
    };
    // Midnight may pass in between.
    assert!((1_000..=1_001).contains(&(day("86400000000") - day("0"))));
    assert!((-1_000..=-999).contains(&(day("-86400000000") - day("0"))));
}

fn run(file: &Path, syncs: Syncs, steps: &[&str]) -> Output {
    run_under(file, vec![power_loss(file.parent().unwrap(), syncs).unwrap()], steps)
}

fn script(file: &Path, shims: Vec<Shim>, steps: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_disk_script"));
    command.arg(file).args(steps).envs(under(shims));
    command
}

fn run_under(file: &Path, shims: Vec<Shim>, steps: &[&str]) -> Output {
    let output = script(file, shims, steps).output().unwrap();
    let died = steps.last() == Some(&"die");
    assert_eq!(output.status.success(), !died, "{}", String::from_utf8_lossy(&output.stderr));
    output
}
