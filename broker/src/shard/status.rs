//! What a copy says of itself to an operator, what a leader writes down for the day when an incomplete copy is the last, and
//! the order to lead.

use std::time::Duration;

use bellwether_coordinator::records::Committed;
use bellwether_protocol::client::{CopyHealth, CopyRole, CopyStatus, StoppedCopy};
use bellwether_protocol::ids::QueueId;
use bellwether_replication::{Event, NotForced};

use super::Shard;
use super::input::ForceOrder;
use super::queue::{LocalQueue, answer};
use super::tools::Tools;

/// A queue writes down how far it is committed no more often than this.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// Queues of a shard that do so in one round of a tenth of a second: each is a write to the coordinator.
const NOTES_MAX: usize = 4;

impl LocalQueue {
    pub(super) fn copy_status(&self, tools: &Tools) -> CopyStatus {
        let (replica, log) = (&self.replica, self.replica.log());
        let counts = self.machine.counts();
        let others = replica.members(tools.now).into_iter().map(|health| CopyHealth {
            member: health.member,
            in_sync: health.in_sync,
            gone: health.gone,
            durable: health.durable,
        });
        let time = self.machine.time_ms();
        let why = self.damage.as_deref().or(replica.stopped()).or(replica.disk_trouble());
        CopyStatus {
            member: replica.member(),
            role: self.role(),
            why: why.map(str::to_owned),
            starved: replica.starved(tools.now),
            last_epoch: log.epochs.last(),
            log_start: log.start,
            log_end: log.end,
            durable: log.durable,
            high_watermark: log.high_watermark,
            heard_committed: replica.heard_committed(),
            enqueued: counts.enqueued,
            counted: self.machine.applied() >= log.end,
            last_message_ms: (time > 0).then_some(time),
            others: others.collect(),
            epoch_start: log.epochs.starts().last().map(|(_, start)| *start),
            enqueued_below: None,
        }
    }

    fn role(&self) -> CopyRole {
        let replica = &self.replica;
        if replica.stopped().is_some() {
            CopyRole::Stopped
        } else if replica.awaits_snapshot() {
            CopyRole::Fetches
        } else if replica.serves().is_some() && self.leader.as_ref().is_some_and(|l| l.serves) {
            CopyRole::Serves
        } else if replica.is_leading() {
            CopyRole::Leads
        } else if replica.is_standing() {
            CopyRole::Stands
        } else if replica.follows().is_some() {
            CopyRole::Follows
        } else {
            CopyRole::Waits
        }
    }

    /// What is committed, counted. None: that was written down a moment ago, or is not worth it.
    fn wants_note(&self, tools: &Tools) -> bool {
        let early = self.noted_at.is_some_and(|at| tools.now < at + NOTE_EVERY);
        // It would move the version that the delete names, which then would be refused.
        !early && !self.is_to_be_deleted() && self.replica.wants_note()
    }

    fn note_committed(&mut self, tools: &mut Tools) {
        let counts = self.machine.counts();
        self.noted_at = Some(tools.now);
        let committed = Committed {
            end: self.machine.applied(),
            enqueued: counts.enqueued,
            settled: counts.settled + counts.purged,
            at_ms: tools.time_ms,
            // The replica knows.
            term: None,
        };
        self.step(tools, Event::Note(committed));
    }
}

impl Shard {
    /// Those that have waited longest first: each gets its turn, however many there are.
    pub(super) fn note_committed(&mut self) {
        let tools = &self.tools;
        let mut due: Vec<_> = self
            .attention
            .unnoted()
            .filter_map(|id| self.queues.get(&id))
            .filter(|queue| queue.wants_note(tools))
            .map(|queue| (queue.noted_at, queue.id))
            .collect();
        due.sort_unstable();
        for (_, id) in due.into_iter().take(NOTES_MAX) {
            self.on(id, LocalQueue::note_committed);
        }
    }

    pub(super) fn stopped_copies(&self, limit: usize) -> (u64, Vec<StoppedCopy>) {
        let stopped = self.queues.values().filter(|queue| queue.replica.stopped().is_some());
        let mut named: Vec<StoppedCopy> = stopped
            .map(|queue| StoppedCopy {
                virtual_host: queue.definition.virtual_host.clone(),
                queue: queue.definition.name.clone(),
                why: queue.replica.stopped().unwrap_or_default().to_owned(),
            })
            .collect();
        named
            .sort_unstable_by(|a, b| (&a.virtual_host, &a.queue).cmp(&(&b.virtual_host, &b.queue)));
        let count = named.len() as u64;
        named.truncate(limit);
        (count, named)
    }

    pub(super) fn force(&mut self, asked: ForceOrder) {
        let ForceOrder { queue: id, state, version, gone, order, reply } = asked;
        let Some(queue) = self.queues.get_mut(&id) else {
            return answer(reply, Err(no_copy(id)));
        };
        if queue.forced.is_some() {
            let what = "another order is under way".to_owned();
            return answer(reply, Err(NotForced::Changed { what }));
        }
        tracing::warn!(queue = %queue.definition.name, queue.id = %id, given_up = ?order.given_up, lost = order.lost, more = order.more, "an operator orders the copy on this broker to lead without the in-sync set");
        queue.step(&mut self.tools, Event::State { state, version, synced: true });
        if let Some(life) = gone {
            queue.step(&mut self.tools, Event::Gone { life });
        }
        queue.forced = Some(reply);
        queue.step(&mut self.tools, Event::Force(order));
    }
}

fn no_copy(queue: QueueId) -> NotForced {
    NotForced::Unusable { why: format!("there is no copy of queue {queue} here") }
}
