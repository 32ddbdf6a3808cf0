//! What only the leader knows, and only while it leads: consumers, what they hold, what has been
//! appended and is not committed. Nothing of it is logged: after a failover what was out comes back.

use std::collections::{BTreeMap, HashMap};

use bellwether_log::Record;
use bellwether_protocol::error::{BrokenInvariant, ErrorBody, ErrorCode};
use bellwether_protocol::ids::{Epoch, Offset, OffsetRange, Seq};
use bellwether_protocol::names::ProducerName;

use crate::Effect;
use crate::offsets::{EVERYTHING, OffsetSet};
use crate::state::State;

/// Messages of one queue that may be out, with consumers or on their way to be settled or returned:
/// 1,048,576. All of them fit into the ranges of one record, whichever they are.
pub const IN_FLIGHT_MAX: u64 = 1 << 20;

/// Runs in the answer to a claim, of what is held and of what is settled: 10,000, as many as a settle takes. What lies behind comes again.
pub const CLAIM_RUNS_MAX: usize = 10_000;

/// Messages that one call of `dispatch` hands out: 4,096, so that one busy queue does not keep the others
/// of its shard waiting.
pub const DISPATCH_MESSAGES_MAX: u64 = 4096;

/// The leader's overlay over the replicated state.
///
/// An unsettled message is in exactly one of these conditions:
/// - *ready*: at or behind `next`, or in `back`;
/// - *held* by one consumer;
/// - *pending*: its settle or return is appended and not committed;
/// - *purging*: a purge that takes it is appended and not committed.
///
/// *Invariant:* `held` counts what all consumers hold; `turns` names every consumer with room, once.
#[derive(Debug)]
pub(crate) struct Serving {
    pub epoch: Epoch,
    /// Messages below may have been delivered in an older epoch.
    maybe_delivered_below: Offset,
    consumers: HashMap<u64, Consumer>,
    /// Consumers with room, by ticket: the lowest is served next and then takes a new one.
    turns: BTreeMap<u64, u64>,
    next_ticket: u64,
    held: u64,
    pending: OffsetSet,
    purging: u64,
    /// Every message at or behind it that is unsettled is ready.
    next: Offset,
    /// Ready messages below `next`: they were out and came back.
    back: OffsetSet,
    /// The highest number appended of producers whose last enqueue is not committed. Bounded by what the
    /// shell lets be uncommitted.
    appended: HashMap<ProducerName, Seq>,
    /// The latest time in any record appended.
    pub time_ms: u64,
    /// The end of the log.
    pub log_end: Offset,
}

#[derive(Debug, Default)]
struct Consumer {
    prefetch: u64,
    held: OffsetSet,
    /// Gets nothing until it is resumed.
    paused: bool,
    /// Its place in the turns, while it has room.
    ticket: Option<u64>,
}

impl Consumer {
    fn room(&self) -> u64 {
        if self.paused { 0 } else { self.prefetch.saturating_sub(self.held.len()) }
    }
}

impl Serving {
    pub fn begin(epoch: Epoch, state: &State) -> Serving {
        Serving {
            epoch,
            maybe_delivered_below: state.applied,
            consumers: HashMap::new(),
            turns: BTreeMap::new(),
            next_ticket: 0,
            held: 0,
            pending: OffsetSet::default(),
            purging: 0,
            next: Offset(0),
            back: OffsetSet::default(),
            appended: HashMap::new(),
            time_ms: state.time_ms,
            log_end: state.applied,
        }
    }

    pub fn appended_last(&self, name: &ProducerName) -> Option<Seq> {
        self.appended.get(name).copied()
    }

    /// Messages below may have been delivered in an older epoch.
    pub fn maybe_delivered_below(&self) -> Offset {
        self.maybe_delivered_below
    }

    pub fn consumers(&self) -> usize {
        self.consumers.len()
    }

    /// Messages that are out: held or pending.
    pub fn in_flight(&self) -> u64 {
        self.held + self.pending.len()
    }

    /// Messages that `dispatch` may hand out.
    pub fn ready(&self, state: &State) -> u64 {
        state.unsettled.len() - self.in_flight() - self.purging
    }

    pub fn wants_dispatch(&self, state: &State) -> bool {
        !self.turns.is_empty() && self.ready(state) > 0 && self.in_flight() < IN_FLIGHT_MAX
    }

    pub fn attach(&mut self, key: u64, prefetch: u32) {
        let consumer = Consumer { prefetch: u64::from(prefetch), ..Consumer::default() };
        let before = self.consumers.insert(key, consumer);
        assert!(before.is_none(), "consumer {key} is attached already");
        self.queue_up(key);
    }

