//! What can go wrong, drawn from a seed: the same seed gives the same faults in the same order.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// A broker is killed (SIGKILL) and started again.
    Kill,
    /// A broker stands still (SIGSTOP) and goes on.
    Pause,
    /// A broker is asked to stop (SIGTERM), hands over, and is started again.
    Term,
    /// One server of the ensemble is killed and started again.
    ZkKill,
    /// The whole ensemble is killed and started again.
    ZkAll,
    /// All brokers are killed and started again, one after the other.
    RestartAll,
    /// All brokers lose their power at once: what they had not synced is gone.
    PowerLoss,
    /// A broker is killed, its data folder emptied, and it is started again.
    Wipe,
    /// Everything is moved away from a broker, as far as others can take it, and then comes back. No fault, but copies on their way.
    Drain,
    /// No sync of a broker returns for a while.
    DiskSlow,
}

impl FaultKind {
    /// Every kind there is.
    pub const ALL: [FaultKind; 10] = [
        FaultKind::Kill,
        FaultKind::Pause,
        FaultKind::Term,
        FaultKind::ZkKill,
        FaultKind::ZkAll,
        FaultKind::RestartAll,
        FaultKind::PowerLoss,
        FaultKind::Wipe,
        FaultKind::Drain,
        FaultKind::DiskSlow,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Kill => "kill",
            FaultKind::Pause => "pause",
            FaultKind::Term => "term",
            FaultKind::ZkKill => "zk-kill",
            FaultKind::ZkAll => "zk-all",
            FaultKind::RestartAll => "restart-all",
            FaultKind::PowerLoss => "power-loss",
            FaultKind::Wipe => "wipe",
            FaultKind::Drain => "drain",
            FaultKind::DiskSlow => "disk-slow",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for FaultKind {
    type Err = String;

    fn from_str(name: &str) -> Result<FaultKind, String> {
        FaultKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let names = FaultKind::ALL.map(FaultKind::name).join(", ");
            format!("no fault is called {name:?}; there are {names}")
        })
    }
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How long nothing happens before it.
    pub after: Duration,
    pub kind: FaultKind,
    /// Which broker, or which server of the ensemble, counted from zero.
    pub victim: usize,
    /// How long until it is healed.
    pub lasts: Duration,
    /// Something that goes wrong while it lasts.
    pub meanwhile: Option<(FaultKind, usize)>,
}

impl Fault {
    /// The kind, and that of what goes wrong meanwhile.
    #[must_use]
    pub fn kinds(&self) -> (FaultKind, Option<FaultKind>) {
        (self.kind, self.meanwhile.map(|(kind, _)| kind))
    }
}

/// For people, who count brokers and servers from one.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [FaultKind::ZkAll, FaultKind::RestartAll, FaultKind::PowerLoss];
        let mut words = self.kind.to_string();
        if !all.contains(&self.kind) {
            words += &format!(" {}", self.victim + 1);
        }
        if let Some((kind, victim)) = self.meanwhile {
            words += &format!(" + {kind} {}", victim + 1);
        }
        f.pad(&words)
    }
}

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

    /// Now and then a second fault on top: of the kinds that leave all disks alone, and not to the same process.
    fn meanwhile(&mut self, first: FaultKind, victim: usize) -> Option<(FaultKind, usize)> {
        let simple = |kind: &FaultKind| {
            matches!(kind, FaultKind::Kill | FaultKind::Pause | FaultKind::ZkKill)
        };
        if !(simple(&first)
            || matches!(first, FaultKind::ZkAll | FaultKind::Drain | FaultKind::DiskSlow))
            || self.random.random_bool(0.7)
        {
            return None;
        }
        let kinds: Vec<FaultKind> = self.kinds.iter().copied().filter(simple).collect();
        let second = *kinds.choose(&mut self.random)?;
        let among = if second == FaultKind::ZkKill { self.servers } else { self.brokers };
        let other = self.random.random_range(0..among);
        let of_ensemble = |kind| matches!(kind, FaultKind::ZkKill | FaultKind::ZkAll);
        let same = of_ensemble(first) == of_ensemble(second)
            && (other == victim || first == FaultKind::ZkAll);
        (!same).then_some((second, other))
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
            FaultKind::Wipe => 0..=3_000,
            // Not always to its end.
            FaultKind::Drain => 500..=12_000,
            // Around the lag limit, the session time-out and the stall that costs leaderships.
            FaultKind::DiskSlow => 200..=7_000,
        };
        Duration::from_millis(self.random.random_range(range))
    }
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        let kind = *self.kinds.choose(&mut self.random)?;
        let among = if kind == FaultKind::ZkKill { self.servers } else { self.brokers };
        let victim = self.random.random_range(0..among);
        // Often before the last fault has quite healed, sometimes in peace.
        let after = if self.random.random_bool(0.3) { 0..=400 } else { 1_000..=4_000 };
        let after = Duration::from_millis(self.random.random_range(after));
        let lasts = self.lasts(kind);
        Some(Fault { after, kind, victim, lasts, meanwhile: self.meanwhile(kind, victim) })
    }
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
        assert!(kinds.iter().all(|kind| drawn.iter().any(|fault| fault.kind == *kind)));
        assert!(drawn.iter().all(|fault| kinds.contains(&fault.kind) && fault.victim < 3));
    }

    #[test]
    fn a_second_fault_never_strikes_the_same_process() {
        let of_ensemble = |kind| matches!(kind, FaultKind::ZkKill | FaultKind::ZkAll);
        let both: Vec<Fault> = Plan::new(3, &FaultKind::ALL, 3, 3)
            .take(500)
            .filter(|f| f.meanwhile.is_some())
            .collect();
        assert!(both.len() > 20);
        for fault in both {
            let (second, victim) = fault.meanwhile.unwrap();
            assert!(
                of_ensemble(fault.kind) != of_ensemble(second) || victim != fault.victim,
                "{fault:?}"
            );
            assert!(fault.kind != FaultKind::Wipe && second != FaultKind::Wipe, "{fault:?}");
        }
    }

    #[test]
    fn names_are_read_back_and_a_wrong_one_lists_the_right_ones() {
        for kind in FaultKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!("fire".parse::<FaultKind>().unwrap_err().contains("power-loss"));
    }
}
