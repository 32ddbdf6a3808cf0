//! What crosses a client or a peer socket: names, identifiers, frames and error codes.
#![warn(missing_docs)]

pub mod client;
pub mod error;
pub mod ids;
pub mod message;
pub mod names;
pub mod peer;
