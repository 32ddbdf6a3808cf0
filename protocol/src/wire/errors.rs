//! How errors and addresses look.

use bytes::BytesMut;

use super::put::put_uint;
use super::{Reader, Wire, wire_struct};
use crate::error::{BrokerAddress, ErrorBody, ErrorCode, Outcome};
use crate::frame::FrameError;

wire_struct!(ErrorBody { code, outcome, message, leader });
wire_struct!(BrokerAddress { broker, address });

impl Wire for ErrorCode {
    fn put(&self, out: &mut BytesMut) {
        put_uint(out, self.number().into());
    }

    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        u16::take(reader).map(ErrorCode::from_number)
    }
}

impl Wire for Outcome {
    fn put(&self, out: &mut BytesMut) {
        put_uint(
            out,
            match self {
                Outcome::NotDone => 0,
                Outcome::Unknown => 1,
            },
        );
    }

    /// An outcome of a later version counts as unknown. Taken for "not done" it might make a client
    /// send again what was done.
    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        Ok(if u64::take(reader)? == 0 { Outcome::NotDone } else { Outcome::Unknown })
    }
}
