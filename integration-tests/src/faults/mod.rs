//! What can go wrong: kinds of faults, and what one of them does to whom.

mod cut;
mod plan;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use cut::{Cut, Others, slowness};
pub use plan::Plan;

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
    /// All brokers are asked to stop and started again, one after the other, each when the one before is ready: no fault, but an upgrade.
    RollingRestart,
    /// All brokers lose their power at once: what they had not synced is gone.
    PowerLoss,
    /// A broker is killed, its data folder emptied, and it is started again.
    Wipe,
    /// Everything is moved away from a broker, as far as others can take it, and then comes back. No fault, but copies on their way.
    Drain,
    /// A broker joins; another is drained, stopped and retired.
    Membership,
    /// No sync of a broker returns for a while.
    DiskSlow,
    /// A broker's disk is full for a while.
    DiskFull,
    /// Syncs of a broker fail; it is killed, losing what was not synced, must refuse to start with that disk, and starts with an empty one.
    FsyncError,
    /// A broker is killed, a bit turned in what it had synced, and it is started again.
    Corrupt,
    /// Part of the network of a broker is cut, in one direction or in both; no connection is closed, and connects hang.
    Partition,
    /// The same part is slow.
    SlowLink,
    /// A broker's clock of the day jumps, forwards or backwards, and back.
    ClockJump,
    /// Two of the above at once, so that what is promised still holds.
    Combo,
}

impl FaultKind {
    /// Every kind there is.
    pub const ALL: [FaultKind; 19] = [
        FaultKind::Kill,
        FaultKind::Pause,
        FaultKind::Term,
        FaultKind::ZkKill,
        FaultKind::ZkAll,
        FaultKind::RestartAll,
        FaultKind::RollingRestart,
        FaultKind::PowerLoss,
        FaultKind::Wipe,
        FaultKind::Drain,
        FaultKind::Membership,
        FaultKind::DiskSlow,
        FaultKind::DiskFull,
        FaultKind::FsyncError,
        FaultKind::Corrupt,
        FaultKind::Partition,
        FaultKind::SlowLink,
        FaultKind::ClockJump,
        FaultKind::Combo,
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
            FaultKind::RollingRestart => "rolling-restart",
            FaultKind::PowerLoss => "power-loss",
            FaultKind::Wipe => "wipe",
            FaultKind::Drain => "drain",
            FaultKind::Membership => "membership",
            FaultKind::DiskSlow => "disk-slow",
            FaultKind::DiskFull => "disk-full",
            FaultKind::FsyncError => "fsync-error",
            FaultKind::Corrupt => "corrupt",
            FaultKind::Partition => "partition",
            FaultKind::SlowLink => "slow-link",
            FaultKind::ClockJump => "clock-jump",
            FaultKind::Combo => "combo",
        }
    }

    /// Whom it strikes.
    #[must_use]
    pub fn target(self) -> Target {
        match self {
            FaultKind::ZkKill => Target::Server,
            FaultKind::ZkAll => Target::Ensemble,
            FaultKind::RestartAll
            | FaultKind::RollingRestart
            | FaultKind::PowerLoss
            | FaultKind::Combo => Target::Brokers,
            FaultKind::Kill
            | FaultKind::Pause
            | FaultKind::Term
            | FaultKind::Wipe
            | FaultKind::Drain
            | FaultKind::Membership
            | FaultKind::DiskSlow
            | FaultKind::DiskFull
            | FaultKind::FsyncError
            | FaultKind::Corrupt
            | FaultKind::Partition
            | FaultKind::SlowLink
            | FaultKind::ClockJump => Target::Broker,
        }
    }

    /// Whether it takes from a disk what was synced, or the trust in it. Promise G1 holds while that happens to fewer than `min_isr` of a
    /// queue's in-sync disks at once: so to one at a time, and only when every queue has all its copies.
    #[must_use]
    pub fn costs_a_disk(self) -> bool {
        matches!(self, FaultKind::Wipe | FaultKind::Corrupt | FaultKind::FsyncError)
    }

    /// Whether it begins, lasts while other things happen, and ends.
    #[must_use]
    pub fn lasts(self) -> bool {
        match self {
            FaultKind::Kill
            | FaultKind::Pause
            | FaultKind::ZkKill
            | FaultKind::ZkAll
            | FaultKind::Wipe
            | FaultKind::DiskSlow
            | FaultKind::DiskFull
            | FaultKind::FsyncError
            | FaultKind::Corrupt
            | FaultKind::Partition
            | FaultKind::SlowLink
            | FaultKind::ClockJump => true,
            FaultKind::Term
            | FaultKind::RestartAll
            | FaultKind::RollingRestart
            | FaultKind::PowerLoss
            | FaultKind::Drain
            | FaultKind::Membership
            | FaultKind::Combo => false,
        }
    }
}

/// Whom a kind of fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Broker,
    Brokers,
    Server,
    Ensemble,
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
            format!("no fault is called {name:?}; there are all, {names}")
        })
    }
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    pub kind: FaultKind,
    /// Which broker, or which server of the ensemble, counted from zero.
    pub victim: usize,
    /// What else has to be drawn, each kind draws from this.
    pub draw: u64,
}

/// For people, who count brokers and servers from one.
impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if matches!(self.kind.target(), Target::Broker | Target::Server) {
            write!(f, " {}", self.victim + 1)?;
        }
        if matches!(self.kind, FaultKind::Partition | FaultKind::SlowLink) {
            write!(f, " {}", Cut::drawn(self.draw))?;
        }
        Ok(())
    }
}

/// One fault, perhaps with another on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How long nothing happens before it.
    pub after: Duration,
    pub first: Strike,
    /// How long until it is healed.
    pub lasts: Duration,
    /// Something that goes wrong while it lasts.
    pub meanwhile: Option<Strike>,
}

impl Fault {
    /// Its kind, and that of what goes wrong meanwhile.
    #[must_use]
    pub fn name(&self) -> String {
        self.strikes().map(|strike| strike.kind.name()).collect::<Vec<_>>().join(" + ")
    }

    /// All of it.
    pub fn strikes(&self) -> impl Iterator<Item = Strike> {
        std::iter::once(self.first).chain(self.meanwhile)
    }

    /// Whether one of them costs a disk.
    #[must_use]
    pub fn costs_a_disk(&self) -> bool {
        self.strikes().any(|strike| strike.kind.costs_a_disk())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.meanwhile {
            None => f.pad(&self.first.to_string()),
            Some(other) => f.pad(&format!("{} + {other}", self.first)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_a_wrong_one_lists_the_right_ones() {
        for kind in FaultKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!("fire".parse::<FaultKind>().unwrap_err().contains("power-loss"));
    }
}
