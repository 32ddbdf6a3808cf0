//! Brokers: what is left of each when its process ends, and how a process begins a life.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bellwether_protocol::ids::{BrokerId, BrokerLife, Incarnation, Member, StoreId};
use bellwether_replication::{Identity, Timing};

use crate::coordinator::Cas;
use crate::disk::Disk;
use crate::happenings::Happening;
use crate::ports::Input;
use crate::process::{Process, QUEUE};
use crate::stalling::Stall;
use crate::world::World;

/// A broker: its disk, and its process if it runs.
pub struct Node {
    pub disk: Disk,
    pub process: Option<Process>,
    /// Counts the processes: what was meant for an earlier one is dropped.
    pub generation: u64,
    /// The life that it registered last, over or not.
    pub life: Option<BrokerLife>,
    /// Its connection to the ensemble; each has a number.
    pub connected: bool,
    pub link: u64,
    /// CASes sent whose answer has not come.
    pub(crate) open_cas: Vec<Cas>,
    pub(crate) disk_slow_until_us: u64,
    pub(crate) stall: Option<Stall>,
    /// A sync failed: the disk counts as lost.
    pub(crate) store_failed: bool,
    /// Stopped by a signal: what arrives waits here.
    pub paused: bool,
    pub(crate) backlog: VecDeque<Input>,
    /// Lives of the others as it saw them last.
    pub(crate) known: BTreeMap<usize, BrokerLife>,
}

impl World {
    pub(crate) fn node_of(&self, life: BrokerLife) -> Option<usize> {
        self.nodes.iter().position(|node| node.process.is_some() && node.life == Some(life))
    }

    pub(crate) fn restart(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            return;
        }
        let now = self.schedule.now();
        // More than a process gives up in a history.
        let stores = self.next_store;
        self.next_store += 1_000;
        let it = &mut self.nodes[node];
        let identity = Identity { queue: QUEUE, member: member_of(node, &it.disk), started: now };
        // Leaderships move soon, so that a history has many of them.
        let settle = Duration::from_millis(500);
        let timing = Timing { settle, ..Timing::default() };
        it.process = Some(Process::start(now, identity, timing, &it.disk, stores));
        it.generation += 1;
        it.connected = false;
        it.paused = false;
        it.backlog.clear();
        it.known.clear();
        it.open_cas.clear();
        let generation = it.generation;
        self.tell(|| format!("b{} starts", node + 1));
        self.finds_damage(node);
        let delay = self.random.delay(60_000);
        self.schedule.after(delay, Happening::Register { node, generation });
    }

    /// A process takes a new life, once the node of its last one is gone: it closes that session itself.
    pub(crate) fn register(&mut self, node: usize, generation: u64) {
        if self.nodes[node].generation != generation || self.nodes[node].process.is_none() {
            return;
        }
        if self.ensemble_away || self.nodes[node].paused {
            let delay = self.random.delay(100_000);
            return self.schedule.after(delay, Happening::Register { node, generation });
        }
        if let Some(old) = self.nodes[node].life {
            self.ensemble.end_session(old);
        }
        self.next_incarnation += 1;
        let broker = BrokerId(node as u32 + 1);
        let life = BrokerLife { broker, incarnation: Incarnation(self.next_incarnation) };
        self.ensemble.register(life);
        self.nodes[node].life = Some(life);
        self.nodes[node].connected = true;
        self.nodes[node].link += 1;
        self.tell(|| format!("b{} lives as {life}", node + 1));
        self.give(node, Input::Connected(true));
        self.give(node, Input::Life(Some(life)));
        self.ensemble_changed();
    }

    /// An empty disk, as after a replacement: a store that nobody has seen.
    pub(crate) fn new_store(&mut self) -> StoreId {
        self.next_store += 1;
        StoreId(uuid::Uuid::from_u128(self.next_store))
    }
}

impl Node {
    pub(crate) fn new(store: u128) -> Node {
        Node {
            disk: Disk::new(StoreId(uuid::Uuid::from_u128(store))),
            process: None,
            generation: 0,
            life: None,
            connected: false,
            link: 0,
            open_cas: Vec::new(),
            disk_slow_until_us: 0,
            stall: None,
            store_failed: false,
            paused: false,
            backlog: VecDeque::new(),
            known: BTreeMap::new(),
        }
    }
}

pub(crate) fn member_of(node: usize, disk: &Disk) -> Member {
    // A damaged copy is a member of no set; what it is until it begins anew does not matter.
    let store = disk.store().unwrap_or(StoreId(uuid::Uuid::nil()));
    Member { broker: BrokerId(node as u32 + 1), store }
}
