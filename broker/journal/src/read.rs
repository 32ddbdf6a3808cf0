//! Reading batches from the disk, on a thread that may block.

use std::sync::Arc;

use bellwether_log::Batch;
use bellwether_protocol::ids::{Offset, QueueId};
use bytes::Bytes;

use crate::index::Located;
use crate::segment::Segment;

/// Bytes between two wanted batches that are read along rather than skipped.
const GAP_BYTES_MAX: u64 = 16 * 1024;

/// A read that has to go to the disk. Holds on to the segment files it needs, so that it succeeds also
/// when they are freed meanwhile.
#[derive(Debug)]
pub struct ReadRequest {
    pub(crate) queue: QueueId,
    /// Ascending by offset.
    pub(crate) wanted: Vec<(Arc<Segment>, Located)>,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk refused; the same read may work later.
    #[error("segment {segment} at {position}: {error}")]
    Io { segment: u32, position: u64, error: std::io::Error },
    /// What is there is not what was written: [`Logs::quarantine`](crate::Logs::quarantine) the queue.
    #[error("segment {segment} at {position} is damaged: {what}")]
    Damaged { segment: u32, position: u64, what: String },
}

impl ReadRequest {
    /// Bytes of what is to be read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.wanted.iter().map(|(_, located)| u64::from(located.place.length)).sum()
    }

    /// Reads, verifying checksum, queue and offsets. Blocks.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn run(self) -> Result<Vec<Batch>, ReadError> {
        let mut batches = Vec::with_capacity(self.wanted.len());
        let mut rest = self.wanted.as_slice();
        while let Some((segment, first)) = rest.first() {
            let near = neighbours(rest);
            let (together, others) = rest.split_at(near);
            let from = u64::from(first.place.position);
            let last = &together[near - 1].1.place;
            let length = u64::from(last.position) + u64::from(last.length) - from;
            let bytes = read(segment, from, length)?;
            for (_, located) in together {
                batches.push(batch_in(&bytes, from, segment, self.queue, located)?);
            }
            rest = others;
        }
        Ok(batches)
    }
}

/// How many of the first batches lie so close together that one read takes them all.
fn neighbours(wanted: &[(Arc<Segment>, Located)]) -> usize {
    let close = |pair: &[(Arc<Segment>, Located)]| {
        let (segment, before) = (&pair[0].0, &pair[0].1.place);
        let behind = u64::from(before.position) + u64::from(before.length);
        let next = u64::from(pair[1].1.place.position);
        Arc::ptr_eq(segment, &pair[1].0) && next >= behind && next - behind <= GAP_BYTES_MAX
    };
    1 + wanted.windows(2).take_while(|pair| close(pair)).count()
}

/// Reads the batch that lies there.
pub(crate) fn read_batch(
    segment: &Segment,
    queue: QueueId,
    located: &Located,
) -> Result<Batch, ReadError> {
    let from = u64::from(located.place.position);
    let bytes = read(segment, from, u64::from(located.place.length))?;
    batch_in(&bytes, from, segment, queue, located)
}

pub(crate) fn read(segment: &Segment, position: u64, length: u64) -> Result<Bytes, ReadError> {
    let mut bytes = vec![0; length as usize];
    match segment.file.read_at(&mut bytes, position) {
        Ok(()) => Ok(bytes.into()),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            let what = "the file ends before".to_owned();
            Err(ReadError::Damaged { segment: segment.seq.0, position, what })
        }
        Err(error) => Err(ReadError::Io { segment: segment.seq.0, position, error }),
    }
}

/// Takes the batch out of `bytes`, which were read `from` there, and checks that it is the one that was written there.
fn batch_in(
    bytes: &Bytes,
    from: u64,
    segment: &Segment,
    queue: QueueId,
    located: &Located,
) -> Result<Batch, ReadError> {
    let position = u64::from(located.place.position);
    let damaged = |what: String| ReadError::Damaged { segment: segment.seq.0, position, what };
    let at = (position - from) as usize;
    let mut bytes = bytes.slice(at..at + located.place.length as usize);
    let batch = Batch::decode(&mut bytes).map_err(|error| damaged(error.to_string()))?;
    let expected: (QueueId, Offset, u32) = (queue, located.base, located.place.count);
    if (batch.queue(), batch.base(), batch.count()) != expected || !bytes.is_empty() {
        return Err(damaged(format!("another batch: {batch:?}")));
    }
    Ok(batch)
}
