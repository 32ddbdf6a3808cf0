//! What there is in the model: the coordinator's document, the brokers with their disks, what is under way, and what has happened.

use crate::log::{Log, Record, What};

/// Brokers, each with one copy of the queue.
pub const BROKERS: usize = 3;

/// Which broker: an index below [`BROKERS`].
pub type Id = usize;

/// One life of one broker: a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    pub broker: u8,
    pub number: u8,
}

/// The in-sync set: for each broker the store that is in it, if one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Isr(pub [Option<u8>; BROKERS]);

impl Isr {
    #[must_use]
    pub fn len(self) -> u8 {
        self.0.iter().map(|store| u8::from(store.is_some())).sum()
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn has(self, broker: Id, store: u8) -> bool {
        self.0[broker] == Some(store)
    }

    #[must_use]
    pub fn with(mut self, broker: Id, store: u8) -> Isr {
        self.0[broker] = Some(store);
        self
    }

    #[must_use]
    pub fn without(mut self, broker: Id) -> Isr {
        self.0[broker] = None;
        self
    }

    pub fn members(self) -> impl Iterator<Item = (Id, u8)> {
        self.0
            .into_iter()
            .enumerate()
            .filter_map(|(broker, store)| store.map(|store| (broker, store)))
    }
}

/// The queue's document in the coordinator, changed by compare-and-set on its version only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct State {
    pub version: u8,
    pub epoch: u8,
    pub leader: Option<Life>,
    pub isr: Isr,
    /// A tombstone stands in its place; the brokers whose stores it still lists, one bit each.
    pub deleted: Option<u8>,
}

/// A compare-and-set: `proposal` if the version still is `version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cas {
    pub version: u8,
    pub proposal: State,
}

/// What a broker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Down,
    Idle,
    /// The leader and the epoch that it has seen. `agreed`: on the log, so that it appends and reports.
    Follows {
        agreed: bool,
    },
    /// Has stopped answering the epoch it has seen; `before` is what it had stopped answering earlier.
    Stands {
        before: u8,
        agreed: bool,
    },
    /// The epoch that it has seen, which begins at `start`.
    Leads {
        start: u8,
    },
    /// Keeps its copy as it is, and takes no further part.
    Halted,
}

/// What a leader was told by another copy under this epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Report {
    pub store: u8,
    pub durable: u8,
}

/// One broker with its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Broker {
    /// Which disk it has by now.
    pub store: u8,
    /// What is on the disk, and what it has appended and cut since the last sync.
    pub disk: Log,
    pub log: Log,
    pub high_watermark: u8,
    pub life: u8,
    pub role: Role,
    /// The last state that it has read.
    pub seen: State,
    /// It was read after a sync, in this life.
    pub verified: bool,
    /// Its session is over, and it does not know.
    pub expired: bool,
    /// The highest epoch that it has stopped answering; 0 for none.
    pub stopped: u8,
    /// It stood in a life that is over: the epoch it stopped answering for that, and what it had stopped before.
    pub abandoned: Option<(u8, u8)>,
    /// A change that it has asked for, and of which it does not know what became.
    pub pending: Option<Cas>,
    /// As a leader: what the others have reported.
    pub reports: [Option<Report>; BROKERS],
    /// Promises that may not have run out yet when it began to wait, before it delivers.
    pub waits: Promises,
}

/// Who has promised whom not to deliver as a successor: a bit for each ordered pair. A bit is cleared when the promise runs out; the one
/// who may count on it counts a shorter time, so that one moment will do for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Promises(pub u16);

impl Promises {
    #[must_use]
    pub fn one(from: Id, to: Id) -> Promises {
        Promises(1 << (from * BROKERS + to))
    }

    #[must_use]
    pub fn has(self, other: Promises) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub fn and(self, other: Promises) -> Promises {
        Promises(self.0 | other.0)
    }

