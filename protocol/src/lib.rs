//! What crosses a client or a peer socket: names, identifiers, frames and error codes.
#![warn(missing_docs)]

pub mod client;
pub mod codec;
pub mod error;
pub mod frame;
pub mod headers;
pub mod ids;
pub mod message;
pub mod names;
mod owned_producer;
pub mod peer;
pub mod scram;
mod wire;

pub use codec::{CodecError, FrameCodec};
pub use frame::{Frame, FrameError, Limits, negotiate};