    /// Gives a consumer what it held in an older epoch, as if it had been dispatched to it now: as much of `ranges` as is
    /// ready, in [`CLAIM_RUNS_MAX`] runs at most. Its prefetch does not bound this, for it is what the consumer has already; it gets nothing more
    /// until it has room.
    pub fn claim(&mut self, key: u64, ranges: &[OffsetRange], state: &State) -> Vec<OffsetRange> {
        let mut kept = Vec::new();
        for range in ranges {
            let range =
                OffsetRange::new(range.first.min(state.applied), range.end.min(state.applied));
            let more = CLAIM_RUNS_MAX - kept.len();
            let came_back: Vec<_> = self.back.runs(range).take(more).collect();
            let never_out = self.out_before(range, state, more - came_back.len());
            if let Some(last) = never_out.last() {
                self.pass(last.end, state);
            }
            for run in came_back.into_iter().chain(never_out) {
                let room = IN_FLIGHT_MAX - self.in_flight();
                let run = OffsetRange::new(run.first, run.end.min(run.first.plus(room)));
                let Some(consumer) = self.consumers.get_mut(&key).filter(|_| run.count() > 0)
                else {
                    continue;
                };
                self.back.remove(run);
                self.held += consumer.held.insert(run);
                kept.push(run);
            }
        }
        self.queue_up(key);
        kept
    }

    /// The first `most` runs of `range` behind `next` that a leader before this one can have handed out. Messages are handed out in the order of
    /// their offsets, and no leader has more than [`IN_FLIGHT_MAX`] out: whoever names one further behind was never delivered it.
    fn out_before(&self, range: OffsetRange, state: &State, most: usize) -> Vec<OffsetRange> {
        let first = range.first.max(self.next).min(range.end);
        let before = state.unsettled.count_in(OffsetRange::new(Offset(0), first));
        let mut left = IN_FLIGHT_MAX.saturating_sub(before);
        let mut runs = Vec::new();
        for run in state.unsettled.runs(OffsetRange::new(first, range.end)).take(most) {
            if left == 0 {
                break;
            }
            let run = OffsetRange::new(run.first, run.end.min(run.first.plus(left)));
            left -= run.count();
            runs.push(run);
        }
        runs
    }

    /// Moves `next` to `to`: what is unsettled below it is ready all the same.
    fn pass(&mut self, to: Offset, state: &State) {
        for run in state.unsettled.runs(OffsetRange::new(self.next, to)) {
            self.back.insert(run);
        }
        self.next = to;
    }

    /// Everything the consumer held is pending from now on, and is returned by the caller's record.
    pub fn detach(&mut self, key: u64) -> Vec<OffsetRange> {
        let Some(consumer) = self.consumers.remove(&key) else { return Vec::new() };
        if let Some(ticket) = consumer.ticket {
            self.turns.remove(&ticket);
        }
        self.held -= consumer.held.len();
        let ranges: Vec<_> = consumer.held.iter().collect();
        for range in &ranges {
            self.pending.insert(*range);
        }
        ranges
    }

    pub fn set_paused(&mut self, key: u64, paused: bool) {
        if let Some(consumer) = self.consumers.get_mut(&key) {
            consumer.paused = paused;
            self.queue_up(key);
        }
    }

    pub fn held_by(&self, key: u64) -> Vec<OffsetRange> {
        let consumer = self.consumers.get(&key);
        consumer.map_or(Vec::new(), |consumer| consumer.held.iter().collect())
    }

    /// Moves what the consumer holds to pending. All of it, or nothing.
    pub fn settle(&mut self, key: u64, ranges: &[OffsetRange]) -> Result<(), ErrorBody> {
        let Some(consumer) = self.consumers.get_mut(&key) else {
            let message = "the consumer is not attached; what it held was returned";
            return Err(ErrorBody::not_done(ErrorCode::NoSuchConsumer, message));
        };
        expect_ascending(ranges)?;
        if let Some(range) = ranges.iter().find(|range| !consumer.held.contains(**range)) {
            let message = format!(
                "of the offsets {} to {} not all are held by this consumer: they were settled or returned before, or never delivered to it",
                range.first,
                range.end.0 - 1,
            );
            return Err(ErrorBody::not_done(ErrorCode::Stale, message));
        }
        for range in ranges {
            self.held -= consumer.held.remove(*range);
            self.pending.insert(*range);
        }
        self.queue_up(key);
        Ok(())
    }

    /// Everything that is out, as it stands in a purge record: the purge spares it.
    pub fn out(&self) -> Vec<OffsetRange> {
        let mut out = self.pending.clone();
        for consumer in self.consumers.values() {
            for range in consumer.held.iter() {
                out.insert(range);
            }
        }
        out.iter().collect()
    }

    /// Takes note of a record that was appended and is not committed yet.
    pub fn appended(&mut self, base: Offset, record: &Record, state: &State) {
        self.log_end = base.plus(u64::from(record.count()));
        match record {
            Record::Enqueue(enqueue) => {
                self.time_ms = self.time_ms.max(enqueue.time_ms);
                if let Some(mark) = &enqueue.producer {
                    let last = Seq(mark.first.0 + u64::from(enqueue.messages.count()) - 1);
                    self.appended.insert(mark.name.clone(), last);
                }
            }
            Record::EpochStart { time_ms, .. } => self.time_ms = self.time_ms.max(*time_ms),
            // What is ready below is handed out no more. Delivering it would show a consumer a message whose
            // removal was confirmed to someone else.
            Record::Purge { below, .. } => {
                let passed = OffsetRange::new(self.next, *below);
                self.purging += self.back.remove(OffsetRange::new(Offset(0), *below));
                self.purging += state.unsettled.count_in(passed);
                self.next = self.next.max(*below);
            }
            // Moved to pending when they were asked for.
            Record::Settle { .. } | Record::Return { .. } => {}
        }
    }

