//! Writes MessagePack headers and scalars, each in its shortest form.

use bytes::{BufMut, BytesMut};
use rmp::Marker;

pub(crate) fn put_nil(out: &mut BytesMut) {
    out.put_u8(Marker::Null.to_u8());
}

pub(crate) fn put_bool(out: &mut BytesMut, value: bool) {
    out.put_u8(if value { Marker::True } else { Marker::False }.to_u8());
}

pub(crate) fn put_uint(out: &mut BytesMut, value: u64) {
    match value {
        0..=0x7f => out.put_u8(Marker::FixPos(value as u8).to_u8()),
        0x80..=0xff => {
            out.put_u8(Marker::U8.to_u8());
            out.put_u8(value as u8);
        }
        0x100..=0xffff => {
            out.put_u8(Marker::U16.to_u8());
            out.put_u16(value as u16);
        }
        0x1_0000..=0xffff_ffff => {
            out.put_u8(Marker::U32.to_u8());
            out.put_u32(value as u32);
        }
        _ => {
            out.put_u8(Marker::U64.to_u8());
            out.put_u64(value);
        }
    }
}

pub(crate) fn put_array(out: &mut BytesMut, count: u32) {
    match count {
        0..=15 => out.put_u8(Marker::FixArray(count as u8).to_u8()),
        16..=0xffff => {
            out.put_u8(Marker::Array16.to_u8());
            out.put_u16(count as u16);
        }
        _ => {
            out.put_u8(Marker::Array32.to_u8());
            out.put_u32(count);
        }
    }
}

pub(crate) fn put_map(out: &mut BytesMut, count: u32) {
    match count {
        0..=15 => out.put_u8(Marker::FixMap(count as u8).to_u8()),
        16..=0xffff => {
            out.put_u8(Marker::Map16.to_u8());
            out.put_u16(count as u16);
        }
        _ => {
            out.put_u8(Marker::Map32.to_u8());
            out.put_u32(count);
        }
    }
}

pub(crate) fn put_str(out: &mut BytesMut, text: &str) {
    match length(text.len()) {
        bytes @ 0..=31 => out.put_u8(Marker::FixStr(bytes as u8).to_u8()),
        bytes @ 32..=0xff => {
            out.put_u8(Marker::Str8.to_u8());
            out.put_u8(bytes as u8);
        }
        bytes @ 0x100..=0xffff => {
            out.put_u8(Marker::Str16.to_u8());
            out.put_u16(bytes as u16);
        }
        bytes => {
            out.put_u8(Marker::Str32.to_u8());
            out.put_u32(bytes);
        }
    }
    out.put_slice(text.as_bytes());
}

/// What stands before the bytes of a `bin`.
pub(crate) fn put_bin_header(out: &mut BytesMut, bytes: usize) {
    match length(bytes) {
        bytes @ 0..=0xff => {
            out.put_u8(Marker::Bin8.to_u8());
            out.put_u8(bytes as u8);
        }
        bytes @ 0x100..=0xffff => {
            out.put_u8(Marker::Bin16.to_u8());
            out.put_u16(bytes as u16);
        }
        bytes => {
            out.put_u8(Marker::Bin32.to_u8());
            out.put_u32(bytes);
        }
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("frames are limited to far less than 4 GiB before they are built")
}
