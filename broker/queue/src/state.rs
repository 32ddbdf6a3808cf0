//! What the committed records of a queue come to: the same on every replica.

use bellwether_log::{Enqueue, Record};
use bellwether_protocol::error::BrokenInvariant;
use bellwether_protocol::ids::{Offset, OffsetRange, Seq};

use crate::offsets::OffsetSet;
use crate::producers::{Known, Producers};
use crate::returns::Returns;

/// A queue's replicated state.
///
/// *Invariant* (promise G9): `enqueued` = unsettled + `settled` + `purged`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    /// Every record below has been applied.
    pub applied: Offset,
    /// Messages that are neither settled nor purged.
    pub unsettled: OffsetSet,
    /// How often unsettled messages were returned.
    pub returns: Returns,
    pub producers: Producers,
    pub enqueued: u64,
    pub settled: u64,
    pub purged: u64,
    /// The latest time in any record.
    pub time_ms: u64,
}

impl State {
    /// Applies the record at `base`. Runs of messages that are gone by it are pushed onto `gone`.
    ///
    /// # Errors
    /// [`BrokenInvariant`] when no sound leader can have written this record here.
    pub fn apply(
        &mut self,
        base: Offset,
        record: &Record,
        gone: &mut Vec<OffsetRange>,
    ) -> Result<(), BrokenInvariant> {
        if base != self.applied {
            let what = format!("a record was to be applied behind {}", self.applied);
            return Err(BrokenInvariant { what, at: base });
        }
        match record {
            Record::EpochStart { time_ms, .. } => self.pass_time(*time_ms),
            Record::Enqueue(enqueue) => self.enqueue(base, enqueue)?,
            Record::Settle { ranges, .. } => {
                expect_below(base, ranges)?;
                self.settled += self.take_out(ranges, gone);
            }
            Record::Return { ranges } => {
                expect_below(base, ranges)?;
                self.count_returns(ranges);
            }
            Record::Purge { below, held } => {
                expect_below(base, held)?;
                let below = (*below).min(base);
                self.purged += self.take_out(&gaps(held, below), gone);
            }
        }
        self.applied = base.plus(u64::from(record.count()));
        Ok(())
    }

    fn enqueue(&mut self, base: Offset, enqueue: &Enqueue) -> Result<(), BrokenInvariant> {
        let count = u64::from(enqueue.messages.count());
        if let Some(mark) = &enqueue.producer {
            let last = Seq(mark.first.0 + count - 1);
            // A leader that has forgotten a producer takes its numbers from 1 on again. All replicas forget the same ones, but for those
            // that ran an earlier version meanwhile, which chose others: that is no defect of this leader.
            let begins_anew = mark.first == Seq(1) && self.producers.has_forgotten();
            let is_known = |known| known >= mark.first && !begins_anew;
            if self.producers.last(&mark.name).is_some_and(is_known) {
                let what = format!("message {} of {:?} is here twice", mark.first, mark.name);
                return Err(BrokenInvariant { what, at: base });
            }
            let known = Known { last, used: base, time_ms: self.time_ms.max(enqueue.time_ms) };
            self.producers.remember(mark.name.clone(), known);
        }
        self.pass_time(enqueue.time_ms);
        self.unsettled.insert(OffsetRange::new(base, base.plus(count)));
        self.enqueued += count;
        Ok(())
    }

    fn pass_time(&mut self, time_ms: u64) {
        self.time_ms = self.time_ms.max(time_ms);
        self.producers.forget(self.time_ms);
    }

    /// Removes the unsettled messages of `ranges`; says how many there were.
    fn take_out(&mut self, ranges: &[OffsetRange], gone: &mut Vec<OffsetRange>) -> u64 {
        let mut removed = 0;
        for range in ranges {
            gone.extend(self.unsettled.runs(*range));
            removed += self.unsettled.remove(*range);
            self.returns.remove(*range);
        }
        removed
    }

    fn count_returns(&mut self, ranges: &[OffsetRange]) {
        for range in ranges {
            for run in self.unsettled.runs(*range) {
                self.returns.add(run);
            }
        }
    }
}

/// A record speaks of what came before it. One that speaks of its own future would be applied differently
/// by a replica that restored a checkpoint.
fn expect_below(base: Offset, ranges: &[OffsetRange]) -> Result<(), BrokenInvariant> {
    match ranges.last() {
        Some(range) if range.end > base => {
            Err(BrokenInvariant { what: format!("a record speaks of {}", range.end), at: base })
        }
        _ => Ok(()),
    }
}

/// What lies below `below` and in none of `ranges`, which ascend.
fn gaps(ranges: &[OffsetRange], below: Offset) -> Vec<OffsetRange> {
    let mut gaps = Vec::with_capacity(ranges.len() + 1);
    let mut from = Offset(0);
    for range in ranges {
        gaps.push(OffsetRange::new(from, range.first.min(below)));
        from = range.end;
    }
    gaps.push(OffsetRange::new(from, below));
    gaps.retain(|gap| gap.count() > 0);
    gaps
}
