//! Snapshots: giving one of a led queue, and taking one in place of a log that is too far behind.

use bellwether_log::{Batch, EpochHistory};
use bellwether_protocol::error::ErrorBody;
use bellwether_protocol::ids::{BrokerLife, Epoch, Offset, OffsetRange, StoreId};
use bellwether_queue::Queue;
use bellwether_replication::Event;
use bytes::Bytes;
use uuid::Uuid;

use super::queue::LocalQueue;
use super::tools::Tools;
use crate::seams::{SnapshotHead, SnapshotMore, SnapshotPart};

/// Bytes of live batches read at once.
const LIVE_BYTES_MAX: usize = 1024 * 1024;

/// A snapshot that is being fetched: staged in the journal, it replaces the log in one step.
pub(crate) struct Incoming {
    epoch: Epoch,
    at: Offset,
    epochs: Vec<(Epoch, Offset)>,
    machine: Queue,
    /// Committed to the journal; installed when that is durable.
    complete: bool,
}

impl LocalQueue {
    /// The beginning of a snapshot: the state as of what is applied, which is committed.
    pub(super) fn snapshot_head(
        &self,
        tools: &Tools,
        epoch: Epoch,
    ) -> Result<SnapshotHead, ErrorBody> {
        if self.replica.leads() != Some(epoch) {
            return Err(self.not_leader(tools));
        }
        let at = self.machine.applied();
        let epochs =
            self.replica.log().epochs.starts().iter().copied().filter(|(_, start)| *start < at);
        Ok(SnapshotHead {
            at,
            high_watermark: at,
            state: Bytes::from(self.machine.checkpoint()),
            epochs: epochs.collect(),
            live: self.machine.unsettled_in(OffsetRange::new(Offset(0), at)),
        })
    }

    pub(super) fn snapshot_more(
        &self,
        tools: &Tools,
        ranges: &[OffsetRange],
    ) -> Result<SnapshotMore, ErrorBody> {
        match tools.logs.read_live(self.id, ranges, LIVE_BYTES_MAX) {
            bellwether_journal::Read::Ready(batches) => Ok(SnapshotMore::Ready(batches)),
            bellwether_journal::Read::OnDisk(request) => Ok(SnapshotMore::OnDisk(request)),
            bellwether_journal::Read::Gone => Err(ErrorBody::not_done(
                bellwether_protocol::error::ErrorCode::NotLeader,
                "the messages were settled while the snapshot was taken; ask for another",
            )),
        }
    }

    pub(super) fn fetch_snapshot(&mut self, tools: &mut Tools, leader: BrokerLife, epoch: Epoch) {
        tracing::debug!(queue = %self.definition.name, leader = %leader, "fetching a snapshot");
        self.abandon_snapshot(tools);
        // Parts of an earlier fetch may still be under way: they must not get into this one.
        self.fetch = tools.next_fetch();
        self.fetching = Some(epoch);
        tools.environment.peers.fetch_snapshot(leader, self.id, epoch, self.fetch);
    }

