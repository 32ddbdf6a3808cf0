//! Bodies that say who published them and prove that not a byte was changed.

use bytes::{BufMut, Bytes, BytesMut};

use crate::checker::MessageId;

const MAGIC: &[u8; 4] = b"bwt1";
/// | magic: 4 | producer: u32 | number: u64 | filler | crc32c of all before: u32 |, all big-endian.
pub const BYTES_MIN: usize = 4 + 4 + 8 + 4;

/// The body of `message`, `bytes` long but never shorter than [`BYTES_MIN`].
#[must_use]
pub fn body(message: MessageId, bytes: usize) -> Bytes {
    let mut body = BytesMut::with_capacity(bytes.max(BYTES_MIN));
    body.put_slice(MAGIC);
    body.put_u32(message.producer);
    body.put_u64(message.number);
    let filler = (message.number as u8) ^ (message.producer as u8);
    body.put_bytes(filler, bytes.saturating_sub(BYTES_MIN));
    let checksum = crc32c::crc32c(&body);
    body.put_u32(checksum);
    body.freeze()
}

/// Whose body this is, or what is wrong with it.
pub fn read(body: &[u8]) -> Result<MessageId, String> {
    if body.len() < BYTES_MIN || &body[..4] != MAGIC {
        return Err(format!("a body of {} bytes that no producer of this test made", body.len()));
    }
    let (stamped, checksum) = body.split_at(body.len() - 4);
    if crc32c::crc32c(stamped).to_be_bytes() != checksum {
        return Err(format!("a body of {} bytes with a wrong checksum", body.len()));
    }
    let producer = u32::from_be_bytes([body[4], body[5], body[6], body[7]]);
    let number = u64::from_be_bytes([
        body[8], body[9], body[10], body[11], body[12], body[13], body[14], body[15],
    ]);
    Ok(MessageId { producer, number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_names_its_message_and_any_change_shows() {
        let message = MessageId { producer: 3, number: 70_000 };
        for bytes in [0, BYTES_MIN, 1024] {
            let body = body(message, bytes);
            assert_eq!(body.len(), bytes.max(BYTES_MIN));
            assert_eq!(read(&body), Ok(message));
            for at in 0..body.len() {
                let mut changed = body.to_vec();
                changed[at] ^= 1;
                assert!(read(&changed).is_err(), "byte {at}");
            }
        }
        assert!(read(b"").is_err());
    }
}
