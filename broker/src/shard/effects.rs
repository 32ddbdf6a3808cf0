//! Carrying out what the replication machine wants done.

use bellwether_log::Record;
use bellwether_protocol::ids::Offset;
use bellwether_protocol::peer::PeerFrame;
use bellwether_replication::Effect;

use super::queue::{LocalQueue, answer};
use super::tools::Tools;

impl LocalQueue {
    pub(super) fn perform_one(&mut self, tools: &mut Tools, effect: Effect) {
        let queue = self.id;
        match effect {
            Effect::ReadState => tools.reread(queue),
            Effect::Cas { version, state } => {
                self.note_trigger(&state, tools.life);
                tools.cas(queue, version, state);
            }
            Effect::Subscribe { leader, subscription } => {
                tools.to_leader(leader, PeerFrame::Subscribe(vec![subscription]));
            }
            Effect::Unsubscribe { leader, epoch } => {
                tools.to_leader(leader, PeerFrame::Unsubscribe(vec![(queue, epoch)]));
                // Until that was in the outbox the connection went on promising, however long ago this turn began.
                self.replica.promised_until(std::time::Instant::now());
            }
            Effect::ReportDurable { leader, epoch, end } => {
                tools.report_durable(leader, queue, epoch, end)
            }
            Effect::FetchSnapshot { leader, epoch } => self.fetch_snapshot(tools, leader, epoch),
            Effect::TellEpochEnd { to, epoch, last_epoch, end, number } => {
                tools
                    .to_follower(to, PeerFrame::EpochEnd { queue, epoch, last_epoch, end, number });
            }
            Effect::TellNotLeading { to, epoch, seen } => {
                tools.to_follower(to, PeerFrame::NotLeading { queue, epoch, seen });
            }
            Effect::TellSnapshotNeeded { to, epoch } => {
                tools.to_follower(to, PeerFrame::SnapshotNeeded { queue, epoch });
            }
            Effect::Stream { to, from } => self.begin_stream(tools, to, from),
            Effect::StopStream { to } => self.end_stream(to),
            Effect::AskPositions { brokers } => {
                for broker in brokers {
                    tools.environment.peers.to_broker(broker, PeerFrame::PositionAsk(vec![queue]));
                }
            }
            Effect::Truncate { to } => self.truncate(tools, to),
            Effect::AppendEpochStart { epoch: _ } => self.append_epoch_start(tools),
            Effect::HighWatermark { end: _ } => {
                if let Some(leader) = &mut self.leader {
                    leader.tell_committed = true;
                }
            }
            Effect::Lead { epoch } => self.begin_leading(tools, epoch),
            Effect::Serve { epoch, deliver_from } => {
                // Everything below the high watermark is applied first: what is served begins there.
                self.apply_committed(tools);
                self.serve_when_applied(tools, epoch, deliver_from);
            }
            Effect::StopLeading { epoch: _ } => self.stop_leading(tools),
            Effect::LeaseChanged => self.renew_lease(tools),
            Effect::IsrChanged { from, to } => {
                if to.len() < from.len() {
                    tools.environment.metrics.isr_shrinks.increment();
                } else {
                    tools.environment.metrics.isr_expands.increment();
                }
                tracing::info!(queue = %self.definition.name, from = ?ids(&from), to = ?ids(&to), "the in-sync set changed");
            }
            Effect::Stopped { why } => {
                tools.environment.metrics.queues_stopped.add(1);
                tracing::error!(queue = %self.definition.name, queue.id = %queue, %why, "the queue's replica stopped on this broker");
                self.stop_leading(tools);
            }
            Effect::Forced(outcome) => {
                if let Some(reply) = self.forced.take() {
                    answer(reply, outcome);
                }
            }
            Effect::Superseded { why } => self.log_is_superseded(tools, &why),
            Effect::Stays => self.take_held(tools),
            Effect::Parted => {
                tracing::info!(queue = %self.definition.name, queue.id = %queue, "the queue's copies are on other brokers: the log here goes");
                tools.part(queue);
            }
            Effect::Renewed => {
                tools.environment.metrics.queues_stopped.subtract(1);
                tracing::warn!(queue = %self.definition.name, queue.id = %queue, store = %self.replica.member().store, "the queue's replica on this broker begins anew as another copy: it fetches everything from the leader, as soon as there is one");
                self.machine = bellwether_queue::Queue::new();
                self.applying_from_disk = false;
            }
        }
    }

    fn append_epoch_start(&mut self, tools: &mut Tools) {
        let Some(leader) = tools.life else { return };
        let record = Record::EpochStart { leader, time_ms: tools.time_ms };
        self.append(tools, &record);
    }

    fn truncate(&mut self, tools: &mut Tools, to: Offset) {
        let cut = tools.logs.truncate(self.id, to);
        tools.environment.metrics.truncations.increment();
        tracing::info!(queue = %self.definition.name, to = %to, "cut the log to agree with the leader's");
        if cut != to {
            self.step(
                tools,
                bellwether_replication::Event::Broken {
                    why: format!(
                        "the log was to be cut at {to}, which lies inside the batch at {cut}"
                    ),
                },
            );
        }
    }
}

fn ids(brokers: &[bellwether_protocol::ids::BrokerId]) -> Vec<u32> {
    brokers.iter().map(|broker| broker.0).collect()
}
