//! Messages as they travel: encoded once by the producing client, never decoded on the way.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{ErrorBody, ErrorCode};
use crate::frame::{FrameError, Problem};
use crate::wire::{Head, Reader, Rules, Wire, put_array, put_bin_header, put_nil, walk};

/// Largest message, encoded headers and body together, in bytes: 16 MiB.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Largest encoded headers of one message, in bytes: they are for routing and tracing; what is larger is a body.
pub const HEADERS_BYTES_MAX: usize = 64 * 1024;

/// Deepest nesting of a message's headers, the map itself included.
pub const HEADERS_DEPTH_MAX: usize = 8;

/// Longest name of a header, in bytes of UTF-8.
pub const HEADER_NAME_BYTES_MAX: usize = 255;

/// Fewest bytes that a message takes: array, nil, binary, its length.
const ENCODED_MESSAGE_BYTES_MIN: usize = 4;

/// Consecutive messages, each the MessagePack array `[headers: map | nil, body: bin]`, one behind
/// the other. The bytes are what the producer's client wrote; socket, journal and peers share them.
///
/// *Invariant:* `bytes` holds exactly `count` well-formed messages.
#[derive(Clone, PartialEq, Eq)]
pub struct MessageBlock {
    count: u32,
    bytes: Bytes,
}

/// One message of a block; it shares the block's bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The encoded map, if there is one; [`crate::headers::Headers::decode`] reads it.
    pub headers: Option<Bytes>,
    /// What the producer wrote.
    pub body: Bytes,
}

impl Message {
    /// What counts against the size limit: encoded headers and body.
    #[must_use]
    pub fn size(&self) -> usize {
        self.headers.as_ref().map_or(0, Bytes::len) + self.body.len()
    }
}

impl MessageBlock {
    /// A block of these messages. Headers are encoded maps, as of [`crate::headers::Headers::encode`].
    pub fn from_messages(
        messages: impl IntoIterator<Item = (Option<Bytes>, Bytes)>,
    ) -> MessageBlock {
        let mut block = MessageBlock::builder();
        for (headers, body) in messages {
            block.push(headers.as_deref(), &body);
        }
        block.finish()
    }

    /// Gathers messages into a block.
    #[must_use]
    pub fn builder() -> MessageBlockBuilder {
        MessageBlockBuilder::default()
    }

    /// Bytes that were checked before, for instance by the checksum of the batch that was made of a checked block.
    #[must_use]
    pub fn from_trusted(count: u32, bytes: Bytes) -> MessageBlock {
        MessageBlock { count, bytes }
    }

    /// Checks that `bytes` holds exactly `count` well-formed messages.
    ///
    /// # Errors
    /// Says what is wrong with the first that is not.
    pub fn validate(bytes: Bytes, count: u32) -> Result<MessageBlock, FrameError> {
        let mut reader = Reader::new(bytes);
        let block = MessageBlock::take_messages(&mut reader, count)?;
        match reader.remaining() {
            0 => Ok(block),
            bytes => Err(FrameError::TrailingBytes { bytes }),
        }
    }

    fn take_messages(reader: &mut Reader, count: u32) -> Result<MessageBlock, FrameError> {
        let need = (count as usize).saturating_mul(ENCODED_MESSAGE_BYTES_MIN);
        if need > reader.remaining() {
            return Err(Problem::Truncated { need, have: reader.remaining() }.into());
        }
        let start = reader.at();
        for _ in 0..count {
            check_message(reader)?;
        }
        Ok(MessageBlock { count, bytes: reader.since(start) })
    }

    /// How many messages there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The messages, one behind the other.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Length of [`MessageBlock::bytes`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The messages in order.
    pub fn iter(&self) -> impl Iterator<Item = Message> + use<> {
        let mut reader = Reader::new(self.bytes.clone());
        (0..self.count).map(move |_| take_message(&mut reader))
    }

    /// The `count` messages from `first` (the first is zero); shares the bytes.
    ///
    /// # Panics
    /// When the block has not so many.
    #[must_use]
    pub fn slice(&self, first: u32, count: u32) -> MessageBlock {
        let end = u64::from(first) + u64::from(count);
        assert!(end <= u64::from(self.count), "{first} + {count} of {} messages", self.count);
        if count == self.count {
            return self.clone();
        }
        let mut reader = Reader::new(self.bytes.clone());
        skip_messages(&mut reader, first);
        let start = reader.at();
        skip_messages(&mut reader, count);
        MessageBlock { count, bytes: reader.since(start) }
    }

