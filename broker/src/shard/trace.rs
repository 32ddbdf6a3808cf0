//! Spans of traced messages in a queue that is led here. Nothing of it is done without `--otlp-endpoint`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bellwether_protocol::client::DeliveredRun;
use bellwether_protocol::ids::{Offset, OffsetRange};
use bellwether_protocol::message::MessageBlock;
use opentelemetry::KeyValue;

use super::queue::LocalQueue;
use super::tools::Tools;
use crate::traces::{Parent, Step, Traces};

/// Traced messages of one queue that are remembered at each stage. Beyond it the later steps of some go unseen.
const TRACED_MAX: usize = 1024;

/// The traced messages of a queue, by what they wait for. Goes with the leadership: the spans that a lost leader owed are missing.
#[derive(Default)]
pub(crate) struct Traced {
    /// Appended and not committed, in order of the log; since when, and whether they are durable here.
    appended: VecDeque<(Offset, Parent, Instant, bool)>,
    /// With consumers.
    out: BTreeMap<Offset, Parent>,
    /// Settled in this turn.
    settling: Vec<(Offset, Parent, Instant)>,
    /// Settled by a record that ends there, and not committed.
    settled: VecDeque<(Offset, Offset, Parent, Instant)>,
}

impl LocalQueue {
    /// These messages were handed to the journal.
    pub(super) fn trace_appended(&mut self, tools: &Tools, base: Offset, messages: &MessageBlock) {
        let (Some(traces), Some(leader)) = (&tools.environment.traces, &mut self.leader) else {
            return;
        };
        for (offset, parent) in traces.among(base, messages) {
            if leader.traced.appended.len() < TRACED_MAX {
                leader.traced.appended.push_back((offset, parent, tools.now, false));
            }
        }
    }

    /// The log is durable here up to `end`.
    pub(super) fn trace_durable(&mut self, tools: &Tools, end: Offset) {
        let (Some(traces), Some(leader)) = (&tools.environment.traces, &mut self.leader) else {
            return;
        };
        let durable = leader.traced.appended.iter_mut().take_while(|(offset, ..)| *offset < end);
        for (offset, parent, since, is_durable) in durable.filter(|(.., is_durable)| !is_durable) {
            traces.done(*parent, Step::Append, *since, about(&self.definition, *offset));
            (*since, *is_durable) = (Instant::now(), true);
        }
    }

    /// The log is committed up to `end`.
    pub(super) fn trace_committed(&mut self, tools: &Tools, end: Offset) {
        let (Some(traces), Some(leader)) = (&tools.environment.traces, &mut self.leader) else {
            return;
        };
        let traced = &mut leader.traced;
        while let Some(&(offset, parent, since, _)) = traced.appended.front()
            && offset < end
        {
            traced.appended.pop_front();
            traces.done(parent, Step::Commit, since, about(&self.definition, offset));
        }
        while let Some(&(record, offset, parent, since)) = traced.settled.front()
            && record <= end
        {
            traced.settled.pop_front();
            traces.done(parent, Step::Settle, since, about(&self.definition, offset));
        }
    }

    /// These settles of the turn are in a record that ends at `end`.
    pub(super) fn trace_settles_appended(&mut self, end: Offset) {
        let Some(leader) = &mut self.leader else { return };
        for (offset, parent, since) in leader.traced.settling.drain(..) {
            if leader.traced.settled.len() < TRACED_MAX {
                leader.traced.settled.push_back((end, offset, parent, since));
            }
        }
    }
}

impl Traced {
    /// Runs were handed to a consumer.
    pub(super) fn delivered(
        &mut self,
        traces: &Traces,
        definition: &bellwether_coordinator::records::QueueDefinition,
        began: Instant,
        runs: &[DeliveredRun],
    ) {
        for run in runs {
            for (offset, parent) in traces.among(run.first, &run.messages) {
                traces.done(parent, Step::Deliver, began, about(definition, offset));
                self.out.insert(offset, parent);
                // The oldest may have been purged, and would never go.
                if self.out.len() > TRACED_MAX {
                    self.out.pop_first();
                }
            }
        }
    }

    /// A consumer settles these.
    pub(super) fn settle(&mut self, ranges: &[OffsetRange], now: Instant) {
        if self.out.is_empty() {
            return;
        }
        for range in ranges {
            let traced: Vec<Offset> =
                self.out.range(range.first..range.end).map(|(at, _)| *at).collect();
            for offset in traced {
                if let Some(parent) = self.out.remove(&offset) {
                    self.settling.push((offset, parent, now));
                }
            }
        }
    }
}

fn about(
    definition: &bellwether_coordinator::records::QueueDefinition,
    offset: Offset,
) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "bellwether"),
        KeyValue::new("messaging.destination.name", definition.name.to_string()),
        KeyValue::new("messaging.message.id", offset.0.to_string()),
    ]
}
