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
