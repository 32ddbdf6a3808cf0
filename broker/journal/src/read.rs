//! Reading batches from the disk, on a thread that may block.

use bellwether_log::Batch;

/// A read that has to go to the disk. Holds on to the segment files it needs, so that it succeeds also when they are freed meanwhile.
#[derive(Debug)]
pub struct ReadRequest {}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk refused; the same read may work later.
    #[error("segment {segment} at {position}: {error}")]
    Io { segment: u64, position: u64, error: std::io::Error },
    /// What is there is not what was written: [`Logs::quarantine`](crate::Logs::quarantine) the queue.
    #[error("segment {segment} at {position} is damaged: {what}")]
    Damaged { segment: u64, position: u64, what: String },
}

impl ReadRequest {
    /// Reads, verifying checksum, queue and offsets. Blocks.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn run(self) -> Result<Vec<Batch>, ReadError> {
        unimplemented!()
    }
}
