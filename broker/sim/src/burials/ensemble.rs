//! What the ensemble holds of queues, of the folders of brokers, and of what was deleted; each document with its version.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_coordinator::records::{StoreRecord, TombstoneRecord, UnknownFields};
use bellwether_coordinator::tombstone::{Fate, Stores, registered};
use bellwether_protocol::ids::{BrokerId, Incarnation, QueueId, StoreId};
use bellwether_protocol::names::{QueueName, VirtualHost};

/// A document and how often any was written: no two writes have the same version.
type Versioned<T> = (T, u64);

/// See the module.
#[derive(Debug, Default)]
pub struct Ensemble {
    writes: u64,
    /// Who is to hold a copy.
    pub queues: BTreeMap<QueueId, Versioned<Vec<BrokerId>>>,
    pub stores: BTreeMap<BrokerId, Versioned<StoreRecord>>,
    /// With which folder, and in which life.
    pub live: BTreeMap<BrokerId, (StoreId, Incarnation)>,
    pub tombstones: BTreeMap<QueueId, Versioned<TombstoneRecord>>,
    pub retired: BTreeSet<BrokerId>,
}

/// A write that was sent: it may apply later, whatever becomes of its author.
#[derive(Clone, Debug)]
pub enum Sent {
    Tombstone {
        queue: QueueId,
        version: u64,
        fate: Fate,
    },
    /// One multi: the queue of this version goes, if these brokers have the folders that were read, and the tombstone comes.
    Delete {
        queue: QueueId,
        version: u64,
        folders: Vec<(BrokerId, u64)>,
        tombstone: TombstoneRecord,
    },
    Store {
        broker: BrokerId,
        version: u64,
        record: StoreRecord,
    },
    Forget {
        broker: BrokerId,
        version: u64,
    },
}

impl Ensemble {
    fn next(&mut self) -> u64 {
        self.writes += 1;
        self.writes
    }

    pub fn declare(&mut self, queue: QueueId, replicas: Vec<BrokerId>) {
        let version = self.next();
        self.queues.insert(queue, (replicas, version));
    }

    /// A broker is live from now on, and its folder is written down: one write.
    pub fn register(&mut self, broker: BrokerId, store: StoreId) {
        let before = self.stores.get(&broker).map(|(record, _)| record.clone());
        let version = self.next();
        self.stores.insert(broker, (registered(before, broker, store), version));
        self.live.insert(broker, (store, Incarnation(version)));
    }

    /// As whoever deletes, and the controller, read it.
    pub fn known(&self) -> Stores {
        let mut known = Stores::default();
        for (broker, (record, _)) in &self.stores {
            known.present.insert(*broker, record.store);
            known.former.insert(*broker, record.former.clone());
        }
        known.present.extend(self.live.iter().map(|(broker, (store, _))| (*broker, *store)));
        let replicas = self.queues.values().flat_map(|(replicas, _)| replicas);
        known.counted.extend(replicas);
        known
    }

    pub fn tombstone_of(&self, queue: QueueId) -> TombstoneRecord {
        TombstoneRecord {
            queue,
            virtual_host: VirtualHost::default(),
            name: QueueName::new("orders").expect("a plain name"),
            stores: Some(self.known().that_may_hold()),
            unknown: UnknownFields::new(),
        }
    }

    /// Applies a write if everything has the version that it names; says whether it did.
    pub fn apply(&mut self, sent: Sent) -> bool {
        match sent {
            Sent::Tombstone { queue, version, fate } => {
                if self.tombstones.get(&queue).map(|(_, at)| *at) != Some(version) {
                    return false;
                }
                match fate {
                    Fate::Stays => {}
                    Fate::Changes(record) => {
                        let version = self.next();
                        self.tombstones.insert(queue, (record, version));
                    }
                    Fate::Goes => drop(self.tombstones.remove(&queue)),
                }
                true
            }
            Sent::Delete { queue, version, folders, tombstone } => {
                let same = |(broker, at): &(BrokerId, u64)| {
                    self.stores.get(broker).is_some_and(|(_, now)| now == at)
                };
                if self.queues.get(&queue).map(|(_, at)| *at) != Some(version)
                    || !folders.iter().all(same)
                {
                    return false;
                }
                self.queues.remove(&queue);
                let version = self.next();
                self.tombstones.insert(queue, (tombstone, version));
                true
            }
            Sent::Store { broker, version, record } => {
                if self.stores.get(&broker).map(|(_, at)| *at) != Some(version) {
                    return false;
                }
                let version = self.next();
                self.stores.insert(broker, (record, version));
                true
            }
            Sent::Forget { broker, version } => {
                if self.stores.get(&broker).map(|(_, at)| *at) != Some(version) {
                    return false;
                }
                self.stores.remove(&broker);
                true
            }
        }
    }
}
