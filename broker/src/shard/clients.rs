//! What clients ask of a queue's leader: publish, consume, settle, purge, describe.

use std::time::Instant;

use bellwether_journal::DiskLevel;
use bellwether_log::{Enqueue, ProducerMark, Record, SettleKind};
use bellwether_protocol::client::QueueClass;
use bellwether_protocol::client::{QueueCounts, Settlement};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::{OffsetRange, Seq};
use bellwether_queue::{Admission, merged};
use bellwether_replication::{Effect, Event};
use tokio::sync::oneshot;

use super::input::{ConsumerKey, ConsumerSettle, QueuePublish};
use super::queue::{LocalQueue, Settling, Waiter, Waiting, answer};
use super::tools::Tools;

impl LocalQueue {
    pub fn publish(&mut self, tools: &mut Tools, publish: QueuePublish) {
        if self.replica.is_moving() {
            return self.hold(tools, publish);
        }
        if let Err(error) = self.may_take(tools) {
            return tools.outcome(&publish.origin, publish.token, Err(error));
        }
        let Some(leader) = &mut self.leader else { return };
        if !leader.serves {
            return self.hold(tools, publish);
        }
        let count = publish.messages.count();
        let admission = self.machine.admit(
            publish.producer.as_ref(),
            publish.previous,
            publish.chained,
            publish.first,
            count,
            publish.resent,
        );
        let end = match admission {
            Admission::Refused(error) => {
                return tools.outcome(&publish.origin, publish.token, Err(error));
            }
            // Stored already: confirmed once all that is appended now is committed.
            Admission::Duplicate => {
                tools.environment.metrics.duplicate_messages.add(u64::from(count));
                tools.logs.end(self.id)
            }
            Admission::Append { skip } => {
                tools.environment.metrics.duplicate_messages.add(u64::from(skip));
                self.enqueue(tools, &publish, skip)
            }
        };
        let waiter = Waiter::Publish { origin: publish.origin, token: publish.token };
        self.wait_for(tools, end, waiter);
    }

    /// Until it is clear who takes it.
    fn hold(&mut self, tools: &mut Tools, publish: QueuePublish) {
        let back = match &mut self.leader {
            Some(leader) => leader.hold_publish(publish),
            None => Some(publish),
        };
        if let Some(publish) = back {
            let error = self.not_leader(tools);
            tools.outcome(&publish.origin, publish.token, Err(error));
        }
    }

    fn enqueue(
        &mut self,
        tools: &mut Tools,
        publish: &QueuePublish,
        skip: u32,
    ) -> bellwether_protocol::ids::Offset {
        let messages = match skip {
            0 => publish.messages.clone(),
            _ => publish.messages.slice(skip, publish.messages.count() - skip),
        };
        self.tally.published_messages += u64::from(messages.count());
        self.tally.published_bytes += messages.len() as u64;
        let time_ms = self.next_time(tools);
        let record = Record::Enqueue(Enqueue {
            producer: publish.producer.as_ref().map(|name| ProducerMark {
                name: name.clone(),
                first: Seq(publish.first.0 + u64::from(skip)),
            }),
            time_ms,
            exchange: publish.exchange.clone(),
            routing_key: publish.routing_key.clone(),
            messages,
        });
        let base = tools.logs.end(self.id);
        let end = self.append(tools, &record);
        self.machine.appended(base, &record);
        if let Record::Enqueue(enqueue) = &record {
            self.trace_appended(tools, base, &enqueue.messages);
        }
        end
    }

    /// Never goes back within a queue, whatever the clock does.
    fn next_time(&mut self, tools: &Tools) -> u64 {
        let Some(leader) = &mut self.leader else { return tools.time_ms };
        leader.time_ms = leader.time_ms.max(tools.time_ms).max(self.machine.time_ms());
        leader.time_ms
    }

    pub fn wait_for(
        &mut self,
        tools: &mut Tools,
        end: bellwether_protocol::ids::Offset,
        who: Waiter,
    ) {
        if let Some(leader) = &mut self.leader {
            leader.waiting.push_back(Waiting { end, who });
        }
        tools.touch(self.id);
    }

