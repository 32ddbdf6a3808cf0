//! What an operator may turn about the journal.

use std::path::PathBuf;

const MIB: u64 = 1024 * 1024;

/// Where the journal lies and how much it may take.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// The data folder. Made when it is not there.
    pub dir: PathBuf,
    /// Size of a segment file in bytes; 64 MiB. Must hold the largest batch (16 MiB and a little) and
    /// the largest checkpoint. Smaller ones are freed sooner, larger ones are rolled less often.
    pub segment_bytes: u64,
    /// Dead bytes kept on the disk before the cleaner sets to work, besides half of what is live; 384 MiB. More
    /// lets followers that were away longer catch up from the log instead of a snapshot.
    pub dead_bytes_max: u64,
    /// Recent batches kept in memory, all shards together, in bytes; 64 MiB.
    pub cache_bytes: u64,
    /// Bytes appended that may wait for the disk, all shards together; 32 MiB. At it
    /// [`Logs::has_room`](crate::Logs::has_room) says no. At most half a segment, so that what waits when the disk
    /// turns out full still fits.
    pub waiting_bytes_max: u64,
    /// A queue wants a checkpoint when its log since the last one is longer than this, in bytes; 16 MiB.
    /// Bounds what a restart replays.
    pub checkpoint_bytes: u64,
    /// The same in batches; 20,000.
    pub checkpoint_batches: u64,
    /// Free bytes on the file system below which publishes are refused; 256 MiB.
    pub disk_low_bytes: u64,
    /// Free bytes below which [`Logs::disk_fills`](crate::Logs::disk_fills) says so; 1 GiB.
    pub disk_warn_bytes: u64,
}

impl JournalConfig {
    /// The defaults, in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> JournalConfig {
        JournalConfig {
            dir: dir.into(),
            segment_bytes: 64 * MIB,
            dead_bytes_max: 384 * MIB,
            cache_bytes: 64 * MIB,
            waiting_bytes_max: 32 * MIB,
            checkpoint_bytes: 16 * MIB,
            checkpoint_batches: 20_000,
            disk_low_bytes: 256 * MIB,
            disk_warn_bytes: 1024 * MIB,
        }
    }
}

/// Longest segment: positions are 32 bits, and a restart reads the newest whole.
const SEGMENT_BYTES_MAX: u64 = 1024 * MIB;

/// Shortest segment: the largest batch and a checkpoint of 100,000 producers fit.
const SEGMENT_BYTES_MIN: u64 = 32 * MIB;

impl JournalConfig {
    /// What is wrong with it, if anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        let bytes = self.segment_bytes;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) {
            let range = format!("{SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}");
            return Err(format!("segment_bytes is {bytes}, allowed are {range}"));
        }
        if self.waiting_bytes_max > bytes / 2 {
            let most = bytes / 2;
            return Err(format!(
                "waiting_bytes_max is {}, at most {most} fit",
                self.waiting_bytes_max
            ));
        }
        Ok(())
    }
}
