//! A group on its way to the disk.

use std::io::{self, IoSlice};

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::format::{BLOCK, EntryHeader, Nonce, frame_group, group_length};
use crate::shared::Entry;

/// Most zeros written behind a group, in bytes.
pub const ZEROS_MAX: u64 = 1024 * 1024;

static ZEROS: [u8; ZEROS_MAX as usize] = [0; ZEROS_MAX as usize];

/// Where an entry came from, and so who is to hear of it.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    Shard(usize),
    /// Moved by the cleaner, for that shard.
    Copy {
        shard: usize,
        messages: bool,
    },
    /// A register moved by the cleaner.
    Register,
}

/// What is written together.
#[derive(Debug)]
pub struct Group {
    pub headers: Vec<EntryHeader>,
    pub origins: Vec<Origin>,
    payloads: Vec<Bytes>,
    payload_bytes: u64,
    /// Bytes that the segment still takes.
    room: u64,
    /// What the entries of shards cost while they wait.
    pub cost: u64,
}

impl Group {
    pub fn new(room: u64) -> Group {
        let (headers, origins, payloads) = (Vec::new(), Vec::new(), Vec::new());
        Group { headers, origins, payloads, payload_bytes: 0, room, cost: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    pub fn len(&self) -> usize {
        self.headers.len()
    }

    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Whether the segment takes one more entry, and still the mark that seals it.
    pub fn fits(&self, payload: u64) -> bool {
        let entries = self.headers.len() as u64 + 1;
        group_length(entries, self.payload_bytes + payload) + BLOCK <= self.room
    }

    pub fn push(&mut self, origin: Origin, entry: Entry) {
        self.payload_bytes += entry.payload.len() as u64;
        self.origins.push(origin);
        self.headers.push(entry.header);
        self.payloads.push(entry.payload);
    }

    /// Bytes it takes on the disk.
    pub fn length(&self) -> u64 {
        group_length(self.headers.len() as u64, self.payload_bytes)
    }

    /// Writes the group and so many zeros behind it, in one vectored write; answers where each payload lies.
    pub fn write(
        &self,
        file: &dyn DiskFile,
        nonce: Nonce,
        position: u64,
        zeros: u64,
    ) -> io::Result<Vec<u32>> {
        let (head, tail) =
            frame_group(nonce, position, position, &self.headers, self.payload_bytes);
        let mut parts = Vec::with_capacity(self.payloads.len() + 3);
        parts.push(IoSlice::new(&head));
        parts.extend(self.payloads.iter().map(|payload| IoSlice::new(payload)));
        parts.push(IoSlice::new(&tail));
        parts.push(IoSlice::new(&ZEROS[..zeros.min(ZEROS_MAX) as usize]));
        file.write_at(&parts, position)?;

        let mut at = position + head.len() as u64;
        let mut positions = Vec::with_capacity(self.payloads.len());
        for payload in &self.payloads {
            positions.push(u32::try_from(at).expect("segments are shorter than 4 GiB"));
            at += payload.len() as u64;
        }
        Ok(positions)
    }
}