    /// Refuses a block that holds a message over `bytes_max`.
    ///
    /// # Errors
    /// [`ErrorCode::MessageTooLarge`], with both sizes.
    pub fn check_sizes(&self, bytes_max: usize) -> Result<(), ErrorBody> {
        if self.len() <= bytes_max {
            return Ok(());
        }
        match self.iter().map(|message| message.size()).find(|size| *size > bytes_max) {
            None => Ok(()),
            Some(size) => Err(ErrorBody::not_done(
                ErrorCode::MessageTooLarge,
                format!("a message of {size} bytes is over the limit of {bytes_max} bytes"),
            )),
        }
    }
}

/// Checks one message: an array of headers and body; what a later version may add behind them is skipped.
fn check_message(reader: &mut Reader) -> Result<(), FrameError> {
    let fields = reader.array().map_err(|error| error.at("a message"))?;
    if fields < 2 {
        return Err(FrameError::from(Problem::Missing).at("a message's body"));
    }
    let start = reader.at();
    if !reader.nil() {
        check_headers(reader, start).map_err(|error| error.at("a message's headers"))?;
    }
    reader.skip_bin().map_err(|error| error.at("a message's body"))?;
    for _ in 2..fields {
        walk(reader, Rules::UNKNOWN_FIELD).map_err(|error| error.at("a message"))?;
    }
    Ok(())
}

fn check_headers(reader: &mut Reader, start: usize) -> Result<(), FrameError> {
    match reader.clone().head()? {
        Head::Map(_) => walk(reader, Rules::HEADERS)?,
        other => {
            return Err(Problem::Expected { expected: "a map or nil", found: other.name() }.into());
        }
    }
    let bytes = reader.at() - start;
    if bytes > HEADERS_BYTES_MAX {
        let (value, max) = (bytes as u64, HEADERS_BYTES_MAX as u64);
        return Err(Problem::Limit { what: "bytes of headers", value, max }.into());
    }
    Ok(())
}

const CHECKED: &str = "a block's messages were checked when it was made";

fn take_message(reader: &mut Reader) -> Message {
    let fields = reader.array().expect(CHECKED);
    let start = reader.at();
    let headers = if reader.nil() {
        None
    } else {
        walk(reader, Rules::UNKNOWN_FIELD).expect(CHECKED);
        Some(reader.since(start))
    };
    let body = reader.bin().expect(CHECKED);
    for _ in 2..fields {
        walk(reader, Rules::UNKNOWN_FIELD).expect(CHECKED);
    }
    Message { headers, body }
}

fn skip_messages(reader: &mut Reader, count: u32) {
    for _ in 0..count {
        let fields = reader.array().expect(CHECKED);
        if !reader.nil() {
            walk(reader, Rules::UNKNOWN_FIELD).expect(CHECKED);
        }
        reader.skip_bin().expect(CHECKED);
        for _ in 2..fields {
            walk(reader, Rules::UNKNOWN_FIELD).expect(CHECKED);
        }
    }
}

/// An array with as many elements as there are messages. Never empty.
impl Wire for MessageBlock {
    fn put(&self, out: &mut BytesMut) {
        put_array(out, self.count);
        out.put_slice(&self.bytes);
    }

    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        match reader.array()? {
            0 => Err(Problem::None.into()),
            count => MessageBlock::take_messages(reader, count),
        }
    }
}

impl std::fmt::Debug for MessageBlock {
    /// Never shows a body.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MessageBlock({} messages, {} bytes)", self.count, self.bytes.len())
    }
}

impl std::fmt::Debug for Message {
    /// Never shows a body.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({} bytes)", self.size())
    }
}

/// Gathers messages into a block.
#[derive(Default)]
pub struct MessageBlockBuilder {
    count: u32,
    bytes: BytesMut,
}

impl MessageBlockBuilder {
    /// Adds a message. Headers are an encoded map, as of [`crate::headers::Headers::encode`].
    pub fn push(&mut self, headers: Option<&[u8]>, body: &[u8]) {
        self.bytes.reserve(headers.map_or(1, <[u8]>::len) + body.len() + 6);
        put_array(&mut self.bytes, 2);
        match headers {
            Some(headers) => self.bytes.put_slice(headers),
            None => put_nil(&mut self.bytes),
        }
        put_bin_header(&mut self.bytes, body.len());
        self.bytes.put_slice(body);
        self.count += 1;
    }

    /// How many messages there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many bytes they take.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The block; the builder is empty afterwards.
    #[must_use]
    pub fn finish(&mut self) -> MessageBlock {
        let count = std::mem::take(&mut self.count);
        MessageBlock { count, bytes: self.bytes.split().freeze() }
    }
}