    #[must_use]
    pub fn but(self, other: Promises) -> Promises {
        Promises(self.0 & !other.0)
    }
}

/// How often each of the bounded things has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Spent {
    pub messages: u8,
    pub isr_changes: u8,
    pub crashes: u8,
    pub wipes: u8,
    pub expiries: u8,
    pub late_answers: u8,
    pub settles: u8,
    pub moves: u8,
    pub deletes: u8,
}

/// What nobody in the model knows, and what the promises are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Past {
    /// Everything that was ever committed, in its order.
    pub committed: Log,
    /// Messages that a leader appended after its deposition, one bit each.
    pub late: u8,
    /// Messages that were appended when the queue was deleted.
    pub orphaned: u8,
    /// Messages of which a client was told that they were not done.
    pub refused: u8,
    /// Who has led each epoch, by one more than the broker's index.
    pub leaders: [u8; 8],
    pub broken: Broken,
}

/// What went wrong in a step, and cannot be seen in the world after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Broken {
    pub two_leaders: bool,
    pub confirmed_after_deposition: bool,
    pub reordered: bool,
    pub cut_committed: bool,
    pub confirmed_after_delete: bool,
    pub confirmed_refused: bool,
}

/// Everything at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct World {
    pub state: State,
    /// Requests on their way to the coordinator, at most one for each broker's session.
    pub under_way: [Option<Cas>; BROKERS],
    /// What the coordinator said a while ago, on its way to a broker.
    pub late: Option<(u8, State)>,
    pub brokers: [Broker; BROKERS],
    pub promises: Promises,
    pub spent: Spent,
    pub past: Past,
}

impl World {
    /// Three copies in sync under the first broker, which serves. It has committed the start of its epoch.
    #[must_use]
    pub fn begin() -> World {
        let mut log = Log::default();
        log.push(Record { epoch: 1, what: What::EpochStart });
        let leader = Some(Life { broker: 0, number: 1 });
        let state =
            State { version: 1, epoch: 1, leader, isr: Isr([Some(0); BROKERS]), deleted: None };
        let follower = Broker {
            store: 0,
            disk: log,
            log,
            high_watermark: 1,
            life: 1,
            role: Role::Follows { agreed: true },
            seen: state,
            verified: true,
            expired: false,
            stopped: 0,
            abandoned: None,
            pending: None,
            reports: [None; BROKERS],
            waits: Promises::default(),
        };
        let report = Some(Report { store: 0, durable: 1 });
        let first =
            Broker { role: Role::Leads { start: 0 }, reports: [None, report, report], ..follower };
        let mut leaders = [0; 8];
        leaders[1] = 1;
        World {
            state,
            under_way: [None; BROKERS],
            late: None,
            brokers: [first, follower, follower],
            promises: Promises::default(),
            spent: Spent::default(),
            past: Past { committed: log, leaders, ..Past::default() },
        }
    }
}

impl Broker {
    /// How much of its log is on its disk.
    #[must_use]
    pub fn durable(&self) -> u8 {
        self.disk.shared_with(self.log)
    }

    #[must_use]
    pub fn is_up(&self) -> bool {
        !matches!(self.role, Role::Down | Role::Halted)
    }

    #[must_use]
    pub fn may_answer(&self, epoch: u8) -> bool {
        epoch > self.stopped
    }

    /// Where the epoch begins that it leads and serves.
    #[must_use]
    pub fn serves(&self) -> Option<u8> {
        match self.role {
            Role::Leads { start } if self.high_watermark > start => Some(start),
            _ => None,
        }
    }

    /// It has asked for something after which it does not lead: nothing is taken, confirmed or delivered until that is decided.
    #[must_use]
    pub fn leaves(&self) -> bool {
        let leaves =
            |cas: &Cas| cas.proposal.epoch > self.seen.epoch || cas.proposal.deleted.is_some();
        self.pending.as_ref().is_some_and(leaves)
    }
}
