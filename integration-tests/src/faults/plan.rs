//! Faults drawn from a seed: the same seed gives the same faults in the same order.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{Fault, FaultKind, Strike, Target};

/// How often a second fault is drawn that may not strike beside the first: where few kinds are asked for, there may be none.
const TRIES: usize = 30;

/// An endless plan.
#[derive(Debug)]
pub struct Plan {
    random: StdRng,
    kinds: Vec<FaultKind>,
    brokers: usize,
    servers: usize,
}

impl Plan {
    /// Faults of these kinds, for so many brokers and servers of the ensemble.
    ///
    /// # Panics
    /// Without kinds, brokers or servers there is nothing to draw from.
    #[must_use]
    pub fn new(seed: u64, kinds: &[FaultKind], brokers: usize, servers: usize) -> Plan {
        assert!(!kinds.is_empty() && brokers > 0 && servers > 0, "nothing to draw faults from");
        Plan { random: StdRng::seed_from_u64(seed), kinds: kinds.to_vec(), brokers, servers }
    }

    /// The kinds that two at once are drawn from: those asked for, or all, if only they were asked for.
    fn for_two(&self) -> Vec<FaultKind> {
        let lasting = |kinds: &[FaultKind]| -> Vec<FaultKind> {
            kinds.iter().copied().filter(|kind| kind.lasts()).collect()
        };
        let asked = lasting(&self.kinds);
        if asked.is_empty() { lasting(&FaultKind::ALL) } else { asked }
    }

    fn strike(&mut self, kind: FaultKind) -> Strike {
        let among = match kind.target() {
            Target::Server => self.servers,
            Target::Broker | Target::Brokers | Target::Ensemble => self.brokers,
        };
        Strike { kind, victim: self.random.random_range(0..among), draw: self.random.random() }
    }

    /// Two of the kinds that last, such that what is promised still holds.
    fn two(&mut self) -> (Strike, Option<Strike>) {
        let kinds = self.for_two();
        let first = *kinds.choose(&mut self.random).expect("some kinds last");
        let first = self.strike(first);
        for _ in 0..TRIES {
            let second = *kinds.choose(&mut self.random).expect("some kinds last");
            let second = self.strike(second);
            if may_coincide(first, second) {
                return (first, Some(second));
            }
        }
        (first, None)
    }

    /// Now and then a second fault on top: of the kinds that leave all disks alone, and not to the same process.
    fn meanwhile(&mut self, first: Strike) -> Option<Strike> {
        let simple = |kind: &FaultKind| {
            matches!(kind, FaultKind::Kill | FaultKind::Pause | FaultKind::ZkKill)
        };
        let alone = !(first.kind.lasts() || first.kind == FaultKind::Drain);
        if alone || self.random.random_bool(0.7) {
            return None;
        }
        let kinds: Vec<FaultKind> = self.kinds.iter().copied().filter(simple).collect();
        let second = *kinds.choose(&mut self.random)?;
        let second = self.strike(second);
        may_coincide(first, second).then_some(second)
    }

    fn lasts(&mut self, kind: FaultKind) -> Duration {
        let range = match kind {
            // As often at once, while the others are still electing, as after the session has ended.
            FaultKind::Kill | FaultKind::Term if self.random.random_bool(0.5) => 0..=250,
            FaultKind::Kill | FaultKind::Term => 1_000..=5_000,
            // Around the promise, the lag limit and the session time-out.
            FaultKind::Pause => 200..=5_000,
            FaultKind::ZkKill => 500..=5_000,
            FaultKind::ZkAll => 2_000..=12_000,
            FaultKind::RestartAll | FaultKind::PowerLoss => 0..=1_500,
            FaultKind::RollingRestart | FaultKind::Membership => 0..=3_000,
            FaultKind::Wipe | FaultKind::Corrupt => 0..=3_000,
            // Not always to its end.
            FaultKind::Drain => 500..=12_000,
            // Around the lag limit, the session time-out and the stall that costs leaderships.
            FaultKind::DiskSlow => 200..=7_000,
            FaultKind::FsyncError => 500..=5_000,
            FaultKind::DiskFull => 1_000..=10_000,
            // Around the lease, the lag limit, the session time-out, and longer than dead connections are kept.
            FaultKind::Partition => 200..=12_000,
            FaultKind::SlowLink => 1_000..=8_000,
            FaultKind::ClockJump => 500..=6_000,
            FaultKind::Combo => 500..=8_000,
        };
        Duration::from_millis(self.random.random_range(range))
    }
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        let kind = *self.kinds.choose(&mut self.random)?;
        // Often before the last fault has quite healed, sometimes in peace.
        let after = if self.random.random_bool(0.3) { 0..=400 } else { 1_000..=4_000 };
        let after = Duration::from_millis(self.random.random_range(after));
        let lasts = self.lasts(kind);
        let (first, meanwhile) = if kind == FaultKind::Combo {
            self.two()
        } else {
            let first = self.strike(kind);
            (first, self.meanwhile(first))
        };
        Some(Fault { after, first, lasts, meanwhile })
    }
}

