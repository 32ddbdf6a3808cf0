//! One queue's log as its shard sees it: where it starts and ends, what of it is durable, where its batches lie, and how
//! much of each segment its unsettled messages take.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bellwether_log::{Batch, EpochHistory, RecordKind};
use bellwether_protocol::ids::{Offset, OffsetRange};

use crate::Condition;
use crate::format::{SegmentSeq, Stamp};
use crate::index::{Index, Located, Place};
use crate::register::Lineage;
use crate::segment::Segment;

/// *Invariant:* `start <= checkpointed <= end`, `durable <= end`; every place in the index has a share.
#[derive(Debug)]
pub struct Log {
    pub lineage: Lineage,
    pub epochs: EpochHistory,
    pub start: Offset,
    pub end: Offset,
    pub durable: Offset,
    pub condition: Condition,
    /// Offset and high watermark of the last checkpoint.
    pub checkpointed: Option<(Offset, Offset)>,
    pub since_checkpoint: SinceCheckpoint,
    index: Index,
    /// Appended and not yet known durable, in order.
    unplaced: VecDeque<Unplaced>,
    shares: BTreeMap<SegmentSeq, Share>,
}

/// How long the log has become since its last checkpoint.
#[derive(Debug, Default)]
pub struct SinceCheckpoint {
    pub bytes: u64,
    pub batches: u64,
    /// How long it was when the shard was last told that it is long.
    told_bytes: u64,
    told_batches: u64,
}

impl SinceCheckpoint {
    /// Whether the shard should be told that it has become long, and has not been for as long again.
    pub fn is_long(&mut self, bytes_max: u64, batches_max: u64) -> bool {
        let long = self.bytes - self.told_bytes > bytes_max
            || self.batches - self.told_batches > batches_max;
        if long {
            (self.told_bytes, self.told_batches) = (self.bytes, self.batches);
        }
        long
    }
}

#[derive(Debug)]
struct Unplaced {
    generation: Stamp,
    base: Offset,
    count: u32,
    length: u32,
    /// Messages not settled yet.
    live: u32,
    messages: bool,
}

/// What a log has in a segment.
#[derive(Debug)]
struct Share {
    segment: Arc<Segment>,
    live_bytes: u64,
}

impl Share {
    fn add(&mut self, bytes: u64) {
        self.live_bytes += bytes;
        self.segment.add_live(bytes);
    }

    fn take(&mut self, bytes: u64) {
        let bytes = bytes.min(self.live_bytes);
        self.live_bytes -= bytes;
        self.segment.take_live(bytes);
    }
}

impl Drop for Share {
    /// A log that goes, goes from the count of what is live.
    fn drop(&mut self) {
        self.segment.take_live(self.live_bytes);
    }
}

impl Log {
    pub fn new(lineage: Lineage) -> Log {
        Log {
            lineage,
            epochs: EpochHistory::default(),
            start: Offset(0),
            end: Offset(0),
            durable: Offset(0),
            condition: Condition::Ok,
            checkpointed: None,
            since_checkpoint: SinceCheckpoint::default(),
            index: Index::default(),
            unplaced: VecDeque::new(),
            shares: BTreeMap::new(),
        }
    }

    pub fn append(&mut self, batch: &Batch) {
        assert_eq!(batch.base(), self.end, "a batch that does not follow the log's end");
        self.epochs.append(batch.epoch(), batch.base());
        self.end = batch.end();
        self.since_checkpoint.bytes += batch.bytes().len() as u64;
        self.since_checkpoint.batches += 1;
        self.expect(batch);
    }

    /// A batch is on its way to the disk.
    pub fn expect(&mut self, batch: &Batch) {
        let messages = batch.kind() == RecordKind::Enqueue;
        self.unplaced.push_back(Unplaced {
            generation: self.lineage.at(batch.base()),
            base: batch.base(),
            count: batch.count(),
            length: batch.bytes().len() as u32,
            live: if messages { batch.count() } else { 0 },
            messages,
        });
    }

    /// The batch is durable at that position. `false`: it is not of this log (any more).
    pub fn placed(
        &mut self,
        generation: Stamp,
        base: Offset,
        segment: &Arc<Segment>,
        position: u32,
        copy: bool,
    ) -> bool {
        let expected = |front: &Unplaced| front.generation == generation && front.base == base;
        if !self.unplaced.front().is_some_and(expected) {
            return false;
        }
        let Some(Unplaced { count, length, live, messages, .. }) = self.unplaced.pop_front() else {
            return false;
        };
        let place = Place { segment: segment.seq, position, length, count, messages };
        if copy {
            self.index.put_moved(base, place);
        } else {
            self.index.push(base, place);
            self.durable = base.plus(u64::from(count));
        }
        self.share(segment).add(portion(length, count, u64::from(live)));
        true
    }

    /// Whether the appended batch at `base` lies on the disk.
    pub fn is_placed(&self, base: Offset) -> bool {
        self.unplaced.front().is_none_or(|first| base < first.base)
    }

    /// A batch found on the disk at a restart. All its messages are taken for live.
    pub fn found(&mut self, base: Offset, segment: &Arc<Segment>, place: Place, copy: bool) {
        if copy {
            self.index.put_moved(base, place);
        } else {
            self.index.push(base, place);
        }
        let live = if place.messages { u64::from(place.length) } else { 0 };
        self.share(segment).add(live);
    }

    fn share(&mut self, segment: &Arc<Segment>) -> &mut Share {
        let new = || Share { segment: Arc::clone(segment), live_bytes: 0 };
        self.shares.entry(segment.seq).or_insert_with(new)
    }

