//! Messages as they travel: encoded once by the producing client, never decoded on the way.

use bytes::Bytes;

/// Largest message, headers and body together, in bytes: 16 MiB.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Consecutive messages, each the MessagePack array `[headers: map | nil, body: bin]`, one behind
/// the other. The bytes are what the producer's client wrote; socket, journal and peers share them.
///
/// *Invariant:* `bytes` holds exactly `count` well-formed messages.
#[derive(Clone, PartialEq, Eq)]
pub struct MessageBlock {
    count: u32,
    bytes: Bytes,
}

impl std::fmt::Debug for MessageBlock {
    /// Never shows a body.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MessageBlock({} messages, {} bytes)", self.count, self.bytes.len())
    }
}

impl MessageBlock {
    /// A block whose bytes were checked before, and have been under a checksum since.
    #[must_use]
    pub fn from_trusted(count: u32, bytes: Bytes) -> MessageBlock {
        MessageBlock { count, bytes }
    }

    /// How many messages.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The messages as they travel, one behind the other.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// `count` messages from the one with index `first` on. Shares the bytes.
    ///
    /// # Panics
    /// When the block does not hold them.
    #[must_use]
    pub fn slice(&self, first: u32, count: u32) -> MessageBlock {
        let skip = |from: usize, messages: u32| {
            (0..messages).fold(from, |at, _| {
                skip_value(&self.bytes, at).expect("a block holds as many messages as it says")
            })
        };
        let start = skip(0, first);
        let end = skip(start, count);
        MessageBlock { count, bytes: self.bytes.slice(start..end) }
    }
}

/// Where the MessagePack value ends that begins at `at`; `None` when the bytes end before it.
fn skip_value(bytes: &[u8], mut at: usize) -> Option<usize> {
    let number = |at: usize, width: usize| {
        let digits = bytes.get(at..at + width)?;
        Some(digits.iter().fold(0_u64, |sum, digit| sum << 8 | u64::from(*digit)) as usize)
    };
    let mut values = 1_usize;
    while values > 0 {
        values -= 1;
        let marker = *bytes.get(at)?;
        at += 1;
        let (width, more) = match marker {
            0x00..=0x7f | 0xc0..=0xc3 | 0xe0..=0xff => (0, 0),
            0x80..=0x8f => (0, 2 * usize::from(marker & 0x0f)),
            0x90..=0x9f => (0, usize::from(marker & 0x0f)),
            0xa0..=0xbf => (usize::from(marker & 0x1f), 0),
            0xc4 | 0xd9 => (1 + number(at, 1)?, 0),
            0xc5 | 0xda => (2 + number(at, 2)?, 0),
            0xc6 | 0xdb => (4 + number(at, 4)?, 0),
            0xc7 => (2 + number(at, 1)?, 0),
            0xc8 => (3 + number(at, 2)?, 0),
            0xc9 => (5 + number(at, 4)?, 0),
            0xca | 0xce | 0xd2 => (4, 0),
            0xcb | 0xcf | 0xd3 => (8, 0),
            0xcc | 0xd0 => (1, 0),
            0xcd | 0xd1 => (2, 0),
            0xd4..=0xd8 => (1 + (1 << (marker - 0xd4)), 0),
            0xdc => (2, number(at, 2)?),
            0xdd => (4, number(at, 4)?),
            0xde => (2, 2 * number(at, 2)?),
            0xdf => (4, 2 * number(at, 4)?),
        };
        at = at.checked_add(width).filter(|end| *end <= bytes.len())?;
        values = values.checked_add(more)?;
    }
    Some(at)
}
