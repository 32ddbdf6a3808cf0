//! What crosses the loopback between the embedded coordinator and its clients, which are processes of the same build: a
//! `u32` big-endian length, then one postcard value. Answers come in the order of the requests; `Changed` comes between them.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::codec::LengthDelimitedCodec;

use crate::coordinator::{Conflict, Document, Path, Version, Write};

/// Longest frame taken from a client: the largest write with room for how it is written.
pub(crate) const REQUEST_BYTES_MAX: usize = 4 << 20;

/// Longest frame taken from the server: 256 documents, should all of them be a quarter of a megabyte.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// The first on a connection, answered with `Welcome` or `Over`.
    Hello {
        session: Option<(i64, u128)>,
        timeout_ms: u64,
    },
    Ping,
    ReadMany(Vec<String>),
    Children(String),
    Sync,
    Write(Vec<WireWrite>),
    Watch(String),
    Close,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Welcome {
        session: i64,
        secret: u128,
        timeout_ms: u64,
    },
    /// The session is over.
    Over,
    /// To `Ping`, `Sync`, `Watch` and `Close`.
    Done,
    Documents(Vec<Option<WireDocument>>),
    Children(Vec<String>),
    Written(Vec<Option<i32>>),
    Refused {
        index: u64,
        conflict: WireConflict,
    },
    Changed(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireDocument {
    bytes: Vec<u8>,
    version: i32,
    own_ephemeral: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum WireWrite {
    Create { path: String, bytes: Vec<u8>, ephemeral: bool },
    Set { path: String, bytes: Vec<u8>, version: i32 },
    Delete { path: String, version: Option<i32> },
    Check { path: String, version: i32 },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum WireConflict {
    VersionMoved,
    Exists,
    Missing,
    HasChildren,
}

/// Cuts a stream into frames of at most `bytes_max`.
pub(crate) fn codec(bytes_max: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(bytes_max).new_codec()
}

pub(crate) fn encode<T: Serialize>(frame: &T) -> Result<Bytes, postcard::Error> {
    postcard::to_stdvec(frame).map(Bytes::from)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, postcard::Error> {
    postcard::from_bytes(bytes)
}

impl From<Document> for WireDocument {
    fn from(document: Document) -> Self {
        let Document { bytes, version, own_ephemeral } = document;
        Self { bytes: bytes.to_vec(), version: version.0, own_ephemeral }
    }
}

impl From<WireDocument> for Document {
    fn from(wire: WireDocument) -> Self {
        let WireDocument { bytes, version, own_ephemeral } = wire;
        Self { bytes: bytes.into(), version: Version(version), own_ephemeral }
    }
}

impl From<Write> for WireWrite {
    fn from(write: Write) -> Self {
        match write {
            Write::Create { path, bytes, ephemeral } => {
                Self::Create { path: path.0, bytes: bytes.to_vec(), ephemeral }
            }
            Write::Set { path, bytes, version } => {
                Self::Set { path: path.0, bytes: bytes.to_vec(), version: version.0 }
            }
            Write::Delete { path, version } => {
                Self::Delete { path: path.0, version: version.map(|version| version.0) }
            }
            Write::Check { path, version } => Self::Check { path: path.0, version: version.0 },
        }
    }
}

impl From<WireWrite> for Write {
    fn from(wire: WireWrite) -> Self {
        match wire {
            WireWrite::Create { path, bytes, ephemeral } => {
                Self::Create { path: Path(path), bytes: bytes.into(), ephemeral }
            }
            WireWrite::Set { path, bytes, version } => {
                Self::Set { path: Path(path), bytes: bytes.into(), version: Version(version) }
            }
            WireWrite::Delete { path, version } => {
                Self::Delete { path: Path(path), version: version.map(Version) }
            }
            WireWrite::Check { path, version } => {
                Self::Check { path: Path(path), version: Version(version) }
            }
        }
    }
}

impl From<Conflict> for WireConflict {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::VersionMoved => Self::VersionMoved,
            Conflict::Exists => Self::Exists,
            Conflict::Missing => Self::Missing,
            Conflict::HasChildren => Self::HasChildren,
        }
    }
}

impl From<WireConflict> for Conflict {
    fn from(conflict: WireConflict) -> Self {
        match conflict {
            WireConflict::VersionMoved => Self::VersionMoved,
            WireConflict::Exists => Self::Exists,
            WireConflict::Missing => Self::Missing,
            WireConflict::HasChildren => Self::HasChildren,
        }
    }
}
