//! A set of offsets: compressed bitmaps, so that a million waiting messages take a few hundred KiB at most.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bellwether_protocol::ids::{Offset, OffsetRange};
use roaring::RoaringBitmap;

/// Offsets, in ranges. An offset's upper half selects the bitmap, its lower half the bit.
///
/// *Invariant:* no bitmap is empty; `len` is the sum of their lengths.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OffsetSet {
    bitmaps: BTreeMap<u32, RoaringBitmap>,
    len: u64,
}

impl OffsetSet {
    /// How many offsets.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a range; says how many were not there before.
    pub fn insert(&mut self, range: OffsetRange) -> u64 {
        let mut added = 0;
        for (high, low) in halves(range) {
            added += self.bitmaps.entry(high).or_default().insert_range(low);
        }
        self.len += added;
        added
    }

    /// Removes a range; says how many were there.
    pub fn remove(&mut self, range: OffsetRange) -> u64 {
        let mut removed = 0;
        let mut emptied = Vec::new();
        for (high, bitmap) in self.bitmaps.range_mut(highs(range)) {
            if let Some(low) = low_half(*high, range) {
                removed += bitmap.remove_range(low);
                if bitmap.is_empty() {
                    emptied.push(*high);
                }
            }
        }
        for high in emptied {
            self.bitmaps.remove(&high);
        }
        self.len -= removed;
        removed
    }

    /// Whether all of a range is there.
    #[must_use]
    pub fn contains(&self, range: OffsetRange) -> bool {
        self.count_in(range) == range.count()
    }

    /// Whether there is nothing outside of a range.
    #[must_use]
    pub fn lies_within(&self, range: OffsetRange) -> bool {
        self.count_in(range) == self.len
    }

    /// How many of a range are there.
    #[must_use]
    pub fn count_in(&self, range: OffsetRange) -> u64 {
        let bitmaps = self.bitmaps.range(highs(range));
        let counts = bitmaps.filter_map(|(high, bitmap)| {
            low_half(*high, range).map(|low| bitmap.range_cardinality(low))
        });
        counts.sum()
    }

    /// The first run of consecutive offsets within `within`, cut to at most `most`.
    #[must_use]
    pub fn next_run(&self, within: OffsetRange, most: u64) -> Option<OffsetRange> {
        if most == 0 {
            return None;
        }
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        self.bitmaps.range(highs(within)).find_map(|(high, bitmap)| {
            let low = low_half(*high, within)?;
            let first = bitmap.range(low.clone()).next()?;
            // Looking no further than asked for: a run may be millions long.
            let last = first.saturating_add(most - 1).min(*low.end());
            let run = bitmap.range(first..=last).next_range()?;
            let base = u64::from(*high) << 32;
            let (first, last) = (base + u64::from(*run.start()), base + u64::from(*run.end()));
            Some(OffsetRange::new(Offset(first), Offset(last + 1)))
        })
    }

    /// The runs of consecutive offsets within `within`, in order.
    pub fn runs(&self, within: OffsetRange) -> impl Iterator<Item = OffsetRange> + '_ {
        let mut from = within.first;
        std::iter::from_fn(move || {
            let run = self.next_run(OffsetRange::new(from, within.end), u64::MAX)?;
            from = run.end;
            Some(run)
        })
    }

    /// All runs, in order.
    pub fn iter(&self) -> impl Iterator<Item = OffsetRange> + '_ {
        self.runs(EVERYTHING)
    }

    /// The bitmaps in the portable format of Roaring. Equal sets give equal bytes, however they came about.
    #[must_use]
    pub(crate) fn to_parts(&self) -> Vec<(u32, Vec<u8>)> {
        let part = |(high, bitmap): (&u32, &RoaringBitmap)| {
            let mut bitmap = bitmap.clone();
            // `optimize` alone leaves a container as it is when both forms are equally long.
            bitmap.remove_run_compression();
            bitmap.optimize();
            let mut bytes = Vec::with_capacity(bitmap.serialized_size());
            bitmap.serialize_into(&mut bytes).expect("a Vec takes every write");
            (*high, bytes)
        };
        self.bitmaps.iter().map(part).collect()
    }

    /// The set of [`OffsetSet::to_parts`]; `None` when the parts are not such.
    #[must_use]
    pub(crate) fn from_parts(parts: Vec<(u32, Vec<u8>)>) -> Option<OffsetSet> {
        let mut set = OffsetSet::default();
        for (high, bytes) in parts {
            let bitmap = RoaringBitmap::deserialize_from(&bytes[..]).ok()?;
            bitmap.internal_validate().ok()?;
            if bitmap.is_empty() {
                return None;
            }
            set.len += bitmap.len();
            if set.bitmaps.insert(high, bitmap).is_some() {
                return None;
            }
        }
        Some(set)
    }
}

