//! Brokers as deletions see them: disks that hold copies, one of them mounted, and a process that runs or does not.

use std::collections::BTreeSet;
use std::time::Duration;

use bellwether_protocol::ids::{BrokerId, QueueId, StoreId};

/// A data folder.
#[derive(Clone, Debug)]
pub struct Disk {
    pub store: StoreId,
    /// Copies that the process knows of, and those that a loss of power leaves.
    pub written: BTreeSet<QueueId>,
    pub synced: BTreeSet<QueueId>,
    /// When its broker last ran with it.
    pub last_live: Duration,
}

impl Disk {
    pub fn new(store: StoreId) -> Disk {
        Disk { store, written: BTreeSet::new(), synced: BTreeSet::new(), last_live: Duration::ZERO }
    }

    pub fn sync(&mut self) {
        self.synced.clone_from(&self.written);
    }

    pub fn power_is_lost(&mut self) {
        self.written.clone_from(&self.synced);
    }

    /// Nothing of it can come back.
    pub fn is_durably_without(&self, queue: QueueId) -> bool {
        !self.written.contains(&queue) && !self.synced.contains(&queue)
    }

    pub fn copies(&self) -> BTreeSet<QueueId> {
        self.written.union(&self.synced).copied().collect()
    }
}

/// A broker with every disk that it ever had and that still works; the mounted one comes first.
#[derive(Clone, Debug)]
pub struct Broker {
    pub id: BrokerId,
    pub disks: Vec<Disk>,
    pub runs: bool,
}

impl Broker {
    pub fn mounted(&mut self) -> &mut Disk {
        &mut self.disks[0]
    }

    pub fn store(&self) -> StoreId {
        self.disks[0].store
    }
}
