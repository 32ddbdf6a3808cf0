//! What producers and consumers of a test report to: it feeds the checker, watches the flows for gaps, and writes the
//! history down as evidence.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::checker::{
    Checker, Consumers, Counts, Delivered, MessageId, Outcome, ProducerIndex, QueueIndex, Verdict,
    Violation,
};
use crate::gaps::Flow;
use crate::timeline::Timeline;

/// The written history stops at this size: it is evidence, and must not fill the disk of who tries the project.
const HISTORY_BYTES_MAX: u64 = 4 << 30;

/// How long a deposed leader's deliveries may arrive: the longest lease (500 ms), and the time a loaded machine of two
/// cores may take to carry a delivery from one process to another.
pub const STALE_FOR: Duration = Duration::from_millis(2_500);

/// Shared by all tasks of a test.
pub struct Recorder {
    begun: Instant,
    state: Mutex<State>,
}

struct State {
    checker: Checker,
    names: Vec<String>,
    history: Option<History>,
    confirms: Vec<Flow>,
    /// None for queues that nobody consumes from for now.
    deliveries: Vec<Option<Flow>>,
    settles: u64,
    timeline: Timeline,
}

struct History {
    file: BufWriter<File>,
    written: u64,
}

/// The longest gaps since [`Recorder::watch`], in the worst producer and the worst queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gaps {
    pub confirms: Duration,
    /// When that of the confirms began, counted from there.
    pub confirms_after: Duration,
    pub deliveries: Duration,
}

/// How much has flowed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub confirmed: u64,
    pub delivered: u64,
    pub settled: u64,
    pub violations: u64,
}

impl Recorder {
    /// An empty history; written to `history` if that is given.
    pub fn new(history: Option<&Path>) -> Result<Recorder> {
        let history = match history {
            Some(path) => Some(History { file: BufWriter::new(File::create(path)?), written: 0 }),
            None => None,
        };
        Ok(Recorder {
            begun: Instant::now(),
            state: Mutex::new(State {
                checker: Checker::new(STALE_FOR),
                names: Vec::new(),
                history,
                confirms: Vec::new(),
                deliveries: Vec::new(),
                settles: 0,
                timeline: Timeline::default(),
            }),
        })
    }

    /// A queue joins.
    pub fn queue(&self, name: &str, consumers: Consumers) -> QueueIndex {
        let mut state = self.state();
        state.names.push(name.to_owned());
        state.deliveries.push(Some(Flow::watch(Instant::now())));
        state.checker.queue(name, consumers)
    }

    /// Nobody consumes from this queue for now: that nothing is delivered from it is no gap.
    pub fn rests(&self, queue: QueueIndex) {
        self.state().deliveries[queue.0] = None;
    }

    /// A producer joins, whose messages go to each of `routes`.
    pub fn producer(&self, routes: &[QueueIndex]) -> ProducerIndex {
        let mut state = self.state();
        state.confirms.push(Flow::watch(Instant::now()));
        state.checker.producer(routes)
    }

    /// A message is about to be published.
    pub fn publish(&self, producer: ProducerIndex) -> MessageId {
        let mut state = self.state();
        let message = state.checker.publish(producer);
        state.write(self.begun, format_args!("publish {message}"));
        message
    }

    /// It was confirmed, so long after it was handed to the client.
    pub fn confirmed(&self, message: MessageId, took: Duration) {
        let at = self.begun.elapsed();
        self.state().timeline.confirmed(at, took);
        self.published(message, Outcome::Done, "");
    }

    /// What became of it.
    pub fn published(&self, message: MessageId, outcome: Outcome, why: &str) {
        let mut state = self.state();
        state.checker.published(message, outcome);
        if outcome == Outcome::Done {
            state.confirms[message.producer as usize].event(Instant::now());
        }
        state.write(self.begun, format_args!("published {message} {outcome:?} {why}"));
    }

    /// A delivery arrived.
    pub fn delivered(
        &self,
        queue: QueueIndex,
        message: Result<MessageId, String>,
        offset: u64,
        epoch: u64,
        redelivered: bool,
    ) {
        let mut state = self.state();
        let at = self.begun.elapsed();
        if let Some(flow) = &mut state.deliveries[queue.0] {
            flow.event(Instant::now());
        }
        state.timeline.delivered(at);
        let State { names, history, .. } = &mut *state;
        if let Some(history) = history {
            let (name, mark) = (&names[queue.0], if redelivered { "again" } else { "first" });
            match &message {
                Ok(message) => history
                    .line(at, format_args!("deliver {name} {message} @{offset} e{epoch} {mark}")),
                Err(what) => history
                    .line(at, format_args!("deliver {name} @{offset} e{epoch} {mark}: {what}")),
            }
        }
        state.checker.delivered(&Delivered { queue, message, offset, epoch, redelivered, at });
    }

