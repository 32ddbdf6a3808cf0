//! One producer's messages for one queue, in order, until each is answered: what was sent to whom, what has to be sent
//! again, and what may follow what.
//!
//! The trap this guards: were batch k+1 of a named producer accepted by a queue that refused batch k, then a retry of k
//! would look like a duplicate there and be confirmed without having been stored. So every batch that follows another one
//! that is still open names it (`chained`, `previous`), and the leader refuses what does not follow. After a batch has
//! failed for good the lane is *broken*: it refuses everything until the client has gone back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bellwether_protocol::error::{ErrorBody, ErrorCode, Outcome};
use bellwether_protocol::ids::{QueueId, Seq};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::{ExchangeName, ProducerName, RoutingKey};

use super::gates::{Lead, Leadership};
use super::{FORMER_LEADER_GRACE, RETRY_FOR, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN};

/// One thing to be handed to a leader.
#[derive(Debug)]
pub struct Dispatch {
    pub to: Lead,
    pub token: u64,
    pub queue: QueueId,
    pub producer: Option<ProducerName>,
    pub previous: Seq,
    pub chained: bool,
    pub first: Seq,
    pub resent: bool,
    pub exchange: ExchangeName,
    pub routing_key: RoutingKey,
    pub messages: MessageBlock,
}

/// The part of a frame that goes to one queue: all its messages.
#[derive(Debug)]
pub(super) struct Part {
    pub entry: u64,
    pub first: Seq,
    pub resent: bool,
    pub exchange: ExchangeName,
    pub routing_key: RoutingKey,
    pub messages: MessageBlock,
    pub taken_at: Instant,
    attempt: Option<Attempt>,
    /// An earlier attempt ended without saying that it was not stored.
    maybe_stored: bool,
    /// Why the last attempt came to nothing.
    refused: Option<ErrorBody>,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    token: u64,
    chained: bool,
}

impl Part {
    pub fn new(
        entry: u64,
        first: Seq,
        resent: bool,
        address: (ExchangeName, RoutingKey),
        messages: MessageBlock,
        taken_at: Instant,
    ) -> Part {
        let (exchange, routing_key) = address;
        Part {
            entry,
            first,
            resent,
            exchange,
            routing_key,
            messages,
            taken_at,
            attempt: None,
            maybe_stored: false,
            refused: None,
        }
    }

    fn last(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.messages.count()) - 1)
    }

    /// Answers `error`, or that nobody knows when an earlier attempt may have been stored.
    fn fail(self, error: ErrorBody) -> Answer {
        let maybe = self.maybe_stored || self.attempt.is_some();
        let error = if maybe && error.outcome == Outcome::NotDone {
            ErrorBody::unknown(
                ErrorCode::Unconfirmed,
                format!("it may have been stored before this: {}", error.message),
            )
        } else {
            error
        };
        Answer { entry: self.entry, result: Err(error), behind: Vec::new() }
    }
}

/// What became of one part.
#[derive(Debug)]
pub(super) struct Answer {
    pub entry: u64,
    pub result: Result<(), ErrorBody>,
    /// Entries that have to be answered first: a client that heard of the consequence before the cause could go on
    /// behind what it does not know to have failed.
    pub behind: Vec<u64>,
}

/// Failed entries that a broken lane remembers, those with the lowest numbers: whoever publishes on beyond its credit makes one with each frame. What is
/// refused because of them is answered behind them; a client goes back to the lowest number anyway.
const CAUSES_MAX: usize = 16;

/// Since a batch failed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// The lowest number that failed.
    failed: Seq,
    /// The highest number that was refused only because of that.
    refused: Option<Seq>,
    /// What failed, and which entries those were.
    causes: Vec<(Seq, u64)>,
}

impl Broken {
    pub fn at(failed: Seq, cause: u64) -> Broken {
        Broken { failed, refused: None, causes: vec![(failed, cause)] }
    }

    /// Whether a batch beginning at `first` shows that the client has heard of it. What was under way when the batch failed
    /// comes in ascending order; only a client that begins again, from its lowest unconfirmed number, goes back.
    pub fn is_mended_by(&self, first: Seq) -> bool {
        first <= self.failed || self.refused.is_some_and(|refused| first <= refused)
    }