/// From the first offset to the last there can be in a log (whose end is an offset too).
pub(crate) const EVERYTHING: OffsetRange = OffsetRange { first: Offset(0), end: Offset(u64::MAX) };

/// The upper halves that a range touches; for an empty range some that it may not.
fn highs(range: OffsetRange) -> RangeInclusive<u32> {
    let last = range.end.0.max(range.first.0);
    ((range.first.0 >> 32) as u32)..=((last >> 32) as u32)
}

/// The lower halves of the offsets of `range` whose upper half is `high`.
fn low_half(high: u32, range: OffsetRange) -> Option<RangeInclusive<u32>> {
    let base = u64::from(high) << 32;
    let first = range.first.0.max(base);
    let last = range.end.0.checked_sub(1)?.min(base + u64::from(u32::MAX));
    (first <= last).then_some((first as u32)..=(last as u32))
}

fn halves(range: OffsetRange) -> impl Iterator<Item = (u32, RangeInclusive<u32>)> {
    highs(range).filter_map(move |high| Some((high, low_half(high, range)?)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range(first: u64, end: u64) -> OffsetRange {
        OffsetRange::new(Offset(first), Offset(end))
    }

    /// Around the border between two bitmaps, so that both sides of it are tried.
    const NEAR: u64 = (1 << 32) - 500;

    fn runs_of(model: &BTreeSet<u64>, within: OffsetRange) -> Vec<OffsetRange> {
        let mut runs: Vec<OffsetRange> = Vec::new();
        for offset in model.range(within.first.0..within.end.0.max(within.first.0)) {
            match runs.last_mut() {
                Some(run) if run.end.0 == *offset && *offset != 1 << 32 => run.end.0 += 1,
                _ => runs.push(range(*offset, offset + 1)),
            }
        }
        runs
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 300, rng_seed: proptest::test_runner::RngSeed::Fixed(11),
            failure_persistence: None, ..Default::default()
        })]

        #[test]
        fn it_does_what_a_plain_set_does(
            steps in proptest::collection::vec((any::<bool>(), 0..1000_u64, 0..300_u64), 1..30),
            within in (0..1100_u64, 0..1100_u64), most in 0..50_u64,
        ) {
            let (mut set, mut model) = (OffsetSet::default(), BTreeSet::new());
            for (insert, first, length) in steps {
                let (first, end) = (NEAR + first, NEAR + first + length);
                let before = model.len() as u64;
                if insert {
                    model.extend(first..end);
                    prop_assert_eq!(set.insert(range(first, end)), model.len() as u64 - before);
                } else {
                    model.retain(|offset| !(first..end).contains(offset));
                    prop_assert_eq!(set.remove(range(first, end)), before - model.len() as u64);
                }
            }
            prop_assert_eq!(set.len(), model.len() as u64);
            let within = range(NEAR + within.0, NEAR + within.1);
            let runs = runs_of(&model, within);
            prop_assert_eq!(set.runs(within).collect::<Vec<_>>(), runs.clone());
            prop_assert_eq!(set.count_in(within), runs.iter().map(|run| run.count()).sum::<u64>());
            let next = runs.first().filter(|_| most > 0).map(|run| {
                range(run.first.0, run.end.0.min(run.first.0 + most))
            });
            prop_assert_eq!(set.next_run(within, most), next);
            prop_assert_eq!(&OffsetSet::from_parts(set.to_parts()).unwrap(), &set);
        }

        #[test]
        fn equal_sets_give_equal_bytes(
            mut ranges in proptest::collection::vec((0..200_000_u64, 1..9_000_u64), 1..12)
        ) {
            let built = |ranges: &[(u64, u64)]| {
                let mut set = OffsetSet::default();
                for (first, length) in ranges {
                    set.insert(range(*first, first + length));
                }
                OffsetSet::from_parts(set.to_parts()).unwrap()
            };
            let one = built(&ranges);
            ranges.reverse();
            let mut other = built(&ranges);
            other.insert(range(500_000, 600_000));
            other.remove(range(400_000, 700_000));
            prop_assert_eq!(one.to_parts(), other.to_parts());
        }

        #[test]
        fn arbitrary_parts_are_no_panic(parts in proptest::collection::vec(
            (any::<u32>(), proptest::collection::vec(any::<u8>(), 0..80)), 0..3)
        ) {
            drop(OffsetSet::from_parts(parts));
        }
    }

    #[test]
    fn a_million_waiting_messages_take_a_bit_each() {
        let mut set = OffsetSet::default();
        for batch in 0..10_000_u64 {
            set.insert(range(batch * 100, batch * 100 + 100));
        }
        for offset in (0..1_000_000).step_by(2) {
            set.remove(range(offset, offset + 1));
        }
        let bytes: usize = set.to_parts().iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes < 140_000, "{bytes} bytes");
    }
}
