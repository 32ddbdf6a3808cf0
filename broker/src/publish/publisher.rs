//! One connection's producers: takes their frames, fans each out to its queues, and answers once every queue has.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bellwether_protocol::client::{BrokerFrame, Publish, Withheld};
use bellwether_protocol::error::{ErrorBody, ErrorCode, Outcome};
use bellwether_protocol::ids::{ProducerHandle, QueueId, Seq, SeqRange};
use bellwether_protocol::names::ProducerName;

use super::credit::{Credit, Grant};
use super::gates::Leaders;
use super::lane::{Answer, Broken, Dispatch, Part};
use super::lanes::Lanes;
use super::{PublishLimits, confirms};
use crate::traces::Parent;

/// A producer attached on this connection.
#[derive(Debug)]
struct Producer {
    name: Option<ProducerName>,
    credit: Credit,
    /// Frames that are not answered yet.
    open: usize,
    /// A frame was refused before it reached any lane.
    broken: Option<Broken>,
    confirmed: Vec<SeqRange>,
    /// Goes as soon as nothing is open.
    leaving: bool,
    /// It was told that it gets no more credit for now.
    told_withheld: bool,
}

impl Producer {
    /// Its order is broken here, wherever it may be broken already.
    fn breaks(&mut self, broken: Broken) {
        self.broken = Some(match self.broken.take() {
            Some(before) => before.and(broken),
            None => broken,
        });
    }
}

/// A frame that is not answered yet.
#[derive(Debug)]
struct Entry {
    producer: ProducerHandle,
    range: SeqRange,
    messages: u64,
    bytes: u64,
    taken_at: Instant,
    /// Queues that have not answered.
    waiting: usize,
    stored_somewhere: bool,
    failure: Option<ErrorBody>,
    /// Producers' spans that ask for a span of this.
    traced: Vec<Parent>,
}

/// A traced frame that is answered: whose spans it belongs to, when it was taken, and whether it was confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    pub parents: Vec<Parent>,
    pub taken_at: Instant,
    pub confirmed: bool,
}

/// What happened since it was last asked, for the broker's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub published_messages: u64,
    pub published_bytes: u64,
    pub confirmed_messages: u64,
    pub refused_messages: u64,
    pub unknown_messages: u64,
    pub unroutable_messages: u64,
    /// How long the last of them waited for its confirm.
    pub confirmed_after: Option<Duration>,
}

/// Whether producers get more credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grants {
    Free,
    /// Only those that have nothing open: too much is unconfirmed.
    WhenIdle,
    /// Nobody: the broker holds as much in memory as it may. Whoever stops them sees to it that they are asked again.
    Stopped,
}

/// See the module. Pure: no clock, socket or task.
#[derive(Debug)]
pub struct Publisher {
    limits: PublishLimits,
    producers: HashMap<ProducerHandle, Producer>,
    entries: HashMap<u64, Entry>,
    bytes_open: u64,
    next_entry: u64,
    lanes: Lanes,
    answers: Vec<Answer>,
    /// Answers that have to wait for others.
    deferred: Vec<Answer>,
    frames: Vec<BrokerFrame>,
    tally: Tally,
    traced: Vec<Traced>,
}

impl Publisher {
    #[must_use]
    pub fn new(limits: PublishLimits) -> Publisher {
        Publisher {
            limits,
            producers: HashMap::new(),
            entries: HashMap::new(),
            bytes_open: 0,
            next_entry: 0,
            lanes: Lanes::default(),
            answers: Vec::new(),
            deferred: Vec::new(),
            frames: Vec::new(),
            tally: Tally::default(),
            traced: Vec::new(),
        }
    }

