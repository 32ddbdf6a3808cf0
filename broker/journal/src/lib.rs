//! The journal: one append-only log of segment files for all queues of a broker, written by one thread
//! that makes everything waiting durable with one write and one fdatasync; and [`Logs`], through which each
//! shard appends to and reads the logs of its own queues. See docs/storage.md for the bytes.

mod config;
mod logs;
mod metrics;
mod read;
mod store;

use std::sync::Arc;

use bellwether_protocol::ids::{BrokerId, Offset, QueueId};

pub use config::JournalConfig;
pub use logs::{
    Checkpoint, Condition, DiskLevel, Evacuation, EvacuationNeed, Logs, Progress, QueueLive, Read,
};
pub use metrics::{JournalMetrics, SYNC_BUCKETS_US};
pub use read::{ReadError, ReadRequest};
pub use store::{OpenError, StoreFolder};

/// An opened journal: checked, cut behind its last whole group and synced. Nothing is written before [`Journal::start`].
pub struct Journal {}

/// What a restart found of one queue. Its log is in the [`Logs`] of its shard.
#[derive(Clone, Debug)]
pub struct RecoveredLog {
    pub queue: QueueId,
    /// The state to restore; none: replay from zero.
    pub checkpoint: Option<Checkpoint>,
    pub start: Offset,
    pub end: Offset,
    pub condition: Condition,
}

/// The journal thread. Dropping it does not stop it.
pub struct JournalThread {}

impl Journal {
    /// Opens the data folder: locks it, makes or checks its identity, and recovers what was durable. Blocks.
    ///
    /// # Errors
    /// [`OpenError`] says why the folder cannot be used.
    pub fn open(
        _config: JournalConfig,
        _broker: BrokerId,
    ) -> Result<(Journal, Vec<RecoveredLog>), OpenError> {
        unimplemented!()
    }

    /// The folder's identity, for [`StoreFolder::claim`].
    #[must_use]
    pub fn folder(&self) -> Arc<StoreFolder> {
        unimplemented!()
    }

    #[must_use]
    pub fn metrics(&self) -> Arc<JournalMetrics> {
        unimplemented!()
    }

    /// Starts the journal thread and hands each shard its logs. `shard_of` is asked now and never again. `notify` is called on the journal
    /// thread whenever the shard's [`Logs::completed`] has something; it must not block (`Notify::notify_one` is made for it).
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        self,
        _shards: usize,
        _shard_of: impl Fn(QueueId) -> usize,
        _notify: impl Fn(usize) + Send + 'static,
    ) -> std::io::Result<(Vec<Logs>, JournalThread)> {
        unimplemented!()
    }
}

impl JournalThread {
    /// Lets the thread write and sync everything that was flushed, then ends it and waits for that. Whatever is flushed later is never durable. Blocks.
    pub fn stop(self) {
        unimplemented!()
    }
}
