//! Holds deletions against promise G8, by rules of its own: from what disks hold, and when they were last in use.

use std::collections::BTreeSet;
use std::time::Duration;

use bellwether_coordinator::records::TombstoneRecord;
use bellwether_coordinator::tombstone::{Fate, REPLACED_FOR};
use bellwether_protocol::ids::{BrokerId, QueueId, StoreId};

use super::disks::{Broker, Disk};
use super::ensemble::Ensemble;
use crate::witness::Violation;

/// See the module.
#[derive(Default)]
pub struct Witness {
    deleted: BTreeSet<QueueId>,
    /// Copies that were rightly not waited for any more.
    excused: BTreeSet<(StoreId, QueueId)>,
    /// Disks that were rightly forgotten, until they come back.
    forgotten: BTreeSet<StoreId>,
    violation: Option<Violation>,
}

impl Witness {
    pub fn violation(&self) -> Option<Violation> {
        self.violation.clone()
    }

    pub fn orphans(&self) -> u64 {
        self.excused.len() as u64
    }

    fn violated(&mut self, promise: &'static str, what: String) {
        self.violation.get_or_insert(Violation { promise, what });
    }

    pub fn deleted(&mut self, queue: QueueId) {
        self.deleted.insert(queue);
    }

    /// A copy goes because of a tombstone.
    pub fn dropped(&mut self, queue: QueueId) {
        if !self.deleted.contains(&queue) {
            self.violated("G1", format!("queue {} was dropped and not deleted", number(queue)));
        }
    }

    /// Whether a disk may be given up now: its broker has been running for long with another, or was retired.
    fn may_be_given_up(broker: &Broker, store: StoreId, gone: bool, now: Duration) -> bool {
        let disk = broker.disks.iter().find(|disk| disk.store == store);
        // One that is lost for good holds nothing.
        let Some(disk) = disk else { return true };
        let another = broker.runs && broker.store() != store;
        gone || another && now.saturating_sub(disk.last_live) >= REPLACED_FOR
    }

    /// A controller decides that stores are not waited for any more.
    pub fn gives_up(
        &mut self,
        queue: QueueId,
        before: &TombstoneRecord,
        fate: &Fate,
        gone: impl Fn(BrokerId) -> bool,
        brokers: &[Broker],
        now: Duration,
    ) {
        let left = match fate {
            Fate::Changes(record) => record.stores.clone().unwrap_or_default(),
            Fate::Goes => Vec::new(),
            Fate::Stays => return,
        };
        for listed in before.stores.iter().flatten().filter(|listed| !left.contains(listed)) {
            let broker = brokers.iter().find(|broker| broker.id == listed.broker);
            let (Some(broker), Some(store)) = (broker, listed.store) else { continue };
            if !Self::may_be_given_up(broker, store, gone(listed.broker), now) {
                let what = format!("disk {} was given up while it may come back", disk(store));
                self.violated("G8", what);
            }
            // Retired with all that it ever had.
            let all = broker.disks.iter().filter(|disk| disk.store == store || gone(broker.id));
            self.excused.extend(all.map(|disk| (disk.store, queue)));
        }
    }

    /// A controller decides that a disk (none: all of a retired broker) is listed in no further tombstone.
    pub fn forgets(
        &mut self,
        broker: BrokerId,
        store: Option<StoreId>,
        brokers: &[Broker],
        now: Duration,
    ) {
        let Some(broker) = brokers.iter().find(|one| one.id == broker) else { return };
        match store {
            Some(store) if Self::may_be_given_up(broker, store, false, now) => {
                self.forgotten.insert(store);
            }
            Some(store) => {
                let what = format!("disk {} was forgotten while it may come back", disk(store));
                self.violated("G8", what);
            }
            None => self.forgotten.extend(broker.disks.iter().map(|disk| disk.store)),
        }
    }

    /// A disk that was forgotten is used again: from now on it is listed, and what was deleted without it stays excused.
    pub fn comes_back(&mut self, ensemble: &Ensemble, disk: &Disk) {
        if self.forgotten.remove(&disk.store) {
            let lost = disk.copies().into_iter().filter(|queue| {
                self.deleted.contains(queue) && !names(ensemble, *queue, disk.store)
            });
            self.excused.extend(lost.map(|queue| (disk.store, queue)));
        }
    }

    /// No disk holds what was deleted without a tombstone that says so.
    pub fn look(&mut self, ensemble: &Ensemble, brokers: &[Broker]) {
        for broker in brokers {
            for disk in broker.disks.iter().filter(|disk| !self.forgotten.contains(&disk.store)) {
                let unsaid = disk.copies().into_iter().find(|queue| {
                    self.deleted.contains(queue)
                        && !ensemble.tombstones.contains_key(queue)
                        && !self.excused.contains(&(disk.store, *queue))
                });
                if let Some(queue) = unsaid {
                    let (queue, store) = (number(queue), disk.store.0.as_u128());
                    let what = format!(
                        "disk {store} of broker {} holds queue {queue}, which was deleted, and no tombstone says so",
                        broker.id
                    );
                    return self.violated("G8", what);
                }
            }
        }
    }

    /// Everything had its time: no tombstone is left, and nothing of what was deleted but what was given up.
    pub fn rested(&mut self, ensemble: &Ensemble, brokers: &[Broker]) {
        self.look(ensemble, brokers);
        if let Some((queue, (record, _))) = ensemble.tombstones.first_key_value() {
            let what = format!(
                "faults are over, and the tombstone of queue {} waits for {:?}",
                number(*queue),
                record.stores
            );
            self.violated("G10", what);
        }
    }
}

/// Whether a tombstone waits for this store.
fn names(ensemble: &Ensemble, queue: QueueId, store: StoreId) -> bool {
    let record = ensemble.tombstones.get(&queue).map(|(record, _)| record);
    let stores = record.and_then(|record| record.stores.as_ref());
    stores.is_some_and(|stores| stores.iter().any(|listed| listed.store == Some(store)))
}

fn number(queue: QueueId) -> u128 {
    queue.0.as_u128()
}

fn disk(store: StoreId) -> u128 {
    store.0.as_u128()
}