    /// Starts a producer; its first credit is among the next frames.
    ///
    /// # Errors
    /// When the handle is taken, or there are too many.
    pub fn attach(
        &mut self,
        handle: ProducerHandle,
        name: Option<ProducerName>,
    ) -> Result<(), ErrorBody> {
        if self.producers.contains_key(&handle) {
            let words = format!(
                "producer handle {} is in use on this connection; choose another",
                handle.0
            );
            return Err(ErrorBody::not_done(ErrorCode::InvalidOption, words));
        }
        if name.is_some() && self.producers.values().any(|producer| producer.name == name) {
            let words = "a producer of this name is attached on this connection already";
            return Err(ErrorBody::not_done(ErrorCode::InvalidOption, words));
        }
        if self.producers.len() >= self.limits.producers_max {
            let words = format!(
                "this connection has {} producers, the most that are allowed",
                self.producers.len()
            );
            return Err(ErrorBody::not_done(ErrorCode::ConnectionLimit, words));
        }
        let producer = Producer {
            name,
            credit: Credit::new(self.limits.credit_messages, self.limits.credit_bytes),
            open: 0,
            broken: None,
            confirmed: Vec::new(),
            leaving: false,
            told_withheld: false,
        };
        self.producers.insert(handle, producer);
        Ok(())
    }

    /// Ends a producer; what is open is still answered.
    ///
    /// # Errors
    /// When there is none.
    pub fn detach(&mut self, handle: ProducerHandle) -> Result<(), ErrorBody> {
        let producer = self.producers.get_mut(&handle).filter(|producer| !producer.leaving);
        let Some(producer) = producer else { return Err(no_such_producer(handle)) };
        producer.leaving = true;
        self.forget_if_done(handle);
        Ok(())
    }

    /// How many producers are attached; those that have left and wait for answers are not.
    #[must_use]
    pub fn attached(&self) -> usize {
        self.producers.values().filter(|producer| !producer.leaving).count()
    }

    /// Bytes taken and not answered.
    #[must_use]
    pub fn bytes_open(&self) -> u64 {
        self.bytes_open
    }

    /// Takes a frame. `routes` are the queues it goes to, or why it goes nowhere.
    pub fn publish(&mut self, now: Instant, frame: Publish, routes: Result<&[QueueId], ErrorBody>) {
        self.publish_traced(now, frame, routes, Vec::new());
    }

    /// The same of a frame with traced messages: [`Publisher::take_traced`] tells when it is answered.
    pub fn publish_traced(
        &mut self,
        now: Instant,
        frame: Publish,
        routes: Result<&[QueueId], ErrorBody>,
        traced: Vec<Parent>,
    ) {
        let count = u64::from(frame.messages.count());
        let bytes = frame.messages.len() as u64;
        let last = frame.first.0.saturating_add(count.saturating_sub(1));
        let range = SeqRange { first: frame.first, last: Seq(last) };
        let Some(producer) =
            self.producers.get_mut(&frame.producer).filter(|producer| !producer.leaving)
        else {
            let (producer, error) = (frame.producer, no_such_producer(frame.producer));
            self.frames.push(BrokerFrame::PublishFailed { producer, range, error });
            return;
        };
        self.tally.published_messages += count;
        self.tally.published_bytes += bytes;
        producer.open += 1;
        let granted = producer.credit.publish(count, bytes);
        let id = self.next_entry;
        self.next_entry += 1;
        let entry = Entry {
            producer: frame.producer,
            range,
            messages: count,
            bytes,
            taken_at: now,
            waiting: 0,
            stored_somewhere: false,
            failure: None,
            traced,
        };
        self.entries.insert(id, entry);
        self.bytes_open += bytes;
        match self.check(&frame, granted, routes) {
            Ok([]) => {
                self.tally.unroutable_messages += count;
                self.finish(now, id);
            }
            Ok(queues) => self.fan_out(now, id, frame, queues),
            Err(error) => self.refuse(now, id, error),
        }
    }

