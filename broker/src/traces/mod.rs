//! Traces of single messages, for those whose producer asks for it: a message that carries a sampled `traceparent` (W3C Trace
//! Context) among its headers leaves five spans, *publish*, *append*, *commit*, *deliver* and *settle*, all children of the
//! producer's span. The header goes on to the consumer as it is: the batch is encoded once, and nobody writes into it.
//!
//! *Invariant:* without `--otlp-endpoint` there is no [`Traces`], and nobody looks into a header. With it, spans that cannot
//! be sent in time are dropped and counted; nothing waits for the collector.

mod export;
mod parent;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bellwether_protocol::ids::Offset;
use bellwether_protocol::message::MessageBlock;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tokio::sync::mpsc;

pub use export::{ExportError, Exporter};
pub use parent::Parent;

use crate::metrics::Metrics;

/// Spans that wait to be sent, each a few hundred bytes. More than that are dropped: a trace is not worth a broker's memory.
const SPANS_WAITING_MAX: usize = 8192;
/// Messages of one batch that are traced at most: who samples every message of a thousand sees enough in a hundred.
const TRACED_IN_BATCH_MAX: usize = 128;

/// A part of a message's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// From taking it on the producer's connection to answering for it.
    Publish,
    /// From the leader's handing it to its journal to its being durable there.
    Append,
    /// From then on to its being committed: durable on every in-sync replica.
    Commit,
    /// Handing it to a consumer.
    Deliver,
    /// From the consumer's settle to its being committed.
    Settle,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Publish => "bellwether publish",
            Step::Append => "bellwether append",
            Step::Commit => "bellwether commit",
            Step::Deliver => "bellwether deliver",
            Step::Settle => "bellwether settle",
        }
    }

    fn kind(self) -> SpanKind {
        match self {
            Step::Publish | Step::Deliver | Step::Settle => SpanKind::Server,
            Step::Append | Step::Commit => SpanKind::Internal,
        }
    }
}

/// Where spans go.
#[derive(Clone, Debug)]
pub struct Traces {
    spans: mpsc::Sender<SpanData>,
    sample: crate::watch::Ratio,
    scope: InstrumentationScope,
    metrics: Arc<Metrics>,
}

impl Traces {
    /// Traces of this part of what producers sample, and the spans to be exported.
    #[must_use]
    pub fn new(
        sample: crate::watch::Ratio,
        metrics: Arc<Metrics>,
    ) -> (Traces, mpsc::Receiver<SpanData>) {
        let (spans, waiting) = mpsc::channel(SPANS_WAITING_MAX);
        let scope = InstrumentationScope::builder("bellwether")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        (Traces { spans, sample, scope, metrics }, waiting)
    }

    /// Those of `messages`, the first of which lies at `first`, that are traced.
    #[must_use]
    pub fn among(&self, first: Offset, messages: &MessageBlock) -> Vec<(Offset, Parent)> {
        // Most blocks have no such header at all, and then nothing is decoded.
        if !parent::may_be_in(messages.bytes()) {
            return Vec::new();
        }
        let traced = messages.iter().enumerate().filter_map(|(at, message)| {
            let parent = Parent::of(message.headers.as_ref()?)?;
            let sampled = self.sample.takes(parent.trace.to_bytes());
            sampled.then_some((Offset(first.0 + at as u64), parent))
        });
        traced.take(TRACED_IN_BATCH_MAX).collect()
    }

    /// A step of a traced message is done, now.
    pub fn done(&self, parent: Parent, step: Step, began: Instant, about: Vec<KeyValue>) {
        let end_time = SystemTime::now();
        let start_time = end_time.checked_sub(began.elapsed()).unwrap_or(end_time);
        let span = SpanId::from(rand::random::<u64>());
        let state = TraceState::default();
        let span = SpanData {
            span_context: SpanContext::new(parent.trace, span, TraceFlags::SAMPLED, false, state),
            parent_span_id: parent.span,
            parent_span_is_remote: true,
            span_kind: step.kind(),
            name: step.name().into(),
            start_time,
            end_time,
            attributes: about,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        };
        if self.spans.try_send(span).is_err() {
            self.metrics.spans_dropped.increment();
        }
    }
}
