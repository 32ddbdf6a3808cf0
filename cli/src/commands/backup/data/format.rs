//! How a backup of data looks: frames with a length and a checksum each, in an order that [`super::read`] holds them to.
//!
//! ```text
//! file:    | magic: 8 bytes | format: u32 | frame … |
//! frame:   | length: u32 | crc32c of what follows: u32 | kind: u8 | payload: length - 1 bytes |
//! kinds:   1 begin (JSON)   2 queue (JSON)   3 messages   4 end of queue (JSON)   5 end (JSON)
//! message: | offset: u64 | time in ms: u64 | returns: u32 | flags: u8 | exchange: u16 | key: u16 | headers: u32 | body: u32 | these four |
//! ```
//!
//! All numbers are big-endian. Flags: 1 perhaps delivered before, 2 has headers. Headers are the map as the producer encoded it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What every such file begins with.
pub const MAGIC: [u8; 8] = *b"BELLDATA";

/// The format that this version writes, and the newest it reads.
pub const FORMAT: u32 = 1;

/// Magic and format.
pub const PREFIX_BYTES: usize = 12;

/// Length and checksum.
pub const FRAME_PREFIX_BYTES: usize = 8;

/// Longest frame, in bytes: the largest message with its names and headers, and more.
pub const FRAME_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Messages are gathered into a frame up to so many bytes.
pub const GATHERED_BYTES: usize = 1024 * 1024;

/// What a message takes besides its names, headers and body.
const MESSAGE_PREFIX_BYTES: usize = 33;

const REDELIVERED: u8 = 1;
const HAS_HEADERS: u8 = 2;

/// What is backed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Of this very backup.
    pub backup: Uuid,
    /// The cluster it was made of.
    pub cluster: String,
    pub virtual_host: String,
    /// When it was begun, in milliseconds since 1970.
    pub made_at_ms: u64,
    /// The version of Bellwether that made it.
    pub version: String,
}

/// A queue whose messages follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueBegin {
    pub name: String,
    pub id: String,
    /// The messages are those below this offset.
    pub until: u64,
}

/// All messages of a queue have come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueEnd {
    pub messages: u64,
    /// Of headers and bodies.
    pub bytes: u64,
    /// Of the payloads of the frames with its messages, as hex digits.
    pub sha256: String,
}

/// All queues have come. Without it the file is not whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub queues: u64,
    pub messages: u64,
}

/// One thing in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Begin(Begin),
    Queue(QueueBegin),
    Messages(Vec<Kept>, Bytes),
    QueueEnd(QueueEnd),
    End(End),
}

/// A message of the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub offset: u64,
    pub time_ms: u64,
    pub returns: u32,
    pub redelivered: bool,
    pub exchange: Bytes,
    pub routing_key: Bytes,
    /// Encoded.
    pub headers: Option<Bytes>,
    pub body: Bytes,
}

impl Kept {
    /// Of headers and body.
    pub fn size(&self) -> u64 {
        (self.headers.as_ref().map_or(0, Bytes::len) + self.body.len()) as u64
    }

    /// Appends it to the payload of a frame.
    pub fn put(&self, out: &mut BytesMut) {
        let headers = self.headers.as_deref().unwrap_or_default();
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.put_u64(self.offset);
        out.put_u64(self.time_ms);
        out.put_u32(self.returns);
        out.put_u8(flag(self.redelivered, REDELIVERED) | flag(self.headers.is_some(), HAS_HEADERS));
        // Names are of 255 bytes at most, headers and bodies of 16 MiB.
        out.put_u16(self.exchange.len() as u16);
        out.put_u16(self.routing_key.len() as u16);
        out.put_u32(headers.len() as u32);
        out.put_u32(self.body.len() as u32);
        for part in [&self.exchange[..], &self.routing_key, headers, &self.body] {
            out.put_slice(part);
        }
    }

    fn take(payload: &mut Bytes) -> Result<Kept, String> {
        if payload.len() < MESSAGE_PREFIX_BYTES {
            return Err(format!("{} bytes are too few for a message", payload.len()));
        }
        let (offset, time_ms, returns) = (payload.get_u64(), payload.get_u64(), payload.get_u32());
        let flags = payload.get_u8();
        let lengths = [
            usize::from(payload.get_u16()),
            usize::from(payload.get_u16()),
            payload.get_u32() as usize,
            payload.get_u32() as usize,
        ];
        if lengths.iter().sum::<usize>() > payload.len() {
            return Err(format!("the message at offset {offset} is longer than its frame"));
        }
        let [exchange, routing_key, headers, body] = lengths.map(|bytes| payload.split_to(bytes));
        let headers = (flags & HAS_HEADERS != 0).then_some(headers);
        let redelivered = flags & REDELIVERED != 0;
        Ok(Kept { offset, time_ms, returns, redelivered, exchange, routing_key, headers, body })
    }
}

impl Entry {
    fn kind(&self) -> u8 {
        match self {
            Entry::Begin(_) => 1,
            Entry::Queue(_) => 2,
            Entry::Messages(..) => 3,
            Entry::QueueEnd(_) => 4,
            Entry::End(_) => 5,
        }
    }

    /// The frame. Messages are taken from their payload.
    pub fn to_frame(&self) -> Result<Bytes, serde_json::Error> {
        let payload = match self {
            Entry::Begin(begin) => serde_json::to_vec(begin)?.into(),
            Entry::Queue(queue) => serde_json::to_vec(queue)?.into(),
            Entry::Messages(_, payload) => payload.clone(),
            Entry::QueueEnd(end) => serde_json::to_vec(end)?.into(),
            Entry::End(end) => serde_json::to_vec(end)?.into(),
        };
        let kind = self.kind();
        let mut frame = BytesMut::with_capacity(FRAME_PREFIX_BYTES + 1 + payload.len());
        frame.put_u32(payload.len() as u32 + 1);
        frame.put_u32(checksum(kind, &payload));
        frame.put_u8(kind);
        frame.put_slice(&payload);
        Ok(frame.freeze())
    }

    /// Reads the kind and payload of a frame whose checksum was found right.
    pub fn of(mut body: Bytes) -> Result<Entry, String> {
        let kind = body.get_u8();
        let json = |error: serde_json::Error| error.to_string();
        Ok(match kind {
            1 => Entry::Begin(serde_json::from_slice(&body).map_err(json)?),
            2 => Entry::Queue(serde_json::from_slice(&body).map_err(json)?),
            3 => {
                let (payload, mut messages) = (body.clone(), Vec::new());
                while !body.is_empty() {
                    messages.push(Kept::take(&mut body)?);
                }
                Entry::Messages(messages, payload)
            }
            4 => Entry::QueueEnd(serde_json::from_slice(&body).map_err(json)?),
            5 => Entry::End(serde_json::from_slice(&body).map_err(json)?),
            kind => return Err(format!("frames of kind {kind} are not known")),
        })
    }
}

fn checksum(kind: u8, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload)
}

/// Whether a frame's kind and payload are what was written.
pub fn is_sound(checksum: u32, body: &[u8]) -> bool {
    crc32c::crc32c(body) == checksum
}
