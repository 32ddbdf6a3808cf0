//! The bytes on the disk: segment header, group, directory entry. Big-endian throughout.

use bellwether_protocol::ids::{Offset, QueueId, StoreId};
use uuid::Uuid;

/// Everything on the disk is a multiple of this: a write never shares a sector with one that is synced.
pub const BLOCK: u64 = 512;

/// The format of segments that this build writes, and the newest it reads.
pub const FORMAT: u32 = 1;

const SEGMENT_MAGIC: [u8; 8] = *b"BWsegmnt";
const GROUP_MAGIC: u32 = 0x4257_6772;
const TRAILER_MAGIC: u32 = 0x4257_7472;

pub const GROUP_HEADER_BYTES: usize = 64;
pub const ENTRY_BYTES: usize = 56;

/// A number that no journal gives out twice: generations of logs and versions of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

/// Number of a segment. Later ones are higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSeq(pub u32);

/// Random per use of a segment file, so that what a recycled file held before is told from what belongs there.
pub type Nonce = [u8; 16];

/// The first block of a segment.
///
/// ```text
/// | magic: 8 | crc32c of the next 44: u32 | format: u32 | store: 16 | seq: u32 | reserved: u32 | nonce: 16 | zeros to 512 |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub format: u32,
    pub store: StoreId,
    pub seq: SegmentSeq,
    pub nonce: Nonce,
}

impl SegmentHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BLOCK as usize);
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.format.to_be_bytes());
        bytes.extend_from_slice(self.store.0.as_bytes());
        bytes.extend_from_slice(&self.seq.0.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.nonce);
        let crc = crc32c::crc32c(&bytes[12..56]);
        bytes[8..12].copy_from_slice(&crc.to_be_bytes());
        bytes.resize(BLOCK as usize, 0);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Option<SegmentHeader> {
        if bytes.len() < BLOCK as usize || bytes[..8] != SEGMENT_MAGIC {
            return None;
        }
        if u32_at(bytes, 8) != crc32c::crc32c(&bytes[12..56]) {
            return None;
        }
        Some(SegmentHeader {
            format: u32_at(bytes, 12),
            store: StoreId(Uuid::from_bytes(array_at(bytes, 16))),
            seq: SegmentSeq(u32_at(bytes, 32)),
            nonce: array_at(bytes, 40),
        })
    }
}

/// The head of a group: what was made durable together.
///
/// ```text
/// group:  | header: 64 | directory: 56 × entries | payloads | zeros | directory | trailer: 64 |, a multiple of 512
/// header: | magic: u32 | crc32c of the next 56: u32 | nonce: 16 | position: u64 | synced: u64
///         | crc32c of the directory: u32 | entries: u32 | payload bytes: u64 | zeros: 8 |
/// ```
/// The trailer is the header again under another magic: one damaged block cannot hide what a group held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    pub nonce: Nonce,
    /// Where in the segment it stands.
    pub position: u64,
    /// Everything in the segment before here was synced when this was written: bad bytes before it are damage, not a torn write.
    pub synced: u64,
    pub directory_crc: u32,
    pub entries: u32,
    pub payload_bytes: u64,
}

impl GroupHeader {
    fn encode(&self, magic: u32) -> [u8; GROUP_HEADER_BYTES] {
        let mut bytes = [0; GROUP_HEADER_BYTES];
        bytes[..4].copy_from_slice(&magic.to_be_bytes());
        bytes[8..24].copy_from_slice(&self.nonce);
        bytes[24..32].copy_from_slice(&self.position.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.synced.to_be_bytes());
        bytes[40..44].copy_from_slice(&self.directory_crc.to_be_bytes());
        bytes[44..48].copy_from_slice(&self.entries.to_be_bytes());
        bytes[48..56].copy_from_slice(&self.payload_bytes.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// The header that stands at `position`, if a whole one of this use of the segment does.
    pub fn decode(bytes: &[u8], nonce: &Nonce, position: u64) -> Option<GroupHeader> {
        GroupHeader::decode_as(GROUP_MAGIC, bytes, nonce).filter(|group| group.position == position)
    }

    pub fn decode_trailer(bytes: &[u8], nonce: &Nonce) -> Option<GroupHeader> {
        GroupHeader::decode_as(TRAILER_MAGIC, bytes, nonce)
    }

    fn decode_as(magic: u32, bytes: &[u8], nonce: &Nonce) -> Option<GroupHeader> {
        if bytes.len() < GROUP_HEADER_BYTES || u32_at(bytes, 0) != magic {
            return None;
        }
        if u32_at(bytes, 4) != crc32c::crc32c(&bytes[8..GROUP_HEADER_BYTES]) {
            return None;
        }
        let header = GroupHeader {
            nonce: array_at(bytes, 8),
            position: u64::from_be_bytes(array_at(bytes, 24)),
            synced: u64::from_be_bytes(array_at(bytes, 32)),
            directory_crc: u32_at(bytes, 40),
            entries: u32_at(bytes, 44),
            payload_bytes: u64::from_be_bytes(array_at(bytes, 48)),
        };
        let possible = header.payload_bytes <= u64::from(u32::MAX);
        (header.nonce == *nonce && possible).then_some(header)
    }

    pub fn directory_bytes(&self) -> u64 {
        u64::from(self.entries) * ENTRY_BYTES as u64
    }

    /// Bytes of the whole group.
    pub fn length(&self) -> u64 {
        group_length(u64::from(self.entries), self.payload_bytes)
    }
}

/// Bytes of a group of so many entries with so many bytes of payload.
pub fn group_length(entries: u64, payload_bytes: u64) -> u64 {
    let framing = 2 * (GROUP_HEADER_BYTES as u64 + entries.saturating_mul(ENTRY_BYTES as u64));
    framing.saturating_add(payload_bytes).next_multiple_of(BLOCK)
}

/// The parts of a group around its payloads: what stands before them and what behind.
pub fn frame_group(
    nonce: Nonce,
    position: u64,
    synced: u64,
    entries: &[EntryHeader],
    payload_bytes: u64,
) -> (Vec<u8>, Vec<u8>) {
    let mut directory = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        entry.encode(&mut directory);
    }
    let header = GroupHeader {
        nonce,
        position,
        synced,
        directory_crc: crc32c::crc32c(&directory),
        entries: entries.len() as u32,
        payload_bytes,
    };
    let mut head = header.encode(GROUP_MAGIC).to_vec();
    head.extend_from_slice(&directory);
    let framing = 2 * head.len() as u64 + payload_bytes;
    let mut tail = vec![0; (header.length() - framing) as usize];
    tail.extend_from_slice(&directory);
    tail.extend_from_slice(&header.encode(TRAILER_MAGIC));
    (head, tail)
}

/// What an entry of a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// A batch that was appended to its log.
    Batch = 1,
    /// A batch, or a part of one, that was moved or came with a snapshot.
    Copy = 2,
    /// The shape of a log: which generations of batches belong to it, or that it is dropped.
    Shape = 3,
    /// The shape of a log and the state of its queue.
    Checkpoint = 4,
}

