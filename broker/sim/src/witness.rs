//! Sees everything and believes nobody: holds what the brokers do against the promises.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_log::{Batch, Record};
use bellwether_protocol::ids::{BrokerLife, Epoch, Offset, OffsetRange};
use bellwether_queue::{Effect, Queue};

use crate::coordinator::Ensemble;
use crate::disk::Image;
use crate::words::{MessageId, messages_of};

/// A promise that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub promise: &'static str,
    pub what: String,
}

/// The history as it should be.
#[derive(Default)]
pub struct Witness {
    leaders: BTreeMap<Epoch, BrokerLife>,
    /// Every batch that any replica took for committed, by base.
    committed: BTreeMap<Offset, Batch>,
    /// All of them applied, in order.
    reference: Queue,
    /// Where each message is, of those committed.
    messages: BTreeMap<MessageId, Offset>,
    unsettled: BTreeMap<Offset, MessageId>,
    purged: BTreeSet<Offset>,
    /// Told to its producer that it is stored.
    confirmed: BTreeSet<MessageId>,
    /// Told to its producer, who did not send it again, that it is not stored.
    refused: BTreeSet<MessageId>,
    delivered: BTreeSet<Offset>,
    /// A leader was forced: what was committed from this offset on, before this epoch, was given up.
    given_up: Option<(Epoch, Offset)>,
    /// What its log held from there on: of older epochs, and committed by it.
    brought: BTreeMap<Offset, Batch>,
    /// Leaders that were forced, and confirmed messages that were given up with that.
    pub forced: u64,
    pub lost: u64,
    highest_delivered_in: Epoch,
    /// The last epoch whose leader gave it up.
    resigned: Option<Epoch>,
    /// The last first delivery of the epoch.
    last_first: Option<(Epoch, Offset)>,
    pub violation: Option<Violation>,
    pub deliveries: u64,
    pub redeliveries: u64,
    /// Messages that consumers kept when their leader changed.
    pub claims: u64,
}

impl Witness {
    fn violated(&mut self, promise: &'static str, what: String) {
        self.violation.get_or_insert(Violation { promise, what });
    }

    /// Messages confirmed to their producers.
    #[must_use]
    pub fn confirmed(&self) -> u64 {
        self.confirmed.len() as u64
    }

    /// The epoch of the last leader that was forced.
    #[must_use]
    pub fn given_up_in(&self) -> Option<Epoch> {
        self.given_up.map(|(epoch, _)| epoch)
    }

