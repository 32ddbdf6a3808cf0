//! One session over changing connections: what the ZooKeeper and the embedded coordinator have in common.
//! *Invariant:* `Expired` is told only when a server said so; nothing that was asked while disconnected is ever sent.

mod in_flight;
mod keeper;
mod link;
mod subscribers;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::in_flight::InFlight;
pub(crate) use self::keeper::open;
pub(crate) use self::link::{Attached, CHANGES_MAX, DialError, Dialer, Link};
use self::subscribers::Subscribers;
use crate::coordinator::{
    Conflict, Coordinator, Document, Path, ReadError, SessionEvent, SessionInfo, Version, Write,
    WriteError,
};

/// Requests sent and not yet answered. More wait their turn, in order: enough to keep an ensemble busy, and few enough
/// that all are answered well within a session time-out.
const OUTSTANDING_MAX: usize = 512;

/// Shortest patience with an answer, however short the session time-out. A server that has died is noticed much sooner, by its
/// silence; this is for one that lives but cannot answer, and must not be mistaken for one that is merely busy: giving up on a
/// write leaves it undecided.
const ANSWER_PATIENCE_MIN: Duration = Duration::from_secs(5);

/// Waiting for one's turn may take this many times the patience with an answer: nothing has been sent yet, and a herd of
/// thousands of state changes is to get through.
const TURNS_PATIENCE: u32 = 4;

/// Reads sent as one request of those above.
const READS_AT_ONCE: usize = 256;

/// Most bytes of one atomic write, paths included. ZooKeeper drops the connection, and with it everything in flight, over
/// a request of 1 MiB.
pub const WRITE_BYTES_MAX: usize = 1_000_000;

/// What a step of a write takes besides its path and bytes: lengths, types, the access list.
const STEP_OVERHEAD: usize = 100;

/// A session, kept until it is closed or the ensemble ends it. When the last handle is dropped it is no longer kept, and
/// lapses by its time-out.
pub(crate) struct Session {
    shared: Arc<Shared>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.release();
    }
}

struct Shared {
    dialer: Box<dyn Dialer>,
    info: Mutex<SessionInfo>,
    standing: watch::Sender<Standing>,
    subscribers: Subscribers,
    /// Held while watches are added, so that none falls between two links.
    watching: tokio::sync::Mutex<()>,
    /// Held by the one whose turn it is to send.
    sending: tokio::sync::Mutex<()>,
    outstanding: Arc<Semaphore>,
    /// Asks the keeper to pass on every change that has arrived.
    flushes: mpsc::Sender<oneshot::Sender<()>>,
    /// The session is given up or closed: the keeper stops.
    released: CancellationToken,
}

/// Where the session stands.
#[derive(Clone, Debug)]
enum Standing {
    Attached(Arc<dyn Link>),
    /// The session may well live on.
    Detached,
    /// Expired or closed.
    Over,
}

impl Shared {
    /// Lets go of the session: the keeper stops, and a link that is not used any more cuts itself.
    fn release(&self) {
        self.released.cancel();
        self.standing.send_replace(Standing::Over);
        self.subscribers.finish();
    }