    /// What can be wrong with a frame before it reaches any queue.
    fn check<'a>(
        &mut self,
        frame: &Publish,
        granted: bool,
        routes: Result<&'a [QueueId], ErrorBody>,
    ) -> Result<&'a [QueueId], ErrorBody> {
        let producer = self.producers.get_mut(&frame.producer).expect("the caller found it");
        let count = u64::from(frame.messages.count());
        if count == 0 || frame.first.0 == 0 || frame.first.0.checked_add(count).is_none() {
            let words = "a publish takes at least one message, numbered from one and below 2^64";
            return Err(ErrorBody::not_done(ErrorCode::InvalidOption, words));
        }
        if !granted {
            let words = "more was published than was granted; wait for PublishCredit";
            return Err(ErrorBody::not_done(ErrorCode::CreditExceeded, words));
        }
        if let Some(broken) = &mut producer.broken {
            if !broken.is_mended_by(frame.first) {
                return Err(broken.refuse(frame.first));
            }
            producer.broken = None;
        }
        frame.messages.check_sizes(self.limits.message_bytes_max)?;
        routes
    }

    fn refuse(&mut self, now: Instant, id: u64, error: ErrorBody) {
        let entry = self.entries.get_mut(&id).expect("the caller made it");
        let producer = self.producers.get_mut(&entry.producer).expect("it has an open frame");
        // What follows must not be stored before this has been sent again: a queue that had stored higher numbers would take
        // the retry for a duplicate. (An error that the breach itself caused moves nothing.)
        if producer.name.is_some() && error.code != ErrorCode::OutOfSequence {
            producer.breaks(Broken::at(entry.range.first, id));
        }
        entry.failure = Some(error);
        self.finish(now, id);
    }

    fn fan_out(&mut self, now: Instant, id: u64, frame: Publish, queues: &[QueueId]) {
        self.entries.get_mut(&id).expect("the caller made it").waiting = queues.len();
        let producer = frame.producer;
        for queue in queues {
            let address = (frame.exchange.clone(), frame.routing_key.clone());
            let part =
                Part::new(id, frame.first, frame.resent, address, frame.messages.clone(), now);
            let pair = (producer, *queue);
            if self.lanes.are_too_many_for(&pair) {
                self.forget_idle_lanes();
            }
            let name = &self.producers.get(&producer).expect("it has an open frame").name;
            let answer = self.lanes.push(pair, name, part);
            self.answers.extend(answer);
        }
        self.settle_answers(now);
    }

    /// What the leaders say.
    pub fn outcomes(
        &mut self,
        now: Instant,
        outcomes: impl IntoIterator<Item = (u64, Result<(), ErrorBody>)>,
    ) {
        for (token, result) in outcomes {
            self.lanes.outcome(now, token, result, &mut self.answers);
        }
        self.settle_answers(now);
    }

    /// An attempt could not be handed over. `pause`: not before some time has passed; otherwise as soon as there is room.
    pub fn undelivered(&mut self, now: Instant, token: u64, pause: bool) {
        self.lanes.undelivered(now, token, pause);
    }

    /// The catalog has changed: leaders may have.
    pub fn look_again(&mut self) {
        self.lanes.look_again();
    }

    /// Time has passed.
    pub fn tick(&mut self) {
        self.lanes.tick();
    }

    /// When [`Publisher::tick`] is wanted.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        self.lanes.wake_at()
    }

    /// What to hand to leaders now, in order for each of them.
    pub fn dispatch(&mut self, now: Instant, leaders: &dyn Leaders, out: &mut Vec<Dispatch>) {
        self.lanes.dispatch(now, leaders, out, &mut self.answers);
        self.settle_answers(now);
    }

    /// Idle lanes go. That a lane was broken is then remembered by its producer, for all its lanes.
    fn forget_idle_lanes(&mut self) {
        for (handle, broken) in self.lanes.forget_idle() {
            if let Some(producer) = self.producers.get_mut(&handle) {
                producer.breaks(broken);
            }
        }
    }

    /// Counts the answers of queues; a frame is answered with the last of them.
    fn settle_answers(&mut self, now: Instant) {
        let mut answers = std::mem::take(&mut self.answers);
        for answer in answers.drain(..) {
            self.settle_answer(now, answer);
        }
        self.answers = answers;
    }

    fn settle_answer(&mut self, now: Instant, answer: Answer) {
        let waits = |cause: &u64| *cause != answer.entry && self.entries.contains_key(cause);
        if answer.behind.iter().any(waits) {
            self.deferred.push(answer);
            return;
        }
        let Some(entry) = self.entries.get_mut(&answer.entry) else { return };
        entry.waiting -= 1;
        match answer.result {
            Ok(()) => entry.stored_somewhere = true,
            Err(error) => {
                let graver = entry.failure.as_ref().is_none_or(|before| {
                    before.outcome == Outcome::NotDone
                        && (error.outcome == Outcome::Unknown
                            || before.code == ErrorCode::OutOfSequence)
                });
                if graver {
                    entry.failure = Some(error);
                }
            }
        }
        if entry.waiting == 0 {
            self.finish(now, answer.entry);
            for answer in std::mem::take(&mut self.deferred) {
                self.settle_answer(now, answer);
            }
        }
    }

    fn finish(&mut self, now: Instant, id: u64) {
        let Some(entry) = self.entries.remove(&id) else { return };
        let count = entry.messages;
        let producer = self.producers.get_mut(&entry.producer).expect("it has an open frame");
        producer.open -= 1;
        producer.credit.answer(count, entry.bytes);
        self.bytes_open -= entry.bytes;
        if !entry.traced.is_empty() {
            let (taken_at, confirmed) = (entry.taken_at, entry.failure.is_none());
            self.traced.push(Traced { parents: entry.traced, taken_at, confirmed });
        }
        match entry.failure {
            None => {
                self.tally.confirmed_messages += count;
                self.tally.confirmed_after = Some(now.saturating_duration_since(entry.taken_at));
                confirms::gather(&mut producer.confirmed, entry.range);
            }
            Some(mut error) => {
                if entry.stored_somewhere && error.outcome == Outcome::NotDone {
                    // Part of the fan-out stands: "not done" would be a lie.
                    error.outcome = Outcome::Unknown;
                    error.message = format!(
                        "some of the queues it was routed to have it, not all: {}",
                        error.message
                    );
                }
                match error.outcome {
                    Outcome::NotDone => self.tally.refused_messages += count,
                    Outcome::Unknown => self.tally.unknown_messages += count,
                }
                let (producer, range) = (entry.producer, entry.range);
                self.frames.push(BrokerFrame::PublishFailed { producer, range, error });
            }
        }
        self.forget_if_done(entry.producer);
    }

    fn forget_if_done(&mut self, handle: ProducerHandle) {
        let is_done = |producer: &Producer| producer.leaving && producer.open == 0;
        if !self.producers.get(&handle).is_some_and(is_done) {
            return;
        }
        let producer = self.producers.remove(&handle).expect("it was just there");
        confirms::frame(handle, producer.confirmed, &mut self.frames);
        self.lanes.forget_producer(handle);
    }

    /// What to tell the client: failures, confirms, and credit as far as it is granted.
    pub fn frames(&mut self, grants: Grants, out: &mut Vec<BrokerFrame>) {
        out.append(&mut self.frames);
        for (handle, producer) in &mut self.producers {
            if !producer.confirmed.is_empty() {
                confirms::frame(*handle, std::mem::take(&mut producer.confirmed), out);
            }
            let withheld = match grants {
                Grants::Free => false,
                // With nothing open the producer holds no memory, and without credit nothing would ever wake it again.
                Grants::WhenIdle => producer.open > 0,
                Grants::Stopped => true,
            };
            // Who waits for what does not come has to know why; and, once it was told, when that is over.
            let why = (grants == Grants::Stopped).then_some(Withheld::Memory);
            let news = producer.told_withheld != why.is_some();
            let granted = if withheld { None } else { producer.credit.grant() };
            let granted = granted.or_else(|| news.then(|| producer.credit.granted()));
            if let Some(Grant { messages, bytes }) = granted {
                let producer = *handle;
                out.push(BrokerFrame::PublishCredit { producer, messages, bytes, withheld: why });
            }
            producer.told_withheld = why.is_some();
        }
    }

    /// How many producers were told that they get no more credit for now.
    #[must_use]
    pub fn withheld(&self) -> usize {
        self.producers.values().filter(|producer| producer.told_withheld).count()
    }

    /// Traced frames that were answered since the last call.
    pub fn take_traced(&mut self) -> Vec<Traced> {
        std::mem::take(&mut self.traced)
    }

    /// What happened since the last call.
    pub fn tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }
}

fn no_such_producer(handle: ProducerHandle) -> ErrorBody {
    let words = format!("no producer with handle {} is attached on this connection", handle.0);
    ErrorBody::not_done(ErrorCode::NoSuchProducer, words)
}
