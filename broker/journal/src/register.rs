//! What the journal keeps of a log besides its batches: its shape, and the checkpoint of its queue. Registers: the one
//! with the highest version counts, wherever it lies, so that they may be moved as they are.

use bellwether_log::EpochHistory;
use bellwether_protocol::ids::{Epoch, Offset, QueueId, StoreId};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Checkpoint;
use crate::format::{EntryHeader, EntryKind, Stamp};
use crate::recovery::NewerFormat;

/// Which generations of batches make up a log. Each truncation starts a new one, so that batches
/// cut off long ago, which may lie anywhere in the journal, are never taken for part of the log.
///
/// *Invariant:* `generations` is not empty; stamps and offsets ascend, offsets strictly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The first generation there was: one log, however often it is cut, until a snapshot replaces it. Its
    /// checkpoints count, since no cut goes below one.
    root: Stamp,
    /// As whose copy the log takes part in replication: the folder's, or, when a damaged log was fetched anew, one of
    /// its own. What the damaged copy once reported durable must not be expected of this one.
    store: StoreId,
    generations: Vec<(Stamp, Offset)>,
}

impl Lineage {
    pub fn new(first: Stamp, store: StoreId) -> Lineage {
        Lineage { root: first, store, generations: vec![(first, Offset(0))] }
    }

    pub fn store(&self) -> StoreId {
        self.store
    }

    pub fn root(&self) -> Stamp {
        self.root
    }

    /// The generation that is appended to.
    pub fn last(&self) -> Stamp {
        self.generations[self.generations.len() - 1].0
    }

    /// The generation of the log's batch at `offset`.
    pub fn at(&self, offset: Offset) -> Stamp {
        let behind = self.generations.partition_point(|(_, start)| *start <= offset);
        self.generations[behind.max(1) - 1].0
    }

    /// Whether a batch of `generation` that takes `base..end` belongs to the log.
    pub fn admits(&self, generation: Stamp, base: Offset, end: Offset) -> bool {
        let Some(index) = self.generations.iter().position(|(known, _)| *known == generation)
        else {
            return false;
        };
        base >= self.generations[index].1
            && self.generations.get(index + 1).is_none_or(|(_, next)| end <= *next)
    }

    /// Cuts at `to`; what is appended from now on is of generation `next`.
    pub fn cut(&mut self, to: Offset, next: Stamp) {
        self.generations.retain(|(_, start)| *start < to);
        self.generations.push((next, to));
    }
}

/// A log without its batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    Live {
        lineage: Lineage,
        epochs: EpochHistory,
    },
    /// The log was removed. Kept until nothing of the log is left in the journal.
    Dropped,
}

/// A register as it is handed to the journal thread.
pub struct Register {
    pub header: EntryHeader,
    pub payload: Bytes,
}

/// | length of the head: u32 | head | state (of a checkpoint) |
#[derive(Serialize, Deserialize)]
struct Head {
    /// Format of the head; 2 (1 had no `store`).
    format: u8,
    dropped: bool,
    root: u64,
    store: u128,
    lineage: Vec<(u64, u64)>,
    epochs: Vec<(u64, u64)>,
    high_watermark: u64,
}

const HEAD_FORMAT: u8 = 2;

/// Bytes that are not a register that this version can read.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Not damage: taken for that, a broker that went back a version would throw good copies away and fetch them anew.
    #[error("{0}")]
    Newer(NewerFormat),
    #[error("{0}")]
    Malformed(String),
}

pub fn shape(queue: QueueId, version: Stamp, shape: &Shape) -> Register {
    register(EntryKind::Shape, queue, version, shape, Offset(0), Offset(0), &Bytes::new())
}

pub fn checkpoint(
    queue: QueueId,
    version: Stamp,
    lineage: &Lineage,
    epochs: &EpochHistory,
    checkpoint: &Checkpoint,
) -> Register {
    let shape = Shape::Live { lineage: lineage.clone(), epochs: epochs.clone() };
    let Checkpoint { at, high_watermark, state } = checkpoint;
    register(EntryKind::Checkpoint, queue, version, &shape, *at, *high_watermark, state)
}

