//! Histories of deletions from fixed seeds: brokers that are away, disks that are swapped, put back and lost. New seeds are for `sim-soak`.

use bellwether_sim::burials::{Burials, bury, bury_and_hold};

const HISTORIES: u64 = 100;

#[test]
fn what_was_deleted_never_comes_back_from_a_disk_that_may_come_back() {
    let all: Vec<Burials> = (0..HISTORIES).map(bury_and_hold).collect();
    // A simulation in which nothing happens proves nothing.
    let sum = |of: fn(&Burials) -> u64| all.iter().map(of).sum::<u64>();
    assert!(sum(|one| one.deleted) > 10 * HISTORIES, "deletions");
    assert!(sum(|one| one.swapped) > 5 * HISTORIES, "disks swapped");
    assert!(sum(|one| one.wiped) > HISTORIES, "disks lost");
    assert!(sum(|one| one.retired) > HISTORIES / 2, "brokers retired");
    assert!(sum(|one| one.orphans) > 0, "disks that were given up and came back");
}

#[test]
fn the_same_seed_is_the_same_history() {
    assert_eq!(bury(3), bury(3));
}
