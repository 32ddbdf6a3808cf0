//! Who has how many of the producers that a queue remembers, and who has to lose one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use bellwether_protocol::ids::Offset;
use bellwether_protocol::names::ProducerName;

/// By owner, and the owners by how many they have. A function of the producers alone: two replicas come to the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares {
    /// Of each owner, the offsets of the last enqueues of its producers.
    by_owner: HashMap<Box<str>, BTreeSet<Offset>>,
    /// How many an owner has, and which of them is unused for longest: offsets differ, so that no two owners come to the same.
    by_size: BTreeSet<(usize, Reverse<Offset>)>,
}

impl Shares {
    pub fn of(by_use: &BTreeMap<Offset, ProducerName>) -> Shares {
        let mut shares = Shares::default();
        for (used, name) in by_use {
            shares.insert(name.owner(), *used);
        }
        shares
    }

    pub fn insert(&mut self, owner: &str, used: Offset) {
        self.change(owner, |offsets| {
            offsets.insert(used);
        });
    }

    pub fn remove(&mut self, owner: &str, used: Offset) {
        self.change(owner, |offsets| {
            offsets.remove(&used);
        });
    }

    /// The producer that goes next: of the owner who has the most the one unused for longest; of two owners with as many, that of the one
    /// whose is unused for longer.
    pub fn largest_and_longest_unused(&self) -> Option<Offset> {
        self.by_size.last().map(|(_, Reverse(used))| *used)
    }

    fn change(&mut self, owner: &str, change: impl FnOnce(&mut BTreeSet<Offset>)) {
        if !self.by_owner.contains_key(owner) {
            self.by_owner.insert(owner.into(), BTreeSet::new());
        }
        let Some(offsets) = self.by_owner.get_mut(owner) else { return };
        let size = |offsets: &BTreeSet<Offset>| {
            offsets.first().map(|oldest| (offsets.len(), Reverse(*oldest)))
        };
        let before = size(offsets);
        change(offsets);
        let after = size(offsets);
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.by_size.remove(&before);
        }
        match after {
            Some(after) => drop(self.by_size.insert(after)),
            None => drop(self.by_owner.remove(owner)),
        }
    }
}