    /// Follows a record that was committed and applied to `state`. `gone` is what it took out.
    pub fn committed(
        &mut self,
        base: Offset,
        record: &Record,
        gone: &[OffsetRange],
        state: &State,
    ) -> Result<(), BrokenInvariant> {
        match record {
            Record::EpochStart { .. } => {}
            Record::Enqueue(enqueue) => {
                if let Some(mark) = &enqueue.producer
                    && self.appended.get(&mark.name).copied() <= state.producers.last(&mark.name)
                {
                    self.appended.remove(&mark.name);
                }
            }
            Record::Settle { .. } => {
                for run in gone {
                    if self.pending.remove(*run) != run.count() {
                        return Err(broken(base, "a settle took what nobody had settled", *run));
                    }
                }
            }
            Record::Return { ranges } => {
                for run in ranges.iter().flat_map(|range| state.unsettled.runs(*range)) {
                    if self.pending.remove(run) != run.count() {
                        return Err(broken(base, "a return took what nobody had returned", run));
                    }
                    self.back.insert(run);
                }
            }
            Record::Purge { .. } => {
                let count: u64 = gone.iter().map(|run| run.count()).sum();
                let Some(left) = self.purging.checked_sub(count) else {
                    let all = OffsetRange::new(Offset(0), base);
                    return Err(broken(base, "a purge took more than was to be purged", all));
                };
                self.purging = left;
            }
        }
        Ok(())
    }

    /// Hands ready messages out in the order of their offsets, to the consumers with room in turn.
    pub fn dispatch(&mut self, state: &State, effects: &mut Vec<Effect>) {
        let mut budget = DISPATCH_MESSAGES_MAX;
        // Equal shares of what is there, so that the first in line does not take it all.
        let share = self.ready(state).min(budget).div_ceil(self.turns.len().max(1) as u64);
        while budget > 0 && self.wants_dispatch(state) {
            let Some((&ticket, &key)) = self.turns.first_key_value() else { return };
            let most = share
                .min(self.consumers[&key].room())
                .min(budget)
                .min(IN_FLIGHT_MAX - self.in_flight());
            let Some((run, redelivered, returns)) = self.take(state, most) else { return };
            let consumer = self.consumers.get_mut(&key).expect("who has a turn is attached");
            self.held += consumer.held.insert(run);
            budget -= run.count();
            effects.push(Effect::Deliver { consumer: key, run, redelivered, returns });
            // To the end of the line.
            self.turns.remove(&ticket);
            consumer.ticket = None;
            self.queue_up(key);
        }
    }

    /// Takes the first ready messages, at most `most`, of which all have the same marks.
    fn take(&mut self, state: &State, most: u64) -> Option<(OffsetRange, bool, u32)> {
        let behind = OffsetRange::new(self.next, state.applied);
        let (mut run, came_back) = match self.back.next_run(EVERYTHING, most) {
            Some(run) => (run, true),
            None => (state.unsettled.next_run(behind, most)?, false),
        };
        let (returns, same_until) = state.returns.at(run.first);
        run.end = run.end.min(same_until);
        let maybe_delivered = run.first < self.maybe_delivered_below;
        if maybe_delivered {
            run.end = run.end.min(self.maybe_delivered_below);
        }
        if came_back {
            self.back.remove(run);
        } else {
            self.next = run.end;
        }
        Some((run, maybe_delivered || returns > 0, returns))
    }

    /// Gives a consumer a place in the turns if it has room and none yet, and takes it away if it has no room.
    fn queue_up(&mut self, key: u64) {
        let Some(consumer) = self.consumers.get_mut(&key) else { return };
        match (consumer.room() > 0, consumer.ticket) {
            (true, None) => {
                consumer.ticket = Some(self.next_ticket);
                self.turns.insert(self.next_ticket, key);
                self.next_ticket += 1;
            }
            (false, Some(ticket)) => {
                consumer.ticket = None;
                self.turns.remove(&ticket);
            }
            (true, Some(_)) | (false, None) => {}
        }
    }
}

pub(crate) fn expect_ascending(ranges: &[OffsetRange]) -> Result<(), ErrorBody> {
    let mut behind = Offset(0);
    for range in ranges {
        if range.first < behind || range.count() == 0 {
            let message = "the ranges of a settle ascend, do not overlap and are not empty";
            return Err(ErrorBody::not_done(ErrorCode::InvalidOption, message));
        }
        behind = range.end;
    }
    if ranges.is_empty() {
        let message = "a settle names at least one range of offsets";
        return Err(ErrorBody::not_done(ErrorCode::InvalidOption, message));
    }
    Ok(())
}

fn broken(at: Offset, what: &str, run: OffsetRange) -> BrokenInvariant {
    BrokenInvariant { what: format!("{what}, offsets {} up to {}", run.first, run.end), at }
}
