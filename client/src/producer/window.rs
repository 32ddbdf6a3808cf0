//! The unconfirmed messages of one producer: gathered into batches, sent, confirmed, sent again. Pure: no socket,
//! no clock, no task.
//!
//! A message costs one slot of a few words until it is resolved, and nothing afterwards: a receipt asks for its
//! number, and "below the lowest unresolved, and not among the failures" means confirmed.

use std::collections::{HashMap, VecDeque};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bellwether_protocol::ids::{Seq, SeqRange};
use bellwether_protocol::message::{MessageBlock, MessageBlockBuilder};
use bellwether_protocol::names::{ExchangeName, RoutingKey};

use crate::error::{FlushError, PublishError};

/// A batch is closed when it has so many bytes: what one frame carries (a larger message goes alone).
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// A batch is closed when it has so many messages, so that the pieces of it that a failure leaves stay few.
const BATCH_MESSAGES_MAX: u32 = 4096;

/// Bytes that a message takes in a block beyond headers and body, at most.
const MESSAGE_OVERHEAD_BYTES: usize = 7;

/// How much may be unconfirmed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowLimits {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) exchange: ExchangeName,
    pub(crate) routing_key: RoutingKey,
}

/// How much a broker lets a producer send.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Credit {
    pub(crate) messages: u64,
    /// A frame that begins within them may end beyond them; otherwise a message larger than a broker's window could
    /// never be sent.
    pub(crate) bytes: u64,
    /// The longest block that a frame may carry.
    pub(crate) frame_bytes: u64,
}

/// A piece of the window to be sent in one frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) first: Seq,
    pub(crate) resent: bool,
    pub(crate) address: Address,
    pub(crate) messages: MessageBlock,
}

/// What messages came to.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    Confirmed,
    /// Refused for good. Of one that was sent before, an earlier copy may be stored all the same.
    Refused(PublishError),
    /// The deadline passed.
    Expired {
        waited: Duration,
        last: String,
    },
    /// Given up with the producer.
    Abandoned {
        why: String,
    },
}

#[derive(Debug)]
pub(crate) struct Window {
    limits: WindowLimits,
    /// The number that the next message gets.
    next: u64,
    /// One for each number from the lowest unresolved up to `next`.
    slots: VecDeque<Slot>,
    unresolved: usize,
    /// What the batches hold.
    bytes: usize,
    batches: VecDeque<Batch>,
    open: Option<Open>,
    /// Index of the first batch that is not wholly sent on this attachment.
    unsent: usize,
    /// Failures whose receipts are still held.
    failures: HashMap<u64, PublishError>,
    failed: Option<FlushError>,
}

#[derive(Debug)]
struct Slot {
    resolved: bool,
    /// Whether somebody may still ask for the outcome.
    receipt: bool,
    /// Copies sent on this attachment that it has not answered yet.
    copies: u8,
    /// A copy was sent, and nobody will say what became of it: it may be stored.
    doubt: bool,
    waker: Option<Waker>,
}

impl Slot {
    fn new() -> Slot {
        Slot { resolved: false, receipt: true, copies: 0, doubt: false, waker: None }
    }

    /// Whether a copy of it may be stored. It decides between "not done" and "unknown".
    fn may_be_stored(&self) -> bool {
        self.doubt || self.copies > 0
    }
}

/// Messages with one address and consecutive numbers, closed.
#[derive(Debug)]
struct Batch {
    first: u64,
    address: Address,
    block: MessageBlock,
    opened: Instant,
    /// Messages handed out on this attachment since it was last rewound.
    sent: u32,
    unresolved: u32,
}

/// The batch that messages are gathered into.
struct Open {
    first: u64,
    address: Address,
    block: MessageBlockBuilder,
    opened: Instant,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Open({} messages from {})", self.block.count(), self.first)
    }
}

impl Batch {
    fn end(&self) -> u64 {
        self.first + u64::from(self.block.count())
    }
}

