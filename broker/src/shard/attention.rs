//! Which queues of a shard time alone may make act, so that thousands of idle ones cost a tick nothing. What a queue waits
//! for changes only when something happens to it; so it is asked at the end of each turn that touched it, and not by the clock.

use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;

use bellwether_protocol::ids::QueueId;

use super::queue::LocalQueue;

/// Queues looked at in one round for leaderships that belong elsewhere. While a broker is away that may be thousands, none of
/// which can move: they take turns.
const MISPLACED_LOOKS_MAX: usize = 256;

/// What a queue waits for. *Invariant:* every queue that waits for something is in the set of it, from the end of the turn on that
/// touched it last. A queue may be in a set for nothing until it is looked at.
#[derive(Default)]
pub(super) struct Attention {
    /// Want every tick: a time-out of the replication machine, a delivery that waits for its time or its lease, or a delete that waits
    /// for the coordinator.
    ticking: HashSet<QueueId>,
    /// Led here, though they belong elsewhere.
    misplaced: BTreeSet<QueueId>,
    /// The last of those that was looked at.
    looked_at: Option<QueueId>,
    /// Led with an incomplete in-sync set, and committed further than is written down.
    unnoted: HashSet<QueueId>,
}

impl Attention {
    /// The queue was touched: what does it wait for now?
    pub fn consider(&mut self, queue: &LocalQueue) {
        let id = queue.id;
        keep(&mut self.ticking, id, queue.wants_ticks());
        keep(&mut self.unnoted, id, queue.replica.wants_note());
        match queue.replica.is_misplaced() {
            true => self.misplaced.insert(id),
            false => self.misplaced.remove(&id),
        };
    }

    /// The queue has no copy here any more.
    pub fn forget(&mut self, id: QueueId) {
        self.ticking.remove(&id);
        self.misplaced.remove(&id);
        self.unnoted.remove(&id);
    }

    /// Those that want a tick.
    pub fn ticking(&self) -> Vec<QueueId> {
        self.ticking.iter().copied().collect()
    }

    /// Those to write down how far they are committed.
    pub fn unnoted(&self) -> impl Iterator<Item = QueueId> + '_ {
        self.unnoted.iter().copied()
    }

    /// How many of those that belong elsewhere are on the way there, as `is_moving` says.
    pub fn moving(&self, is_moving: impl Fn(&QueueId) -> bool) -> usize {
        self.ticking.iter().filter(|id| self.misplaced.contains(*id) && is_moving(id)).count()
    }

    /// The next of those that belong elsewhere, in turn.
    pub fn misplaced(&mut self) -> Vec<QueueId> {
        let behind = self.looked_at.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.misplaced.range((behind, Bound::Unbounded));
        let mut looks: Vec<QueueId> = next.copied().take(MISPLACED_LOOKS_MAX).collect();
        if looks.len() < MISPLACED_LOOKS_MAX
            && let Some(last) = self.looked_at
        {
            let rest = MISPLACED_LOOKS_MAX - looks.len();
            looks.extend(self.misplaced.range(..=last).copied().take(rest));
        }
        self.looked_at = looks.last().copied();
        looks
    }
}

fn keep(set: &mut HashSet<QueueId>, id: QueueId, wanted: bool) {
    if wanted {
        set.insert(id);
    } else {
        set.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// All of them get their turn, however many there are and whichever come and go meanwhile.
    #[test]
    fn queues_that_belong_elsewhere_take_turns() {
        let id = |number: u128| QueueId(uuid::Uuid::from_u128(number));
        let mut attention = Attention::default();
        assert!(attention.misplaced().is_empty());
        attention.misplaced.extend((0..1_000).map(id));
        let mut looks: HashMap<QueueId, u32> = HashMap::new();
        for round in 0..8 {
            let looked = attention.misplaced();
            assert_eq!(looked.len(), MISPLACED_LOOKS_MAX, "round {round}");
            for id in looked {
                *looks.entry(id).or_default() += 1;
            }
        }
        assert_eq!(looks.len(), 1_000);
        assert!(looks.values().all(|looks| (2..=3).contains(looks)));

        let last = attention.looked_at.expect("some were looked at");
        attention.forget(last);
        attention.misplaced.retain(|other| *other > last);
        let rest = attention.misplaced.len();
        assert_eq!(attention.misplaced().len(), rest.min(MISPLACED_LOOKS_MAX));
        attention.misplaced.clear();
        attention.misplaced.insert(id(7));
        assert_eq!(attention.misplaced(), [id(7)]);
        assert_eq!(attention.misplaced(), [id(7)], "again in the next round");
    }
}
