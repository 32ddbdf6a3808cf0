//! What can happen in a history of deletions.

use std::collections::HashSet;
use std::time::Duration;

use bellwether_coordinator::tombstone::{
    Fate, attended, lost, names, struck_off, without_given_up,
};
use bellwether_protocol::ids::{BrokerId, QueueId, StoreId};
use uuid::Uuid;

use super::disks::Disk;
use super::ensemble::Sent;
use super::{DISKS_MAX, Heard, Process, World};

/// Writes that are under way at once.
const SENT_MAX: usize = 12;
/// Reads of one broker that it has not taken in.
const HEARD_MAX: usize = 3;
/// Queues at once.
const QUEUES_MAX: usize = 6;

impl World {
    /// One thing happens.
    pub fn step(&mut self) {
        self.now += match self.random.between(0, 99) {
            0..3 => Duration::from_secs(self.random.between(100, 700)),
            _ => Duration::from_secs(self.random.between(0, 3)),
        };
        let at = self.random.between(0, self.brokers.len() as u64 - 1) as usize;
        match self.random.between(0, 99) {
            0..6 => self.declare(),
            6..14 => self.delete(),
            14..32 => self.reads(at),
            32..46 => self.hears(at),
            46..54 => self.syncs(at),
            54..62 => self.strikes(at),
            62..70 => self.controls(),
            70..84 => self.some_write_arrives(),
            84..88 => {
                let crashes = self.random.chance(70);
                self.stop(at, crashes);
            }
            88..94 => self.start(at),
            94..96 => self.swap(at),
            96 => self.wipe(at),
            97 => self.retire(at),
            98 => self.controller_changes(),
            _ => self.moves(),
        }
        self.witness.look(&self.ensemble, &self.brokers);
    }

    /// What a broker does anyway, without delay.
    pub fn serves(&mut self, at: usize) {
        self.reads(at);
        for _ in 0..=HEARD_MAX {
            self.hears(at);
        }
        self.syncs(at);
        self.strikes(at);
    }

    fn replicas(&mut self) -> Vec<BrokerId> {
        let mut all: Vec<BrokerId> = self.brokers.iter().map(|broker| broker.id).collect();
        let count = self.random.between(1, all.len().min(3) as u64) as usize;
        let from = self.random.between(0, all.len() as u64 - 1) as usize;
        all.rotate_left(from);
        all.truncate(count);
        all
    }

    fn declare(&mut self) {
        if self.ensemble.queues.len() >= QUEUES_MAX {
            return;
        }
        self.next += 1;
        let (queue, replicas) = (QueueId(Uuid::from_u128(self.next)), self.replicas());
        self.tell(format!("queue {} is declared on {replicas:?}", queue.0.as_u128()));
        self.ensemble.declare(queue, replicas);
    }

    fn some_queue(&mut self) -> Option<QueueId> {
        let all: Vec<QueueId> = self.ensemble.queues.keys().copied().collect();
        self.random.pick(&all).copied()
    }

    /// Its copies are to be elsewhere: those that it leaves stay on the disks of brokers that are off.
    fn moves(&mut self) {
        let Some(queue) = self.some_queue() else { return };
        let replicas = self.replicas();
        self.tell(format!("queue {} moves to {replicas:?}", queue.0.as_u128()));
        self.ensemble.declare(queue, replicas);
    }

    /// Reads who may hold a copy, and sends the multi, which comes when it comes.
    fn delete(&mut self) {
        let Some(queue) = self.some_queue().filter(|_| self.sent.len() < SENT_MAX) else { return };
        let Some((replicas, version)) = self.ensemble.queues.get(&queue).cloned() else { return };
        let tombstone = self.ensemble.tombstone_of(queue);
        let version_of = |broker: &BrokerId| {
            self.ensemble.stores.get(broker).map(|(_, version)| (*broker, *version))
        };
        let folders = replicas.iter().filter_map(version_of).collect();
        self.tell(format!("delete of queue {} is sent: {:?}", queue.0.as_u128(), tombstone.stores));
        self.sent.push(Sent::Delete { queue, version, folders, tombstone });
    }

