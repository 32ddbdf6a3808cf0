//! What is remembered of named producers, so that a retry is recognised (promise G7).

use std::collections::{BTreeMap, HashMap};

use bellwether_protocol::ids::{Offset, Seq};
use bellwether_protocol::names::ProducerName;

/// How long a producer is remembered after its last message, in milliseconds of record time: 7 days.
/// Longer than a weekend with nobody at the pager, short enough that names made up for each process go away.
pub const PRODUCER_KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Producers that one queue remembers: 100,000, some 15 MB. The one unused for longest is forgotten first.
pub const PRODUCERS_MAX: usize = 100_000;

/// The producers of one queue, from committed records alone: the same on all replicas.
///
/// *Invariant:* both maps hold the same producers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Producers {
    by_name: HashMap<ProducerName, Known>,
    /// By the offset of the last enqueue, which is the order of use.
    by_use: BTreeMap<Offset, ProducerName>,
    /// How many have been forgotten so far.
    forgotten: u64,
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
        if let Some(before) = self.by_name.insert(name.clone(), known) {
            self.by_use.remove(&before.used);
        }
        self.by_use.insert(known.used, name);
    }

    /// Forgets those that are too old or too many. By record time and the order of the log, so that every
    /// replica forgets the same ones at the same record.
    pub fn forget(&mut self, now_ms: u64) {
        while let Some(oldest) = self.by_use.first_entry() {
            let time_ms = self.by_name[oldest.get()].time_ms;
            let too_old = now_ms.saturating_sub(time_ms) > PRODUCER_KEPT_MS;
            if !too_old && self.by_name.len() <= PRODUCERS_MAX {
                return;
            }
            self.by_name.remove(&oldest.remove());
            self.forgotten += 1;
        }
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
