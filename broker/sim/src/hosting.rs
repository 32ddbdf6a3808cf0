//! Whether a process has a copy of the queue: it begins one when a state asks for it, and gives it up when told to.

use bellwether_coordinator::records::QueueState;
use bellwether_protocol::ids::{Member, StoreId};
use bellwether_queue::Queue;
use bellwether_replication::{Event, LogFacts, Replica};

use crate::disk::{Disk, Image, Write};
use crate::process::{Process, STORE_FAILED};

impl Process {
    /// Whether there is a copy of the queue here.
    pub fn hosts(&self) -> bool {
        self.hosts
    }

    /// Of the replica set, or of the ISR since the beginning, when there is nothing in any log.
    pub(crate) fn is_asked_to_host(&self, disk: &Disk, state: &QueueState) -> bool {
        let broker = self.identity.member.broker;
        let is_here = |member: &Member| Some(member.store) == disk.coming_store();
        state.replicas.contains(&broker)
            || state.isr.iter().any(|member| member.broker == broker && is_here(member))
    }

    /// There is a copy here from now on, with nothing.
    pub(crate) fn begins_copy(&mut self, disk: &mut Disk) {
        self.hosts = true;
        if let Some(store) = disk.coming_store() {
            self.identity.member.store = store;
        }
        self.machine = Queue::new();
        self.log = Image::default();
        self.replica = Replica::new(self.identity.clone(), self.timing, LogFacts::default());
        self.step(disk, Event::Connected(self.connected));
        self.step(disk, Event::Life(self.life));
        if self.store_failed {
            self.step(disk, Event::StoreFailed { why: STORE_FAILED.to_owned() });
        }
    }

    /// The copy here is given up.
    pub(crate) fn part(&mut self, disk: &mut Disk) {
        self.next_store += 1;
        let store = StoreId(uuid::Uuid::from_u128(self.next_store));
        self.write(disk, Write::Drop(store));
        self.hosts = false;
        self.installing = false;
        self.fetch += 1;
        self.stop_leading();
    }
}
