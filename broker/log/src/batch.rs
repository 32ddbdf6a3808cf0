//! A batch: its header and its record, as bytes.

use bellwether_protocol::ids::{Epoch, Offset, OffsetRange, QueueId, Seq};
use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::payload;
use crate::record::{Enqueue, ProducerMark, Record, RecordError, RecordKind};

/// Length of the header in bytes.
///
/// ```text
/// | length: u32 | crc32c: u32 | version: u8 | kind: u8 | reserved: u16 | queue: 16 bytes
/// | epoch: u64 | base: u64 | count: u32 | payload: length - 48 bytes |
/// ```
/// Big-endian. `length` counts the whole batch, itself included; the checksum covers everything behind
/// itself. `reserved` is written as zero and not read. The payload is drawn above each record's
/// encoder in `payload.rs`.
pub const HEADER_BYTES: usize = 48;

/// Largest batch in bytes: 32 MiB. Twice the largest message, so that a full publish frame and the
/// ranges of a million messages both fit, and half of a journal segment, so that a batch never spans two.
pub const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The layout that this build writes and reads.
const VERSION: u8 = 1;

const CHECKSUM_AT: usize = 4;
/// Where the bytes begin that the checksum covers.
const CHECKED_FROM: usize = 8;
const VERSION_AT: usize = 8;
const KIND_AT: usize = 9;
const QUEUE_AT: usize = 12;
const EPOCH_AT: usize = 28;
const BASE_AT: usize = 36;
const COUNT_AT: usize = 44;

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
    #[error("{count} offsets from {base} run past the last offset there can be")]
    Offsets { base: Offset, count: u32 },
}

impl Batch {
    /// Encodes a record. An enqueue takes as many offsets as it has messages, every other record one.
    ///
    /// # Panics
    /// When the record is longer than [`BATCH_BYTES_MAX`] or an enqueue has no message: what comes
    /// from outside is refused before it gets here.
    #[must_use]
    pub fn encode(queue: QueueId, epoch: Epoch, base: Offset, record: &Record) -> Batch {
        let count = record.count();
        assert!(count > 0, "an enqueue without messages has no place in the log");
        let length = HEADER_BYTES + payload::length(record);
        assert!(length <= BATCH_BYTES_MAX, "a record of {length} bytes is over {BATCH_BYTES_MAX}");
        let kind = record.kind();

        let mut bytes = BytesMut::with_capacity(length);
        bytes.put_u32(length as u32);
        bytes.put_u32(0); // the checksum, once the rest stands
        bytes.put_u8(VERSION);
        bytes.put_u8(kind as u8);
        bytes.put_u16(0);
        bytes.put_slice(queue.0.as_bytes());
        bytes.put_u64(epoch.0);
        bytes.put_u64(base.0);
        bytes.put_u32(count);
        payload::encode(record, &mut bytes);
        assert_eq!(bytes.len(), length, "the length was reckoned before the record was written");
        let checksum = crc32c::crc32c(&bytes[CHECKED_FROM..]);
        bytes[CHECKSUM_AT..CHECKED_FROM].copy_from_slice(&checksum.to_be_bytes());
        Batch { queue, epoch, base, count, kind, bytes: bytes.freeze() }
    }

    /// Takes the first batch off `bytes`, sharing them. Length and checksum are verified before
    /// anything else is believed. On an error `bytes` stays as it was.
    ///
    /// # Errors
    /// [`BatchError`] says in which way the bytes are not a batch.
    pub fn decode(bytes: &mut Bytes) -> Result<Batch, BatchError> {
        let have = bytes.len();
        let length = Batch::length(bytes).ok_or(BatchError::Short { need: HEADER_BYTES, have })?;
        if !(HEADER_BYTES..=BATCH_BYTES_MAX).contains(&length) {
            return Err(BatchError::Length(length));
        }
        if have < length {
            return Err(BatchError::Short { need: length, have });
        }
        let stored = u32::from_be_bytes(array(bytes, CHECKSUM_AT));
        let computed = crc32c::crc32c(&bytes[CHECKED_FROM..length]);
        if stored != computed {
            return Err(BatchError::Checksum { stored, computed });
        }
        let batch = Batch::from_checked(bytes.slice(..length))?;
        drop(bytes.split_to(length));
        Ok(batch)
    }

