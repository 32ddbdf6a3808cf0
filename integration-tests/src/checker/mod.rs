//! Judges a history of publishes, deliveries and settles by the promises. Pure: time is an argument, and a message costs
//! a few bits for each queue, so that the history of days fits in memory.

mod bits;
mod finish;
mod stream;
mod violation;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bits::Bits;
pub use finish::{Counts, Verdict};
use stream::{Place, Stream, Swapped};
pub use violation::{MessageId, Violation};

/// Violations kept with their words; of the rest only the number. One defect often breaks every message after it.
const VIOLATIONS_KEPT: usize = 200;

/// A queue of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueIndex(pub usize);

/// A producer of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerIndex(pub u32);

/// How many consumers a queue has at a time. Between several there is no telling in which order they were served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumers {
    One,
    Several,
}

/// One of the three answers (promise G11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    NotDone,
    Unknown,
}

/// A delivery as a consumer saw it.
#[derive(Clone, Debug)]
pub struct Delivered {
    pub queue: QueueIndex,
    /// Who published it, as its body says; or what is wrong with the body.
    pub message: Result<MessageId, String>,
    pub offset: u64,
    pub epoch: u64,
    pub redelivered: bool,
    /// Since the history began.
    pub at: Duration,
}

/// The history so far, as far as it matters.
pub struct Checker {
    /// How long after its deposition a leader's deliveries may still arrive: its lease, and the way to the test.
    stale_for: Duration,
    producers: Vec<ProducerHistory>,
    queues: Vec<QueueHistory>,
    violations: Vec<Violation>,
    totals: BTreeMap<&'static str, u64>,
    deliveries: u64,
    redeliveries: u64,
    settles_failed: u64,
}

struct ProducerHistory {
    routes: Vec<QueueIndex>,
    published: u64,
    confirmed: Bits,
    refused: Bits,
    unknown: u64,
}

struct QueueHistory {
    name: String,
    consumers: Consumers,
    streams: BTreeMap<ProducerIndex, Stream>,
    offsets: Bits,
    last_first_delivery: Option<u64>,
    /// Settled a moment ago, oldest first: a deposed leader may have had them under way.
    recently_settled: VecDeque<RecentlySettled>,
}

struct RecentlySettled {
    message: MessageId,
    epoch: u64,
    at: Duration,
}

impl Checker {
    /// An empty history. For `stale_for` after a settle deliveries of an older epoch are forgiven.
    #[must_use]
    pub fn new(stale_for: Duration) -> Checker {
        Checker {
            stale_for,
            producers: Vec::new(),
            queues: Vec::new(),
            violations: Vec::new(),
            totals: BTreeMap::new(),
            deliveries: 0,
            redeliveries: 0,
            settles_failed: 0,
        }
    }

    /// A queue joins the history.
    pub fn queue(&mut self, name: &str, consumers: Consumers) -> QueueIndex {
        self.queues.push(QueueHistory {
            name: name.to_owned(),
            consumers,
            streams: BTreeMap::new(),
            offsets: Bits::default(),
            last_first_delivery: None,
            recently_settled: VecDeque::new(),
        });
        QueueIndex(self.queues.len() - 1)
    }

    /// A producer joins; all it publishes goes to each of `routes`. It must have a name, else its retries may be stored twice.
    pub fn producer(&mut self, routes: &[QueueIndex]) -> ProducerIndex {
        let producer = ProducerIndex(self.producers.len() as u32);
        for route in routes {
            self.queues[route.0].streams.insert(producer, Stream::default());
        }
        self.producers.push(ProducerHistory {
            routes: routes.to_vec(),
            published: 0,
            confirmed: Bits::default(),
            refused: Bits::default(),
            unknown: 0,
        });
        producer
    }

    /// The next message of this producer is about to be handed to the client; this is its identity.
    pub fn publish(&mut self, producer: ProducerIndex) -> MessageId {
        let history = &mut self.producers[producer.0 as usize];
        history.published += 1;
        MessageId { producer: producer.0, number: history.published }
    }

