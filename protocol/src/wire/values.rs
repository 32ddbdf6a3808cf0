//! How scalars, identifiers, names, lists and structs look.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::put::{put_array, put_bin_header, put_bool, put_nil, put_str, put_uint};
use super::{Reader, Wire};
use crate::frame::{FrameError, Problem};
use crate::ids::{
    BrokerId, ClusterId, ConsumerHandle, Epoch, Incarnation, Offset, OffsetRange, ProducerHandle,
    QueueId, RequestId, Seq, SeqRange, StoreId,
};
use crate::names::{ExchangeName, ProducerName, QueueName, RoutingKey, UserName, VirtualHost};

/// Highest offset, epoch and sequence number on the wire: sums of one of them and a count never
/// overflow, and languages without unsigned 64-bit numbers can hold them.
const POSITION_MAX: u64 = i64::MAX as u64;

/// Elements for which room is made before any of them was read. More room comes as elements are read,
/// so that a count is never believed.
const ROOM_BEFORE_READING: usize = 256;

macro_rules! wire_uint {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut BytesMut) {
                put_uint(out, u64::from(*self));
            }
            fn take(reader: &mut Reader) -> Result<Self, FrameError> {
                reader.uint(u64::from(<$type>::MAX)).map(|value| value as $type)
            }
        }
    )*};
}
wire_uint!(u8, u16, u32, u64);

macro_rules! wire_number {
    ($($type:ident($inner:ty) <= $max:expr),* $(,)?) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut BytesMut) {
                put_uint(out, u64::from(self.0));
            }
            fn take(reader: &mut Reader) -> Result<Self, FrameError> {
                reader.uint($max).map(|value| $type(value as $inner))
            }
        }
    )*};
}
wire_number!(
    BrokerId(u32) <= u64::from(u32::MAX),
    Incarnation(u64) <= u64::MAX,
    Epoch(u64) <= POSITION_MAX,
    Offset(u64) <= POSITION_MAX,
    Seq(u64) <= POSITION_MAX,
    RequestId(u64) <= u64::MAX,
    ProducerHandle(u32) <= u64::from(u32::MAX),
    ConsumerHandle(u32) <= u64::from(u32::MAX),
);

macro_rules! wire_uuid {
    ($($type:ident),*) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut BytesMut) {
                put_bin_header(out, 16);
                out.put_slice(self.0.as_bytes());
            }
            fn take(reader: &mut Reader) -> Result<Self, FrameError> {
                let bytes = reader.bin()?;
                let found = bytes.len() as u64;
                Uuid::from_slice(&bytes).map($type)
                    .map_err(|_| Problem::Limit { what: "bytes of an identifier", value: found, max: 16 }.into())
            }
        }
    )*};
}
wire_uuid!(StoreId, QueueId, ClusterId);

macro_rules! wire_name {
    ($($type:ident),*) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut BytesMut) {
                put_str(out, self.as_str());
            }
            fn take(reader: &mut Reader) -> Result<Self, FrameError> {
                $type::new(reader.str()?).map_err(|invalid| Problem::Name(invalid).into())
            }
        }
    )*};
}
wire_name!(VirtualHost, QueueName, ExchangeName, RoutingKey, ProducerName, UserName);

impl Wire for bool {
    fn put(&self, out: &mut BytesMut) {
        put_bool(out, *self);
    }
    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        reader.bool()
    }
}

impl Wire for String {
    fn put(&self, out: &mut BytesMut) {
        put_str(out, self);
    }
    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        reader.str().map(str::to_owned)
    }
}

impl Wire for Bytes {
    fn put(&self, out: &mut BytesMut) {
        put_bin_header(out, self.len());
        out.put_slice(self);
    }
    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        reader.bin()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut BytesMut) {
        match self {
            Some(value) => value.put(out),
            None => put_nil(out),
        }
    }
    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        if reader.nil() { Ok(None) } else { T::take(reader).map(Some) }
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut BytesMut) {
        put_array(out, self.len() as u32);
        for value in self {
            value.put(out);
        }
    }
    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        let count = reader.array()? as usize;
        let mut values = Vec::with_capacity(count.min(ROOM_BEFORE_READING));
        for _ in 0..count {
            values.push(T::take(reader)?);
        }
        Ok(values)
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut BytesMut) {
        put_array(out, 2);
        self.0.put(out);
        self.1.put(out);
    }
    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        let mut items = super::Items::begin(reader)?;
        let pair = (items.next("first of a pair")?, items.next("second of a pair")?);
        items.end()?;
        Ok(pair)
    }
}