    /// Reads the header of a whole batch whose length and checksum are right.
    fn from_checked(bytes: Bytes) -> Result<Batch, BatchError> {
        let version = bytes[VERSION_AT];
        if version != VERSION {
            return Err(BatchError::Version(version));
        }
        let number = bytes[KIND_AT];
        let kind = RecordKind::from_number(number).ok_or(BatchError::Kind(number))?;
        let count = u32::from_be_bytes(array(&bytes, COUNT_AT));
        match kind {
            RecordKind::Enqueue if count == 0 => {
                return Err(BatchError::Count { kind: number, allowed: "one or more", count });
            }
            RecordKind::Enqueue => {}
            RecordKind::EpochStart
            | RecordKind::Settle
            | RecordKind::Return
            | RecordKind::Purge => {
                if count != 1 {
                    return Err(BatchError::Count { kind: number, allowed: "one", count });
                }
            }
        }
        let base = Offset(u64::from_be_bytes(array(&bytes, BASE_AT)));
        if base.0.checked_add(u64::from(count)).is_none() {
            return Err(BatchError::Offsets { base, count });
        }
        let queue = QueueId(Uuid::from_bytes(array(&bytes, QUEUE_AT)));
        let epoch = Epoch(u64::from_be_bytes(array(&bytes, EPOCH_AT)));
        Ok(Batch { queue, epoch, base, count, kind, bytes })
    }

    /// Length of the whole batch that begins with `prefix`, as its first four bytes say; `None` when
    /// there are fewer. Nothing is verified.
    #[must_use]
    pub fn length(prefix: &[u8]) -> Option<usize> {
        prefix.first_chunk().map(|first| u32::from_be_bytes(*first) as usize)
    }

    #[must_use]
    pub fn queue(&self) -> QueueId {
        self.queue
    }

    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The first offset it takes.
    #[must_use]
    pub fn base(&self) -> Offset {
        self.base
    }

    /// How many offsets it takes.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The first offset behind it.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.base.plus(u64::from(self.count))
    }

    /// The offsets it takes.
    #[must_use]
    pub fn offsets(&self) -> OffsetRange {
        OffsetRange::new(self.base, self.end())
    }

    #[must_use]
    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// The whole batch, header included.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What it says. Messages share the batch's bytes.
    ///
    /// # Errors
    /// [`RecordError`] when the payload does not say a record of the batch's kind.
    pub fn record(&self) -> Result<Record, RecordError> {
        payload::decode(self.kind, self.count, self.bytes.slice(HEADER_BYTES..))
    }

    /// The part of an enqueue that holds the offsets of `range`, as a batch of its own: same epoch,
    /// same offsets, sequence numbers shifted. What a cleaner keeps of a batch that is mostly settled.
    ///
    /// # Errors
    /// [`RecordError`] when this is no enqueue, or does not hold all of `range`, or `range` is empty.
    pub fn part(&self, range: OffsetRange) -> Result<Batch, RecordError> {
        if range.count() == 0 || range.first < self.base || range.end > self.end() {
            return Err(self.error("asked for offsets that it does not hold"));
        }
        if range == self.offsets() && self.kind == RecordKind::Enqueue {
            return Ok(self.clone());
        }
        match self.record()? {
            Record::Enqueue(whole) => {
                // Both fit: the range lies inside the batch, whose count is a u32.
                let skip = (range.first.0 - self.base.0) as u32;
                let record = Record::Enqueue(part_of(&whole, skip, range.count() as u32));
                Ok(Batch::encode(self.queue, self.epoch, range.first, &record))
            }
            Record::EpochStart { .. }
            | Record::Settle { .. }
            | Record::Return { .. }
            | Record::Purge { .. } => Err(self.error("only an enqueue has parts")),
        }
    }

    fn error(&self, what: &'static str) -> RecordError {
        RecordError { kind: self.kind as u8, what }
    }
}

fn part_of(whole: &Enqueue, skip: u32, count: u32) -> Enqueue {
    let producer = whole.producer.as_ref().map(|mark| ProducerMark {
        name: mark.name.clone(),
        first: Seq(mark.first.0 + u64::from(skip)),
    });
    Enqueue { producer, messages: whole.messages.slice(skip, count), ..whole.clone() }
}

impl std::fmt::Debug for Batch {
    /// Never shows a body.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Batch { queue, epoch, base, count, kind, bytes } = self;
        let length = bytes.len();
        write!(f, "Batch({kind:?} {base}+{count} epoch {epoch} queue {queue}, {length} bytes)")
    }
}

/// The `N` bytes at `at`.
///
/// # Panics
/// When there are fewer; callers have checked the length.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the caller has checked that the bytes are there")
}
