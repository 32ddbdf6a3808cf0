//! Deletions among brokers that come and go with their disks: histories of tombstones, by the rules that ship. Promise G8: a disk that
//! holds what was deleted always finds a tombstone that says so, for without one nothing tells a queue that was deleted from one that a
//! restored ensemble has lost; and nothing but what was deleted is dropped.
//!
//! What is real: who is listed, who is struck off, who is given up (`bellwether_coordinator::tombstone`). What is simulated: an ensemble
//! whose writes come late, disks that are swapped, put back, wiped, or lose what was not synced, and brokers that hear late.

mod disks;
mod ensemble;
mod steps;
mod witness;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bellwether_coordinator::tombstone::ReplacedStores;
use bellwether_protocol::ids::{BrokerId, QueueId, StoreId};
use uuid::Uuid;

use crate::random::Random;
use crate::witness::Violation;
use disks::{Broker, Disk};
use ensemble::{Ensemble, Sent};
use witness::Witness;

/// Things that happen in one history.
const STEPS: u32 = 1_500;
/// Rounds of everything, and of nothing bad, in which the last tombstone has to go.
const ROUNDS_OF_REST: u32 = 60;
/// Disks that a broker has at most: what it had before, and the present one.
const DISKS_MAX: usize = 4;

/// What became of one history of deletions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Burials {
    pub seed: u64,
    /// Queues deleted, disks swapped or put back, disks lost for good, brokers retired.
    pub deleted: u64,
    pub swapped: u64,
    pub wiped: u64,
    pub retired: u64,
    /// Copies that were found on a disk that nobody had waited for any more: kept, and said.
    pub orphans: u64,
    pub violation: Option<Violation>,
}

/// What a broker has read and not taken in yet.
struct Heard {
    /// Queues that it is to have a copy of, and queues that are deleted.
    mine: BTreeSet<QueueId>,
    /// All queues that there are.
    there: BTreeSet<QueueId>,
    deleted: BTreeSet<QueueId>,
}

/// What a running broker remembers.
#[derive(Default)]
struct Process {
    heard: VecDeque<Heard>,
    told: BTreeSet<QueueId>,
}

struct World {
    random: Random,
    began: Instant,
    now: Duration,
    ensemble: Ensemble,
    brokers: Vec<Broker>,
    processes: BTreeMap<BrokerId, Process>,
    sent: Vec<Sent>,
    replaced: ReplacedStores,
    next: u128,
    witness: Witness,
    burials: Burials,
    story: Vec<String>,
}

/// Lives through the history of a seed.
#[must_use]
pub fn bury(seed: u64) -> Burials {
    live(seed).burials
}

/// Lives through a seed's history and panics with its story if a promise was broken.
///
/// # Panics
/// When a promise was broken.
pub fn bury_and_hold(seed: u64) -> Burials {
    let world = live(seed);
    if let Some(violation) = &world.burials.violation {
        let from = world.story.len().saturating_sub(80);
        let story = world.story[from..].join("\n");
        panic!(
            "{story}\nseed {seed}: promise {} was broken: {}",
            violation.promise, violation.what
        );
    }
    world.burials
}

fn live(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
        if world.is_broken() {
            return world;
        }
    }
    world.rests();
    world.burials.orphans = world.witness.orphans();
    world
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let count = random.between(2, 4) as u32;
        let brokers: Vec<Broker> = (1..=count)
            .map(|id| Broker {
                id: BrokerId(id),
                disks: vec![Disk::new(StoreId(Uuid::from_u128(id.into())))],
                runs: false,
            })
            .collect();
        World {
            random,
            began: Instant::now(),
            now: Duration::ZERO,
            ensemble: Ensemble::default(),
            brokers,
            processes: BTreeMap::new(),
            sent: Vec::new(),
            replaced: ReplacedStores::default(),
            next: 100,
            witness: Witness::default(),
            burials: Burials { seed, ..Burials::default() },
            story: Vec::new(),
        }
    }

    fn is_broken(&mut self) -> bool {
        self.burials.violation = self.witness.violation();
        self.burials.violation.is_some()
    }

    /// Faults are over: each disk that is left is mounted for long enough, and what is left of deleted queues goes.
    fn rests(&mut self) {
        self.tell("faults are over".to_owned());
        for at in 0..self.brokers.len() {
            self.ensemble.retired.remove(&self.brokers[at].id);
        }
        for turn in 0..DISKS_MAX {
            for at in 0..self.brokers.len() {
                self.stop(at, false);
                if turn > 0 && self.brokers[at].disks.len() > 1 {
                    self.brokers[at].disks.rotate_left(1);
                }
                self.start(at);
            }
            for _ in 0..ROUNDS_OF_REST {
                self.now += Duration::from_secs(30);
                (0..self.brokers.len()).for_each(|at| self.serves(at));
                self.controls();
                while let Some(sent) = self.sent.pop() {
                    self.arrives(sent);
                }
                if self.is_broken() {
                    return;
                }
            }
        }
        self.witness.rested(&self.ensemble, &self.brokers);
        self.is_broken();
    }

    fn tell(&mut self, line: String) {
        self.story.push(format!("{:>6}  {line}", self.now.as_secs()));
    }
}
