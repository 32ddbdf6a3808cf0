//! What one producer sent to one queue. Of the newest messages the offsets are known; of older ones a bit says that all is well, and what is
//! not well is kept as an exception: so a history may be as long as it likes.

use std::collections::{BTreeMap, VecDeque};

use super::bits::Bits;

/// Messages of which the offset is kept in any case. Many more than a producer's window, a prefetch and what a consumer returns together:
/// what comes again after so many later ones is a rare exception.
pub(super) const NEWEST_KEPT: usize = 1 << 16;

/// What is known of where a message was delivered from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    NotDelivered,
    At(u64),
    /// It was delivered and settled so long ago that the offset is no longer known.
    Forgotten,
}

/// Two messages at offsets in another order than that of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Swapped {
    /// The one of the higher offset: its number and its offset.
    pub earlier: (u64, u64),
    pub later: (u64, u64),
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    /// By number from `first` on: the offset it was delivered from, plus one; 0: not delivered.
    newest: VecDeque<u32>,
    first: u64,
    /// Below `first`: delivered and not settled when it became old, or first delivered later.
    exceptions: BTreeMap<u64, u32>,
    /// Among those below `first`: number and offset of the highest offset.
    highest: Option<(u64, u64)>,
    pub settled: Bits,
    pub perhaps_settled: Bits,
}

impl Stream {
    pub fn is_dealt_with(&self, number: u64) -> bool {
        self.settled.contains(number) || self.perhaps_settled.contains(number)
    }

    pub fn place(&self, number: u64) -> Place {
        let kept = match number.checked_sub(self.first) {
            Some(at) => self.newest.get(at as usize),
            None => self.exceptions.get(&number),
        };
        match kept.and_then(|kept| kept.checked_sub(1)) {
            Some(offset) => Place::At(u64::from(offset)),
            None if number < self.first && self.settled.contains(number) => Place::Forgotten,
            None => Place::NotDelivered,
        }
    }

    /// The first delivery of a message. Says what it shows to be in the wrong order, as far as that shows already.
    pub fn keep(&mut self, number: u64, offset: u64) -> Vec<Swapped> {
        let kept =
            u32::try_from(offset + 1).expect("the harness never makes four billion messages");
        let Some(at) = number.checked_sub(self.first) else {
            self.exceptions.insert(number, kept);
            // What was published later stands before it.
            return self
                .highest
                .filter(|(later, before)| *later > number && *before < offset)
                .map(|later| Swapped { earlier: (number, offset), later })
                .into_iter()
                .collect();
        };
        let at = at as usize;
        if at >= self.newest.len() {
            self.newest.resize(at + 1, 0);
        }
        self.newest[at] = kept;
        let mut swapped = Vec::new();
        while self.newest.len() > NEWEST_KEPT {
            swapped.extend(self.forget_oldest());
        }
        swapped
    }

    /// What is in the wrong order among the rest, when nothing more will come.
    pub fn last_swapped(&mut self) -> Vec<Swapped> {
        let mut swapped = Vec::new();
        while !self.newest.is_empty() {
            swapped.extend(self.forget_oldest());
        }
        swapped
    }

    /// How many offsets are held.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.newest.len() + self.exceptions.len()
    }

    fn forget_oldest(&mut self) -> Option<Swapped> {
        let kept = self.newest.pop_front()?;
        let number = self.first;
        self.first += 1;
        let offset = u64::from(kept.checked_sub(1)?);
        if !self.settled.contains(number) {
            self.exceptions.insert(number, kept);
        }
        match self.highest {
            Some(earlier) if earlier.1 > offset => {
                Some(Swapped { earlier, later: (number, offset) })
            }
            _ => {
                self.highest = Some((number, offset));
                None
            }
        }
    }
}
