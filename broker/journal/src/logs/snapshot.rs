//! Replacing a log by a snapshot, all or nothing: its batches are written under a generation that no log has, and
//! one register makes that generation the log.

use bellwether_log::{Batch, EpochHistory};
use bellwether_protocol::ids::{Offset, QueueId, StoreId};
use bytes::Bytes;

use super::{Logs, SentWhat};
use crate::Checkpoint;
use crate::format::{EntryKind, Stamp};
use crate::log::Log;
use crate::register::{self, Lineage};

/// A snapshot that has not replaced its log yet.
pub struct Staging {
    pub log: Log,
    pub checkpoint: Checkpoint,
    pub committed: bool,
}

impl Logs {
    /// Begins to replace the queue's whole log by a snapshot (making a log if there is none): state as of `at`, then live
    /// batches below it ([`Logs::stage_live`]), then [`Logs::commit_snapshot`]. Until that is durable
    /// ([`crate::Progress::Installed`]) the old log stays as it is, also over a crash. A snapshot begun
    /// before and not committed is forgotten. `store`: as whose copy the log takes part from then on.
    pub fn stage_snapshot(
        &mut self,
        queue: QueueId,
        store: StoreId,
        at: Offset,
        high_watermark: Offset,
        epochs: EpochHistory,
        state: Bytes,
    ) {
        let mut log = Log::new(Lineage::new(self.shared.stamp(), store));
        log.epochs = epochs;
        let checkpoint = Checkpoint { at, high_watermark, state };
        self.staging.insert(queue, Staging { log, checkpoint, committed: false });
    }

    /// One of the snapshot's live batches, ascending. All lie below its `at`.
    ///
    /// # Panics
    /// When no snapshot of its queue is staged, or the batch is not below `at`.
    pub fn stage_live(&mut self, batch: Batch) {
        self.assert_fits(&batch);
        let queue = batch.queue();
        let staging = self.staged(queue);
        assert!(batch.end() <= staging.checkpoint.at, "{batch:?} lies beyond the snapshot");
        staging.log.expect(&batch);
        let generation = staging.log.lineage.last();
        self.gather_batch(EntryKind::Copy, generation, &batch);
    }

    /// Everything is staged: the snapshot replaces the log, all or nothing.
    ///
    /// # Panics
    /// When no snapshot of the queue is staged.
    pub fn commit_snapshot(&mut self, queue: QueueId) {
        let version = self.shared.stamp();
        let staging = self.staged(queue);
        staging.committed = true;
        let Staging { log, checkpoint, .. } = staging;
        let made = register::checkpoint(queue, version, &log.lineage, &log.epochs, checkpoint);
        // The state may be large, and is on its way to the disk.
        checkpoint.state = Bytes::new();
        self.gather_register(made, SentWhat::Install);
    }

    /// Forgets what was staged. No-op once it is committed, or when nothing is.
    pub fn abandon_snapshot(&mut self, queue: QueueId) {
        if self.staging.get(&queue).is_some_and(|staging| !staging.committed) {
            self.staging.remove(&queue);
        }
    }

    fn staged(&mut self, queue: QueueId) -> &mut Staging {
        let staging = self.staging.get_mut(&queue);
        let staging = staging.unwrap_or_else(|| panic!("queue {queue} has no snapshot staged"));
        assert!(!staging.committed, "the snapshot of queue {queue} is committed already");
        staging
    }

    /// A committed snapshot is durable: it becomes the log. Its end, unless another has been staged meanwhile.
    pub(super) fn install(&mut self, queue: QueueId, generation: Stamp) -> Option<Offset> {
        let staging = self.staging.get(&queue)?;
        if !staging.committed || staging.log.lineage.root() != generation {
            return None;
        }
        let Staging { mut log, checkpoint, .. } = self.staging.remove(&queue)?;
        let at = checkpoint.at;
        (log.start, log.end, log.durable) = (at, at, at);
        log.checkpointed = Some((at, checkpoint.high_watermark));
        self.cache.forget(queue);
        let replaced = self.logs.insert(queue, log);
        self.acquit(replaced);
        Some(at)
    }
}
