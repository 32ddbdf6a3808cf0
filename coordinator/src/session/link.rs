//! What a session stands on: one connection at a time to one server, and the way to get the next.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::coordinator::{Document, Path, ReadError, SessionInfo, Version, Write, WriteError};

/// Changes that a link has seen and the session has not taken yet. The session takes them at once; when it does not, the
/// link waits (the real client then buffers) or gives itself up (the embedded one), which is a gap and is reported as one.
pub(crate) const CHANGES_MAX: usize = 4096;

/// One connection that carries a session. Once lost it is lost for good: whatever is asked of it fails, and nothing that was
/// asked of it is sent later.
///
/// A request is sent when its future is first polled, so that requests go out in the order in which they were made.
#[async_trait]
pub(crate) trait Link: Send + Sync + fmt::Debug {
    async fn read_many(&self, paths: Vec<Path>) -> Result<Vec<Option<Document>>, ReadError>;
    async fn children(&self, path: Path) -> Result<Vec<String>, ReadError>;
    async fn sync(&self) -> Result<(), ReadError>;
    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Option<Version>>, WriteError>;
    /// From now on changes at or below `prefix` arrive. Does nothing when they do already.
    async fn watch(&self, prefix: Path) -> Result<(), ReadError>;
    /// Returns, with the reason, when the connection is lost.
    async fn lost(&self) -> String;
    /// Ends the session; returns when the server has said so.
    async fn close(&self) -> Result<(), ReadError>;
    /// Gives the connection up at once, and with it everything in flight. The session stays.
    fn cut(&self);
}

/// A link with what the server granted.
pub(crate) struct Attached {
    pub(crate) link: Arc<dyn Link>,
    pub(crate) info: SessionInfo,
    pub(crate) changes: mpsc::Receiver<Path>,
}

/// Gets links for one session, which the first one opens.
#[async_trait]
pub(crate) trait Dialer: Send + Sync + fmt::Debug {
    /// One attempt at every server. Opens a session when there is none yet, else attaches to it.
    async fn dial(&self) -> Result<Attached, DialError>;
    /// The servers, for a person to read.
    fn servers(&self) -> String;
}

/// Why there is no link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DialError {
    /// Try again.
    Unreachable(String),
    /// The server says that the session is over.
    Expired,
    AuthFailed(String),
    Invalid(String),
}
