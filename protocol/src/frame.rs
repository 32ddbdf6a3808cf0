//! What all frames have in common: four bytes of length, limits, versions, and what can be wrong with them.

use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{ErrorBody, ErrorCode};
use crate::message::MESSAGE_BYTES_MAX;
use crate::names::InvalidName;

/// Length of what stands before each frame: its length in bytes, itself not counted, big-endian.
pub const LENGTH_BYTES: usize = 4;

/// Longest frame before the handshake is done, in bytes: a hello fits, and a stranger can make nobody
/// hold more than this.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 4 * 1024;

/// What a frame may need beyond its largest message, in bytes: kind, names, counts.
pub const FRAME_OVERHEAD_BYTES: usize = 64 * 1024;

/// Longest frame between brokers, in bytes. Bodies come in pieces of at most
/// [`crate::peer::CHUNK_BYTES_MAX`]; the rest is room for the batch that straddles it and for lists.
pub const PEER_FRAME_BYTES_MAX: usize = 1024 * 1024;

/// What a decoder accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest frame in bytes, its four bytes of length not counted.
    pub frame_bytes_max: usize,
}

impl Limits {
    /// Of a broker towards whoever has not said hello yet.
    pub const HANDSHAKE: Limits = Limits { frame_bytes_max: HANDSHAKE_FRAME_BYTES_MAX };
    /// Between a client and a broker: one message of the largest size fits.
    pub const CLIENT: Limits = Limits { frame_bytes_max: MESSAGE_BYTES_MAX + FRAME_OVERHEAD_BYTES };
    /// Between brokers.
    pub const PEER: Limits = Limits { frame_bytes_max: PEER_FRAME_BYTES_MAX };
}

/// Frames of one direction: clients', brokers' or peers'.
pub trait Frame: Sized {
    /// Appends the frame to `out`, its length before it.
    fn encode(&self, out: &mut BytesMut);

    /// Reads a frame that has arrived whole, without its length. Bodies share `frame`.
    ///
    /// # Errors
    /// [`FrameError`] says what is wrong and where; nothing can be done with the connection after it.
    fn decode(frame: Bytes, limits: &Limits) -> Result<Self, FrameError>;
}