    /// What the client said became of a message.
    pub fn published(&mut self, message: MessageId, outcome: Outcome) {
        let history = &mut self.producers[message.producer as usize];
        match outcome {
            Outcome::Done => {
                history.confirmed.insert(message.number);
            }
            Outcome::Unknown => history.unknown += 1,
            Outcome::NotDone => {
                history.refused.insert(message.number);
                for queue in history.routes.clone() {
                    if self
                        .stream(queue, message)
                        .is_some_and(|stream| stream.place(message.number) != Place::NotDelivered)
                    {
                        let queue = self.name(queue);
                        self.broken(Violation::RefusedButDelivered { queue, message });
                    }
                }
            }
        }
    }

    /// A consumer got something.
    pub fn delivered(&mut self, delivered: &Delivered) {
        self.deliveries += 1;
        self.redeliveries += u64::from(delivered.redelivered);
        let queue = delivered.queue;
        let message = match self.known(delivered) {
            Ok(message) => message,
            Err(what) => {
                let violation =
                    Violation::Invented { queue: self.name(queue), offset: delivered.offset, what };
                return self.broken(violation);
            }
        };
        if self.producers[message.producer as usize].refused.contains(message.number) {
            self.broken(Violation::RefusedButDelivered { queue: self.name(queue), message });
        }
        let place = self.stream(queue, message).map(|stream| stream.place(message.number));
        match place.unwrap_or(Place::NotDelivered) {
            Place::NotDelivered => self.delivered_first(message, delivered),
            Place::At(before) => self.delivered_again(message, Some(before), delivered),
            Place::Forgotten => {
                // Where nothing was delivered from yet, it did not stand before.
                let is_new = !self.queues[queue.0].offsets.contains(delivered.offset);
                let before = if is_new { None } else { Some(delivered.offset) };
                self.delivered_again(message, before, delivered);
            }
        }
    }

    /// What the broker said became of a settle (an ack or a reject) of these messages.
    pub fn settled(
        &mut self,
        queue: QueueIndex,
        messages: &[MessageId],
        epoch: u64,
        outcome: Outcome,
        at: Duration,
    ) {
        let stale_for = self.stale_for;
        let history = &mut self.queues[queue.0];
        while history.recently_settled.front().is_some_and(|oldest| oldest.at + stale_for < at) {
            history.recently_settled.pop_front();
        }
        if outcome != Outcome::Done {
            self.settles_failed += messages.len() as u64;
        }
        for &message in messages {
            let Some(stream) = history.streams.get_mut(&ProducerIndex(message.producer)) else {
                continue;
            };
            match outcome {
                Outcome::Done => {
                    stream.settled.insert(message.number);
                    history.recently_settled.push_back(RecentlySettled { message, epoch, at });
                }
                Outcome::Unknown => {
                    stream.perhaps_settled.insert(message.number);
                }
                Outcome::NotDone => {}
            }
        }
    }

    /// Something that another part of the test found.
    pub fn broken(&mut self, violation: Violation) {
        *self.totals.entry(violation.kind()).or_default() += 1;
        if self.violations.len() < VIOLATIONS_KEPT {
            self.violations.push(violation);
        }
    }