    /// The end of what is committed.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.reference.applied()
    }

    pub fn leads(&mut self, life: BrokerLife, epoch: Epoch) {
        let first = *self.leaders.entry(epoch).or_insert(life);
        if first != life {
            self.violated("G2", format!("{first} and {life} both lead epoch {epoch}"));
        }
    }

    /// A leader serves from what it has applied: all that was committed before its epoch has to be in it. One that was
    /// frozen and deposed meanwhile knows nothing of later ones, and can confirm nothing either.
    pub fn serves(&mut self, life: BrokerLife, epoch: Epoch, applied: Offset) {
        let before = |batch: &&Batch| batch.epoch() < epoch;
        let end = self.committed.values().rev().find(before).map_or(Offset(0), Batch::end);
        if applied < end {
            let what = format!("{life} serves epoch {epoch} from {applied}; {end} was committed");
            self.violated("G1", what);
        }
    }

    pub fn applied(&mut self, by: BrokerLife, batch: &Batch) {
        let base = batch.base();
        let brought = self.brought.get(&base) == Some(batch);
        let superseded =
            |(epoch, from): &(Epoch, Offset)| !brought && batch.epoch() < *epoch && base >= *from;
        if self.given_up.as_ref().is_some_and(superseded) {
            // One that comes back, and has not heard of it yet.
            return;
        }
        match self.committed.get(&base) {
            Some(known) if known == batch => return,
            Some(known) => {
                let what = format!("{by} took {batch:?} for committed where others have {known:?}");
                return self.violated("G1", what);
            }
            None if base != self.end() => {
                let what = format!("{by} took {batch:?} for committed, which joins nothing");
                return self.violated("G1", what);
            }
            None => {}
        }
        self.committed.insert(base, batch.clone());
        let mut effects = Vec::new();
        let record = batch.record().expect("this build wrote it");
        if let Err(error) = self.reference.apply(base, &record, &mut effects) {
            return self.violated("G7", error.to_string());
        }
        for (offset, id) in messages_of(batch) {
            if let Some(before) = self.messages.insert(id, offset) {
                self.violated("G7", format!("message {} is at {before} and {offset}", id.0));
            }
            self.unsettled.insert(offset, id);
        }
        for effect in effects {
            let Effect::Gone { run } = effect else { continue };
            for offset in (run.first.0..run.end.0).map(Offset) {
                self.unsettled.remove(&offset);
                if let Record::Purge { .. } = record {
                    self.purged.insert(offset);
                }
            }
        }
    }

    /// A leader was forced on the queue whose log is that of the queue from now on: what it lacks of the committed is given up.
    pub fn forced(&mut self, epoch: Epoch, log: &Image) {
        let is_here = |(base, batch): &(&Offset, &Batch)| {
            **base < log.start || log.batches.get(*base) == Some(*batch)
        };
        let kept = self.committed.iter().take_while(is_here).last();
        let from = kept.map_or(Offset(0), |(_, batch)| batch.end());
        self.given_up = Some((epoch, from));
        self.brought =
            log.batches.range(from..).map(|(base, batch)| (*base, batch.clone())).collect();
        self.forced += 1;
        let kept: Vec<Batch> =
            self.committed.range(..from).map(|(_, batch)| batch.clone()).collect();
        self.committed.clear();
        self.reference = Queue::new();
        self.messages.clear();
        self.unsettled.clear();
        self.purged.clear();
        let before = self.confirmed.len();
        for batch in &kept {
            let nobody = BrokerLife {
                broker: bellwether_protocol::ids::BrokerId(0),
                incarnation: bellwether_protocol::ids::Incarnation(0),
            };
            self.applied(nobody, batch);
        }
        let messages = &self.messages;
        self.confirmed.retain(|id| messages.contains_key(id));
        self.lost += (before - self.confirmed.len()) as u64;
        self.delivered.retain(|offset| *offset < from);
        self.last_first = None;
    }

    /// The leader of this epoch has given it up: from now on it confirms and delivers nothing in it, whatever its disk may say.
    pub fn resigned(&mut self, epoch: Epoch) {
        self.resigned = self.resigned.max(Some(epoch));
    }

    /// Committed messages that are neither settled nor purged.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.unsettled.len()
    }

    /// A leader says that everything below `end` is committed: the disks have to say so too.
    pub fn confirms<'a>(
        &mut self,
        epoch: Epoch,
        end: Offset,
        ensemble: &Ensemble,
        disk_of: impl Fn(bellwether_protocol::ids::Member) -> Option<&'a Image>,
    ) {
        if self.resigned == Some(epoch) {
            return self
                .violated("G2", format!("confirmed up to {end} in epoch {epoch}, given up"));
        }
        if end > self.end() {
            return self.violated("G1", format!("confirmed up to {end}, committed {}", self.end()));
        }
        let state = ensemble.state();
        if state.epoch != epoch {
            return; // Deposed: what it confirms is in the successor's log, or `serves` tells.
        }
        let Some((_, last)) = self.committed.range(..end).next_back() else { return };
        let mut copies = 0;
        let mut missing = Vec::new();
        for member in &state.isr {
            match disk_of(*member) {
                Some(image)
                    if image.end >= end
                        && (image.start >= end
                            || image.batches.get(&last.base()) == Some(last)) =>
                {
                    copies += 1
                }
                // Its disk is gone: it cannot count, and it cannot testify.
                None => {}
                Some(image) => missing.push((member.broker.0, image.end)),
            }
        }
        if !missing.is_empty() || copies == 0 {
            let what = format!(
                "confirmed up to {end} in epoch {epoch}, but on the disks of the in-sync {missing:?} it is not"
            );
            self.violated("G1", what);
        }
    }

    /// A producer is told that these are stored.
    pub fn confirmed_to_producer(&mut self, ids: &[MessageId]) {
        for id in ids {
            if !self.messages.contains_key(id) {
                self.violated("G1", format!("message {} was confirmed and is not committed", id.0));
            }
            self.confirmed.insert(*id);
        }
    }

    /// A producer is told that these are not stored, and will not try again.
    pub fn refused_for_good(&mut self, ids: &[MessageId]) {
        for id in ids {
            self.refused.insert(*id);
        }
    }

    pub fn delivers(
        &mut self,
        by: BrokerLife,
        epoch: Epoch,
        run: OffsetRange,
        batches: &[Batch],
        redelivered: bool,
    ) {
        if self.resigned == Some(epoch) {
            let what = format!("{by} delivers in epoch {epoch}, which it has given up");
            return self.violated("G3", what);
        }
        if epoch < self.highest_delivered_in {
            let highest = self.highest_delivered_in;
            let what =
                format!("{by} delivers in epoch {epoch} after somebody did in epoch {highest}");
            return self.violated("G3", what);
        }
        self.highest_delivered_in = epoch;
        let found: BTreeMap<Offset, MessageId> = batches.iter().flat_map(messages_of).collect();
        for offset in (run.first.0..run.end.0).map(Offset) {
            self.deliveries += 1;
            self.redeliveries += u64::from(redelivered);
            let id = found.get(&offset).copied();
            if id.is_none()
                || offset >= self.end()
                || id.and_then(|id| self.messages.get(&id).copied()) != Some(offset)
            {
                self.violated(
                    "G4",
                    format!("{by} delivers {offset} ({id:?}), which is not committed so"),
                );
            }
            if id.is_some_and(|id| self.refused.contains(&id)) {
                self.violated("G4", format!("{by} delivers {id:?}, which was refused for good"));
            }
            if !self.unsettled.contains_key(&offset) && !self.purged.contains(&offset) {
                self.violated(
                    "G3",
                    format!("{by} delivers {offset} in epoch {epoch}, which was settled"),
                );
            }
            if !self.delivered.insert(offset) && !redelivered {
                self.violated("G5", format!("{by} delivers {offset} again without a mark"));
            }
            if !redelivered {
                if self.last_first.is_some_and(|(e, last)| e == epoch && last >= offset) {
                    self.violated(
                        "G5",
                        format!("{by} delivers {offset} behind {:?}", self.last_first),
                    );
                }
                self.last_first = Some((epoch, offset));
            }
        }
    }

    /// A leader lets a consumer keep what it had: it was delivered, and nobody has settled it.
    pub fn claimed(&mut self, by: BrokerLife, held: &[OffsetRange]) {
        for offset in held.iter().flat_map(|run| run.first.0..run.end.0).map(Offset) {
            self.claims += 1;
            if !self.delivered.contains(&offset) {
                self.violated(
                    "G4",
                    format!("{by} lets a consumer keep {offset}, which it never got"),
                );
            }
            if !self.unsettled.contains_key(&offset) && !self.purged.contains(&offset) {
                self.violated(
                    "G3",
                    format!("{by} lets a consumer keep {offset}, which was settled"),
                );
            }
        }
    }

    pub fn prefetch_exceeded(&mut self, held: usize, prefetch: u32) {
        self.violated(
            "G6",
            format!("a consumer holds {held} messages with a prefetch of {prefetch}"),
        );
    }

    pub fn settle_confirmed(&mut self, ranges: &[OffsetRange], returned: bool) {
        for range in ranges {
            let unsettled = self.unsettled.range(range.first..range.end).next();
            if let (Some((offset, _)), false) = (unsettled, returned) {
                let what = format!("the settle of {offset} was confirmed and is not committed");
                self.violated("G3", what);
            }
        }
    }

    pub fn stopped(&mut self, by: BrokerLife, why: &str) {
        self.violated("G10", format!("{by} stopped its replica: {why}"));
    }

    /// At the end, when faults are over and everything had time to drain.
    pub fn drained(&mut self, leader: Option<(BrokerLife, &Queue)>) {
        let lost: Vec<u64> = self
            .confirmed
            .iter()
            .filter(|id| !self.messages.contains_key(id))
            .map(|id| id.0)
            .collect();
        if !lost.is_empty() {
            self.violated("G1", format!("confirmed and lost: {lost:?}"));
        }
        let Some((life, queue)) = leader else {
            return self.violated("G10", "faults are over, and nobody serves the queue".to_owned());
        };
        if queue.checkpoint() != self.reference.checkpoint() {
            self.violated(
                "G1",
                format!("the state of {life} is not what the committed records come to"),
            );
        }
        let counts = queue.counts();
        let sum = counts.ready + counts.delivered + counts.settled + counts.purged;
        if counts.enqueued != sum || counts.enqueued != self.messages.len() as u64 {
            self.violated("G9", format!("{counts:?} for {} messages", self.messages.len()));
        }
        if let Some((offset, id)) = self.unsettled.first_key_value() {
            let what = format!("message {} at {offset} was never settled: {counts:?}", id.0);
            self.violated("G10", what);
        }
    }
}
