//! How often messages were returned, kept as ranges with equal counts.

use std::collections::BTreeMap;

use bellwether_protocol::ids::{Offset, OffsetRange};

/// Return counts above zero.
///
/// *Invariant:* ranges are not empty and do not overlap, and no two that touch have the same count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Returns {
    /// By first offset: where the range ends, and the count.
    ranges: BTreeMap<u64, (u64, u32)>,
}

impl Returns {
    /// The count at `offset`, and the end of the stretch of offsets from there on that share it.
    #[must_use]
    pub fn at(&self, offset: Offset) -> (u32, Offset) {
        if let Some((_, &(end, count))) = self.ranges.range(..=offset.0).next_back()
            && end > offset.0
        {
            return (count, Offset(end));
        }
        let next = self.ranges.range(offset.0..).next();
        (0, Offset(next.map_or(u64::MAX, |(first, _)| *first)))
    }

    /// One more return of everything in `range`.
    pub fn add(&mut self, range: OffsetRange) {
        self.split(range.first.0);
        self.split(range.end.0);
        let mut at = range.first.0;
        while at < range.end.0 {
            let (count, end) = self.at(Offset(at));
            let end = end.0.min(range.end.0);
            self.ranges.insert(at, (end, count.saturating_add(1)));
            self.join(at);
            at = end;
        }
        self.join(range.end.0);
    }

    /// Forgets everything in `range`: it is settled.
    pub fn remove(&mut self, range: OffsetRange) {
        if self.ranges.is_empty() {
            return;
        }
        self.split(range.first.0);
        self.split(range.end.0);
        while let Some((&first, _)) = self.ranges.range(range.first.0..range.end.0).next() {
            self.ranges.remove(&first);
        }
    }

    /// The ranges with their counts, in order.
    pub fn iter(&self) -> impl Iterator<Item = (OffsetRange, u32)> + '_ {
        self.ranges
            .iter()
            .map(|(first, (end, count))| (OffsetRange::new(Offset(*first), Offset(*end)), *count))
    }

    /// The counts of [`Returns::iter`]; `None` when the ranges are not such.
    #[must_use]
    pub(crate) fn from_ranges(ranges: &[(OffsetRange, u32)]) -> Option<Returns> {
        let mut returns = Returns::default();
        let mut behind = 0;
        for (range, count) in ranges {
            if range.first.0 < behind || range.count() == 0 || *count == 0 {
                return None;
            }
            behind = range.end.0;
            returns.ranges.insert(range.first.0, (range.end.0, *count));
        }
        Some(returns)
    }

    /// Makes `at` the border of ranges, if it lies inside one.
    fn split(&mut self, at: u64) {
        if let Some((&first, &(end, count))) = self.ranges.range(..at).next_back()
            && end > at
        {
            self.ranges.insert(first, (at, count));
            self.ranges.insert(at, (end, count));
        }
    }

    /// Joins the range that begins at `at` to the one before it, if both touch and count the same.
    fn join(&mut self, at: u64) {
        let Some(&(end, count)) = self.ranges.get(&at) else { return };
        if let Some((_, before)) = self.ranges.range_mut(..at).next_back()
            && *before == (at, count)
        {
            before.0 = end;
            self.ranges.remove(&at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first: u64, end: u64) -> OffsetRange {
        OffsetRange::new(Offset(first), Offset(end))
    }

    #[test]
    fn messages_returned_one_by_one_are_kept_as_one_range() {
        let mut returns = Returns::default();
        for offset in [3, 1, 2, 4] {
            returns.add(range(offset, offset + 1));
        }
        assert_eq!(returns.iter().collect::<Vec<_>>(), [(range(1, 5), 1)]);
        returns.add(range(0, 3));
        assert_eq!(
            returns.iter().collect::<Vec<_>>(),
            [(range(0, 1), 1), (range(1, 3), 2), (range(3, 5), 1)]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 300, rng_seed: proptest::test_runner::RngSeed::Fixed(12),
            failure_persistence: None, ..Default::default()
        })]

        #[test]
        fn it_counts_as_a_plain_array_does(
            steps in proptest::collection::vec((any::<bool>(), 0..60_u64, 1..30_u64), 1..40)
        ) {
            let (mut returns, mut model) = (Returns::default(), vec![0_u32; 100]);
            for (add, first, length) in steps {
                for count in &mut model[first as usize..(first + length) as usize] {
                    *count = if add { *count + 1 } else { 0 };
                }
                let range = range(first, first + length);
                if add { returns.add(range) } else { returns.remove(range) }
            }
            for (offset, count) in model.iter().enumerate() {
                let (found, until) = returns.at(Offset(offset as u64));
                prop_assert_eq!(found, *count);
                let stretch = model[offset..].iter().take_while(|other| *other == count).count();
                let end = (offset + stretch) as u64;
                prop_assert_eq!(until.0.min(100), end);
            }
            let ranges: Vec<_> = returns.iter().collect();
            prop_assert_eq!(Returns::from_ranges(&ranges), Some(returns));
        }
    }
}