    /// Cuts the log at `to` or, where that falls inside a batch, at the batch's base. What is appended then is of generation `next`.
    pub fn cut(&mut self, to: Offset, next: Stamp) -> Offset {
        let to = self.batch_base(to);
        let Log { index, shares, .. } = self;
        index.cut(to, |located| {
            if let Some(share) = shares.get_mut(&located.place.segment)
                && located.place.messages
            {
                share.take(u64::from(located.place.length));
            }
        });
        while self.unplaced.back().is_some_and(|last| last.base >= to) {
            self.unplaced.pop_back();
        }
        self.lineage.cut(to, next);
        self.epochs.truncate(to);
        self.end = to;
        self.durable = self.durable.min(to);
        to
    }

    /// `offset`, or the base of the batch that it lies inside.
    fn batch_base(&self, offset: Offset) -> Offset {
        if offset >= self.end {
            return self.end;
        }
        let after = self.unplaced.partition_point(|batch| batch.base <= offset);
        let unplaced = after.checked_sub(1).map(|last| self.unplaced[last].base);
        let placed = || self.index.find(offset).map(|located| located.base);
        unplaced.or_else(placed).unwrap_or(offset)
    }

    /// These messages are gone.
    pub fn settled(&mut self, range: OffsetRange) {
        let mut next = range.first;
        // A range may end inside a batch: then nothing is left of it, though a batch is found there.
        while next < range.end
            && let Some(located) = self.index.find_from(next)
            && located.base < range.end
        {
            let first = located.base.max(next);
            let end = located.end().min(range.end);
            if located.place.messages {
                let Place { segment, length, count, .. } = located.place;
                let bytes = portion(length, count, end.0 - first.0);
                if let Some(share) = self.shares.get_mut(&segment) {
                    share.take(bytes);
                }
            }
            next = end;
        }
        let from = self
            .unplaced
            .partition_point(|batch| batch.base.plus(u64::from(batch.count)) <= range.first);
        for batch in self.unplaced.range_mut(from..).take_while(|batch| batch.base < range.end) {
            let end = batch.base.plus(u64::from(batch.count)).min(range.end);
            let settled = end.0 - batch.base.max(range.first).0;
            batch.live = batch.live.saturating_sub(settled as u32);
        }
    }

    /// Of the messages below `below` only these are live.
    pub fn restored(&mut self, below: Offset, unsettled: &[OffsetRange]) {
        for share in self.shares.values_mut() {
            share.take(u64::MAX);
        }
        let mut live: BTreeMap<SegmentSeq, u64> = BTreeMap::new();
        for located in self.index.all().filter(|located| located.place.messages) {
            let Place { segment, length, count, .. } = located.place;
            let whole =
                if located.base >= below { u64::from(count) } else { overlap(&located, unsettled) };
            *live.entry(segment).or_default() += portion(length, count, whole);
        }
        for (segment, bytes) in live {
            if let Some(share) = self.shares.get_mut(&segment) {
                share.add(bytes);
            }
        }
    }

    /// About how many bytes of memory its index takes.
    pub fn index_bytes(&self) -> u64 {
        self.index.bytes()
    }

    pub fn find(&self, offset: Offset) -> Option<Located> {
        self.index.find(offset)
    }

    pub fn segment(&self, seq: SegmentSeq) -> Arc<Segment> {
        let share = self.shares.get(&seq).expect("every place in the index has a share");
        Arc::clone(&share.segment)
    }

    /// What lies in a segment, ascending.
    pub fn in_segment(&self, seq: SegmentSeq) -> Vec<Located> {
        if self.shares.contains_key(&seq) { self.index.in_segment(seq) } else { Vec::new() }
    }

    /// The segment is about to be freed; what was needed in it has been moved.
    pub fn leave_segment(&mut self, seq: SegmentSeq) {
        if self.shares.remove(&seq).is_some() {
            self.index.forget_segment(seq);
        }
    }

    /// A batch lies in another place now. Its messages count as live until they are settled.
    pub fn moved(&mut self, base: Offset, place: Place, target: &Arc<Segment>) {
        self.index.put_moved(base, place);
        let live = if place.messages { u64::from(place.length) } else { 0 };
        self.share(target).add(live);
    }

    /// The log was read back: its start and end follow from what was found. Fails when records that a replay needs are missing.
    pub fn close_recovery(&mut self) -> Result<(), String> {
        let at = self.checkpointed.map_or(Offset(0), |(at, _)| at);
        self.end = self.index.end().map_or(at, |end| end.max(at));
        self.durable = self.end;
        self.start = self.index.contiguous_before(at);
        let mut next = at;
        while next < self.end {
            match self.index.find(next) {
                Some(located) => {
                    next = located.end();
                    self.since_checkpoint.bytes += u64::from(located.place.length);
                    self.since_checkpoint.batches += 1;
                }
                None => {
                    let (end, behind) = (self.end, next);
                    return Err(format!("records from {behind} are missing below its end {end}"));
                }
            }
        }
        Ok(())
    }
}

/// The bytes that `some` of a batch's messages take.
fn portion(length: u32, count: u32, some: u64) -> u64 {
    u64::from(length) * some.min(u64::from(count)) / u64::from(count.max(1))
}

/// How many offsets of a batch lie in the ranges, which ascend.
pub fn overlap(located: &Located, ranges: &[OffsetRange]) -> u64 {
    parts(located, ranges).map(OffsetRange::count).sum()
}

/// The parts of a batch that lie in the ranges, which ascend.
pub fn parts<'a>(
    located: &Located,
    ranges: &'a [OffsetRange],
) -> impl Iterator<Item = OffsetRange> + use<'a> {
    let (base, end) = (located.base, located.end());
    let from = ranges.partition_point(|range| range.end <= base);
    ranges[from..]
        .iter()
        .take_while(move |range| range.first < end)
        .map(move |range| OffsetRange::new(range.first.max(base), range.end.min(end)))
}