/// Whether two faults may strike at once, so that each can be carried out and what is promised still holds: not the same process twice, and
/// one disk at most (promise G1 speaks of fewer than `min_isr` disks, and that is one of three replicas).
fn may_coincide(first: Strike, second: Strike) -> bool {
    let simple = matches!(first.kind, FaultKind::Kill | FaultKind::Pause | FaultKind::ZkKill);
    if first.kind == second.kind && !simple {
        // What ends ends for all that it had struck.
        return false;
    }
    let of_ensemble =
        |strike: Strike| matches!(strike.kind.target(), Target::Server | Target::Ensemble);
    let same_process = of_ensemble(first) == of_ensemble(second)
        && (first.victim == second.victim
            || first.kind == FaultKind::ZkAll
            || second.kind == FaultKind::ZkAll);
    // A cut is no process.
    let is_cut = |strike: Strike| matches!(strike.kind, FaultKind::Partition | FaultKind::SlowLink);
    let clash = same_process && !is_cut(first) && !is_cut(second);
    let two_disks = first.kind.costs_a_disk() && second.kind.costs_a_disk();
    !(clash || two_disks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_faults_again() {
        let plan = |seed| Plan::new(seed, &FaultKind::ALL, 3, 3).take(50).collect::<Vec<_>>();
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn every_kind_asked_for_comes_and_no_other() {
        let kinds = [FaultKind::Kill, FaultKind::Wipe];
        let drawn: Vec<Fault> = Plan::new(1, &kinds, 3, 3).take(100).collect();
        assert!(kinds.iter().all(|kind| drawn.iter().any(|fault| fault.first.kind == *kind)));
        assert!(
            drawn
                .iter()
                .flat_map(Fault::strikes)
                .all(|strike| { kinds.contains(&strike.kind) && strike.victim < 3 })
        );
    }

    fn two_at_once() -> Vec<(Strike, Strike)> {
        Plan::new(3, &FaultKind::ALL, 3, 3)
            .take(3_000)
            .filter_map(|fault| Some((fault.first, fault.meanwhile?)))
            .collect()
    }

    #[test]
    fn a_second_fault_never_strikes_the_same_process() {
        let is_cut = |kind| matches!(kind, FaultKind::Partition | FaultKind::SlowLink);
        let both = two_at_once();
        assert!(both.len() > 100);
        for (first, second) in both {
            let apart = (first.kind.target() == Target::Broker || first.kind == FaultKind::Drain)
                != (second.kind.target() == Target::Broker)
                || first.victim != second.victim
                || is_cut(first.kind)
                || is_cut(second.kind);
            assert!(apart, "{first} + {second}");
        }
    }

    #[test]
    fn two_disks_are_never_lost_at_once() {
        let both = two_at_once();
        let disks = |(first, second): &(Strike, Strike)| {
            usize::from(first.kind.costs_a_disk()) + usize::from(second.kind.costs_a_disk())
        };
        assert!(both.iter().any(|both| disks(both) == 1), "one disk beside another fault is drawn");
        assert!(both.iter().all(|both| disks(both) < 2));
    }

    #[test]
    fn combo_alone_draws_two_from_every_kind_that_lasts() {
        let drawn: Vec<Fault> = Plan::new(5, &[FaultKind::Combo], 3, 3).take(500).collect();
        assert!(drawn.iter().all(|fault| fault.meanwhile.is_some()));
        for kind in FaultKind::ALL.into_iter().filter(|kind| kind.lasts()) {
            assert!(
                drawn.iter().flat_map(Fault::strikes).any(|strike| strike.kind == kind),
                "{kind}"
            );
        }
    }
}