    fn info(&self) -> SessionInfo {
        *self.info.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn to send, in the order of asking, and for room among the requests outstanding.
    async fn turn(
        &self,
    ) -> Result<(tokio::sync::MutexGuard<'_, ()>, OwnedSemaphorePermit), ReadError> {
        let turn = self.sending.lock().await;
        let permit = Arc::clone(&self.outstanding).acquire_owned().await;
        Ok((turn, permit.map_err(|_| ReadError::SessionOver)?))
    }

    fn link(&self) -> Result<Arc<dyn Link>, ReadError> {
        match &*self.standing.borrow() {
            Standing::Attached(link) => Ok(Arc::clone(link)),
            Standing::Detached => Err(ReadError::Unavailable("not connected".to_owned())),
            Standing::Over => Err(ReadError::SessionOver),
        }
    }

    /// What an error of a link means to the session: only the keeper, who asks the servers, may find that the session is over.
    fn doubted(&self, error: ReadError) -> ReadError {
        match (error, &*self.standing.borrow()) {
            (ReadError::Denied(reason), _) => ReadError::Denied(reason),
            (_, Standing::Over) => ReadError::SessionOver,
            (ReadError::SessionOver, Standing::Attached(_) | Standing::Detached) => {
                ReadError::Unavailable("the server speaks of another session".to_owned())
            }
            (ReadError::Unavailable(reason), _) => ReadError::Unavailable(reason),
        }
    }
}

impl Session {
    /// Sends a request over the current link, when it is its turn, and waits for the answer.
    async fn ask<T, F>(&self, request: impl FnOnce(Arc<dyn Link>) -> F) -> Result<T, ReadError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ReadError>> + Send + 'static,
    {
        // Fail fast: what waits for a connection must not be sent much later, to a world that has moved on.
        self.shared.link()?;
        let patience = self.shared.info().timeout.max(ANSWER_PATIENCE_MIN);
        let unanswered = |_| ReadError::Unavailable(format!("no answer within {patience:?}"));
        // Unconstrained: tokio would make a task that has done much already queue up later than it asked.
        let turn = tokio::task::unconstrained(self.shared.turn());
        let (turn, permit) =
            tokio::time::timeout(patience * TURNS_PATIENCE, turn).await.map_err(unanswered)??;
        let answer = request(self.shared.link()?);
        let mut answer = InFlight::new(async move {
            let answer = answer.await;
            drop(permit);
            answer
        });
        // The first poll sends it; only then is it the next one's turn.
        let sent = futures::poll!(&mut answer);
        drop(turn);
        let answer = match sent {
            Poll::Ready(answer) => answer,
            Poll::Pending => tokio::time::timeout(patience, answer).await.map_err(unanswered)?,
        };
        answer.map_err(|error| self.shared.doubted(error))
    }

    async fn send_writes(&self, writes: Vec<Write>) -> Result<Vec<Option<Version>>, WriteError> {
        let answer = self.ask(|link| async move { Ok(link.write(writes).await) }).await;
        match answer {
            Ok(Err(WriteError::SessionOver))
                if !matches!(*self.shared.standing.borrow(), Standing::Over) =>
            {
                Err(WriteError::Undecided("the server speaks of another session".to_owned()))
            }
            Ok(answer) => answer,
            Err(ReadError::SessionOver) => Err(WriteError::SessionOver),
            Err(ReadError::Unavailable(reason) | ReadError::Denied(reason)) => {
                Err(WriteError::Undecided(reason))
            }
        }
    }

    async fn close_within(&self, patience: Duration) -> Result<(), ReadError> {
        let attempt = async {
            loop {
                // Not the current link, which may be lost without anyone having noticed: the last attempt decides.
                let closed = match self.shared.link() {
                    Ok(link) => link.close().await,
                    Err(ReadError::SessionOver) => return Ok(()),
                    Err(_) => match self.shared.dialer.dial().await {
                        Ok(attached) => attached.link.close().await,
                        Err(DialError::Expired) => return Ok(()),
                        Err(_) => Err(ReadError::Unavailable(String::new())),
                    },
                };
                match closed {
                    Ok(()) | Err(ReadError::SessionOver) => return Ok(()),
                    Err(_) => {
                        self.shared.standing.send_replace(Standing::Detached);
                        tokio::time::sleep(keeper::FIRST_PAUSE).await;
                    }
                }
            }
        };
        let unsure = "the session could not be closed and will lapse by its time-out";
        tokio::time::timeout(patience, attempt)
            .await
            .unwrap_or_else(|_| Err(ReadError::Unavailable(unsure.to_owned())))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("info", &self.shared.info())
            .field("dialer", &self.shared.dialer)
            .finish()
    }
}

#[async_trait]
impl Coordinator for Session {
    fn session(&self) -> SessionInfo {
        self.shared.info()
    }