    pub fn refuse(&mut self, first: Seq) -> ErrorBody {
        self.refused = self.refused.max(Some(first));
        ErrorBody::not_done(
            ErrorCode::OutOfSequence,
            format!(
                "an earlier batch of this producer, beginning at number {}, was not stored; send again from the lowest number that is not confirmed",
                self.failed
            ),
        )
    }

    fn refuse_part(&mut self, part: Part) -> Answer {
        let error = self.refuse(part.first);
        // Only behind lower numbers, so that no two wait for each other.
        let lower = self.causes.iter().filter(|(failed, _)| *failed < part.first);
        let behind = lower.map(|(_, entry)| *entry).collect();
        Answer { behind, ..part.fail(error) }
    }

    /// Both at once.
    pub fn and(mut self, other: Broken) -> Broken {
        self.refused = self.refused.max(other.refused);
        self.failed = self.failed.min(other.failed);
        self.causes.extend(other.causes);
        self.causes.sort_unstable();
        self.causes.truncate(CAUSES_MAX);
        self
    }
}

/// See the module.
///
/// *Invariants:* parts stand in the order in which the client sent them; `unsent` counts those without an attempt.
/// Without a producer name nothing is sent behind
/// a part that has to be sent again.
#[derive(Debug)]
pub(super) struct Lane {
    pub queue: QueueId,
    producer: Option<ProducerName>,
    parts: VecDeque<Part>,
    /// How many of the parts have no open attempt.
    unsent: usize,
    /// Whether parts without an attempt may stand before such with one. If not, they are the last ones.
    scattered: bool,
    /// To whom the open attempts went.
    lead: Option<Lead>,
    /// Since when another leads, while answers of the former one are awaited.
    former_since: Option<Instant>,
    /// Nothing is sent before.
    hold_until: Option<Instant>,
    refusals: u32,
    /// Without a name: whether the leader has taken something, so that more may follow before the answer.
    open: bool,
    pub broken: Option<Broken>,
    /// Stands in the publisher's list of lanes to look at.
    pub listed: bool,
    /// Stands in the publisher's list of lanes that wait.
    pub held: bool,
}