/// One line of a group's directory.
///
/// ```text
/// | kind: u8 | record kind: u8 | zeros: u16 | length: u32 | crc32c of a register's payload: u32 | count: u32
/// | queue: 16 | generation: u64 | base: u64 | version or epoch: u64 |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    pub kind: EntryKind,
    /// The kind of a batch's record; 0 for registers.
    pub record_kind: u8,
    /// Bytes of payload.
    pub length: u32,
    /// Of a register's payload. A batch has a checksum of its own.
    pub crc: u32,
    /// Offsets a batch takes; 0 for registers.
    pub count: u32,
    pub queue: QueueId,
    /// The generation of the log that the batch belongs to; of a register, the log's first; 0: the log is dropped.
    pub generation: Stamp,
    /// First offset of a batch; `at` of a checkpoint.
    pub base: Offset,
    /// Of a register: the highest wins. Of a batch: its epoch.
    pub version: u64,
}

impl EntryHeader {
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&[self.kind as u8, self.record_kind, 0, 0]);
        into.extend_from_slice(&self.length.to_be_bytes());
        into.extend_from_slice(&self.crc.to_be_bytes());
        into.extend_from_slice(&self.count.to_be_bytes());
        into.extend_from_slice(self.queue.0.as_bytes());
        into.extend_from_slice(&self.generation.0.to_be_bytes());
        into.extend_from_slice(&self.base.0.to_be_bytes());
        into.extend_from_slice(&self.version.to_be_bytes());
    }

    /// `None`: of a kind this build does not know.
    pub fn decode(bytes: &[u8]) -> Option<EntryHeader> {
        let kind = match bytes[0] {
            1 => EntryKind::Batch,
            2 => EntryKind::Copy,
            3 => EntryKind::Shape,
            4 => EntryKind::Checkpoint,
            _ => return None,
        };
        Some(EntryHeader {
            kind,
            record_kind: bytes[1],
            length: u32_at(bytes, 4),
            crc: u32_at(bytes, 8),
            count: u32_at(bytes, 12),
            queue: QueueId(Uuid::from_bytes(array_at(bytes, 16))),
            generation: Stamp(u64::from_be_bytes(array_at(bytes, 32))),
            base: Offset(u64::from_be_bytes(array_at(bytes, 40))),
            version: u64::from_be_bytes(array_at(bytes, 48)),
        })
    }

    /// First offset behind a batch.
    pub fn end(&self) -> Offset {
        self.base.plus(u64::from(self.count))
    }

    pub fn is_register(&self) -> bool {
        match self.kind {
            EntryKind::Batch | EntryKind::Copy => false,
            EntryKind::Shape | EntryKind::Checkpoint => true,
        }
    }
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array_at(bytes, at))
}

pub fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes is an array of N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> EntryHeader {
        EntryHeader {
            kind: EntryKind::Batch,
            record_kind: 2,
            length: 10,
            crc: 0,
            count: 3,
            queue: QueueId(Uuid::from_u128(7)),
            generation: Stamp(5),
            base: Offset(9),
            version: 4,
        }
    }

    #[test]
    fn a_group_is_found_again_from_either_end() {
        let nonce = [7; 16];
        let (head, tail) = frame_group(nonce, 512, 512, &[entry()], 10);
        assert_eq!((head.len() + 10 + tail.len()) % BLOCK as usize, 0);
        let header = GroupHeader::decode(&head, &nonce, 512).unwrap();
        assert_eq!(header.length() as usize, head.len() + 10 + tail.len());
        let trailer = &tail[tail.len() - GROUP_HEADER_BYTES..];
        assert_eq!(GroupHeader::decode_trailer(trailer, &nonce), Some(header));
        assert_eq!(EntryHeader::decode(&head[GROUP_HEADER_BYTES..]), Some(entry()));
    }

    #[test]
    fn a_group_of_another_use_or_another_place_is_none() {
        let (head, _) = frame_group([7; 16], 512, 512, &[], 0);
        assert_eq!(GroupHeader::decode(&head, &[8; 16], 512), None);
        assert_eq!(GroupHeader::decode(&head, &[7; 16], 1024), None);
    }

    #[test]
    fn a_segment_header_with_one_bit_turned_is_none() {
        let header = SegmentHeader {
            format: FORMAT,
            store: StoreId(Uuid::from_u128(3)),
            seq: SegmentSeq(12),
            nonce: [9; 16],
        };
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Some(header));
        for bit in 0..56 * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
