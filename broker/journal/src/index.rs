//! Where the batches of one log lie on the disk: 16 bytes a batch.

use std::collections::{BTreeMap, VecDeque};

use bellwether_protocol::ids::Offset;

use crate::format::SegmentSeq;

/// Where one batch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub segment: SegmentSeq,
    pub position: u32,
    pub length: u32,
    pub count: u32,
    /// Whether it holds messages.
    pub messages: bool,
}

/// A batch and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    pub base: Offset,
    pub place: Place,
}

impl Located {
    pub fn end(&self) -> Offset {
        self.base.plus(u64::from(self.place.count))
    }
}

/// The batches of one log. Those that were appended stand in `runs`, ascending and without overlap; those that the
/// cleaner moved, or that came with a snapshot, in `moved`. Where both know an offset, `runs` counts.
#[derive(Debug, Default)]
pub struct Index {
    runs: VecDeque<Run>,
    moved: BTreeMap<Offset, Place>,
}

/// Consecutive batches in one segment.
#[derive(Debug)]
struct Run {
    segment: SegmentSeq,
    base: Offset,
    slots: Vec<Slot>,
}

/// Most slots in a run: bounds what one growth of a vector copies, and keeps `delta` small.
const SLOTS_MAX: usize = 4096;

/// The top bit of a length, which is far below it, says that the batch holds messages.
const MESSAGES: u32 = 1 << 31;

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Offset relative to the run's base.
    delta: u32,
    position: u32,
    length: u32,
    count: u32,
}

impl Run {
    fn located(&self, slot: &Slot) -> Located {
        let place = Place {
            segment: self.segment,
            position: slot.position,
            length: slot.length & !MESSAGES,
            count: slot.count,
            messages: slot.length & MESSAGES != 0,
        };
        Located { base: self.base.plus(u64::from(slot.delta)), place }
    }

    /// Slots whose batch begins at or below `offset`.
    fn slots_up_to(&self, offset: Offset) -> usize {
        let delta = offset.0 - self.base.0;
        self.slots.partition_point(|slot| u64::from(slot.delta) <= delta)
    }
}

impl Index {
    /// Adds a batch that was appended. `base` is behind every other one's end.
    pub fn push(&mut self, base: Offset, place: Place) {
        let length = place.length | if place.messages { MESSAGES } else { 0 };
        let slot = |delta| Slot { delta, position: place.position, length, count: place.count };
        if let Some(run) = self.runs.back_mut()
            && run.segment == place.segment
            && run.slots.len() < SLOTS_MAX
            && let Ok(delta) = u32::try_from(base.0 - run.base.0)
        {
            return run.slots.push(slot(delta));
        }
        if let Some(run) = self.runs.back_mut() {
            run.slots.shrink_to_fit();
        }
        self.runs.push_back(Run { segment: place.segment, base, slots: vec![slot(0)] });
    }

    /// Adds a batch that was moved.
    pub fn put_moved(&mut self, base: Offset, place: Place) {
        self.moved.insert(base, place);
    }

    /// The batch that holds `offset`.
    pub fn find(&self, offset: Offset) -> Option<Located> {
        let in_runs = self.run_at(offset).and_then(|run| {
            let run = &self.runs[run];
            let slots = run.slots_up_to(offset);
            run.slots[..slots].last().map(|slot| run.located(slot))
        });
        let holds = |found: &Located| offset < found.end();
        in_runs.filter(holds).or_else(|| {
            let (base, place) = self.moved.range(..=offset).next_back()?;
            Some(Located { base: *base, place: *place }).filter(holds)
        })
    }

    /// The batch that holds `offset`, or else the first behind it.
    pub fn find_from(&self, offset: Offset) -> Option<Located> {
        if let Some(found) = self.find(offset) {
            return Some(found);
        }
        let in_runs = self.first_run_slot_from(offset);
        let in_moved = self.moved.range(offset..).next();
        let in_moved = in_moved.map(|(base, place)| Located { base: *base, place: *place });
        match (in_runs, in_moved) {
            (Some(run), Some(moved)) if moved.base < run.base => Some(moved),
            (Some(run), _) => Some(run),
            (None, moved) => moved,
        }
    }

    fn first_run_slot_from(&self, offset: Offset) -> Option<Located> {
        let first = self.run_at(offset);
        if let Some(run) = first.map(|run| &self.runs[run]) {
            let next =
                run.slots.partition_point(|slot| run.base.0 + u64::from(slot.delta) < offset.0);
            if let Some(slot) = run.slots.get(next) {
                return Some(run.located(slot));
            }
        }
        let run = self.runs.get(first.map_or(0, |run| run + 1))?;
        run.slots.first().map(|slot| run.located(slot))
    }

    /// The last run that begins at or below `offset`.
    fn run_at(&self, offset: Offset) -> Option<usize> {
        self.runs.partition_point(|run| run.base <= offset).checked_sub(1)
    }

