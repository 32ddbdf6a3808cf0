//! A message's headers: a small map that routing and tracing can read without touching the body.
//! Brokers check the encoded form and pass it on; clients build and read it.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::{FrameError, Problem};
use crate::message::HEADERS_BYTES_MAX;
use crate::wire::{Head, Reader, Rules, Wire, put_array, put_map, put_nil, put_str, walk};

/// Headers by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers(pub BTreeMap<String, HeaderValue>);

/// The value of a header.
#[derive(Clone, Debug, PartialEq)]
pub enum HeaderValue {
    /// Nothing.
    Nil,
    /// A truth value.
    Bool(bool),
    /// A number of at least zero.
    UInt(u64),
    /// A number below zero.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Bytes),
    /// A list.
    List(Vec<HeaderValue>),
    /// Values by name.
    Map(BTreeMap<String, HeaderValue>),
}

/// Headers that no broker would take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("headers are not allowed: {0}")]
pub struct InvalidHeaders(#[from] FrameError);

impl Headers {
    /// The encoded map, as a message carries it.
    ///
    /// # Errors
    /// When they are too large, too deep, or a name is too long.
    pub fn encode(&self) -> Result<Bytes, InvalidHeaders> {
        let mut out = BytesMut::new();
        put_values(&mut out, &self.0);
        let encoded = out.freeze();
        // The check is the broker's own, so that what passes here is never refused there.
        check(&encoded)?;
        Ok(encoded)
    }

    /// Reads the headers of a message.
    ///
    /// # Errors
    /// When the bytes are not an encoded map within the limits.
    pub fn decode(encoded: &Bytes) -> Result<Headers, InvalidHeaders> {
        check(encoded)?;
        let mut reader = Reader::new(encoded.clone());
        match take_value(&mut reader)? {
            HeaderValue::Map(values) => Ok(Headers(values)),
            _ => Err(FrameError::from(Problem::Expected {
                expected: "a map",
                found: "another value",
            })
            .into()),
        }
    }
}

/// Bounds size and depth, so that reading them may recurse.
fn check(encoded: &Bytes) -> Result<(), FrameError> {
    if encoded.len() > HEADERS_BYTES_MAX {
        let (value, max) = (encoded.len() as u64, HEADERS_BYTES_MAX as u64);
        return Err(Problem::Limit { what: "bytes of headers", value, max }.into());
    }
    let mut reader = Reader::new(encoded.clone());
    walk(&mut reader, Rules::HEADERS)?;
    match reader.remaining() {
        0 => Ok(()),
        bytes => Err(FrameError::TrailingBytes { bytes }),
    }
}

fn put_values(out: &mut BytesMut, values: &BTreeMap<String, HeaderValue>) {
    put_map(out, values.len() as u32);
    for (name, value) in values {
        put_str(out, name);
        put_value(out, value);
    }
}

fn put_value(out: &mut BytesMut, value: &HeaderValue) {
    match value {
        HeaderValue::Nil => put_nil(out),
        HeaderValue::Bool(value) => value.put(out),
        HeaderValue::UInt(value) => value.put(out),
        HeaderValue::Int(value) => match u64::try_from(*value) {
            Ok(value) => value.put(out),
            Err(_) => {
                out.put_u8(rmp::Marker::I64.to_u8());
                out.put_i64(*value);
            }
        },
        HeaderValue::Float(value) => {
            out.put_u8(rmp::Marker::F64.to_u8());
            out.put_f64(*value);
        }
        HeaderValue::Text(text) => put_str(out, text),
        HeaderValue::Binary(bytes) => bytes.put(out),
        HeaderValue::List(values) => {
            put_array(out, values.len() as u32);
            for value in values {
                put_value(out, value);
            }
        }
        HeaderValue::Map(values) => put_values(out, values),
    }
}

/// Recurses at most [`crate::message::HEADERS_DEPTH_MAX`] deep: what is deeper was refused before.
fn take_value(reader: &mut Reader) -> Result<HeaderValue, FrameError> {
    Ok(match reader.head()? {
        Head::Nil => HeaderValue::Nil,
        Head::Bool(value) => HeaderValue::Bool(value),
        Head::UInt(value) => HeaderValue::UInt(value),
        Head::Int(value) => HeaderValue::Int(value),
        Head::Float(value) => HeaderValue::Float(value),
        Head::Str(bytes) => HeaderValue::Text(take_text(reader, bytes)?),
        Head::Bin(bytes) => HeaderValue::Binary(reader.share(bytes as usize)?),
        Head::Array(count) => {
            let values = (0..count).map(|_| take_value(reader)).collect::<Result<_, _>>()?;
            HeaderValue::List(values)
        }
        Head::Map(count) => {
            let mut values = BTreeMap::new();
            for _ in 0..count {
                let name = reader.str()?.to_owned();
                values.insert(name, take_value(reader)?);
            }
            HeaderValue::Map(values)
        }
        head @ Head::Ext(_) => {
            return Err(Problem::Expected { expected: "a header value", found: head.name() }.into());
        }
    })
}

fn take_text(reader: &mut Reader, bytes: u32) -> Result<String, FrameError> {
    let text = reader.take(bytes as usize)?;
    std::str::from_utf8(text).map(str::to_owned).map_err(|_| Problem::NotUtf8.into())
}
