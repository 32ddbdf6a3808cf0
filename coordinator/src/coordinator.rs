//! The seam: a small ordered tree of documents with versions, ephemerals, atomic multi-writes and sessions.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// An absolute path below the cluster's root, such as `/queues/3f/3f…/state`. Segments are percent-encoded.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(pub String);

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How often a document has been written since it was created. The first version is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub i32);

/// A document as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub bytes: Bytes,
    pub version: Version,
    /// Whether the session that reads owns it as an ephemeral.
    pub own_ephemeral: bool,
}

/// One step of an atomic write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Makes a document. Its parent must exist.
    Create { path: Path, bytes: Bytes, ephemeral: bool },
    /// Replaces a document of exactly this version.
    Set { path: Path, bytes: Bytes, version: Version },
    /// Deletes a document of exactly this version (any, when none is named). It must have no children.
    Delete { path: Path, version: Option<Version> },
    /// Goes through only when the document has exactly this version.
    Check { path: Path, version: Version },
}

/// Why a step refused an atomic write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The document has another version.
    VersionMoved,
    /// The document to be made is there already.
    Exists,
    /// The document, or its parent, is not there.
    Missing,
    /// The document to be deleted has children.
    HasChildren,
}

/// What can go wrong with a write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Not applied: step `index` was refused. Decided.
    #[error("step {index} refused: {conflict:?}")]
    Refused { index: usize, conflict: Conflict },
    /// The connection was lost, or the time-out passed: it may have been applied, or be applied yet, for as long as the session lives.
    #[error("undecided: {0}")]
    Undecided(String),
    /// The session is over. What was undecided in it stays so until it is read on a new session after a sync.
    #[error("the coordinator session is over")]
    SessionOver,
    /// Not sent: over a limit, or not allowed by the access list. Decided.
    #[error("{0}")]
    Invalid(String),
}

/// What can go wrong with a read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No answer: ask again.
    #[error("the coordinator cannot be reached: {0}")]
    Unavailable(String),
    /// The session is over.
    #[error("the coordinator session is over")]
    SessionOver,
    /// The access list forbids it.
    #[error("{0}")]
    Denied(String),
}

/// What a session reports. A change is a hint: the read is the truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// Connected, or connected again: anything may have changed meanwhile. Watches are set again before this is reported.
    Connected,
    /// Not connected. The session may well live on.
    Disconnected,
    /// The ensemble says that the session is over. Final; nothing follows.
    Expired,
    /// A document at this path was created, replaced or deleted.
    Changed(Path),
    /// Some changes were dropped because the receiver was slow: anything may have changed.
    Overrun,
}

/// What the ensemble granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    pub id: i64,
    /// The negotiated time-out; every timer follows from it.
    pub timeout: Duration,
    /// The time-out that was asked for.
    pub timeout_asked: Duration,
}

/// One session with a coordinator. Dropping the last handle of it does not end the session; [`Coordinator::close`] does.
///
/// All calls on one session are carried out in the order in which they were made.
#[async_trait]
pub trait Coordinator: Send + Sync + fmt::Debug {
    /// What was granted.
    fn session(&self) -> SessionInfo;

    /// The document at `path`, or `None`. May be stale unless [`Coordinator::sync`] came before it.
    async fn read(&self, path: &Path) -> Result<Option<Document>, ReadError>;

    /// Several reads, pipelined; the answers in the order of `paths`. Not atomic.
    async fn read_many(&self, paths: &[Path]) -> Result<Vec<Option<Document>>, ReadError>;

    /// The names of the children of `path` (encoded as in the path), in no order; empty when there is no such document.
    async fn children(&self, path: &Path) -> Result<Vec<String>, ReadError>;

    /// After this, reads on this session show everything that was committed before the call, and the receivers of
    /// [`Coordinator::watch`] hold every change that they are told of it.
    async fn sync(&self) -> Result<(), ReadError>;

    /// Carries out all of `writes` or none. Versions of what was created or set come back in order (`None` for deletes and checks).
    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Option<Version>>, WriteError>;

    /// Makes `path` and its parents as permanent empty documents where they are missing.
    async fn make_parents(&self, path: &Path) -> Result<(), WriteError>;

    /// Events of this session from now on, the changes below the `watched` prefixes among them; `Disconnected` to begin with when it is not
    /// connected. One receiver a call; bounded: a slow one sees `Overrun`. Changes below one prefix come in their order, those below
    /// two prefixes in no order between them.
    async fn watch(
        &self,
        watched: &[Path],
    ) -> Result<tokio::sync::mpsc::Receiver<SessionEvent>, ReadError>;

    /// Ends the session: its ephemerals are gone when this returns `Ok`.
    async fn close(&self) -> Result<(), ReadError>;
}

/// Opens sessions: one for each incarnation.
#[async_trait]
pub trait Connector: Send + Sync + fmt::Debug {
    /// Keeps trying until there is a session; says so in the log while it cannot. Cancel by dropping.
    async fn connect(&self) -> Result<std::sync::Arc<dyn Coordinator>, ConnectError>;
}

/// Why no session can be had, however long one waits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("the coordinator refused the credentials: {0}")]
    AuthFailed(String),
    #[error("{0}")]
    Invalid(String),
}