    /// Whether publishes are taken: refused *before* the append, so that "not done" is true.
    fn may_take(&self, tools: &Tools) -> Result<(), ErrorBody> {
        let name = &self.definition.name;
        let Some(leader) = &self.leader else { return Err(self.not_leader(tools)) };
        if self.replica.leads().is_none() {
            return Err(self.not_leader(tools));
        }
        if leader.deleting {
            return Err(ErrorBody::not_done(
                ErrorCode::NoSuchQueue,
                format!("queue {name} is being deleted"),
            ));
        }
        if self.replica.starved(tools.now) {
            return Err(ErrorBody::not_done(
                ErrorCode::NotEnoughReplicas,
                format!(
                    "queue {name} has fewer live in-sync replicas than min_isr ({}); start the brokers of its other replicas and send again",
                    self.definition.min_isr
                ),
            ));
        }
        if tools.logs.disk() == DiskLevel::Starved {
            return Err(ErrorBody::not_done(
                ErrorCode::DiskFull,
                format!(
                    "the broker that leads queue {name} has no file descriptor left for its journal; settles and deletes of what it holds go on. Raise its limit of open files (LimitNOFILE), or close connections, then send again"
                ),
            ));
        }
        if self.lacks_disk(tools) {
            let class = self.definition.class;
            return Err(ErrorBody::not_done(
                ErrorCode::DiskFull,
                format!(
                    "the disk of the broker that leads queue {name} is too full for a queue of class {class}; settles and deletes go on. Consume or free space, then send again"
                ),
            ));
        }
        Ok(())
    }

    /// Whether the disk has no room for publishes to a queue of this class.
    fn lacks_disk(&self, tools: &Tools) -> bool {
        let level = tools.logs.disk();
        match self.definition.class {
            QueueClass::Bulk => tools.logs.disk_fills(),
            QueueClass::Standard => level != DiskLevel::Ok,
            QueueClass::Vital => level >= DiskLevel::Scarce,
        }
    }

    pub fn detach(&mut self, tools: &mut Tools, consumer: ConsumerKey) {
        let Some(leader) = &mut self.leader else { return };
        leader.held_attaches.retain(|attach| attach.consumer != consumer);
        if leader.deleting || self.replica.leads().is_none() {
            return leader.hold_detach(consumer);
        }
        if leader.consumers.remove(&consumer).is_none() {
            return;
        }
        if let Some(record) = self.machine.detach(consumer.0) {
            let base = tools.logs.end(self.id);
            self.append(tools, &record);
            self.machine.appended(base, &record);
        }
        tools.touch(self.id);
    }

    pub fn drained(&mut self, tools: &mut Tools, key: ConsumerKey) {
        if let Some(consumer) =
            self.leader.as_mut().and_then(|leader| leader.consumers.get_mut(&key))
        {
            consumer.held_back = false;
            tools.touch(self.id);
        }
        self.hand_over(tools, key);
    }

    /// Checks a settle and gathers it: all of a turn become one record each.
    pub fn settle(&mut self, tools: &mut Tools, settle: ConsumerSettle) {
        let Some(leader) = &mut self.leader else { return };
        if leader.deleting || self.replica.leads().is_none() {
            return leader.hold_settle(settle, &self.definition.name);
        }
        let Some(consumer) = leader.consumers.get_mut(&settle.consumer) else { return };
        match self.machine.settle(settle.consumer.0, settle.epoch, &settle.ranges) {
            Ok(ranges) => {
                let messages = ranges.iter().map(|range| range.count()).sum();
                consumer.released(messages);
                let metrics = &tools.environment.metrics;
                match settle.settlement {
                    Settlement::Ack | Settlement::Reject => metrics.settled_messages.add(messages),
                    Settlement::Return => metrics.returned_messages.add(messages),
                }
                self.tally.settled(settle.settlement, messages);
                leader.traced.settle(&ranges, tools.now);
                leader.settling.add(settle.settlement, ranges);
                leader.settling.told.push((settle.consumer, settle.number));
                self.regulate(settle.consumer);
                tools.touch(self.id);
            }
            Err(error) => consumer.sink.settle_failed(settle.number, error),
        }
    }

