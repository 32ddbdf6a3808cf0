//! How values look in MessagePack: the trait every field of a frame has, and the two ends of it.
//! Written by hand over the markers of `rmp`, because a derived decoder refuses unknown trailing
//! fields, copies bodies, and trusts announced counts.

mod errors;
mod items;
mod put;
mod reader;
mod values;
mod walk;

pub(crate) use items::Items;
pub(crate) use put::{put_array, put_bin_header, put_map, put_nil, put_str, put_uint};
pub(crate) use reader::{Head, Reader};
pub(crate) use values::{wire_enum, wire_struct};
pub(crate) use walk::{Rules, walk};

use bytes::BytesMut;

use crate::frame::FrameError;

/// A value of a frame: what it looks like in bytes, and back.
pub(crate) trait Wire {
    /// Writes it.
    fn put(&self, out: &mut BytesMut);

    /// Reads it.
    fn take(reader: &mut Reader) -> Result<Self, FrameError>
    where
        Self: Sized;
}

/// A struct of which the fields stand in an array one behind the other: in one of its own, or behind
/// the kind of the frame that consists of it.
pub(crate) trait Fields: Wire + Sized {
    /// How many fields are always written.
    const ALWAYS: u32;

    /// How many are: those that came later are left out from the end on while they say nothing, so that the bytes stay what they were.
    fn count(&self) -> u32;

    /// Writes the fields.
    fn put_fields(&self, out: &mut BytesMut);

    /// Reads the fields.
    fn take_fields(items: &mut Items<'_>) -> Result<Self, FrameError>;
}

/// Whether a field that came later need not be written.
pub(crate) fn says_nothing<T: Default + PartialEq>(field: &T) -> bool {
    *field == T::default()
}

/// Writes `[kind, fields…]`.
pub(crate) fn put_variant(out: &mut BytesMut, kind: u8, fields: &[&dyn Wire]) {
    put_array(out, 1 + fields.len() as u32);
    put_uint(out, u64::from(kind));
    for field in fields {
        field.put(out);
    }
}

/// Writes `[kind, fields of the struct…]`.
pub(crate) fn put_struct_variant<T: Fields>(out: &mut BytesMut, kind: u8, fields: &T) {
    put_array(out, 1 + fields.count());
    put_uint(out, u64::from(kind));
    fields.put_fields(out);
}