    /// What became of an ack or a reject.
    pub fn settled(
        &self,
        queue: QueueIndex,
        messages: &[MessageId],
        epoch: u64,
        outcome: Outcome,
        why: &str,
    ) {
        let mut state = self.state();
        let at = self.begun.elapsed();
        if outcome == Outcome::Done {
            state.settles += messages.len() as u64;
        }
        let State { names, history, .. } = &mut *state;
        if let Some(history) = history {
            for message in messages {
                history.line(
                    at,
                    format_args!("settle {} {message} e{epoch} {outcome:?} {why}", names[queue.0]),
                );
            }
        }
        state.checker.settled(queue, messages, epoch, outcome, at);
    }

    /// How long the history is.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// What flowed when.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        self.state().timeline.clone()
    }

    /// A line in the history: a fault, a phase.
    pub fn note(&self, what: &str) {
        self.state().write(self.begun, format_args!("---- {what}"));
    }

    /// A violation that something other than the checker found.
    pub fn broken(&self, violation: Violation) {
        let mut state = self.state();
        state.write(self.begun, format_args!("---- violation: {violation}"));
        state.checker.broken(violation);
    }

    /// From now on gaps count.
    pub fn watch(&self) {
        let mut state = self.state();
        let now = Instant::now();
        let State { confirms, deliveries, .. } = &mut *state;
        confirms
            .iter_mut()
            .chain(deliveries.iter_mut().flatten())
            .for_each(|flow| *flow = Flow::watch(now));
    }

    /// The longest gaps since [`Recorder::watch`].
    #[must_use]
    pub fn gaps(&self) -> Gaps {
        let state = self.state();
        let now = Instant::now();
        let worst = state.confirms.iter().max_by_key(|flow| flow.longest(now));
        let confirms = worst.map(|flow| flow.longest(now));
        let confirms_after = worst.map(|flow| flow.longest_began(now)).unwrap_or_default();
        let deliveries = state.deliveries.iter().flatten().map(|flow| flow.longest(now)).max();
        Gaps {
            confirms: confirms.unwrap_or_default(),
            confirms_after,
            deliveries: deliveries.unwrap_or_default(),
        }
    }

    /// Whether every producer and every queue has had an event since [`Recorder::watch`].
    #[must_use]
    pub fn all_flow(&self) -> bool {
        let state = self.state();
        state.confirms.iter().chain(state.deliveries.iter().flatten()).all(|flow| flow.events() > 0)
    }

    /// How much has flowed.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let state = self.state();
        Progress {
            confirmed: state.checker.confirmed(),
            delivered: state.checker.deliveries(),
            settled: state.settles,
            violations: state.checker.violations(),
        }
    }

    /// Confirmed messages of a queue that are not known to be settled.
    #[must_use]
    pub fn outstanding(&self, queue: QueueIndex) -> u64 {
        self.state().checker.outstanding(queue)
    }

    /// Judges the drained history.
    pub fn finish(&self, counts: &[(QueueIndex, Counts)]) -> Result<Verdict> {
        let mut state = self.state();
        let checker = std::mem::replace(&mut state.checker, Checker::new(STALE_FOR));
        let verdict = checker.finish(counts);
        for evidence in &verdict.evidence {
            state.write(self.begun, format_args!("---- violation: {evidence}"));
        }
        if let Some(history) = &mut state.history {
            history.file.flush()?;
        }
        Ok(verdict)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A task that panicked left a history that is still worth judging.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, begun: Instant, what: std::fmt::Arguments<'_>) {
        if let Some(history) = &mut self.history {
            history.line(begun.elapsed(), what);
        }
    }
}

impl History {
    fn line(&mut self, at: Duration, what: std::fmt::Arguments<'_>) {
        if self.written > HISTORY_BYTES_MAX {
            return;
        }
        let line = format!("{:12.6} {what}\n", at.as_secs_f64());
        self.written += line.len() as u64;
        // A full disk costs evidence, not the run.
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            tracing::warn!(%error, "the history is no longer written");
            self.written = u64::MAX;
        }
    }
}
