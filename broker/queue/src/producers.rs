//! What is remembered of named producers, so that a retry is recognised (promise G7).

mod shares;

use std::collections::{BTreeMap, HashMap};

use bellwether_protocol::ids::{Offset, Seq};
use bellwether_protocol::names::ProducerName;
use shares::Shares;

/// How long a producer is remembered after its last message, in milliseconds of record time: 7 days.
/// Longer than a weekend with nobody at the pager, short enough that names made up for each process go away.
pub const PRODUCER_KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Producers that one queue remembers: 100,000, some 15 MB, and twice that while there are more than it may remember. Beyond it the user
/// with the most producers loses the one unused for longest, so that nobody can make the queue forget the producers of another user who
/// has no more than an equal share.
pub const PRODUCERS_MAX: usize = 100_000;

/// The producers of one queue, from committed records alone: the same on all replicas.
///
/// *Invariant:* both maps hold the same producers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Producers {
    by_name: HashMap<ProducerName, Known>,
    /// By the offset of the last enqueue, which is the order of use.
    by_use: BTreeMap<Offset, ProducerName>,
    /// How many have been forgotten so far.
    forgotten: u64,
    /// Who has how many, from when somebody first had to lose one. It follows from the rest, so that a replica that was restored from a
    /// checkpoint, and has none, is the same as one that has.
    shares: Option<Shares>,
}

impl PartialEq for Producers {
    fn eq(&self, other: &Producers) -> bool {
        let Producers { by_name, by_use, forgotten, shares: _ } = self;
        (by_name, by_use, forgotten) == (&other.by_name, &other.by_use, &other.forgotten)
    }
}

/// What is remembered of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The highest number in the log.
    pub last: Seq,
    /// Where its last enqueue began.
    pub used: Offset,
    /// When that was.
    pub time_ms: u64,
}

impl Producers {
    /// The highest number of a producer in the log.
    pub fn last(&self, name: &ProducerName) -> Option<Seq> {
        self.by_name.get(name).map(|known| known.last)
    }

    /// Whether any was ever forgotten, so that an unknown one may be an old one.
    pub fn has_forgotten(&self) -> bool {
        self.forgotten > 0
    }

    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// All of them, the one unused for longest first.
    pub fn iter(&self) -> impl Iterator<Item = (&ProducerName, Known)> + '_ {
        self.by_use.values().map(|name| (name, self.by_name[name]))
    }

    /// Takes note of an enqueue.
    pub fn remember(&mut self, name: ProducerName, known: Known) {
        let before = self.by_name.insert(name.clone(), known);
        if let Some(before) = before {
            self.by_use.remove(&before.used);
        }
        if let Some(shares) = &mut self.shares {
            if let Some(before) = before {
                shares.remove(name.owner(), before.used);
            }
            shares.insert(name.owner(), known.used);
        }
        self.by_use.insert(known.used, name);
    }

    /// Forgets those that are too old or too many. By record time and the order of the log, so that every
    /// replica forgets the same ones at the same record.
    pub fn forget(&mut self, now_ms: u64) {
        self.forget_beyond(PRODUCERS_MAX, now_ms);
    }

    fn forget_beyond(&mut self, most: usize, now_ms: u64) {
        while let Some((used, oldest)) = self.by_use.first_key_value() {
            let time_ms = self.by_name[oldest].time_ms;
            if now_ms.saturating_sub(time_ms) <= PRODUCER_KEPT_MS {
                break;
            }
            self.forget_one(*used);
        }
        while self.by_name.len() > most {
            let shares = self.shares.get_or_insert_with(|| Shares::of(&self.by_use));
            match shares.largest_and_longest_unused() {
                Some(used) => self.forget_one(used),
                None => break,
            }
        }
        if self.by_name.len() < most / 2 {
            self.shares = None;
        }
    }

    fn forget_one(&mut self, used: Offset) {
        let Some(name) = self.by_use.remove(&used) else { return };
        if let Some(shares) = &mut self.shares {
            shares.remove(name.owner(), used);
        }
        self.by_name.remove(&name);
        self.forgotten += 1;
    }

    /// The producers of [`Producers::iter`]; `None` when they are not such.
    pub fn restore(
        forgotten: u64,
        producers: impl IntoIterator<Item = (ProducerName, Known)>,
    ) -> Option<Producers> {
        let mut restored = Producers { forgotten, ..Producers::default() };
        for (name, known) in producers {
            let last = restored.by_use.last_key_value();
            if last.is_some_and(|(used, _)| *used >= known.used)
                || restored.by_name.contains_key(&name)
            {
                return None;
            }
            restored.remember(name, known);
        }
        Some(restored)
    }
}

#[cfg(test)]
mod tests;
