//! A queue as a pure machine. The replicated part is what its committed records come to, the same on
//! every replica; the serving leader has an overlay with its consumers over it. No clock, file or socket:
//! records go in, and what is to be done comes out.
//!
//! The shell appends what the machine gives it as a record (a settle, a return, a purge, an enqueue that was
//! admitted), calls [`Queue::appended`] at once, and [`Queue::apply`] when the record is committed.

mod admission;
mod browse;
mod checkpoint;
mod offsets;
mod producers;
mod returns;
mod serving;
mod state;

use bellwether_log::Record;
use bellwether_protocol::client::{CLAIM_MESSAGES_MAX, QueueCounts};
use bellwether_protocol::error::{BrokenInvariant, ErrorBody, ErrorCode};
use bellwether_protocol::ids::{Epoch, Offset, OffsetRange};

pub use admission::Admission;
pub use browse::{BROWSE_RUNS_MAX, Shown};
pub use checkpoint::{CHECKPOINT_VERSION, RestoreError, checkpoint_version};
pub use producers::{PRODUCER_KEPT_MS, PRODUCERS_MAX};
pub use serving::{CLAIM_RUNS_MAX, DISPATCH_MESSAGES_MAX, IN_FLIGHT_MAX};

use serving::Serving;
use state::State;

/// One queue.
#[derive(Debug, Default)]
pub struct Queue {
    state: State,
    serving: Option<Serving>,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Hand these messages, which have consecutive offsets, to the consumer of this key. Checked
    /// already: they are committed, and the consumer has room.
    Deliver {
        consumer: u64,
        run: OffsetRange,
        /// Whether they may have been delivered before.
        redelivered: bool,
        /// How often they were returned.
        returns: u32,
    },
    /// These messages are settled or purged, for good: their bytes are needed no more.
    Gone { run: OffsetRange },
    /// A purge was committed and took this many.
    Purged { messages: u64 },
}

/// What became of a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// Held by the consumer from now on.
    pub held: Vec<OffsetRange>,
    /// Settled or purged, for good. What is in neither is held or being settled by another.
    pub settled: Vec<OffsetRange>,
}

impl Queue {
    /// A queue without a history.
    #[must_use]
    pub fn new() -> Queue {
        Queue::default()
    }

    /// Every record below is applied.
    #[must_use]
    pub fn applied(&self) -> Offset {
        self.state.applied
    }

    /// Applies the committed record at `base`, which is [`Queue::applied`].
    ///
    /// # Errors
    /// [`BrokenInvariant`] when no sound leader can have written this record here. The queue stops.
    pub fn apply(
        &mut self,
        base: Offset,
        record: &Record,
        effects: &mut Vec<Effect>,
    ) -> Result<(), BrokenInvariant> {
        let mut gone = Vec::new();
        self.state.apply(base, record, &mut gone)?;
        if let Some(serving) = &mut self.serving {
            serving.committed(base, record, &gone, &self.state)?;
        }
        if let Record::Purge { .. } = record {
            let messages = gone.iter().map(|run| run.count()).sum();
            effects.push(Effect::Purged { messages });
        }
        effects.extend(gone.into_iter().map(|run| Effect::Gone { run }));
        Ok(())
    }

    /// Begins to serve in `epoch`. Call it once everything below the epoch's start is applied, the start included:
    /// a settle of an older epoch that was still to come would be delivered against (promise G3).
    /// What is there now may have been delivered before and is marked so.
    pub fn lead(&mut self, epoch: Epoch) {
        self.serving = Some(Serving::begin(epoch, &self.state));
    }

    /// Serves no more: consumers, what they held, and what was appended and not committed are forgotten.
    pub fn stop_leading(&mut self) {
        self.serving = None;
    }

    /// The epoch in which it serves.
    #[must_use]
    pub fn serves(&self) -> Option<Epoch> {
        self.serving.as_ref().map(|serving| serving.epoch)
    }

    /// Takes note of a record that the leader appended at `base` while it serves; each once.
    pub fn appended(&mut self, base: Offset, record: &Record) {
        if let Some(serving) = &mut self.serving {
            serving.appended(base, record, &self.state);
        }
    }