    /// Broken promises so far.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.totals.values().sum()
    }

    /// Messages confirmed so far, each counted once however many queues it went to.
    #[must_use]
    pub fn confirmed(&self) -> u64 {
        self.producers.iter().map(|producer| producer.confirmed.count()).sum()
    }

    /// Deliveries so far, redeliveries included.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// Confirmed messages of one queue that are not yet known to be settled.
    #[must_use]
    pub fn outstanding(&self, queue: QueueIndex) -> u64 {
        self.queues[queue.0]
            .streams
            .iter()
            .map(|(producer, stream)| {
                let confirmed = &self.producers[producer.0 as usize].confirmed;
                confirmed.iter().filter(|&number| !stream.is_dealt_with(number)).count() as u64
            })
            .sum()
    }

    fn known(&self, delivered: &Delivered) -> Result<MessageId, String> {
        let message = delivered.message.clone()?;
        let Some(producer) = self.producers.get(message.producer as usize) else {
            return Err(format!("{message} of a producer that does not exist"));
        };
        if !producer.routes.contains(&delivered.queue) {
            return Err(format!("{message}, which was not published to this queue"));
        }
        if message.number == 0 || message.number > producer.published {
            return Err(format!("{message}, but only {} were published", producer.published));
        }
        Ok(message)
    }

    fn delivered_first(&mut self, message: MessageId, delivered: &Delivered) {
        let history = &mut self.queues[delivered.queue.0];
        let offset = delivered.offset;
        let taken = !history.offsets.insert(offset);
        let stream = history.streams.get_mut(&ProducerIndex(message.producer));
        let swapped = stream.map(|stream| stream.keep(message.number, offset)).unwrap_or_default();
        let behind = history.last_first_delivery.filter(|&last| last > offset);
        let in_order = history.consumers == Consumers::One && !delivered.redelivered;
        if in_order {
            history.last_first_delivery = history.last_first_delivery.max(Some(offset));
        }
        self.reordered(delivered.queue, message.producer, swapped);
        if taken {
            self.broken(Violation::OffsetTakenTwice {
                queue: self.name(delivered.queue),
                message,
                offset,
            });
        }
        if let (true, Some(after)) = (in_order, behind) {
            let queue = self.name(delivered.queue);
            self.broken(Violation::DeliveredOutOfOrder { queue, message, offset, after });
        }
    }

    /// `before`: where it stood the first time; nothing: elsewhere, long ago.
    fn delivered_again(&mut self, message: MessageId, before: Option<u64>, delivered: &Delivered) {
        let queue = self.name(delivered.queue);
        if before != Some(delivered.offset) {
            let offsets = (before, delivered.offset);
            return self.broken(Violation::Duplicated { queue, message, offsets });
        }
        if self.queues[delivered.queue.0].consumers == Consumers::One && !delivered.redelivered {
            let offset = delivered.offset;
            self.broken(Violation::NotMarkedRedelivered { queue: queue.clone(), message, offset });
        }
        let settled = self
            .stream(delivered.queue, message)
            .is_some_and(|stream| stream.settled.contains(message.number));
        if !settled {
            return;
        }
        let recent = self.queues[delivered.queue.0]
            .recently_settled
            .iter()
            .rev()
            .find(|recent| recent.message == message);
        let settled_in_epoch = recent.map_or(0, |recent| recent.epoch);
        // A leader that was deposed may have had it under way: until its lease ran out that was its right.
        let under_way = recent.is_some_and(|recent| {
            delivered.epoch < recent.epoch && delivered.at <= recent.at + self.stale_for
        });
        if !under_way {
            let delivered_in_epoch = delivered.epoch;
            self.broken(Violation::Resurrected {
                queue,
                message,
                settled_in_epoch,
                delivered_in_epoch,
            });
        }
    }

    fn reordered(&mut self, queue: QueueIndex, producer: u32, swapped: Vec<Swapped>) {
        let of = |number| MessageId { producer, number };
        for Swapped { earlier, later } in swapped {
            self.broken(Violation::Reordered {
                queue: self.name(queue),
                earlier: of(earlier.0),
                later: of(later.0),
                offsets: (earlier.1, later.1),
            });
        }
    }

    fn stream(&self, queue: QueueIndex, message: MessageId) -> Option<&Stream> {
        self.queues[queue.0].streams.get(&ProducerIndex(message.producer))
    }

    fn name(&self, queue: QueueIndex) -> String {
        self.queues[queue.0].name.clone()
    }
}

#[cfg(test)]
mod tests;
