//! Reads MessagePack from one frame that has arrived whole. Every length and count is compared with
//! the bytes that are there before anything is done with it.

use bytes::Bytes;
use rmp::Marker;

use super::{Rules, Wire, walk};
use crate::frame::{FrameError, Problem};

/// What stands at the front of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Head {
    Nil,
    Bool(bool),
    UInt(u64),
    /// A negative number.
    Int(i64),
    Float(f64),
    Str(u32),
    Bin(u32),
    Array(u32),
    Map(u32),
    /// An extension of so many bytes, its type included.
    Ext(u32),
}

impl Head {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Head::Nil => "nil",
            Head::Bool(_) => "a boolean",
            Head::UInt(_) => "an unsigned integer",
            Head::Int(_) => "a negative integer",
            Head::Float(_) => "a float",
            Head::Str(_) => "a string",
            Head::Bin(_) => "binary",
            Head::Array(_) => "an array",
            Head::Map(_) => "a map",
            Head::Ext(_) => "an extension",
        }
    }

    fn is_not(self, expected: &'static str) -> FrameError {
        Problem::Expected { expected, found: self.name() }.into()
    }
}

/// A place in a frame.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Reader {
        Reader { bytes, at: 0 }
    }

    /// How far it has read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// What was read since `start`, shared.
    pub(crate) fn since(&self, start: usize) -> Bytes {
        self.bytes.slice(start..self.at)
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&[u8], FrameError> {
        self.need(count)?;
        let start = self.at;
        self.at += count;
        Ok(&self.bytes[start..self.at])
    }

    /// The next `count` bytes, shared.
    pub(crate) fn share(&mut self, count: usize) -> Result<Bytes, FrameError> {
        self.need(count)?;
        let start = self.at;
        self.at += count;
        Ok(self.bytes.slice(start..self.at))
    }

    /// The next value, whatever it is, to be read by itself.
    pub(crate) fn whole(&mut self) -> Result<Reader, FrameError> {
        let start = self.at;
        walk(self, Rules::UNKNOWN_FIELD)?;
        Ok(Reader::new(self.since(start)))
    }

    /// The value that is all of what is left.
    pub(crate) fn finish<T: Wire>(&mut self) -> Result<T, FrameError> {
        let value = T::take(self)?;
        match self.remaining() {
            0 => Ok(value),
            bytes => Err(FrameError::TrailingBytes { bytes }),
        }
    }

    fn need(&self, count: usize) -> Result<(), FrameError> {
        if count > self.remaining() {
            return Err(Problem::Truncated { need: count, have: self.remaining() }.into());
        }
        Ok(())
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let mut number = [0; N];
        number.copy_from_slice(self.take(N)?);
        Ok(number)
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        Ok(self.number::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        Ok(u16::from_be_bytes(self.number()?))
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        Ok(u32::from_be_bytes(self.number()?))
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        Ok(u64::from_be_bytes(self.number()?))
    }

    /// Reads the front of a value. What an array, a map, a string or binary announces is there: a
    /// count never exceeds what the remaining bytes can hold.
    pub(crate) fn head(&mut self) -> Result<Head, FrameError> {
        let head = match Marker::from_u8(self.u8()?) {
            Marker::FixPos(value) => Head::UInt(u64::from(value)),
            Marker::FixNeg(value) => Head::Int(i64::from(value)),
            Marker::Null => Head::Nil,
            Marker::True => Head::Bool(true),
            Marker::False => Head::Bool(false),
            Marker::U8 => Head::UInt(u64::from(self.u8()?)),
            Marker::U16 => Head::UInt(u64::from(self.u16()?)),
            Marker::U32 => Head::UInt(u64::from(self.u32()?)),
            Marker::U64 => Head::UInt(self.u64()?),
            Marker::I8 => signed(i64::from(self.u8()? as i8)),
            Marker::I16 => signed(i64::from(self.u16()? as i16)),
            Marker::I32 => signed(i64::from(self.u32()? as i32)),
            Marker::I64 => signed(self.u64()? as i64),
            Marker::F32 => Head::Float(f64::from(f32::from_bits(self.u32()?))),
            Marker::F64 => Head::Float(f64::from_bits(self.u64()?)),
            Marker::FixStr(bytes) => Head::Str(u32::from(bytes)),
            Marker::Str8 => Head::Str(u32::from(self.u8()?)),
            Marker::Str16 => Head::Str(u32::from(self.u16()?)),
            Marker::Str32 => Head::Str(self.u32()?),
            Marker::Bin8 => Head::Bin(u32::from(self.u8()?)),
            Marker::Bin16 => Head::Bin(u32::from(self.u16()?)),
            Marker::Bin32 => Head::Bin(self.u32()?),
            Marker::FixArray(count) => Head::Array(u32::from(count)),
            Marker::Array16 => Head::Array(u32::from(self.u16()?)),
            Marker::Array32 => Head::Array(self.u32()?),
            Marker::FixMap(count) => Head::Map(u32::from(count)),
            Marker::Map16 => Head::Map(u32::from(self.u16()?)),
            Marker::Map32 => Head::Map(self.u32()?),
            Marker::FixExt1 => Head::Ext(2),
            Marker::FixExt2 => Head::Ext(3),
            Marker::FixExt4 => Head::Ext(5),
            Marker::FixExt8 => Head::Ext(9),
            Marker::FixExt16 => Head::Ext(17),
            Marker::Ext8 => Head::Ext(u32::from(self.u8()?) + 1),
            Marker::Ext16 => Head::Ext(u32::from(self.u16()?) + 1),
            Marker::Ext32 => Head::Ext(self.u32()?.saturating_add(1)),
            Marker::Reserved => return Err(Problem::ReservedByte.into()),
        };
        self.check_announced(head)?;
        Ok(head)
    }

    fn check_announced(&self, head: Head) -> Result<(), FrameError> {
        let least_bytes = match head {
            Head::Str(bytes) | Head::Bin(bytes) | Head::Ext(bytes) => bytes as usize,
            // Every element takes at least one byte.
            Head::Array(count) => count as usize,
            Head::Map(count) => (count as usize).saturating_mul(2),
            Head::Nil | Head::Bool(_) | Head::UInt(_) | Head::Int(_) | Head::Float(_) => 0,
        };
        self.need(least_bytes)
    }

    /// Whether the next value is nil; if so it is read.
    pub(crate) fn nil(&mut self) -> bool {
        let nil = self.bytes.get(self.at) == Some(&Marker::Null.to_u8());
        self.at += usize::from(nil);
        nil
    }

    pub(crate) fn bool(&mut self) -> Result<bool, FrameError> {
        match self.head()? {
            Head::Bool(value) => Ok(value),
            other => Err(other.is_not("a boolean")),
        }
    }

    /// An unsigned number of at most `max`.
    pub(crate) fn uint(&mut self, max: u64) -> Result<u64, FrameError> {
        match self.head()? {
            Head::UInt(value) if value <= max => Ok(value),
            Head::UInt(value) => Err(Problem::OutOfRange { value, max }.into()),
            other => Err(other.is_not("an unsigned integer")),
        }
    }

    pub(crate) fn str(&mut self) -> Result<&str, FrameError> {
        match self.head()? {
            Head::Str(bytes) => {
                std::str::from_utf8(self.take(bytes as usize)?).map_err(|_| Problem::NotUtf8.into())
            }
            other => Err(other.is_not("a string")),
        }
    }

    /// Binary, shared.
    pub(crate) fn bin(&mut self) -> Result<Bytes, FrameError> {
        match self.head()? {
            Head::Bin(bytes) => self.share(bytes as usize),
            other => Err(other.is_not("binary")),
        }
    }

    /// Passes over binary.
    pub(crate) fn skip_bin(&mut self) -> Result<(), FrameError> {
        match self.head()? {
            Head::Bin(bytes) => self.take(bytes as usize).map(|_| ()),
            other => Err(other.is_not("binary")),
        }
    }

    /// The count of an array; that many bytes at least are there.
    pub(crate) fn array(&mut self) -> Result<u32, FrameError> {
        match self.head()? {
            Head::Array(count) => Ok(count),
            other => Err(other.is_not("an array")),
        }
    }
}

fn signed(value: i64) -> Head {
    u64::try_from(value).map_or(Head::Int(value), Head::UInt)
}
