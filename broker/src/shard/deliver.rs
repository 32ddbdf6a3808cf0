//! Handing committed messages to consumers: dispatch by the machine, bodies from memory or disk, under the lease.

use std::sync::Arc;

use bellwether_journal::Read;
use bellwether_log::{Batch, Record};
use bellwether_protocol::client::DeliveredRun;
use bellwether_protocol::ids::{Offset, OffsetRange};
use bellwether_queue::Effect;
use bellwether_replication::Event;

use super::input::{ConsumerKey, ConsumerSink};
use super::queue::LocalQueue;
use super::tools::{ReadPurpose, Tools};
use crate::memory::Pool;

/// Bytes read at once for one consumer.
const DELIVER_BYTES_MAX: usize = 1024 * 1024;

/// The same while all clients together have left as much unread as they may: everybody is still served, in small pieces.
const DELIVER_BYTES_SHORT: usize = 16 * 1024;

/// A run that the machine gave to a consumer.
struct Delivery {
    range: OffsetRange,
    redelivered: bool,
    returns: u32,
}

/// A consumer attached here.
pub(crate) struct Consumer {
    pub sink: Arc<dyn ConsumerSink>,
    /// Its outbox is full: nothing more until it is drained.
    pub held_back: bool,
    /// It is detached as soon as it is known whether this broker goes on leading.
    pub leaving: bool,
    /// Dispatched, not handed over: in order. While the first is being read the others wait.
    pending: std::collections::VecDeque<Delivery>,
    reading: bool,
    /// The highest settle that is committed.
    pub settled: u64,
    pub tell_settled: bool,
    prefetch_bytes: u64,
    held_messages: u64,
    held_bytes: u64,
}

impl Consumer {
    pub fn new(sink: Arc<dyn ConsumerSink>, prefetch_bytes: u64) -> Consumer {
        Consumer {
            sink,
            held_back: false,
            leaving: false,
            pending: std::collections::VecDeque::new(),
            reading: false,
            settled: 0,
            tell_settled: false,
            prefetch_bytes,
            held_messages: 0,
            held_bytes: 0,
        }
    }

    /// It has these already, of so many bytes, from the leader before this one.
    pub fn holds(&mut self, messages: u64, bytes: u64) {
        self.held_messages += messages;
        self.held_bytes += bytes;
    }

    /// So many messages were settled: their bytes, at the average of what it holds, are free again.
    pub fn released(&mut self, messages: u64) {
        let messages = messages.min(self.held_messages);
        if let Some(bytes) = (self.held_bytes * messages).checked_div(self.held_messages) {
            self.held_bytes -= bytes;
            self.held_messages -= messages;
        }
    }

    /// Whether it may be given more. Bytes are checked before each run, so that one run at most goes beyond the limit.
    fn has_room(&self) -> bool {
        !self.held_back
            && self.pending.is_empty()
            && !self.reading
            && (self.prefetch_bytes == 0 || self.held_bytes < self.prefetch_bytes)
    }
}

impl LocalQueue {
    /// Hands out what can be handed out under the present lease.
    pub(super) fn deliver(&mut self, tools: &mut Tools) {
        let now = tools.now;
        let Some(leader) = &mut self.leader else { return };
        if !leader.serves
            || leader.deleting
            || leader.consumers.is_empty()
            || now < leader.dispatch_from
        {
            return;
        }
        if !leader.lease.holds(now) {
            return;
        }
        let mut effects = Vec::new();
        while self.machine.wants_dispatch() {
            self.machine.dispatch(&mut effects);
            if effects.is_empty() {
                return;
            }
            for effect in effects.drain(..) {
                let Effect::Deliver { consumer, run, redelivered, returns } = effect else {
                    continue;
                };
                let key = ConsumerKey(consumer);
                if let Some(consumer) =
                    self.leader.as_mut().and_then(|leader| leader.consumers.get_mut(&key))
                {
                    consumer.pending.push_back(Delivery { range: run, redelivered, returns });
                }
                self.hand_over(tools, key);
            }
            if self.leader.is_none() {
                return;
            }
        }
    }

    /// Lets the machine give this consumer more, or not.
    pub(super) fn regulate(&mut self, key: ConsumerKey) {
        let Some(consumer) = self.leader.as_ref().and_then(|leader| leader.consumers.get(&key))
        else {
            return;
        };
        if consumer.has_room() {
            self.machine.resume(key.0);
        } else {
            self.machine.pause(key.0);
        }
    }

    /// Whether deliveries, or consumers, wait for the lease or for the time from which they are allowed. With nothing to hand out
    /// a consumer waits for messages, and needs no clock.
    pub(super) fn waits_to_deliver(&self) -> bool {
        self.leader.as_ref().is_some_and(|leader| {
            leader.serves
                && (!leader.held_attaches.is_empty()
                    || !leader.consumers.is_empty() && self.machine.wants_dispatch())
        })
    }

