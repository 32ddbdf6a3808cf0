//! The messages' text: attributes with commas between, names with two characters escaped, binary in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{MESSAGE_BYTES_MAX, ScramError};

pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn decode(text: &str) -> Result<Vec<u8>, ScramError> {
    STANDARD.decode(text).map_err(|_| ScramError::Malformed("base64 is expected"))
}

/// 32 bytes in base64.
pub(super) fn decode_key(text: &str) -> Result<[u8; 32], ScramError> {
    decode(text)?.try_into().map_err(|_| ScramError::Malformed("32 bytes are expected"))
}

/// The message, if it is not too long.
pub(super) fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(ScramError::Malformed("it is too long"));
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("it is not UTF-8"))
}

/// A user's name as an attribute's value.
pub(super) fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// The way back.
pub(super) fn unescape(value: &str) -> Result<String, ScramError> {
    let mut parts = value.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = match part.split_at_checked(2) {
            Some(("3D", rest)) => ('=', rest),
            Some(("2C", rest)) => (',', rest),
            _ => {
                return Err(ScramError::Malformed(
                    "a name holds an equals sign that escapes nothing",
                ));
            }
        };
        name.push(rest.0);
        name.push_str(rest.1);
    }
    Ok(name)
}

/// The value of the attribute that has to stand here.
pub(super) fn attribute<'a>(
    part: Option<&'a str>,
    name: &'static str,
) -> Result<&'a str, ScramError> {
    part.and_then(|part| part.strip_prefix(name))
        .ok_or(ScramError::Malformed("an attribute is missing or not in its place"))
}
