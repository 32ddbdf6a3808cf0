//! Side files: the directory of a sealed segment, so that a restart need not read the segment. Only a
//! short cut: not synced, checked by checksum, and made again when missing.
//!
//! ```text
//! | magic: 8 | crc32c of the rest: u32 | nonce: 16 | length of the segment: u64 | count: u32 | (entry: 56 | position: u32) × count |
//! ```

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::scan::Found;
use crate::disk::{Disk, DiskFile};
use crate::format::{ENTRY_BYTES, EntryHeader, Nonce, SegmentSeq, array_at, u32_at};
use crate::segment::side_name;

const MAGIC: [u8; 8] = *b"BWindex1";
const HEAD_BYTES: usize = 40;
const LINE_BYTES: usize = ENTRY_BYTES + 4;

pub fn write(
    disk: &dyn Disk,
    seq: SegmentSeq,
    nonce: &Nonce,
    length: u64,
    found: &[Found],
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + found.len() * LINE_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(nonce);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&(found.len() as u32).to_be_bytes());
    for one in found {
        one.header.encode(&mut bytes);
        bytes.extend_from_slice(&one.position.to_be_bytes());
    }
    let crc = crc32c::crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_be_bytes());
    disk.create(&side_name(seq))?.write_at(&[IoSlice::new(&bytes)], 0)
}

/// What the side file says, if it is whole and of this use of the segment, at this length.
pub fn read(file: &Arc<dyn DiskFile>, nonce: &Nonce, length: u64) -> Option<Vec<Found>> {
    let mut bytes = vec![0; usize::try_from(file.length().ok()?).ok()?];
    file.read_at(&mut bytes, 0).ok()?;
    if bytes.len() < HEAD_BYTES || bytes[..8] != MAGIC {
        return None;
    }
    let whole = u32_at(&bytes, 8) == crc32c::crc32c(&bytes[12..]);
    let same = array_at::<16>(&bytes, 12) == *nonce;
    let as_long = u64::from_be_bytes(array_at(&bytes, 28)) == length;
    let lines = bytes[HEAD_BYTES..].chunks_exact(LINE_BYTES);
    let complete = lines.remainder().is_empty() && lines.len() == u32_at(&bytes, 36) as usize;
    if !(whole && same && as_long && complete) {
        return None;
    }
    lines
        .map(|line| {
            let header = EntryHeader::decode(line)?;
            Some(Found { header, position: u32_at(line, ENTRY_BYTES) })
        })
        .collect()
}