    fn some_write_arrives(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let which = self.random.between(0, self.sent.len() as u64 - 1) as usize;
        let sent = self.sent.swap_remove(which);
        self.arrives(sent);
    }

    pub fn arrives(&mut self, sent: Sent) {
        let told = format!("arrives: {sent:?}");
        let deleted = match &sent {
            Sent::Delete { queue, .. } => Some(*queue),
            Sent::Tombstone { .. } | Sent::Store { .. } | Sent::Forget { .. } => None,
        };
        if self.ensemble.apply(sent) {
            self.tell(told);
            if let Some(queue) = deleted {
                self.burials.deleted += 1;
                self.witness.deleted(queue);
            }
        }
    }

    fn reads(&mut self, at: usize) {
        let broker = &self.brokers[at];
        let id = broker.id;
        if !broker.runs {
            return;
        }
        let process = self.processes.entry(id).or_default();
        if process.heard.len() >= HEARD_MAX {
            return;
        }
        let queues = &self.ensemble.queues;
        let mine = queues.iter().filter(|(_, (replicas, _))| replicas.contains(&id));
        process.heard.push_back(Heard {
            mine: mine.map(|(queue, _)| *queue).collect(),
            there: queues.keys().copied().collect(),
            deleted: self.ensemble.tombstones.keys().copied().collect(),
        });
    }

    /// Takes in what was read, in order: begins copies, drops those of queues with a tombstone, and no others but those that moved away.
    fn hears(&mut self, at: usize) {
        let id = self.brokers[at].id;
        let Some(process) = self.processes.get_mut(&id).filter(|_| self.brokers[at].runs) else {
            return;
        };
        let Some(heard) = process.heard.pop_front() else { return };
        process.told.extend(&heard.deleted);
        let told = process.told.clone();
        let disk = self.brokers[at].mounted();
        disk.written.extend(heard.mine.difference(&told));
        for queue in disk.copies() {
            if told.contains(&queue) {
                self.witness.dropped(queue);
                disk.written.remove(&queue);
            } else if heard.there.contains(&queue) && !heard.mine.contains(&queue) {
                // Moved elsewhere, and whole there: parted from.
                disk.written.remove(&queue);
            }
        }
    }

    fn syncs(&mut self, at: usize) {
        if self.brokers[at].runs {
            self.brokers[at].mounted().sync();
        }
    }

    fn strikes(&mut self, at: usize) {
        let (id, store) = (self.brokers[at].id, self.brokers[at].store());
        let Some(process) = self.processes.get(&id).filter(|_| self.brokers[at].runs) else {
            return;
        };
        let disk = &self.brokers[at].disks[0];
        let mut strikes = Vec::new();
        for queue in process.told.iter().filter(|queue| disk.is_durably_without(**queue)) {
            let Some((record, version)) = self.ensemble.tombstones.get(queue) else { continue };
            let stores = record.stores.iter().flatten();
            if stores.into_iter().any(|listed| names((listed.broker, listed.store), id, store)) {
                let fate = struck_off(record, id, store);
                strikes.push(Sent::Tombstone { queue: *queue, version: *version, fate });
            }
        }
        strikes.truncate(SENT_MAX.saturating_sub(self.sent.len()));
        self.sent.extend(strikes);
    }

