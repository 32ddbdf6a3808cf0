//! A set of offsets as ascending ranges: what a consumer holds, and what it settles. Mostly one range that moves.

use bellwether_protocol::ids::{Offset, OffsetRange};

/// Offsets as ranges that neither overlap nor touch.
#[derive(Debug, Default)]
pub(crate) struct Ranges(Vec<OffsetRange>);

impl FromIterator<OffsetRange> for Ranges {
    fn from_iter<I: IntoIterator<Item = OffsetRange>>(parts: I) -> Ranges {
        let mut ranges = Ranges::default();
        for range in parts {
            ranges.insert(range);
        }
        ranges
    }
}

impl Ranges {
    /// Ranges, not offsets.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Offsets.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|range| range.count()).sum()
    }

    pub(crate) fn into_vec(self) -> Vec<OffsetRange> {
        self.0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = OffsetRange> + '_ {
        self.0.iter().copied()
    }

    /// What of a range is in.
    pub(crate) fn within(&self, range: OffsetRange) -> impl Iterator<Item = OffsetRange> + '_ {
        let from = self.0.partition_point(|known| known.end <= range.first);
        let known = self.0[from..].iter().take_while(move |known| known.first < range.end);
        known.map(move |known| {
            OffsetRange::new(known.first.max(range.first), known.end.min(range.end))
        })
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a range; what is there already stays.
    pub(crate) fn insert(&mut self, new: OffsetRange) {
        if let Some(last) = self.0.last_mut()
            && last.end == new.first
        {
            // Next to the last: how consumers mostly settle.
            last.end = new.end;
            return;
        }
        let from = self.0.partition_point(|range| range.end < new.first);
        let to = from + self.0[from..].partition_point(|range| range.first <= new.end);
        let merged = self.0[from..to].iter().fold(new, |merged, range| {
            OffsetRange::new(merged.first.min(range.first), merged.end.max(range.end))
        });
        self.0.splice(from..to, [merged]);
    }

    /// Takes one offset out. Whether it was in.
    pub(crate) fn remove(&mut self, offset: Offset) -> bool {
        let at = self.0.partition_point(|range| range.end <= offset);
        let Some(range) = self.0.get_mut(at).filter(|range| range.first <= offset) else {
            return false;
        };
        let (first, end) = (range.first, range.end);
        let behind = OffsetRange::new(offset.plus(1), end);
        match (first == offset, behind.count() == 0) {
            (true, true) => {
                self.0.remove(at);
            }
            (true, false) => *range = behind,
            (false, true) => range.end = offset,
            (false, false) => {
                range.end = offset;
                self.0.insert(at + 1, behind);
            }
        }
        true
    }

    /// Takes everything below `end` out.
    pub(crate) fn take_below(&mut self, end: Offset) -> Vec<OffsetRange> {
        let whole = self.0.partition_point(|range| range.end <= end);
        let mut taken: Vec<OffsetRange> = self.0.drain(..whole).collect();
        if let Some(range) = self.0.first_mut().filter(|range| range.first < end) {
            taken.push(OffsetRange::new(range.first, end));
            range.first = end;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn offsets(ranges: &Ranges) -> BTreeSet<u64> {
        ranges.0.iter().flat_map(|range| range.first.0..range.end.0).collect()
    }

    fn is_tidy(ranges: &Ranges) -> bool {
        ranges.0.iter().all(|range| range.count() > 0)
            && ranges.0.windows(2).all(|pair| pair[0].end < pair[1].first)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, u64),
        Remove(u64),
        TakeBelow(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..60_u64, 1..6_u64).prop_map(|(first, count)| Step::Insert(first, count)),
            4 => (0..66_u64).prop_map(Step::Remove),
            1 => (0..66_u64).prop_map(Step::TakeBelow),
        ]
    }

    proptest! {
        #[test]
        fn ranges_are_the_set_they_stand_for(steps in proptest::collection::vec(step(), 0..60)) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Insert(first, count) => {
                        // Only what is not in: an offset is held once.
                        if (first..first + count).all(|offset| !model.contains(&offset)) {
                            ranges.insert(OffsetRange::new(Offset(first), Offset(first + count)));
                            model.extend(first..first + count);
                        }
                    }
                    Step::Remove(offset) => {
                        prop_assert_eq!(ranges.remove(Offset(offset)), model.remove(&offset));
                    }
                    Step::TakeBelow(end) => {
                        let taken = Ranges(ranges.take_below(Offset(end)));
                        let kept = model.split_off(&end);
                        prop_assert_eq!(offsets(&taken), std::mem::replace(&mut model, kept));
                    }
                }
                prop_assert!(is_tidy(&ranges));
                let middle = ranges.within(OffsetRange::new(Offset(20), Offset(40)));
                let middle: BTreeSet<u64> = middle.flat_map(|part| part.first.0..part.end.0).collect();
                prop_assert!(middle.iter().eq(model.range(20..40)));
                prop_assert_eq!(offsets(&ranges), model.clone());
            }
        }
    }
}