    /// The latest time in any record, committed or appended: a new record's is not below it.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.serving.as_ref().map_or(self.state.time_ms, |serving| serving.time_ms)
    }

    /// A consumer comes, by a key that no other has had in this epoch. It gets at most `prefetch` messages at
    /// a time.
    pub fn attach(&mut self, key: u64, prefetch: u32) {
        if let Some(serving) = &mut self.serving {
            serving.attach(key, prefetch);
        }
    }

    /// A consumer that has just come keeps what it was delivered in an older epoch: as much of `ranges`, which ascend, as
    /// nobody else has. It holds this from now on without a delivery.
    ///
    /// The caller vouches that the offsets still stand for the messages that were delivered: none of these records is of an
    /// epoch behind the one it was delivered in.
    ///
    /// # Errors
    /// Nothing was claimed: ranges that overlap or do not ascend, or that name more messages than a leader ever has out.
    pub fn claim(&mut self, key: u64, ranges: &[OffsetRange]) -> Result<Claimed, ErrorBody> {
        let Some(serving) = &mut self.serving else { return Ok(Claimed::default()) };
        serving::expect_ascending(ranges)?;
        let named = ranges.iter().fold(0_u64, |sum, range| sum.saturating_add(range.count()));
        if named > CLAIM_MESSAGES_MAX {
            let message = format!(
                "the claim names {named} messages; a queue has {CLAIM_MESSAGES_MAX} out at most: claim what was delivered and is not settled"
            );
            return Err(ErrorBody::not_done(ErrorCode::InvalidOption, message));
        }
        let held = serving.claim(key, ranges, &self.state);
        let mut settled = Vec::new();
        for range in ranges {
            let within =
                OffsetRange::new(range.first, range.end.min(self.state.applied).max(range.first));
            settled.extend(self.gone_in(within).take(CLAIM_RUNS_MAX - settled.len()));
        }
        Ok(Claimed { held: merged(held), settled })
    }

    /// The runs of `within` that are settled or purged.
    fn gone_in(&self, within: OffsetRange) -> impl Iterator<Item = OffsetRange> + '_ {
        let mut from = within.first;
        let unsettled = self.state.unsettled.runs(within);
        let end = OffsetRange::new(within.end, within.end);
        let gaps = unsettled.chain(std::iter::once(end)).map(move |run| {
            let gap = OffsetRange::new(from, run.first);
            from = run.end;
            gap
        });
        gaps.filter(|gap| gap.count() > 0)
    }

    /// A consumer leaves. What it held is neither ready nor held until the record that is to be appended,
    /// if there is one, is committed.
    #[must_use]
    pub fn detach(&mut self, key: u64) -> Option<Record> {
        let ranges = self.serving.as_mut()?.detach(key);
        if ranges.is_empty() { None } else { Some(Record::Return { ranges }) }
    }

    /// Hands this consumer nothing until [`Queue::resume`].
    pub fn pause(&mut self, key: u64) {
        if let Some(serving) = &mut self.serving {
            serving.set_paused(key, true);
        }
    }

    /// The consumer may get messages again.
    pub fn resume(&mut self, key: u64) {
        if let Some(serving) = &mut self.serving {
            serving.set_paused(key, false);
        }
    }

    /// A consumer settles what it holds, all of `ranges` or nothing. The ranges that come back are no longer
    /// held and do not count for its prefetch; they are to be appended in a [`Record::Settle`]
    /// (or, when it returns them, a [`Record::Return`]), together with others if need be: see [`merged`].
    ///
    /// # Errors
    /// Not done: `Stale` when they were delivered in another epoch or are not held (any more).
    pub fn settle(
        &mut self,
        key: u64,
        epoch: Epoch,
        ranges: &[OffsetRange],
    ) -> Result<Vec<OffsetRange>, ErrorBody> {
        let Some(serving) = self.serving.as_mut().filter(|serving| serving.epoch == epoch) else {
            let message = format!(
                "delivered in epoch {epoch}, which is over; what is unsettled will come again"
            );
            return Err(ErrorBody::not_done(ErrorCode::Stale, message));
        };
        serving.settle(key, ranges)?;
        Ok(merged(ranges.to_vec()))
    }

    /// The record that removes every ready message, and none that is out. To be appended before anything
    /// else is asked of the queue.
    #[must_use]
    pub fn purge(&self) -> Record {
        let held = self.serving.as_ref().map_or(Vec::new(), Serving::out);
        Record::Purge { below: self.state.applied, held }
    }

    /// Whether [`Queue::dispatch`] would hand anything out.
    #[must_use]
    pub fn wants_dispatch(&self) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.wants_dispatch(&self.state))
    }

    /// Hands out ready messages, [`DISPATCH_MESSAGES_MAX`] at most, as [`Effect::Deliver`]: in the order of their
    /// offsets, to the consumers with room in turn.
    pub fn dispatch(&mut self, effects: &mut Vec<Effect>) {
        if let Some(serving) = &mut self.serving {
            serving.dispatch(&self.state, effects);
        }
    }

    /// What a consumer holds, in order.
    #[must_use]
    pub fn held_by(&self, key: u64) -> Vec<OffsetRange> {
        self.serving.as_ref().map_or(Vec::new(), |serving| serving.held_by(key))
    }

    /// Whether any consumer is attached.
    #[must_use]
    pub fn has_consumers(&self) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.consumers() > 0)
    }

    /// Whether any committed message is neither settled nor purged.
    #[must_use]
    pub fn has_messages(&self) -> bool {
        !self.state.unsettled.is_empty()
    }

    /// The messages within `range` that are neither settled nor purged, in runs.
    #[must_use]
    pub fn unsettled_in(&self, range: OffsetRange) -> Vec<OffsetRange> {
        self.state.unsettled.runs(range).collect()
    }

    /// All messages that are neither settled nor purged, in runs. What a snapshot carries.
    pub fn unsettled(&self) -> impl Iterator<Item = OffsetRange> + '_ {
        self.state.unsettled.iter()
    }

    /// What it counts (promise G9). The bytes are the shell's to count.
    #[must_use]
    pub fn counts(&self) -> QueueCounts {
        let State { enqueued, settled, purged, applied, .. } = self.state;
        let delivered = self.serving.as_ref().map_or(0, Serving::in_flight);
        QueueCounts {
            enqueued,
            ready: self.state.unsettled.len() - delivered,
            delivered,
            settled,
            purged,
            consumers: self.serving.as_ref().map_or(0, |serving| serving.consumers() as u32),
            bytes: 0,
            high_watermark: applied,
            log_end: self.serving.as_ref().map_or(applied, |serving| serving.log_end.max(applied)),
        }
    }

    /// Producers that are remembered.
    #[must_use]
    pub fn producers(&self) -> usize {
        self.state.producers.len()
    }
}

/// The same offsets in as few ranges as possible, ascending: what settles of one turn become before they are
/// appended as one record.
#[must_use]
pub fn merged(mut ranges: Vec<OffsetRange>) -> Vec<OffsetRange> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let touches = next.first <= kept.end;
        if touches {
            kept.end = kept.end.max(next.end);
        }
        touches
    });
    ranges
}