    /// One round of the controller's, if there is anybody to be it.
    pub fn controls(&mut self) {
        if self.ensemble.live.is_empty() || self.sent.len() >= SENT_MAX {
            return;
        }
        let (now, stores) = (self.began + self.now, self.ensemble.known());
        let live = self.ensemble.live.iter().map(|(broker, (_, life))| (*broker, *life)).collect();
        let listed: HashSet<(BrokerId, Option<StoreId>)> = self
            .ensemble
            .tombstones
            .values()
            .flat_map(|(record, _)| record.stores.iter().flatten())
            .map(|one| (one.broker, one.store))
            .collect();
        self.replaced.note(&lost(listed.iter().copied(), &stores, &live), now);
        let replaced = &self.replaced;
        let given_up = |broker, store| replaced.is_given_up((broker, store), now);
        let gone = |broker: BrokerId| {
            self.ensemble.retired.contains(&broker) && !self.ensemble.live.contains_key(&broker)
        };
        for (queue, (record, version)) in &self.ensemble.tombstones {
            let fate = attended(record, &stores, gone, given_up);
            if fate != Fate::Stays {
                self.witness.gives_up(*queue, record, &fate, gone, &self.brokers, self.now);
                self.sent.push(Sent::Tombstone { queue: *queue, version: *version, fate });
            }
        }
        for (broker, (record, version)) in &self.ensemble.stores {
            let (broker, version) = (*broker, *version);
            if gone(broker) && !listed.iter().any(|(listed, _)| *listed == broker) {
                self.witness.forgets(broker, None, &self.brokers, self.now);
                self.sent.push(Sent::Forget { broker, version });
            } else if let Some(next) = without_given_up(record, given_up, &listed) {
                for store in record.former.iter().filter(|store| !next.former.contains(store)) {
                    self.witness.forgets(broker, Some(*store), &self.brokers, self.now);
                }
                self.sent.push(Sent::Store { broker, version, record: next });
            }
        }
    }

    /// Another broker is it from now on, and has seen nothing yet.
    fn controller_changes(&mut self) {
        self.replaced = Default::default();
    }

    pub fn stop(&mut self, at: usize, crashes: bool) {
        let broker = &mut self.brokers[at];
        if !broker.runs {
            return;
        }
        broker.runs = false;
        let id = broker.id;
        let disk = broker.mounted();
        if crashes {
            disk.power_is_lost()
        } else {
            disk.sync()
        }
        disk.last_live = self.now;
        self.ensemble.live.remove(&id);
        self.processes.remove(&id);
        self.tell(format!("broker {id} stops, crashes={crashes}"));
    }

    pub fn start(&mut self, at: usize) {
        if self.brokers[at].runs {
            return;
        }
        let (id, store) = (self.brokers[at].id, self.brokers[at].store());
        self.tell(format!("broker {id} starts with disk {}", store.0.as_u128()));
        self.witness.comes_back(&self.ensemble, &self.brokers[at].disks[0]);
        self.brokers[at].runs = true;
        self.ensemble.register(id, store);
        self.processes.insert(id, Process::default());
    }

    /// Another disk is put in, an old one or a new one.
    fn swap(&mut self, at: usize) {
        self.stop(at, true);
        self.burials.swapped += 1;
        if self.brokers[at].disks.len() < DISKS_MAX && self.random.chance(50) {
            self.next += 1;
            let disk = Disk::new(StoreId(Uuid::from_u128(self.next)));
            self.brokers[at].disks.insert(0, disk);
        } else {
            self.brokers[at].disks.rotate_left(1);
        }
        if self.random.chance(70) {
            self.start(at);
        }
    }

    /// The mounted disk is gone for good.
    fn wipe(&mut self, at: usize) {
        self.stop(at, true);
        self.burials.wiped += 1;
        self.next += 1;
        self.brokers[at].disks[0] = Disk::new(StoreId(Uuid::from_u128(self.next)));
        let id = self.brokers[at].id;
        self.tell(format!("the disk of broker {id} is lost"));
    }

    fn retire(&mut self, at: usize) {
        let id = self.brokers[at].id;
        if !self.ensemble.retired.remove(&id) && self.random.chance(30) {
            self.tell(format!("broker {id} is retired"));
            self.burials.retired += 1;
            self.ensemble.retired.insert(id);
        }
    }
}