    /// One record for each kind of settlement of this turn, whatever the number of consumers and frames.
    pub(super) fn append_settles(&mut self, tools: &mut Tools) {
        let Some(leader) = &mut self.leader else { return };
        if leader.settling.told.is_empty() {
            return;
        }
        let settling: Settling = std::mem::take(&mut leader.settling);
        let mut end = tools.logs.end(self.id);
        for record in [
            settled(SettleKind::Ack, settling.acks),
            settled(SettleKind::Reject, settling.rejects),
            (!settling.returns.is_empty())
                .then(|| Record::Return { ranges: merged(settling.returns) }),
        ]
        .into_iter()
        .flatten()
        {
            let base = tools.logs.end(self.id);
            end = self.append(tools, &record);
            self.machine.appended(base, &record);
        }
        self.trace_settles_appended(end);
        for (consumer, number) in settling.told {
            self.wait_for(tools, end, Waiter::Settle { consumer, number });
        }
    }

    pub fn purge(&mut self, tools: &mut Tools, reply: oneshot::Sender<Result<u64, ErrorBody>>) {
        if !self.leader.as_ref().is_some_and(|leader| leader.serves && !leader.deleting)
            || self.replica.leads().is_none()
        {
            return answer(reply, Err(self.not_leader(tools)));
        }
        let record = self.machine.purge();
        let base = tools.logs.end(self.id);
        let end = self.append(tools, &record);
        self.machine.appended(base, &record);
        self.wait_for(tools, end, Waiter::Purge { reply });
    }

    pub fn describe(&self, tools: &Tools) -> Result<QueueCounts, ErrorBody> {
        let Some(leader) = self.leader.as_ref().filter(|leader| leader.serves) else {
            return Err(self.not_leader(tools));
        };
        let log = self.replica.log();
        Ok(QueueCounts {
            consumers: u32::try_from(leader.consumers.len()).unwrap_or(u32::MAX),
            high_watermark: log.high_watermark,
            log_end: log.end,
            ..self.machine.counts()
        })
    }

    /// Whether its leadership belongs elsewhere and could go there now.
    pub fn may_move(&self, now: Instant) -> bool {
        !self.is_to_be_deleted() && self.replica.moves_to(now).is_some()
    }

    pub fn moves_on(&mut self, tools: &mut Tools) {
        // What was gathered in this turn comes before the end: behind it its fate would be unknown.
        self.append_settles(tools);
        self.step(tools, Event::Move);
    }

    /// The queue is gone for good: its tombstone was read.
    pub fn deleted(&mut self, tools: &mut Tools) {
        let error = ErrorBody::not_done(
            ErrorCode::NoSuchQueue,
            format!("queue {} was deleted", self.definition.name),
        );
        if let Some(leader) = &mut self.leader {
            for consumer in std::mem::take(&mut leader.consumers).into_values() {
                consumer.sink.closed(error.clone());
            }
        }
        self.stop_leading(tools);
        // Peers hear that it takes no further part. It is no trouble that anybody has to look into, and the coordinator has nothing
        // of it that could be changed.
        let counted_as_stopped = self.replica.stopped().is_some();
        let mut effects = Vec::new();
        let why = "it was deleted".to_owned();
        self.replica.step(tools.now, Event::Broken { why }, &mut effects);
        effects.retain(|effect| !matches!(effect, Effect::Stopped { .. } | Effect::Cas { .. }));
        self.perform(tools, effects);
        if counted_as_stopped {
            tools.environment.metrics.queues_stopped.subtract(1);
        }
        tools.logs.remove(self.id);
    }
}

fn settled(kind: SettleKind, ranges: Vec<OffsetRange>) -> Option<Record> {
    (!ranges.is_empty()).then(|| Record::Settle { kind, ranges: merged(ranges) })
}
