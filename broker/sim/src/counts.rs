//! What a history exercised: a guard that nothing ever reached would prove nothing.

use std::collections::BTreeMap;
use std::fmt;

use bellwether_coordinator::records::QueueState;

/// What a process did because of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// It noticed that its disk stalls.
    Noticed,
    /// It gave its leadership up.
    Resigned,
    /// It went on leading, since nobody could follow.
    Stayed,
    /// The sync returned after all, while nobody knew yet whether the resignation was written.
    ReturnedUndecided,
    /// It was named as leader while its disk stalled, and never led that epoch.
    Declined,
    /// It leads again, after a stall that had cost it a leadership.
    LedAgain,
}

/// Sums over a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Disks that stalled, and those of them for longer than the limit.
    pub stalls: u64,
    pub long_stalls: u64,
    /// Stalls that ended with a sync that failed.
    pub failed: u64,
    pub noticed: u64,
    pub resigned: u64,
    pub stayed: u64,
    pub returned_undecided: u64,
    pub declined: u64,
    pub led_again: u64,
    /// Members whose disk stalled and that were taken out of the in-sync set by a leader.
    pub shrunk_out: u64,
    /// Other brokers were to hold the copies.
    pub moves: u64,
    /// By what made each necessary.
    pub elections: BTreeMap<String, u64>,
}

impl Counts {
    pub fn guarded(&mut self, guard: Guard) {
        let count = match guard {
            Guard::Noticed => &mut self.noticed,
            Guard::Resigned => &mut self.resigned,
            Guard::Stayed => &mut self.stayed,
            Guard::ReturnedUndecided => &mut self.returned_undecided,
            Guard::Declined => &mut self.declined,
            Guard::LedAgain => &mut self.led_again,
        };
        *count += 1;
    }

    /// A state was written in the place of another.
    pub fn written(&mut self, before: &QueueState, now: &QueueState) {
        let election = now.past.elections.last().filter(|_| now.epoch > before.epoch);
        if let Some(election) = election {
            *self.elections.entry(election.trigger.as_str().to_owned()).or_default() += 1;
        }
    }

    /// Those of another history as well.
    pub fn add(&mut self, other: &Counts) {
        self.stalls += other.stalls;
        self.long_stalls += other.long_stalls;
        self.failed += other.failed;
        self.noticed += other.noticed;
        self.resigned += other.resigned;
        self.stayed += other.stayed;
        self.returned_undecided += other.returned_undecided;
        self.declined += other.declined;
        self.led_again += other.led_again;
        self.shrunk_out += other.shrunk_out;
        self.moves += other.moves;
        for (trigger, times) in &other.elections {
            *self.elections.entry(trigger.clone()).or_default() += times;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { stalls, long_stalls, failed, noticed, resigned, stayed, .. } = self;
        let Counts { returned_undecided, declined, led_again, shrunk_out, moves, .. } = self;
        writeln!(f, "disks stalled: {stalls}, long: {long_stalls}, failed in the end: {failed}")?;
        writeln!(
            f,
            "noticed: {noticed}, leadership given up: {resigned}, kept with nobody to follow: {stayed}"
        )?;
        writeln!(
            f,
            "back while the resignation was undecided: {returned_undecided}, named and declined: {declined}"
        )?;
        writeln!(f, "shrunk out: {shrunk_out}, led again: {led_again}")?;
        writeln!(f, "copies moved: {moves}")?;
        write!(f, "elections:")?;
        self.elections.iter().try_for_each(|(trigger, times)| write!(f, " {trigger} {times}"))
    }
}
