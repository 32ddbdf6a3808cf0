//! What a shard does by itself: time, the journal's progress, checkpoints, cleaning.

use bellwether_journal::{DiskLevel, Evacuation, Progress, QueueLive, ReadError};
use bellwether_log::Batch;
use bellwether_protocol::ids::QueueId;
use bellwether_replication::Event;
use bytes::Bytes;

use super::Shard;
use super::tools::{Internal, ReadPurpose};
use crate::admin::Trouble;

/// How often it is looked for leaderships that belong elsewhere, in ticks.
const MOVES_EVERY: u64 = 10;
/// How many of a shard move at once: each is a write to the coordinator, and clients wait for that.
const MOVES_MAX: usize = 16;

/// How often it is counted what the indexes of the logs hold, in ticks: with very many queues that takes milliseconds.
const COUNT_INDEXES_EVERY: u64 = 100;

impl Shard {
    pub(super) fn tick(&mut self, paused: bool) {
        self.ticks += 1;
        if paused {
            self.each(|queue, tools| queue.step(tools, Event::Paused));
        }
        for id in self.attention.ticking() {
            self.on(id, |queue, tools| {
                if queue.replica.wants_ticks() {
                    queue.step(tools, Event::Tick);
                }
            });
        }
        if self.ticks.is_multiple_of(MOVES_EVERY) {
            self.move_on();
            self.note_committed();
        }
        if self.ticks.is_multiple_of(COUNT_INDEXES_EVERY) {
            self.tools.logs.count_indexes();
        }
        for id in self.tools.logs.wants_checkpoint() {
            self.checkpoint(id);
        }
    }

    /// Lets leaderships go to where they belong, a few at a time.
    fn move_on(&mut self) {
        // Who moves wants ticks, and belongs elsewhere.
        let moving = |id: &QueueId| self.queues.get(id).is_some_and(|q| q.replica.is_moving());
        let mut moves = MOVES_MAX.saturating_sub(self.attention.moving(moving));
        for id in self.attention.misplaced() {
            if moves == 0 {
                return;
            }
            self.on(id, |queue, tools| {
                if queue.may_move(tools.now) {
                    moves -= 1;
                    queue.moves_on(tools);
                }
            });
        }
    }

    /// Keeps the state of what is applied, so that a restart need not replay it and its log can be freed.
    fn checkpoint(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get(&id) else { return };
        let replica = &queue.replica;
        if replica.stopped().is_some() || replica.awaits_snapshot() || queue.incoming.is_some() {
            return;
        }
        let at = queue.machine.applied();
        if self.tools.logs.checkpointed(id).is_some_and(|(last, _)| at <= last) {
            return;
        }
        let high_watermark = queue.replica.log().high_watermark.max(at);
        let state = Bytes::from(queue.machine.checkpoint());
        self.tools.logs.checkpoint(id, at, high_watermark, state);
    }

    pub(super) fn journal_done(&mut self) {
        for progress in self.tools.logs.completed() {
            match progress {
                Progress::Durable { queue, end } => {
                    self.on(queue, |queue, tools| {
                        let start = tools.logs.start(queue.id);
                        queue.replica.log_starts(start);
                        queue.trace_durable(tools, end);
                        queue.step(tools, Event::LocalDurable { end });
                    });
                }
                Progress::Installed { queue, end } => {
                    self.on(queue, |queue, tools| queue.snapshot_installed(tools, end));
                }
                Progress::Evacuate(evacuation) => self.evacuate(evacuation),
                Progress::Corrupt { queue, what } => {
                    self.on(queue, |queue, tools| queue.log_is_damaged(tools, &what));
                }
                Progress::Disk(level) => {
                    tracing::debug!(?level, "the room on the disk has changed");
                    let starved = level == DiskLevel::Starved;
                    let full = level != DiskLevel::Ok && !starved;
                    let metrics = &self.tools.environment.metrics;
                    metrics.disk_full.set(u64::from(full));
                    metrics.journal_starved.set(u64::from(starved));
                }
                Progress::Failed(why) => {
                    tracing::error!(%why, "the journal failed: this store takes no further part; restart the broker with a sound disk");
                    self.tools.environment.metrics.journal_failed.set(1);
                    self.tools.environment.health.raise(Trouble::StoreFailed(why.clone()));
                    self.each(|queue, tools| {
                        queue.step(tools, Event::StoreFailed { why: why.clone() })
                    });
                    self.store_failed = Some(why);
                }
            }
        }
    }

    fn evacuate(&mut self, evacuation: Evacuation) {
        let mut live = Vec::with_capacity(evacuation.queues.len());
        for need in &evacuation.queues {
            if need.checkpoint_wanted {
                self.checkpoint(need.queue);
            }
            let Some(queue) = self.queues.get(&need.queue) else { continue };
            // What is not known to be settled is kept.
            if queue.replica.stopped().is_none() && !queue.replica.awaits_snapshot() {
                let unsettled = queue.machine.unsettled_in(need.offsets);
                live.push(QueueLive { queue: need.queue, unsettled });
            }
        }
        self.tools.logs.evacuate(evacuation, &live);
        for queue in &live {
            let start = self.tools.logs.start(queue.queue);
            if let Some(queue) = self.queues.get_mut(&queue.queue) {
                queue.replica.log_starts(start);
            }
        }
    }

    pub(super) fn answered(&mut self, internal: Internal) {
        match internal {
            Internal::Cas { queue, version, state, outcome } => self.on(queue, |queue, tools| {
                queue.step(tools, Event::Cas { version, state, outcome });
            }),
            Internal::Read { queue, purpose, result: Ok(batches), held: _held } => {
                self.read_done(queue, purpose, &batches)
            }
            Internal::Read { queue, purpose: _, result: Err(error), held: _ } => {
                self.on(queue, |queue, tools| match &error {
                    ReadError::Damaged { .. } => queue.log_is_damaged(tools, &error.to_string()),
                    ReadError::Io { .. } => {
                        let why = format!("its log on this broker cannot be read: {error}");
                        queue.step(tools, Event::Broken { why });
                    }
                });
            }
        }
    }

    fn read_done(&mut self, queue: QueueId, purpose: ReadPurpose, batches: &[Batch]) {
        self.on(queue, |queue, tools| match purpose {
            ReadPurpose::Apply { from } => queue.apply_read(tools, from, batches),
            ReadPurpose::Stream { to, from } => queue.stream_read(tools, to, from, batches),
            ReadPurpose::Deliver { consumer } => queue.deliver_read(tools, consumer, batches),
            ReadPurpose::Browse => {}
        });
    }
}