impl Lane {
    pub fn new(queue: QueueId, producer: Option<ProducerName>) -> Lane {
        Lane {
            queue,
            producer,
            parts: VecDeque::new(),
            unsent: 0,
            scattered: false,
            lead: None,
            former_since: None,
            hold_until: None,
            refusals: 0,
            open: false,
            broken: None,
            listed: false,
            held: false,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.parts.is_empty()
    }

    fn is_named(&self) -> bool {
        self.producer.is_some()
    }

    /// Takes a part, or refuses it because the lane is broken.
    pub fn push(&mut self, part: Part) -> Option<Answer> {
        if let Some(broken) = &mut self.broken {
            if broken.is_mended_by(part.first) {
                self.broken = None;
            } else {
                return Some(broken.refuse_part(part));
            }
        }
        self.unsent += 1;
        // A client that goes back may have higher numbers under way: those follow what it sends again, not the other way.
        let at = match self.is_named() {
            true => self.parts.partition_point(|before| before.first <= part.first),
            false => self.parts.len(),
        };
        self.scattered |= at < self.parts.len();
        self.parts.insert(at, part);
        None
    }

    /// When it wants to be looked at again, if time alone would change something.
    pub fn wake_at(&self) -> Option<Instant> {
        let front = self.parts.front()?;
        let deadline = front.taken_at + RETRY_FOR;
        let grace = self.former_since.map(|since| since + FORMER_LEADER_GRACE);
        let hold = self.hold_until;
        [Some(deadline), grace, hold].into_iter().flatten().min()
    }

    /// Whether it waits for a leader, or for time to pass.
    pub fn is_held(&self) -> bool {
        self.hold_until.is_some() || self.former_since.is_some() || self.unsent > 0
    }

    /// The catalog has changed: what waited for that need not wait for the clock.
    pub fn look_again(&mut self) {
        self.hold_until = None;
    }

    /// Says what to send now, and to whom.
    pub fn dispatch(
        &mut self,
        now: Instant,
        leadership: Leadership,
        mut token: impl FnMut() -> u64,
        out: &mut Vec<Dispatch>,
        answers: &mut Vec<Answer>,
    ) {
        self.expire(now, answers);
        let lead = match leadership {
            Leadership::Led(lead) => lead,
            Leadership::Vacant => return,
            Leadership::Gone => return self.queue_is_gone(answers),
        };
        if !self.agree_on(lead, now) || self.hold_until.is_some_and(|until| now < until) {
            return;
        }
        self.hold_until = None;
        if self.broken.is_some() {
            return self.refuse_unsent(answers);
        }
        let start = if self.scattered { 0 } else { self.parts.len() - self.unsent };
        for at in start..self.parts.len() {
            if self.parts[at].attempt.is_some() {
                continue;
            }
            if !self.is_named() && !self.may_send_unnamed(at) {
                return;
            }
            let dispatch = self.attempt(at, lead, token());
            out.push(dispatch);
        }
        self.scattered = false;
    }

    /// Without a name no leader can tell what is missing. So until the leader has taken one, they go one by one, and none
    /// overtakes one that has to be sent again.
    fn may_send_unnamed(&self, at: usize) -> bool {
        if self.open {
            !self.scattered || self.parts.iter().skip(at).all(|part| part.attempt.is_none())
        } else {
            at == 0 && self.unsent == self.parts.len()
        }
    }

    /// Makes `lead` the one that attempts go to; `false` while answers of a former leader are awaited.
    fn agree_on(&mut self, lead: Lead, now: Instant) -> bool {
        if self.lead == Some(lead) {
            // Back, or never really gone.
            self.former_since = None;
            return true;
        }
        if self.unsent < self.parts.len() && !self.is_named() {
            let since = *self.former_since.get_or_insert(now);
            if now < since + FORMER_LEADER_GRACE {
                return false;
            }
        }
        for part in &mut self.parts {
            if part.attempt.take().is_some() {
                part.maybe_stored = true;
            }
        }
        self.unsent = self.parts.len();
        self.scattered = false;
        self.lead = Some(lead);
        self.former_since = None;
        self.hold_until = None;
        self.refusals = 0;
        self.open = false;
        true
    }

    fn attempt(&mut self, at: usize, to: Lead, token: u64) -> Dispatch {
        let first = self.parts[at].first;
        // The same numbers may be under way twice; what it follows is the nearest batch of lower ones.
        let lower = self.parts.iter().take(at).rev().map(Part::last).find(|last| *last < first);
        let previous = lower.filter(|_| self.is_named());
        let part = &mut self.parts[at];
        let chained = previous.is_some();
        part.attempt = Some(Attempt { token, chained });
        self.unsent -= 1;
        Dispatch {
            to,
            token,
            queue: self.queue,
            producer: self.producer.clone(),
            previous: previous.unwrap_or(Seq(part.first.0.saturating_sub(1))),
            chained,
            first: part.first,
            resent: part.resent || part.maybe_stored,
            exchange: part.exchange.clone(),
            routing_key: part.routing_key.clone(),
            messages: part.messages.clone(),
        }
    }

    /// The attempt never left: it is as if it had not been made.
    pub fn undelivered(&mut self, token: u64, now: Instant, pause: bool) {
        if let Some(part) = self
            .parts
            .iter_mut()
            .find(|part| part.attempt.is_some_and(|attempt| attempt.token == token))
        {
            part.attempt = None;
            self.unsent += 1;
            self.scattered = true;
            if pause {
                self.hold(now);
            }
        }
    }

    /// What a leader says of an attempt. Attempts given up in the meantime are not known any more.
    pub fn outcome(
        &mut self,
        token: u64,
        result: Result<(), ErrorBody>,
        now: Instant,
        answers: &mut Vec<Answer>,
    ) {
        let is_it = |part: &Part| part.attempt.is_some_and(|attempt| attempt.token == token);
        let Some(at) = self.parts.iter().position(is_it) else { return };
        let attempt = self.parts[at].attempt.take().expect("it was found by its attempt");
        self.unsent += 1;
        match result {
            Ok(()) => {
                self.open = true;
                self.refusals = 0;
                let part = self.remove(at);
                answers.push(Answer { entry: part.entry, result: Ok(()), behind: Vec::new() });
            }
            Err(error) => {
                let part = &mut self.parts[at];
                part.maybe_stored |= error.outcome == Outcome::Unknown;
                if !is_worth_another_leader(&error, attempt.chained) {
                    return self.fail(at, error, answers);
                }
                part.refused = Some(error);
                self.scattered = true;
                self.open = false;
                self.hold(now);
                self.refuse_unsent(answers);
            }
        }
    }

    /// Gives the part at `at` up, and with it everything that must not overtake it.
    fn fail(&mut self, at: usize, error: ErrorBody, answers: &mut Vec<Answer>) {
        let part = self.remove(at);
        if !self.is_named() {
            answers.push(part.fail(error));
            return;
        }
        let broken = Broken::at(part.first, part.entry);
        answers.push(part.fail(error));
        self.broken = Some(match self.broken.take() {
            Some(before) => before.and(broken),
            None => broken,
        });
        // What is under way answers for itself: the leader refuses it if it must.
        self.refuse_unsent(answers);
    }

    /// In a broken lane nothing is sent (again).
    fn refuse_unsent(&mut self, answers: &mut Vec<Answer>) {
        let Some(broken) = &mut self.broken else { return };
        if self.unsent == 0 {
            return;
        }
        let (open, unsent): (VecDeque<Part>, VecDeque<Part>) =
            self.parts.drain(..).partition(|part| part.attempt.is_some());
        self.parts = open;
        self.unsent = 0;
        self.scattered = false;
        self.hold_until = None;
        answers.extend(unsent.into_iter().map(|part| broken.refuse_part(part)));
    }

    fn expire(&mut self, now: Instant, answers: &mut Vec<Answer>) {
        while let Some(front) = self.parts.front() {
            if now < front.taken_at + RETRY_FOR {
                return;
            }
            let why =
                front.refused.as_ref().map_or("nobody leads the queue", |error| &error.message);
            let words = format!(
                "no leader took it within {} s; the last answer: {why}",
                RETRY_FOR.as_secs()
            );
            let error = if front.maybe_stored || front.attempt.is_some() {
                ErrorBody::unknown(ErrorCode::TimedOut, words)
            } else {
                let code = front.refused.as_ref().map_or(ErrorCode::NotLeader, |error| error.code);
                ErrorBody::not_done(code, words)
            };
            self.fail(0, error, answers);
        }
    }

    fn queue_is_gone(&mut self, answers: &mut Vec<Answer>) {
        self.unsent = 0;
        self.scattered = false;
        for part in self.parts.drain(..) {
            let error = ErrorBody::not_done(
                ErrorCode::NoSuchQueue,
                "the queue was deleted before the message was confirmed",
            );
            answers.push(part.fail(error));
        }
    }

    fn remove(&mut self, at: usize) -> Part {
        let part = self.parts.remove(at).expect("the caller found it there");
        if part.attempt.is_none() {
            self.unsent -= 1;
        }
        part
    }

    fn hold(&mut self, now: Instant) {
        if self.hold_until.is_none_or(|until| until <= now) {
            self.hold_until = Some(now + pause(self.refusals));
            self.refusals = self.refusals.saturating_add(1);
        }
    }
}

/// How long to wait after so many refusals.
fn pause(refusals: u32) -> Duration {
    (RETRY_PAUSE_MIN * 2_u32.saturating_pow(refusals.min(10))).min(RETRY_PAUSE_MAX)
}

/// Whether the error says that this leader, at this moment, was the wrong one to ask.
fn is_worth_another_leader(error: &ErrorBody, chained: bool) -> bool {
    match error.code {
        ErrorCode::NotLeader
        | ErrorCode::Unconfirmed
        | ErrorCode::ShuttingDown
        | ErrorCode::NoSuchQueue => true,
        // The batch before it was refused, or went to another leader: both are sent again in order.
        ErrorCode::OutOfSequence | ErrorCode::ProducerForgotten => chained,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A producer that goes on publishing beyond its credit breaks the lane with each frame: what was remembered of them grew for as long as it did.
    #[test]
    fn of_what_broke_a_lane_the_lowest_numbers_are_remembered_and_no_more() {
        let broken = (1..=1_000_u64).rev().map(|n| Broken::at(Seq(n), n));
        let broken = broken.reduce(Broken::and).unwrap();
        assert_eq!(broken.causes.len(), CAUSES_MAX);
        assert_eq!((broken.failed, broken.causes[0]), (Seq(1), (Seq(1), 1)));
    }
}