    async fn read(&self, path: &Path) -> Result<Option<Document>, ReadError> {
        let paths = vec![path.clone()];
        let mut documents = self.ask(|link| async move { link.read_many(paths).await }).await?;
        Ok(documents.pop().flatten())
    }

    async fn read_many(&self, paths: &[Path]) -> Result<Vec<Option<Document>>, ReadError> {
        // All are sent, in order, before the first is answered: while this session writes, each answer waits for the writes before it.
        let asked = paths.chunks(READS_AT_ONCE).map(|paths| {
            let paths = paths.to_vec();
            self.ask(|link| async move { link.read_many(paths).await })
        });
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }

    async fn children(&self, path: &Path) -> Result<Vec<String>, ReadError> {
        let path = path.clone();
        self.ask(|link| async move { link.children(path).await }).await
    }

    async fn sync(&self) -> Result<(), ReadError> {
        self.ask(|link| async move { link.sync().await }).await?;
        // What the link had seen by the time of the answer goes to the receivers first. When there is no keeper to do that,
        // the connection is lost again, and they are told of a gap.
        let (told, done) = oneshot::channel();
        if self.shared.flushes.send(told).await.is_ok() {
            drop(done.await);
        }
        Ok(())
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Option<Version>>, WriteError> {
        let bytes = writes.iter().map(bytes_of).sum::<usize>();
        if bytes > WRITE_BYTES_MAX {
            let reason = format!("a write of {bytes} bytes is over the limit of {WRITE_BYTES_MAX}");
            return Err(WriteError::Invalid(reason));
        }
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        self.send_writes(writes).await
    }

    async fn make_parents(&self, path: &Path) -> Result<(), WriteError> {
        let found = self.read(path).await.map_err(|error| match error {
            ReadError::Unavailable(reason) => WriteError::Undecided(reason),
            ReadError::SessionOver => WriteError::SessionOver,
            ReadError::Denied(reason) => WriteError::Invalid(reason),
        })?;
        if found.is_some() {
            return Ok(());
        }
        let mut missing: Vec<Path> =
            std::iter::successors(Some(path.clone()), Path::parent).collect();
        missing.retain(|path| path.0 != "/");
        for path in missing.into_iter().rev() {
            let create = Write::Create { path, bytes: bytes::Bytes::new(), ephemeral: false };
            match self.send_writes(vec![create]).await {
                Ok(_) | Err(WriteError::Refused { conflict: Conflict::Exists, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn watch(&self, watched: &[Path]) -> Result<mpsc::Receiver<SessionEvent>, ReadError> {
        let _watching = self.shared.watching.lock().await;
        let link = match self.shared.link() {
            Ok(link) => Some(link),
            Err(ReadError::SessionOver) => return Err(ReadError::SessionOver),
            // The keeper sets what is subscribed when it attaches, before it says `Connected`.
            Err(_) => None,
        };
        let first = link.is_none().then_some(SessionEvent::Disconnected);
        let receiver = self.shared.subscribers.add(watched, first);
        let Some(link) = link else { return Ok(receiver) };
        for prefix in watched {
            match link.watch(prefix.clone()).await {
                Ok(()) => {}
                Err(ReadError::Denied(reason)) => return Err(ReadError::Denied(reason)),
                // Lost meanwhile: as above.
                Err(_) => link.cut(),
            }
        }
        Ok(receiver)
    }

    async fn close(&self) -> Result<(), ReadError> {
        // The keeper first: it would take the end of the link for a loss, and attach again.
        self.shared.released.cancel();
        let closed = self.close_within(self.shared.info().timeout).await;
        self.shared.release();
        closed
    }
}

fn bytes_of(write: &Write) -> usize {
    STEP_OVERHEAD
        + match write {
            Write::Create { path, bytes, .. } | Write::Set { path, bytes, .. } => {
                path.0.len() + bytes.len()
            }
            Write::Delete { path, .. } | Write::Check { path, .. } => path.0.len(),
        }
}