    /// Forgets every batch that begins at or behind `to`, telling each.
    pub fn cut(&mut self, to: Offset, mut gone: impl FnMut(Located)) {
        while let Some(run) = self.runs.back_mut() {
            while let Some(slot) = run.slots.last() {
                let located =
                    Run { segment: run.segment, base: run.base, slots: Vec::new() }.located(slot);
                if located.base < to {
                    break;
                }
                gone(located);
                run.slots.pop();
            }
            if !run.slots.is_empty() {
                break;
            }
            self.runs.pop_back();
        }
        for (base, place) in self.moved.split_off(&to) {
            gone(Located { base, place });
        }
    }

    /// Everything that lies in a segment, ascending.
    pub fn in_segment(&self, segment: SegmentSeq) -> Vec<Located> {
        let mut found: Vec<Located> = self
            .runs
            .iter()
            .filter(|run| run.segment == segment)
            .flat_map(|run| run.slots.iter().map(|slot| run.located(slot)))
            .collect();
        let moved = self.moved.iter().filter(|(_, place)| place.segment == segment);
        found.extend(moved.map(|(base, place)| Located { base: *base, place: *place }));
        found.sort_by_key(|located| located.base);
        found
    }

    /// Forgets everything that lies in a segment.
    pub fn forget_segment(&mut self, segment: SegmentSeq) {
        self.runs.retain(|run| run.segment != segment);
        self.moved.retain(|_, place| place.segment != segment);
    }

    /// Every batch, in no order.
    pub fn all(&self) -> impl Iterator<Item = Located> + '_ {
        let runs = self.runs.iter().flat_map(|run| run.slots.iter().map(|slot| run.located(slot)));
        let moved = self.moved.iter().map(|(base, place)| Located { base: *base, place: *place });
        runs.chain(moved)
    }

    /// About how many bytes of memory it takes.
    pub fn bytes(&self) -> u64 {
        let slots: usize = self.runs.iter().map(|run| run.slots.capacity()).sum();
        let runs = self.runs.capacity() * size_of::<Run>();
        // A tree's nodes are two thirds full, on the whole.
        let moved = self.moved.len() * size_of::<(Offset, Place)>() * 3 / 2;
        (slots * size_of::<Slot>() + runs + moved) as u64
    }

    /// The first offset from which appended batches follow one another without a gap up to `end`.
    pub fn contiguous_before(&self, end: Offset) -> Offset {
        let mut start = end;
        for run in self.runs.iter().rev() {
            for slot in run.slots.iter().rev() {
                let located = run.located(slot);
                if located.base >= end {
                    continue;
                }
                if located.end() < start {
                    return start;
                }
                start = located.base;
            }
        }
        start
    }

    /// First offset behind everything it knows.
    pub fn end(&self) -> Option<Offset> {
        let run = self.runs.back().and_then(|run| run.slots.last().map(|slot| run.located(slot)));
        let moved = self.moved.last_key_value();
        let moved = moved.map(|(base, place)| Located { base: *base, place: *place });
        run.into_iter().chain(moved).map(|located| located.end()).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(segment: u32, count: u32) -> Place {
        Place { segment: SegmentSeq(segment), position: 0, length: 100, count, messages: true }
    }

    fn index() -> Index {
        let mut index = Index::default();
        index.push(Offset(0), place(1, 10));
        index.push(Offset(10), place(1, 5));
        index.push(Offset(15), place(2, 5));
        index
    }

    #[test]
    fn a_batch_is_found_by_any_offset_that_it_holds() {
        let index = index();
        for (offset, base) in [(0, 0), (9, 0), (10, 10), (14, 10), (15, 15), (19, 15)] {
            assert_eq!(index.find(Offset(offset)).map(|found| found.base), Some(Offset(base)));
        }
        assert_eq!(index.find(Offset(20)), None);
        assert_eq!(index.end(), Some(Offset(20)));
    }

    #[test]
    fn moved_messages_are_found_where_they_went() {
        let mut index = index();
        index.forget_segment(SegmentSeq(1));
        index.put_moved(Offset(3), place(3, 2));
        assert_eq!(index.find(Offset(4)).map(|found| found.base), Some(Offset(3)));
        assert_eq!(index.find(Offset(5)), None);
        assert_eq!(index.find_from(Offset(0)).map(|found| found.base), Some(Offset(3)));
        assert_eq!(index.find_from(Offset(5)).map(|found| found.base), Some(Offset(15)));
        assert_eq!(index.contiguous_before(Offset(20)), Offset(15));
    }

    #[test]
    fn what_is_cut_is_forgotten() {
        let mut index = index();
        let mut gone = Vec::new();
        index.cut(Offset(10), |located| gone.push(located.base));
        assert_eq!(gone, [Offset(15), Offset(10)]);
        assert_eq!(index.end(), Some(Offset(10)));
        assert_eq!(index.contiguous_before(Offset(10)), Offset(0));
    }
}