impl<A: Wire, B: Wire, C: Wire> Wire for (A, B, C) {
    fn put(&self, out: &mut BytesMut) {
        put_array(out, 3);
        self.0.put(out);
        self.1.put(out);
        self.2.put(out);
    }
    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        let mut items = super::Items::begin(reader)?;
        let triple = (
            items.next("first of a triple")?,
            items.next("second of a triple")?,
            items.next("third of a triple")?,
        );
        items.end()?;
        Ok(triple)
    }
}

/// Never empty: a range that ends where it begins, or before, is a client's mistake.
impl Wire for OffsetRange {
    fn put(&self, out: &mut BytesMut) {
        (self.first, self.end).put(out);
    }
    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        let (first, end) = <(Offset, Offset)>::take(reader)?;
        if end <= first {
            return Err(Problem::Range { first: first.0, end: end.0 }.into());
        }
        Ok(OffsetRange { first, end })
    }
}

/// `[first, last]`, both included.
impl Wire for SeqRange {
    fn put(&self, out: &mut BytesMut) {
        (self.first, self.last).put(out);
    }
    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        let (first, last) = <(Seq, Seq)>::take(reader)?;
        if last < first {
            return Err(Problem::Range { first: first.0, end: last.0 }.into());
        }
        Ok(SeqRange { first, last })
    }
}

/// A struct as an array of its fields, in the order in which they are named here. Behind a semicolon: those that came after the first
/// release, which say nothing when they are not there.
macro_rules! wire_struct {
    ($type:ident { $($field:ident),* $(,)? $(; $($later:ident),+ $(,)?)? }) => {
        impl $crate::wire::Fields for $type {
            const ALWAYS: u32 = [$(stringify!($field)),*].len() as u32;

            fn count(&self) -> u32 {
                let last = Self::ALWAYS;
                $(
                    let (mut at, mut last) = (last, last);
                    $(
                        at += 1;
                        if !$crate::wire::says_nothing(&self.$later) {
                            last = at;
                        }
                    )+
                )?
                last
            }

            fn put_fields(&self, out: &mut bytes::BytesMut) {
                $($crate::wire::Wire::put(&self.$field, out);)*
                $(
                    let mut left = self.count() - Self::ALWAYS;
                    $(
                        if left > 0 {
                            left -= 1;
                            $crate::wire::Wire::put(&self.$later, out);
                        }
                    )+
                    debug_assert_eq!(left, 0, "what is counted is put");
                )?
            }

            fn take_fields(
                items: &mut $crate::wire::Items<'_>,
            ) -> Result<Self, $crate::frame::FrameError> {
                Ok($type {
                    $($field: items.next(concat!(stringify!($type), ".", stringify!($field)))?,)*
                    $($($later: items
                        .next_or_default(concat!(stringify!($type), ".", stringify!($later)))?,)+)?
                })
            }
        }

        impl $crate::wire::Wire for $type {
            fn put(&self, out: &mut bytes::BytesMut) {
                $crate::wire::put_array(out, $crate::wire::Fields::count(self));
                $crate::wire::Fields::put_fields(self, out);
            }

            fn take(
                reader: &mut $crate::wire::Reader,
            ) -> Result<Self, $crate::frame::FrameError> {
                let mut items = $crate::wire::Items::begin(reader)?;
                let value = items.fields()?;
                items.end()?;
                Ok(value)
            }
        }
    };
}
/// Writes each variant of a plain enum as its number; others are refused as no such `$what`.
macro_rules! wire_enum {
    ($type:ident $what:literal { $($variant:ident = $value:literal),+ $(,)? }) => {
        impl $crate::wire::Wire for $type {
            fn put(&self, out: &mut bytes::BytesMut) {
                $crate::wire::put_uint(out, match self { $($type::$variant => $value),+ });
            }

            fn take(
                reader: &mut $crate::wire::Reader,
            ) -> Result<Self, $crate::frame::FrameError> {
                match <u64 as $crate::wire::Wire>::take(reader)? {
                    $($value => Ok($type::$variant),)+
                    value => Err($crate::frame::Problem::NoSuch { what: $what, value }.into()),
                }
            }
        }
    };
}

pub(crate) use {wire_enum, wire_struct};
