//! The JSON forms of the records: what an operator reads with zkCli. Fields of a later version land in `unknown` and are
//! written back, so that a broker of this version can change a document without losing them. Those inside of entries (of a member, an
//! election, a binding, a listed store) go with their entries: see `later.rs`.

mod cluster;
mod queue;
mod state;
#[cfg(test)]
mod tests;
mod tombstone;
mod topology;

use bellwether_protocol::names::{QueueName, VirtualHost};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A document that this version cannot read. Whoever meets it leaves the document as it is and says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no {what} that this version can read: {reason}")]
pub struct RecordError {
    pub what: &'static str,
    pub reason: String,
}

/// Ties a record to its JSON form: `to_bytes` and `parse`.
macro_rules! document {
    ($record:ident as $json:ident, $what:literal) => {
        impl $record {
            /// As it is kept in the coordinator.
            #[must_use]
            pub fn to_bytes(&self) -> bytes::Bytes {
                $crate::records::json::write(&$json::from(self))
            }

            /// Reads what [`Self::to_bytes`], of this or another version, wrote.
            ///
            /// # Errors
            /// [`RecordError`](crate::records::RecordError) says what cannot be read; the document is better left alone then.
            pub fn parse(bytes: &[u8]) -> Result<Self, $crate::records::RecordError> {
                $crate::records::json::read::<$json, Self>($what, bytes)
            }
        }
    };
}

use document;

fn write<J: Serialize>(json: &J) -> Bytes {
    // Maps with text keys, numbers and text: none of it is refused by the JSON writer, and memory does not fail to write.
    Bytes::from(serde_json::to_vec(json).expect("a record is always valid JSON"))
}

fn read<J: DeserializeOwned, R: TryFrom<J, Error = String>>(
    what: &'static str,
    bytes: &[u8],
) -> Result<R, RecordError> {
    let json: J = serde_json::from_slice(bytes)
        .map_err(|error| RecordError { what, reason: error.to_string() })?;
    R::try_from(json).map_err(|reason| RecordError { what, reason })
}

fn host(name: &str) -> Result<VirtualHost, String> {
    VirtualHost::new(name).map_err(|error| error.to_string())
}

fn queue_name(name: &str) -> Result<QueueName, String> {
    QueueName::new(name).map_err(|error| error.to_string())
}