fn register(
    kind: EntryKind,
    queue: QueueId,
    version: Stamp,
    shape: &Shape,
    at: Offset,
    high_watermark: Offset,
    state: &Bytes,
) -> Register {
    let (generation, store, lineage, epochs) = match shape {
        Shape::Live { lineage, epochs } => {
            (lineage.root, lineage.store, lineage.generations.as_slice(), epochs.starts())
        }
        Shape::Dropped => (Stamp(0), StoreId(Uuid::nil()), &[][..], &[][..]),
    };
    let head = Head {
        format: HEAD_FORMAT,
        dropped: *shape == Shape::Dropped,
        root: generation.0,
        store: store.0.as_u128(),
        lineage: lineage.iter().map(|(stamp, start)| (stamp.0, start.0)).collect(),
        epochs: epochs.iter().map(|(epoch, start)| (epoch.0, start.0)).collect(),
        high_watermark: high_watermark.0,
    };
    let head = postcard::to_allocvec(&head).expect("numbers and lists of them always encode");
    let mut payload = BytesMut::with_capacity(4 + head.len() + state.len());
    payload.put_u32(head.len() as u32);
    payload.put_slice(&head);
    payload.put_slice(state);
    let payload = payload.freeze();
    let header = EntryHeader {
        kind,
        record_kind: 0,
        length: payload.len() as u32,
        crc: crc32c::crc32c(&payload),
        count: 0,
        queue,
        generation,
        base: at,
        version: version.0,
    };
    Register { header, payload }
}

/// Reads a register's payload, whose checksum is right. The checkpoint is there when the register is one.
pub fn decode(
    header: &EntryHeader,
    mut payload: Bytes,
) -> Result<(Shape, Option<Checkpoint>), RegisterError> {
    let bad = |what: &str| {
        RegisterError::Malformed(format!("register of queue {}: {what}", header.queue))
    };
    if payload.len() < 4 {
        return Err(bad("too short"));
    }
    let length = u32::from_be_bytes(crate::format::array_at(&payload.split_to(4), 0)) as usize;
    if payload.len() < length {
        return Err(bad("shorter than its head"));
    }
    // The format first, a byte of its own: of a later one nothing else need be as it is here.
    if let Some(format) = payload.first().filter(|format| **format > HEAD_FORMAT) {
        let what = format!("register of queue {}", header.queue);
        let (found, known) = (u32::from(*format), u32::from(HEAD_FORMAT));
        return Err(RegisterError::Newer(NewerFormat { what, found, known }));
    }
    let head: Head =
        postcard::from_bytes(&payload.split_to(length)).map_err(|error| bad(&error.to_string()))?;
    if head.format != HEAD_FORMAT {
        return Err(bad(&format!("format {} is not known here", head.format)));
    }
    let checkpoint = match header.kind {
        EntryKind::Checkpoint => Some(Checkpoint {
            at: header.base,
            high_watermark: Offset(head.high_watermark),
            state: payload,
        }),
        EntryKind::Shape => None,
        EntryKind::Batch | EntryKind::Copy => return Err(bad("is a batch")),
    };
    if head.dropped {
        return Ok((Shape::Dropped, checkpoint));
    }
    let lineage: Vec<_> =
        head.lineage.iter().map(|(s, start)| (Stamp(*s), Offset(*start))).collect();
    let ascends = lineage.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
    if lineage.is_empty() || !ascends {
        return Err(bad("generations do not ascend"));
    }
    let epochs = head.epochs.iter().map(|(epoch, start)| (Epoch(*epoch), Offset(*start))).collect();
    let epochs = EpochHistory::new(epochs).map_err(|error| bad(&error.to_string()))?;
    let store = StoreId(Uuid::from_u128(head.store));
    let lineage = Lineage { root: Stamp(head.root), store, generations: lineage };
    Ok((Shape::Live { lineage, epochs }, checkpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_off_is_never_admitted_again() {
        let mut lineage = Lineage::new(Stamp(1), StoreId(Uuid::from_u128(7)));
        assert!(lineage.admits(Stamp(1), Offset(8), Offset(10)));
        lineage.cut(Offset(5), Stamp(2));
        assert!(lineage.admits(Stamp(1), Offset(3), Offset(5)));
        assert!(!lineage.admits(Stamp(1), Offset(4), Offset(6)));
        assert!(!lineage.admits(Stamp(1), Offset(8), Offset(10)));
        assert!(lineage.admits(Stamp(2), Offset(5), Offset(6)));
        lineage.cut(Offset(5), Stamp(3));
        assert!(!lineage.admits(Stamp(2), Offset(5), Offset(6)));
        assert_eq!((lineage.at(Offset(4)), lineage.at(Offset(5))), (Stamp(1), Stamp(3)));
    }

    #[test]
    fn a_checkpoint_reads_back_as_it_was_written() {
        let mut lineage = Lineage::new(Stamp(1), StoreId(Uuid::from_u128(7)));
        lineage.cut(Offset(5), Stamp(2));
        let epochs = EpochHistory::new(vec![(Epoch(1), Offset(0)), (Epoch(4), Offset(7))]).unwrap();
        let (at, high_watermark) = (Offset(9), Offset(11));
        let kept = Checkpoint { at, high_watermark, state: Bytes::from_static(b"state") };
        let register = checkpoint(QueueId(uuid::Uuid::nil()), Stamp(3), &lineage, &epochs, &kept);
        let (shape, read) = decode(&register.header, register.payload).unwrap();
        assert_eq!(shape, Shape::Live { lineage, epochs });
        assert_eq!(read, Some(kept));
    }
}