    /// Whether a snapshot is on its way to the disk, to take the log's place: it can no longer be stopped, and
    /// nothing else may change the log meanwhile, which would then be another than the journal's.
    pub(super) fn is_installing(&self) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| incoming.complete)
    }

    /// Synced data of the log is damaged: nothing of it is used any more, and it is fetched anew. What is there stays as it is
    /// until then: it may be the last.
    pub(super) fn log_is_damaged(&mut self, tools: &mut Tools, what: &str) {
        let why = format!(
            "its log on this broker is damaged: {what}. The other copies go on, and it is fetched anew from the leader; until then nothing of it is deleted"
        );
        self.give_log_up(tools, what, why);
    }

    /// A leader was forced on the queue that lacks what this log is committed to: it is not the queue's log any more.
    pub(super) fn log_is_superseded(&mut self, tools: &mut Tools, what: &str) {
        let why = format!(
            "its log on this broker is not the queue's any more: {what}. It is fetched anew from the leader; until then nothing of it is deleted"
        );
        self.give_log_up(tools, what, why);
    }

    fn give_log_up(&mut self, tools: &mut Tools, what: &str, why: String) {
        // It is being replaced anyway.
        if self.is_installing() || self.replica.awaits_snapshot() {
            return;
        }
        self.abandon_snapshot(tools);
        self.fetching = None;
        tools.logs.quarantine(self.id, what.to_owned());
        self.damage = Some(what.to_owned());
        self.step(tools, Event::LogLost { store: StoreId(Uuid::new_v4()), why });
    }

    fn abandon_snapshot(&mut self, tools: &mut Tools) {
        if !self.is_installing() {
            tools.logs.abandon_snapshot(self.id);
            self.incoming = None;
        }
    }

    pub(super) fn snapshot_part(&mut self, tools: &mut Tools, fetch: u64, part: SnapshotPart) {
        let Some(epoch) = self.fetching.filter(|_| fetch == self.fetch && !self.is_installing())
        else {
            return;
        };
        if self.replica.follows().map(|(_, followed)| followed) != Some(epoch) {
            return self.abandon_snapshot(tools);
        }
        let taken = match part {
            SnapshotPart::Head { at, high_watermark, epochs, state } => {
                self.stage_head(tools, epoch, at, high_watermark, epochs, state)
            }
            SnapshotPart::Live(batches) => self.stage_live(tools, batches),
            SnapshotPart::End => self.commit(tools),
            SnapshotPart::Failed(why) => Err(why),
        };
        if let Err(why) = taken {
            tracing::warn!(queue = %self.definition.name, %why, "a snapshot could not be fetched; it is tried again");
            self.abandon_snapshot(tools);
            self.fetching = None;
            self.step(tools, Event::SnapshotFailed { epoch });
        }
    }

    fn stage_head(
        &mut self,
        tools: &mut Tools,
        epoch: Epoch,
        at: Offset,
        high_watermark: Offset,
        epochs: Vec<(Epoch, Offset)>,
        state: Bytes,
    ) -> Result<(), String> {
        if at < self.replica.log().high_watermark {
            return Err(format!(
                "the snapshot ends at {at}, below {} which is committed here",
                self.replica.log().high_watermark
            ));
        }
        let machine = Queue::restore(&state).map_err(|error| error.to_string())?;
        let history = EpochHistory::new(epochs.clone()).map_err(|error| error.to_string())?;
        let store = self.replica.member().store;
        tools.logs.stage_snapshot(self.id, store, at, high_watermark, history, state);
        self.incoming = Some(Incoming { epoch, at, epochs, machine, complete: false });
        Ok(())
    }

    fn stage_live(&mut self, tools: &mut Tools, mut batches: Bytes) -> Result<(), String> {
        let Some(incoming) = &self.incoming else { return Err("it did not begin".to_owned()) };
        while !batches.is_empty() {
            let batch = Batch::decode(&mut batches).map_err(|error| error.to_string())?;
            if batch.queue() != self.id || batch.end() > incoming.at {
                return Err(format!("a batch at {} does not belong to it", batch.base()));
            }
            tools.logs.stage_live(batch);
        }
        Ok(())
    }

    fn commit(&mut self, tools: &mut Tools) -> Result<(), String> {
        let Some(incoming) = &mut self.incoming else { return Err("it did not begin".to_owned()) };
        incoming.complete = true;
        tools.logs.commit_snapshot(self.id);
        Ok(())
    }

    /// The snapshot has durably replaced the log.
    pub(super) fn snapshot_installed(&mut self, tools: &mut Tools, end: Offset) {
        let Some(incoming) =
            self.incoming.take_if(|incoming| incoming.complete && incoming.at == end)
        else {
            return;
        };
        tracing::info!(queue = %self.definition.name, end = %end, "a snapshot replaced the log");
        self.machine = incoming.machine;
        self.damage = None;
        self.applying_from_disk = false;
        let Incoming { epoch, at, epochs, .. } = incoming;
        self.step(tools, Event::SnapshotInstalled { epoch, at, epochs });
        // What a leader of another epoch said meanwhile was not heard: it is asked again.
        if let Some((from, followed)) = self.replica.follows().filter(|(_, f)| *f != epoch) {
            self.step(tools, Event::NotLeading { from, epoch: followed, seen: followed });
        }
    }
}