impl Window {
    pub(crate) fn new(limits: WindowLimits, first: Seq) -> Window {
        Window {
            limits,
            next: first.0,
            slots: VecDeque::new(),
            unresolved: 0,
            bytes: 0,
            batches: VecDeque::new(),
            open: None,
            unsent: 0,
            failures: HashMap::new(),
            failed: None,
        }
    }

    /// Whether a message of this size may come in. One alone always may.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let gathered = self.open.as_ref().map_or(0, |open| open.block.len());
        self.unresolved == 0
            || (self.unresolved < self.limits.messages
                && self.bytes + gathered + bytes + MESSAGE_OVERHEAD_BYTES <= self.limits.bytes)
    }

    /// Takes a message in and numbers it.
    pub(crate) fn push(
        &mut self,
        address: &Address,
        headers: Option<&[u8]>,
        body: &[u8],
        now: impl FnOnce() -> Instant,
    ) -> Seq {
        let bytes = headers.map_or(0, <[u8]>::len) + body.len() + MESSAGE_OVERHEAD_BYTES;
        if self.open.as_ref().is_some_and(|open| {
            open.block.len() + bytes > BATCH_BYTES_MAX
                || open.block.count() >= BATCH_MESSAGES_MAX
                || open.address != *address
        }) {
            self.seal();
        }
        let seq = self.next;
        let open = self.open.get_or_insert_with(|| Open {
            first: seq,
            address: address.clone(),
            block: MessageBlock::builder(),
            opened: now(),
        });
        open.block.push(headers, body);
        self.slots.push_back(Slot::new());
        self.unresolved += 1;
        self.next += 1;
        Seq(seq)
    }

    /// Closes the batch that is being gathered.
    pub(crate) fn seal(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        let block = open.block.finish();
        self.bytes += block.len();
        self.batches.push_back(Batch {
            first: open.first,
            address: open.address,
            unresolved: block.count(),
            block,
            opened: open.opened,
            sent: 0,
        });
    }

    /// The next messages to send, within the credit.
    pub(crate) fn next_piece(&mut self, credit: Credit) -> Option<Piece> {
        loop {
            if self.unsent == self.batches.len() {
                self.seal();
            }
            let lowest = self.lowest();
            let batch = self.batches.get_mut(self.unsent)?;
            let Some((from, count)) = unresolved_run(batch, &self.slots, lowest) else {
                batch.sent = batch.block.count();
                self.unsent += 1;
                continue;
            };
            let messages = fitting(&batch.block, from, count, credit)?;
            let first = batch.first + u64::from(from);
            batch.sent = from + messages.count();
            let slots =
                (first - lowest) as usize..(first - lowest) as usize + messages.count() as usize;
            let mut resent = false;
            for slot in self.slots.range_mut(slots) {
                resent |= slot.may_be_stored();
                slot.copies = slot.copies.saturating_add(1);
            }
            let piece =
                Piece { first: Seq(first), resent, address: batch.address.clone(), messages };
            if batch.sent == batch.block.count() {
                self.unsent += 1;
            }
            return Some(piece);
        }
    }

    /// Whether something is waiting to be sent.
    pub(crate) fn has_unsent(&self) -> bool {
        self.open.is_some() || self.unsent < self.batches.len()
    }

    /// Starts again with the lowest unresolved message.
    pub(crate) fn rewind(&mut self) {
        for batch in &mut self.batches {
            batch.sent = 0;
        }
        self.unsent = 0;
    }

    /// The attachment is over: what it has not answered it never will. Starts again on the next one.
    pub(crate) fn detached(&mut self) {
        for slot in &mut self.slots {
            slot.doubt |= slot.copies > 0;
            slot.copies = 0;
        }
        self.rewind();
    }

    /// The lowest unresolved number; the next one when all are resolved.
    pub(crate) fn lowest(&self) -> u64 {
        self.next - self.slots.len() as u64
    }

    /// The number that the next message gets.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.unresolved == 0
    }

    /// The attachment has answered one copy of each of these: it is not stored (`doubt`: or nobody knows). Those of
    /// them that have no other copy on the way must be sent again or be given up.
    pub(crate) fn copies_failed(&mut self, range: SeqRange, doubt: bool) -> Vec<SeqRange> {
        let lowest = self.lowest();
        let first = range.first.0.max(lowest);
        let end = range.last.0.saturating_add(1).min(self.next);
        let mut bare: Vec<SeqRange> = Vec::new();
        for seq in first..end {
            let slot = &mut self.slots[(seq - lowest) as usize];
            if slot.resolved || slot.copies == 0 {
                continue;
            }
            slot.copies -= 1;
            slot.doubt |= doubt;
            match bare.last_mut() {
                _ if slot.copies > 0 => {}
                Some(run) if run.last.0 + 1 == seq => run.last = Seq(seq),
                _ => bare.push(SeqRange { first: Seq(seq), last: Seq(seq) }),
            }
        }
        bare
    }

    /// Settles what became of these, those of them that are unresolved.
    pub(crate) fn resolve(&mut self, range: SeqRange, fate: &Fate, wake: &mut Vec<Waker>) {
        let lowest = self.lowest();
        let first = range.first.0.max(lowest);
        let end = range.last.0.saturating_add(1).min(self.next);
        let mut at = self.batches.partition_point(|batch| batch.end() <= first);
        while let Some(batch) = self.batches.get_mut(at).filter(|batch| batch.first < end) {
            for seq in first.max(batch.first)..end.min(batch.end()) {
                let slot = &mut self.slots[(seq - lowest) as usize];
                // A confirm of what was never sent would be a lie: it is not believed.
                let lie = matches!(fate, Fate::Confirmed) && !slot.may_be_stored();
                if slot.resolved || lie {
                    continue;
                }
                slot.resolved = true;
                batch.unresolved -= 1;
                self.unresolved -= 1;
                wake.extend(slot.waker.take());
                if let Some(error) = failure(fate, slot.may_be_stored()) {
                    note_failure(&mut self.failed, &error);
                    if slot.receipt {
                        self.failures.insert(seq, error);
                    }
                }
            }
            if batch.unresolved == 0 {
                self.bytes -= batch.block.len();
                batch.block = MessageBlock::from_trusted(batch.block.count(), Default::default());
                batch.sent = batch.block.count();
            }
            at += 1;
        }
        self.trim();
    }

    /// Forgets what is resolved at the front.
    fn trim(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.resolved) {
            self.slots.pop_front();
        }
        while self.batches.front().is_some_and(|batch| batch.unresolved == 0) {
            self.batches.pop_front();
            self.unsent = self.unsent.saturating_sub(1);
        }
    }

    /// Resolves what has waited longer than `patience`.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        patience: Duration,
        last: &str,
        wake: &mut Vec<Waker>,
    ) {
        if self.open.as_ref().is_some_and(|open| now.duration_since(open.opened) >= patience) {
            self.seal();
        }
        let expired = self
            .batches
            .iter()
            .take_while(|batch| now.duration_since(batch.opened) >= patience)
            .last()
            .map(|batch| SeqRange { first: Seq(0), last: Seq(batch.end() - 1) });
        if let Some(range) = expired {
            let fate = Fate::Expired { waited: patience, last: last.to_owned() };
            self.resolve(range, &fate, wake);
        }
    }

    /// When the oldest unresolved batch was opened.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.batches
            .front()
            .map(|batch| batch.opened)
            .or(self.open.as_ref().map(|open| open.opened))
    }

    /// Resolves everything: the producer ends.
    pub(crate) fn abandon(&mut self, why: &str, wake: &mut Vec<Waker>) {
        self.seal();
        let all = SeqRange { first: Seq(0), last: Seq(u64::MAX) };
        self.resolve(all, &Fate::Abandoned { why: why.to_owned() }, wake);
    }

    /// Resolves what may be stored somewhere.
    pub(crate) fn abandon_sent(&mut self, why: &str, wake: &mut Vec<Waker>) {
        let lowest = self.lowest();
        let sent: Vec<Seq> = (lowest..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.may_be_stored())
            .map(|(seq, _)| Seq(seq))
            .collect();
        for seq in sent {
            let fate = Fate::Abandoned { why: why.to_owned() };
            self.resolve(SeqRange { first: seq, last: seq }, &fate, wake);
        }
    }

    /// The outcome of a message, once. `waker` is called when it comes.
    pub(crate) fn poll(&mut self, seq: Seq, waker: &Waker) -> Poll<Result<(), PublishError>> {
        if let Some(error) = self.failures.remove(&seq.0) {
            return Poll::Ready(Err(error));
        }
        match self.slot(seq) {
            Some(slot) if !slot.resolved => {
                if slot.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
                    slot.waker = Some(waker.clone());
                }
                Poll::Pending
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Nobody will ask for the outcome of this message any more.
    pub(crate) fn receipt_dropped(&mut self, seq: Seq) {
        match self.slot(seq) {
            Some(slot) if !slot.resolved => {
                slot.receipt = false;
                slot.waker = None;
            }
            _ => {
                self.failures.remove(&seq.0);
            }
        }
    }

    fn slot(&mut self, seq: Seq) -> Option<&mut Slot> {
        let index = seq.0.checked_sub(self.lowest())?;
        self.slots.get_mut(usize::try_from(index).ok()?)
    }

    /// What failed since the last time this was asked.
    pub(crate) fn take_failed(&mut self) -> Option<FlushError> {
        self.failed.take()
    }
}

/// The first unresolved messages of a batch that were not sent on this attachment: index and count.
fn unresolved_run(batch: &Batch, slots: &VecDeque<Slot>, lowest: u64) -> Option<(u32, u32)> {
    let count = batch.block.count();
    let resolved = |index: u32| {
        (batch.first + u64::from(index))
            .checked_sub(lowest)
            .is_none_or(|slot| slots[slot as usize].resolved)
    };
    let from = (batch.sent..count).find(|index| !resolved(*index))?;
    let end = (from..count).find(|index| resolved(*index)).unwrap_or(count);
    Some((from, end - from))
}

/// As many of `count` messages from `from` as the credit allows; `None`: not one.
fn fitting(block: &MessageBlock, from: u32, count: u32, credit: Credit) -> Option<MessageBlock> {
    let count = u32::try_from(credit.messages).unwrap_or(u32::MAX).min(count);
    let fits = |count: u32, bytes: u64| {
        Some(block.slice(from, count)).filter(|piece| piece.len() as u64 <= bytes)
    };
    if count == 0 || credit.bytes == 0 {
        return None;
    }
    let bytes = credit.bytes.min(credit.frame_bytes);
    if let Some(all) = fits(count, bytes) {
        return Some(all);
    }
    let (mut enough, mut too_many) = (0, count);
    while too_many - enough > 1 {
        let middle = enough + (too_many - enough) / 2;
        if fits(middle, bytes).is_some() { enough = middle } else { too_many = middle }
    }
    match enough {
        0 => fits(1, credit.frame_bytes),
        enough => fits(enough, bytes),
    }
}

/// What a fate says about one message, given whether a copy of it may be stored.
fn failure(fate: &Fate, may_be_stored: bool) -> Option<PublishError> {
    Some(match (fate, may_be_stored) {
        (Fate::Confirmed, _) => return None,
        (Fate::Refused(error), false) => error.clone(),
        (Fate::Refused(error), true) => PublishError::Unconfirmed {
            message: format!("it was sent before, without an answer; when sent again: {error}"),
        },
        (Fate::Expired { waited, last }, false) => {
            PublishError::Unavailable { waited: *waited, last: last.clone() }
        }
        (Fate::Expired { waited, last }, true) => PublishError::Unconfirmed {
            message: format!("no confirm came within {waited:.1?}; {last}"),
        },
        (Fate::Abandoned { why }, false) => PublishError::Closed { reason: why.clone() },
        (Fate::Abandoned { why }, true) => PublishError::Unconfirmed { message: why.clone() },
    })
}

fn note_failure(failed: &mut Option<FlushError>, error: &PublishError) {
    match failed {
        Some(failed) => failed.failed += 1,
        None => *failed = Some(FlushError { failed: 1, first: error.clone() }),
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
