//! Applying what is committed to the queue's state, on every replica; on the leader also telling those who wait for it.

use std::time::Instant;

use bellwether_journal::Read;
use bellwether_log::Batch;
use bellwether_protocol::ids::{Epoch, Offset};
use bellwether_queue::Effect;
use bellwether_replication::Event;

use super::queue::{LocalQueue, Waiter, answer};
use super::tools::{ReadPurpose, Tools};

/// Bytes of records applied at once before others get their turn.
const APPLY_BYTES_MAX: usize = 4 * 1024 * 1024;

impl LocalQueue {
    /// Applies everything below the high watermark that can be read without waiting.
    pub(super) fn apply_committed(&mut self, tools: &mut Tools) {
        while !self.applying_from_disk
            && self.replica.stopped().is_none()
            && self.machine.applied() < self.replica.log().high_watermark
        {
            let from = self.machine.applied();
            match tools.logs.read(self.id, from, APPLY_BYTES_MAX) {
                Read::Ready(batches) if batches.is_empty() => return,
                Read::Ready(batches) => self.apply(tools, &batches),
                Read::OnDisk(request) => {
                    self.applying_from_disk = true;
                    tools.read_on_disk(self.id, ReadPurpose::Apply { from }, request);
                }
                Read::Gone => {
                    let why = format!("committed records from {from} on are missing from the log");
                    self.step(tools, Event::Broken { why });
                }
            }
        }
        self.answer_committed(tools);
    }

    pub(super) fn apply_read(&mut self, tools: &mut Tools, from: Offset, batches: &[Batch]) {
        self.applying_from_disk = false;
        if from == self.machine.applied() {
            self.apply(tools, batches);
        }
        tools.touch(self.id);
        self.serve_after_replay(tools);
    }

    fn apply(&mut self, tools: &mut Tools, batches: &[Batch]) {
        let high_watermark = self.replica.log().high_watermark;
        for batch in batches {
            if batch.end() > high_watermark {
                return;
            }
            if batch.base() < self.machine.applied() {
                continue;
            }
            if let Err(why) = self.apply_one(tools, batch) {
                return self.step(tools, Event::Broken { why });
            }
        }
    }

    fn apply_one(&mut self, tools: &mut Tools, batch: &Batch) -> Result<(), String> {
        let record = batch.record().map_err(|error| error.to_string())?;
        let mut effects = Vec::new();
        self.machine
            .apply(batch.base(), &record, &mut effects)
            .map_err(|error| error.to_string())?;
        for effect in effects {
            match effect {
                Effect::Gone { run } => tools.logs.settled(self.id, run),
                Effect::Purged { messages } => {
                    if let Some(leader) = &mut self.leader {
                        leader.purged.push_back(messages);
                    }
                }
                Effect::Deliver { .. } => {}
            }
        }
        Ok(())
    }

    /// Tells those whose records are committed, and applied.
    fn answer_committed(&mut self, tools: &mut Tools) {
        let committed = self.replica.log().high_watermark.min(self.machine.applied());
        self.trace_committed(tools, committed);
        let Some(leader) = &mut self.leader else { return };
        if leader.deleting {
            return;
        }
        while leader.waiting.front().is_some_and(|waiting| waiting.end <= committed) {
            let Some(waiting) = leader.waiting.pop_front() else { return };
            match waiting.who {
                Waiter::Publish { origin, token } => tools.outcome(&origin, token, Ok(())),
                Waiter::Settle { consumer, number } => {
                    if let Some(consumer) = leader.consumers.get_mut(&consumer) {
                        consumer.settled = consumer.settled.max(number);
                        consumer.tell_settled = true;
                    }
                }
                Waiter::Purge { reply } => {
                    answer(reply, Ok(leader.purged.pop_front().unwrap_or_default()));
                }
            }
        }
        for consumer in leader.consumers.values_mut() {
            if std::mem::take(&mut consumer.tell_settled) {
                consumer.sink.settled(consumer.settled);
            }
        }
    }

    /// Serves once the state is that of the whole committed log; a long log may have to be read from the disk first.
    pub(super) fn serve_when_applied(
        &mut self,
        tools: &mut Tools,
        epoch: Epoch,
        deliver_from: Instant,
    ) {
        if let Some(leader) = &mut self.leader {
            leader.serve_at = Some((epoch, deliver_from, self.replica.log().high_watermark));
        }
        self.serve_after_replay(tools);
    }

    pub(super) fn serve_after_replay(&mut self, tools: &mut Tools) {
        self.apply_committed(tools);
        let applied = self.machine.applied();
        let Some(leader) = &mut self.leader else { return };
        if let Some((epoch, deliver_from, _)) =
            leader.serve_at.take_if(|(_, _, end)| applied >= *end)
        {
            self.begin_serving(tools, epoch, deliver_from);
        }
    }
}
