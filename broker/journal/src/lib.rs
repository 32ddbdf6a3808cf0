//! The journal: one append-only log of segment files for all queues of a broker, written by one thread
//! that makes everything waiting durable with one write and one fdatasync; and [`Logs`], through which each
//! shard appends to and reads the logs of its own queues. See docs/storage.md for the bytes.

mod answers;
mod config;
pub mod disk;
mod format;
mod index;
mod log;
mod logs;
mod metrics;
mod read;
mod recovery;
mod register;
mod registers;
mod segment;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use bellwether_protocol::ids::{BrokerId, Offset, QueueId, StoreId};

pub use answers::{
    Checkpoint, Condition, DiskLevel, Evacuation, EvacuationNeed, Progress, QueueLive, Read,
};
pub use config::JournalConfig;
pub use logs::Logs;
pub use metrics::{JournalMetrics, SYNC_BUCKETS_US};
pub use read::{ReadError, ReadRequest};
pub use recovery::NewerFormat;
pub use store::{OpenError, StoreFolder};

use self::disk::{Disk, RealDisk};
use self::recovery::Recovered;
use self::shared::Shared;
use self::writer::{Segments, Start, Writer};

/// An opened journal: checked, cut behind its last whole group and synced. Nothing is appended before
/// [`Journal::start`].
pub struct Journal {
    config: JournalConfig,
    disk: Arc<dyn Disk>,
    folder: Arc<StoreFolder>,
    metrics: Arc<JournalMetrics>,
    recovered: Recovered,
}

/// What a restart found of one queue. Its log is in the [`Logs`] of its shard.
#[derive(Clone, Debug)]
pub struct RecoveredLog {
    pub queue: QueueId,
    /// As whose copy the log takes part in replication: the folder's store id, or another since it was fetched anew
    /// ([`Logs::stage_snapshot`]).
    pub store: StoreId,
    /// The state to restore; none: replay from zero.
    pub checkpoint: Option<Checkpoint>,
    pub start: Offset,
    pub end: Offset,
    pub condition: Condition,
}

/// The journal thread. Dropping it does not stop it.
pub struct JournalThread {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    /// The folder stays ours as long as the thread may write to it.
    _folder: Arc<StoreFolder>,
}

impl Journal {
    /// Opens the data folder: locks it, makes or checks its identity, and recovers what was durable. Blocks.
    ///
    /// # Errors
    /// [`OpenError`] says why the folder cannot be used.
    pub fn open(
        config: JournalConfig,
        broker: BrokerId,
    ) -> Result<(Journal, Vec<RecoveredLog>), OpenError> {
        config.check().map_err(OpenError::Config)?;
        let dir = config.dir.clone();
        let disk = RealDisk::new(&dir).map_err(|error| OpenError::io(&dir, "making it", error))?;
        Journal::open_on(Arc::new(disk), config, broker)
    }

    /// As [`Journal::open`], on any disk and with segments of any size.
    ///
    /// # Errors
    /// [`OpenError`] says why the folder cannot be used.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        config: JournalConfig,
        broker: BrokerId,
    ) -> Result<(Journal, Vec<RecoveredLog>), OpenError> {
        let folder = StoreFolder::open(Arc::clone(&disk), config.dir.clone(), broker)?;
        let recovered = recovery::recover(&*disk, folder.id());
        let mut recovered = recovered.map_err(|error| OpenError::recovery(&config.dir, error))?;
        let reports = std::mem::take(&mut recovered.reports);
        let metrics = Arc::default();
        Ok((Journal { config, disk, folder: Arc::new(folder), metrics, recovered }, reports))
    }

    /// The folder's identity, for [`StoreFolder::claim`].
    #[must_use]
    pub fn folder(&self) -> Arc<StoreFolder> {
        Arc::clone(&self.folder)
    }

    #[must_use]
    pub fn metrics(&self) -> Arc<JournalMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Begins a new segment, starts the journal thread and hands each shard its logs. `shard_of` is asked now and never
    /// again. `notify` is called on the journal thread whenever the shard's [`Logs::completed`] has
    /// something; it must not block (`Notify::notify_one` is made for it).
    ///
    /// # Errors
    /// When the segment or the thread cannot be made.
    pub fn start(
        self,
        shards: usize,
        shard_of: impl Fn(QueueId) -> usize,
        notify: impl Fn(usize) + Send + Sync + 'static,
    ) -> io::Result<(Vec<Logs>, JournalThread)> {
        let Journal { config, disk, folder, metrics, recovered } = self;
        let Recovered { segments, spares, registers, logs, next_stamp, next_seq, .. } = recovered;
        let bytes = config.segment_bytes;
        let start = Start { sealed: segments, spares, next_seq };
        let segments = Segments::start(disk, folder.id(), bytes, config.disk_low_bytes, start)?;
        let shared =
            Shared::new(shards, Box::new(notify), folder.id(), next_stamp, &config, metrics);

        let mut by_shard: Vec<HashMap<_, _>> = (0..shards).map(|_| HashMap::new()).collect();
        for (queue, log) in logs {
            by_shard[shard_of(queue)].insert(queue, log);
        }
        let by_shard = by_shard.into_iter().enumerate();
        let logs =
            by_shard.map(|(shard, logs)| Logs::new(shard, Arc::clone(&shared), logs, &config));
        let logs = logs.collect();

        let writer = Writer::new(Arc::clone(&shared), segments, registers, config.dead_bytes_max);
        let thread = std::thread::Builder::new().name("journal".to_owned());
        let obituary = Obituary(Arc::clone(&shared));
        let thread = thread.spawn(move || {
            let _obituary = obituary;
            writer.run();
        })?;
        Ok((logs, JournalThread { shared, thread, _folder: folder }))
    }
}

/// Says so when the journal thread panics: shards that waited for it for ever would go on leading their queues.
struct Obituary(Arc<Shared>);

impl Drop for Obituary {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.tell_failed("the journal thread panicked");
        }
    }
}

/// Turns what may change about a running journal. Clones turn the same.
#[derive(Clone)]
pub struct JournalDial(Arc<Shared>);

impl JournalDial {
    /// Sets [`JournalConfig::disk_low_bytes`] and [`JournalConfig::dead_bytes_max`]. The thread goes by them when it next looks after its
    /// segments, within a tick.
    pub fn set(&self, disk_low_bytes: u64, dead_bytes_max: u64) {
        self.0.disk_low_bytes.store(disk_low_bytes, Relaxed);
        self.0.dead_bytes_max.store(dead_bytes_max, Relaxed);
    }
}

impl JournalThread {
    /// What may change while it runs.
    #[must_use]
    pub fn dial(&self) -> JournalDial {
        JournalDial(Arc::clone(&self.shared))
    }

    /// Lets the thread write and sync everything that was flushed, then ends it and waits for that. Whatever
    /// is flushed later is never durable. Blocks.
    pub fn stop(self) {
        self.shared.stop();
        if self.thread.join().is_err() {
            tracing::error!("the journal thread panicked");
        }
    }
}
