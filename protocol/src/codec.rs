//! Cuts a byte stream into frames. For `tokio_util::codec::Framed`, which drives it.

use std::marker::PhantomData;

use bytes::{Buf, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::frame::{Frame, FrameError, LENGTH_BYTES, Limits, check_length};

/// Least room, in bytes, made for what is yet to arrive of a frame.
const ROOM_BYTES_MIN: usize = 4 * 1024;

/// Receives frames of type `F`, and sends frames of any direction.
///
/// An announced length makes no room by itself: the buffer at most doubles with each piece that arrives,
/// so that a stranger who announces a huge frame and stays silent costs nothing.
#[derive(Debug)]
pub struct FrameCodec<F> {
    limits: Limits,
    received: PhantomData<fn() -> F>,
}

impl<F: Frame> FrameCodec<F> {
    /// Accepts frames within `limits`.
    #[must_use]
    pub fn new(limits: Limits) -> FrameCodec<F> {
        FrameCodec { limits, received: PhantomData }
    }

    /// From the next frame on these are the limits; called when the handshake is done.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }
}

/// Why a stream of frames ends.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// What arrived, or was to be sent, is not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl<F: Frame> Decoder for FrameCodec<F> {
    type Item = F;
    type Error = CodecError;

    fn decode(&mut self, arrived: &mut BytesMut) -> Result<Option<F>, CodecError> {
        let Some(length) = arrived.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        check_length(length, &self.limits)?;
        let missing = (LENGTH_BYTES + length).saturating_sub(arrived.len());
        if missing > 0 {
            arrived.reserve(missing.min(arrived.len().max(ROOM_BYTES_MIN)));
            return Ok(None);
        }
        arrived.advance(LENGTH_BYTES);
        let frame = arrived.split_to(length).freeze();
        Ok(Some(F::decode(frame, &self.limits)?))
    }
}

impl<F, G: Frame> Encoder<G> for FrameCodec<F> {
    type Error = CodecError;

    fn encode(&mut self, frame: G, out: &mut BytesMut) -> Result<(), CodecError> {
        frame.encode(out);
        Ok(())
    }
}