/// Writes the length before what `put` writes.
pub(crate) fn encode_frame(out: &mut BytesMut, put: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    put(out);
    let length = u32::try_from(out.len() - start - LENGTH_BYTES)
        .expect("messages are limited to far less than 4 GiB before a frame is built of them");
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// Checks the length of a frame and reads it with `take`, to its last byte.
pub(crate) fn decode_frame<T>(
    frame: Bytes,
    limits: &Limits,
    take: impl FnOnce(&mut crate::wire::Reader) -> Result<T, FrameError>,
) -> Result<T, FrameError> {
    check_length(frame.len(), limits)?;
    let mut reader = crate::wire::Reader::new(frame);
    let value = take(&mut reader)?;
    match reader.remaining() {
        0 => Ok(value),
        bytes => Err(FrameError::TrailingBytes { bytes }),
    }
}

pub(crate) fn check_length(bytes: usize, limits: &Limits) -> Result<(), FrameError> {
    let bytes_max = limits.frame_bytes_max;
    match bytes {
        0 => Err(FrameError::Empty),
        _ if bytes > bytes_max => Err(FrameError::TooLarge { bytes, bytes_max }),
        _ => Ok(()),
    }
}

/// The highest version that both sides speak.
///
/// # Errors
/// [`ErrorCode::UnsupportedVersion`], saying what either side speaks, when there is none.
pub fn negotiate(theirs: RangeInclusive<u16>, ours: RangeInclusive<u16>) -> Result<u16, ErrorBody> {
    let highest = *theirs.end().min(ours.end());
    let lowest = *theirs.start().max(ours.start());
    if highest >= lowest {
        return Ok(highest);
    }
    let advice = if theirs.start() > ours.end() {
        "this side needs an upgrade"
    } else {
        "the other side needs an upgrade"
    };
    Err(ErrorBody::not_done(
        ErrorCode::UnsupportedVersion,
        format!(
            "no common protocol version: versions {} to {} were offered, {} to {} are spoken here; {advice}",
            theirs.start(),
            theirs.end(),
            ours.start(),
            ours.end(),
        ),
    ))
}

/// Bytes that are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`Limits::frame_bytes_max`]. Said as soon as the length has arrived.
    #[error("a frame of {bytes} bytes is over the limit of {bytes_max} bytes")]
    TooLarge {
        /// The length that was announced.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A length of zero.
    #[error("a frame is empty")]
    Empty,
    /// A kind that this version does not know.
    #[error("{what} {kind} is not known to this version")]
    UnknownKind {
        /// The kind of what.
        what: &'static str,
        /// The number.
        kind: u64,
    },
    /// The frame goes on behind its array.
    #[error("{bytes} bytes follow the end of the frame's array")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// One of its fields is wrong.
    #[error("{place}: {problem}")]
    Field {
        /// The field, as in the documentation.
        place: &'static str,
        /// What is wrong with it.
        problem: Problem,
    },
    /// Something is wrong.
    #[error(transparent)]
    Malformed(#[from] Problem),
}

/// What can be wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It announces more than there is.
    #[error("{need} bytes are announced where {have} are left")]
    Truncated {
        /// Bytes that it takes at least.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// Another type.
    #[error("{expected} is expected, {found} was found")]
    Expected {
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// The byte that MessagePack never uses.
    #[error("the byte c1 is not MessagePack")]
    ReservedByte,
    /// A number too high for its type.
    #[error("{value} is over {max}")]
    OutOfRange {
        /// The number.
        value: u64,
        /// The highest allowed.
        max: u64,
    },
    /// A count or a length that is not allowed.
    #[error("{value} {what}, where {max} are allowed")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many there are.
        value: u64,
        /// How many may be.
        max: u64,
    },
    /// An empty list where one must hold something.
    #[error("at least one is needed")]
    None,
    /// A range that ends where it begins, or before.
    #[error("the range from {first} to {end} holds nothing")]
    Range {
        /// Its first.
        first: u64,
        /// Its end.
        end: u64,
    },
    /// Ranges that overlap or do not ascend.
    #[error("ranges must ascend and may not overlap")]
    Order,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// Arrays and maps in each other, too many deep.
    #[error("nested deeper than {depth_max}")]
    TooDeep {
        /// The deepest allowed.
        depth_max: usize,
    },
    /// A number that stands for nothing.
    #[error("{value} is no {what}")]
    NoSuch {
        /// What it should name.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// The array ends before this field.
    #[error("it is missing")]
    Missing,
    /// A name that is not allowed.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

impl FrameError {
    /// Says where, unless that was said closer to the place.
    pub(crate) fn at(self, place: &'static str) -> FrameError {
        match self {
            FrameError::Malformed(problem) => FrameError::Field { place, problem },
            other => other,
        }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            FrameError::TooLarge { .. } => ErrorCode::FrameTooLarge,
            FrameError::Field { problem: Problem::Name(_), .. }
            | FrameError::Malformed(Problem::Name(_)) => ErrorCode::InvalidName,
            FrameError::Empty
            | FrameError::UnknownKind { .. }
            | FrameError::TrailingBytes { .. }
            | FrameError::Field { .. }
            | FrameError::Malformed(_) => ErrorCode::MalformedFrame,
        }
    }
}

impl From<&FrameError> for ErrorBody {
    fn from(error: &FrameError) -> ErrorBody {
        ErrorBody::not_done(error.code(), error.to_string())
    }
}

impl From<FrameError> for ErrorBody {
    fn from(error: FrameError) -> ErrorBody {
        ErrorBody::from(&error)
    }
}