    /// Reads what was dispatched to this consumer and gives it to its connection.
    pub(super) fn hand_over(&mut self, tools: &mut Tools, key: ConsumerKey) {
        self.read_and_hand_over(tools, key);
        self.regulate(key);
    }

    fn read_and_hand_over(&mut self, tools: &mut Tools, key: ConsumerKey) {
        loop {
            let Some(leader) = &mut self.leader else { return };
            let Some(consumer) = leader.consumers.get_mut(&key) else { return };
            let Some(next) = consumer.pending.front() else { return };
            // A run may be longer than what the outbox holds: the rest of it waits here, where it takes no memory.
            if consumer.reading || consumer.held_back {
                return;
            }
            let short = tools.environment.metrics.memory.is_full(Pool::Outboxes);
            let most = if short { DELIVER_BYTES_SHORT } else { DELIVER_BYTES_MAX };
            match tools.logs.read_live(self.id, &[next.range], most) {
                Read::Ready(batches) => self.hand_over_batches(tools, key, &batches),
                Read::OnDisk(request) => {
                    consumer.reading = true;
                    return tools.read_on_disk(
                        self.id,
                        ReadPurpose::Deliver { consumer: key },
                        request,
                    );
                }
                Read::Gone => {
                    let why =
                        format!("unsettled messages {:?} are missing from the log", next.range);
                    return self.step(tools, Event::Broken { why });
                }
            }
        }
    }

    pub(super) fn deliver_read(&mut self, tools: &mut Tools, key: ConsumerKey, batches: &[Batch]) {
        if let Some(consumer) =
            self.leader.as_mut().and_then(|leader| leader.consumers.get_mut(&key))
        {
            consumer.reading = false;
        }
        self.hand_over_batches(tools, key, batches);
        self.hand_over(tools, key);
        tools.touch(self.id);
    }

    /// Gives as much of the first pending run as `batches` hold.
    fn hand_over_batches(&mut self, tools: &mut Tools, key: ConsumerKey, batches: &[Batch]) {
        let Some(leader) = self.leader.as_deref_mut() else { return };
        let epoch = leader.epoch;
        let lease = leader.lease.clone();
        let Some(consumer) = leader.consumers.get_mut(&key) else { return };
        let Some(mut delivery) = consumer.pending.pop_front() else { return };
        let mut runs = Vec::with_capacity(batches.len());
        let mut messages = 0;
        let mut bytes = 0;
        for batch in batches {
            match run_of(batch, &delivery) {
                Ok(Some(run)) => {
                    messages += u64::from(run.messages.count());
                    bytes += run.messages.len() as u64;
                    delivery.range.first = Offset(run.first.0 + u64::from(run.messages.count()));
                    runs.push(run);
                }
                Ok(None) => {}
                Err(why) => return self.step(tools, Event::Broken { why }),
            }
        }
        if runs.is_empty() {
            let why = format!("unsettled messages {:?} are not where the log says", delivery.range);
            return self.step(tools, Event::Broken { why });
        }
        if delivery.range.count() > 0 {
            consumer.pending.push_front(delivery);
        }
        self.tally.delivered_messages += messages;
        self.tally.delivered_bytes += bytes;
        consumer.held_messages += messages;
        consumer.held_bytes += bytes;
        if let Some(traces) = &tools.environment.traces {
            leader.traced.delivered(traces, &self.definition, tools.now, &runs);
        }
        if !consumer.sink.deliver(epoch, lease, runs) {
            consumer.held_back = true;
        }
    }
}

/// The part of a batch that was dispatched, as it goes to the client.
fn run_of(batch: &Batch, delivery: &Delivery) -> Result<Option<DeliveredRun>, String> {
    let Delivery { range, redelivered, returns } = *delivery;
    part_of(batch, range, redelivered, returns)
}

/// The messages of a batch that lie in `range`, with these marks.
pub(crate) fn part_of(
    batch: &Batch,
    range: OffsetRange,
    redelivered: bool,
    returns: u32,
) -> Result<Option<DeliveredRun>, String> {
    let first = batch.base().max(range.first);
    let end = batch.end().min(range.end);
    if first >= end {
        return Ok(None);
    }
    let record = batch.record().map_err(|error| error.to_string())?;
    let Record::Enqueue(enqueue) = record else {
        return Err(format!("the record at {first} was dispatched and is not a message"));
    };
    let narrow = |n: u64| u32::try_from(n).map_err(|_| format!("a batch at {first} is too long"));
    let skip = narrow(first.0 - batch.base().0)?;
    let count = narrow(end.0 - first.0)?;
    let messages = match (skip, count == enqueue.messages.count()) {
        (0, true) => enqueue.messages,
        _ => enqueue.messages.slice(skip, count),
    };
    Ok(Some(DeliveredRun {
        first,
        redelivered,
        returns,
        time_ms: enqueue.time_ms,
        exchange: enqueue.exchange,
        routing_key: enqueue.routing_key,
        messages,
    }))
}
