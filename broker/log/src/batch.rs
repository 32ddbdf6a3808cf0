//! A batch: its header and its record, as bytes.

use bellwether_protocol::ids::{Epoch, Offset, QueueId};
use bytes::Bytes;

use crate::record::RecordKind;

/// Length of the header in bytes.
///
/// ```text
/// | length: u32 | crc32c: u32 | version: u8 | kind: u8 | reserved: u16 | queue: 16 bytes
/// | epoch: u64 | base: u64 | count: u32 | payload: length - 52 bytes |
/// ```
/// Big-endian. `length` counts everything from `version` on plus the eight bytes before it, that is
/// the whole batch; the checksum covers everything behind itself.
pub const HEADER_BYTES: usize = 52;

/// One record of a queue's log with its place, encoded. Cloning shares the bytes.
///
/// *Invariant:* `bytes` is a whole batch whose header says the other fields and whose checksum is right.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    queue: QueueId,
    epoch: Epoch,
    base: Offset,
    count: u32,
    kind: RecordKind,
    bytes: Bytes,
}

/// Bytes that are not a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("{have} bytes are not enough for a batch of {need}")]
    Short { need: usize, have: usize },
    #[error("a batch of {0} bytes is shorter than its header or longer than is allowed")]
    Length(usize),
    #[error("checksum {computed:08x} where the header says {stored:08x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("unknown batch version {0}")]
    Version(u8),
    #[error("unknown record kind {0}")]
    Kind(u8),
    #[error("{kind} takes {allowed}, not {count} offsets")]
    Count { kind: u8, allowed: &'static str, count: u32 },
}
