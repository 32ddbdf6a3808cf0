//! What a shard says of its queues to those who watch: one walk over them, a scrape.

use std::time::Instant;

use bellwether_coordinator::records::QueueState;
use bellwether_protocol::client::Settlement;
use bellwether_protocol::ids::BrokerLife;

use super::Shard;
use super::queue::LocalQueue;
use crate::metrics::Metrics;
use crate::metrics::queues::{QueueSample, QueueSelection, ShardSample};

pub(crate) use crate::metrics::queues::Tally;

/// What gives rise to a leadership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The queue was declared with this broker as its leader.
    #[default]
    Declared,
    /// The last leader resigned: it drained, the leadership moved, or its copy was damaged.
    HandedOver,
    /// The last leader is gone or dead.
    LeaderLost,
    /// The last leader was an earlier life of this broker.
    Restarted,
}

impl Trigger {
    pub fn count(self, metrics: &Metrics) {
        let counter = match self {
            Trigger::Declared => &metrics.elections_declared,
            Trigger::HandedOver => &metrics.elections_handed_over,
            Trigger::LeaderLost => &metrics.elections_leader_lost,
            Trigger::Restarted => &metrics.elections_restarted,
        };
        counter.increment();
    }
}

impl Tally {
    pub(super) fn settled(&mut self, settlement: Settlement, messages: u64) {
        match settlement {
            Settlement::Ack => self.acked_messages += messages,
            Settlement::Reject => self.rejected_messages += messages,
            Settlement::Return => self.returned_messages += messages,
        }
    }
}

impl Shard {
    /// One walk over the queues, without a look at any message.
    pub(super) fn sample(&self, wanted: &QueueSelection) -> ShardSample {
        // Not the turn's: a lag is counted up to now.
        let now = Instant::now();
        let mut sample = ShardSample::default();
        let mut selected = Vec::new();
        let queues = self.queues.values().map(Box::as_ref);
        for queue in queues.filter(|queue: &&LocalQueue| queue.leader.is_some()) {
            queue.add_to(&mut sample, now);
            if wanted.wants(&queue.definition.name) {
                selected.push(queue);
            }
        }
        sample.selected = selected.len() as u64;
        // No more than can be shown is copied.
        if selected.len() > wanted.most {
            let name = |queue: &&LocalQueue| {
                (queue.definition.virtual_host.clone(), queue.definition.name.clone())
            };
            selected.sort_by_cached_key(name);
            selected.truncate(wanted.most);
        }
        sample.queues = selected.into_iter().map(|queue| queue.row()).collect();
        sample
    }
}

impl LocalQueue {
    /// It asks for a change of the state: if that is to lead, why is remembered.
    pub(super) fn note_trigger(&mut self, asked: &QueueState, me: Option<BrokerLife>) {
        if self.leader.is_some() || asked.leader.is_none() || asked.leader != me {
            return;
        }
        let last = self.replica.state().and_then(|(state, _)| state.leader);
        self.trigger = match (last, me) {
            (None, _) => Trigger::HandedOver,
            (Some(last), Some(me)) if last.broker == me.broker => Trigger::Restarted,
            (Some(_), _) => Trigger::LeaderLost,
        };
    }

    fn add_to(&self, sample: &mut ShardSample, now: Instant) {
        let counts = self.machine.counts();
        let log = self.replica.log();
        sample.ready += counts.ready;
        sample.unsettled += counts.delivered;
        sample.uncommitted += log.end.0.saturating_sub(log.high_watermark.0);
        if let Some(leader) = &self.leader {
            sample.without_lease += u64::from(leader.serves && !leader.lease.holds(now));
        }
        for lag in self.replica.lags(now) {
            sample.followers.entry(lag.broker).or_default().add(lag.records, lag.behind_for);
        }
    }

    fn row(&self) -> QueueSample {
        let log = self.replica.log();
        let consumers = self.leader.as_ref().map_or(0, |leader| leader.consumers.len());
        let (replicas, in_sync) = self
            .replica
            .state()
            .map_or((0, 0), |(state, _)| (state.replicas.len() as u64, state.isr.len() as u64));
        let mut counts = self.machine.counts();
        counts.consumers = u32::try_from(consumers).unwrap_or(u32::MAX);
        counts.high_watermark = log.high_watermark;
        counts.log_end = log.end;
        QueueSample {
            virtual_host: self.definition.virtual_host.clone(),
            queue: self.definition.name.clone(),
            counts,
            tally: self.tally,
            replicas,
            in_sync,
        }
    }
}
