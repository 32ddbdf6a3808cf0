//! Walks over a value of any shape without building it, in constant memory.

use super::{Head, Reader};
use crate::frame::{FrameError, Problem};

/// What a value that is walked over may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Deepest nesting of arrays and maps, the outermost included; at most [`DEPTH_MAX`].
    depth_max: usize,
    /// Whether map keys must be short strings, strings must be UTF-8, and extensions are refused, so
    /// that every client can read what another wrote.
    headers: bool,
}

/// Deepest nesting of anything: fits a small array on the stack, and no client in a language with
/// a recursive decoder overflows on it.
const DEPTH_MAX: usize = 16;

impl Rules {
    pub(crate) const UNKNOWN_FIELD: Rules = Rules { depth_max: DEPTH_MAX, headers: false };
    pub(crate) const HEADERS: Rules =
        Rules { depth_max: crate::message::HEADERS_DEPTH_MAX, headers: true };
}

/// Reads one value, whatever it is.
pub(crate) fn walk(reader: &mut Reader, rules: Rules) -> Result<(), FrameError> {
    // For each open array or map: how many values it still lacks, and whether it is a map (then an
    // even number lacking means that a key comes next).
    let mut open = [(0_u64, false); DEPTH_MAX];
    let mut depth = 0;
    loop {
        let key = depth > 0 && open[depth - 1].1 && open[depth - 1].0 % 2 == 0;
        if depth > 0 {
            open[depth - 1].0 -= 1;
        }
        let nested = match scalar(reader, rules, key)? {
            Some((0, _)) | None => None,
            nested => nested,
        };
        if let Some(nested) = nested {
            if depth == rules.depth_max {
                return Err(Problem::TooDeep { depth_max: rules.depth_max }.into());
            }
            open[depth] = nested;
            depth += 1;
        }
        while depth > 0 && open[depth - 1].0 == 0 {
            depth -= 1;
        }
        if depth == 0 {
            return Ok(());
        }
    }
}

/// Reads a scalar, or the front of an array or map: then how many values follow, and whether it is a map.
fn scalar(reader: &mut Reader, rules: Rules, key: bool) -> Result<Option<(u64, bool)>, FrameError> {
    let head = reader.head()?;
    if key && rules.headers {
        return walk_key(reader, head).map(|()| None);
    }
    match head {
        Head::Nil | Head::Bool(_) | Head::UInt(_) | Head::Int(_) | Head::Float(_) => Ok(None),
        Head::Str(bytes) => {
            let text = reader.take(bytes as usize)?;
            if rules.headers && std::str::from_utf8(text).is_err() {
                return Err(Problem::NotUtf8.into());
            }
            Ok(None)
        }
        Head::Ext(_) if rules.headers => {
            Err(Problem::Expected { expected: "a header value", found: head.name() }.into())
        }
        Head::Bin(bytes) | Head::Ext(bytes) => reader.take(bytes as usize).map(|_| None),
        Head::Array(count) => Ok(Some((u64::from(count), false))),
        Head::Map(count) => Ok(Some((u64::from(count) * 2, true))),
    }
}

fn walk_key(reader: &mut Reader, head: Head) -> Result<(), FrameError> {
    let Head::Str(bytes) = head else {
        let found = head.name();
        return Err(Problem::Expected { expected: "a header's name (a string)", found }.into());
    };
    let max = crate::message::HEADER_NAME_BYTES_MAX;
    if bytes as usize > max {
        return Err(Problem::Limit {
            what: "bytes of a header's name",
            value: bytes.into(),
            max: max as u64,
        }
        .into());
    }
    if std::str::from_utf8(reader.take(bytes as usize)?).is_err() {
        return Err(Problem::NotUtf8.into());
    }
    Ok(())
}
