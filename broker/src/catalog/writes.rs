//! Writes that are carried through to a decision: done, refused, or, when time runs out first, unknown.

use std::sync::Arc;
use std::time::Duration;

use bellwether_coordinator::coordinator::{
    Conflict, Coordinator, Path, ReadError, Write, WriteError,
};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Catalog, Command};

/// How long a declaration may take; below a client's default deadline of 30 s, so that it hears the answer.
pub(super) const REQUEST_FOR: Duration = Duration::from_secs(20);

/// Pause before an undecided write is looked into again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Done,
    /// Step `index` was refused; nothing was applied.
    Refused {
        index: usize,
        conflict: Conflict,
    },
}

impl Catalog {
    /// Writes, and finds out what became of it. Every write must be such that it can apply only once; `done` tells, from
    /// synced reads on the given session, whether it was applied (by whomever).
    ///
    /// # Errors
    /// "Not done" when nothing was sent; "unknown" when it is not decided by `deadline`.
    pub(super) async fn decide<D, F>(
        &self,
        writes: Vec<Write>,
        deadline: Instant,
        done: D,
    ) -> Result<Decision, ErrorBody>
    where
        D: Fn(Arc<dyn Coordinator>) -> F,
        F: Future<Output = Result<bool, ReadError>>,
    {
        self.decide_after(false, writes, deadline, done).await
    }

    /// The same; `sent`: it was sent before, and nobody knows what became of that.
    ///
    /// # Errors
    /// As for [`Catalog::decide`]; only "unknown" when it was sent before.
    pub(super) async fn decide_after<D, F>(
        &self,
        mut sent: bool,
        writes: Vec<Write>,
        deadline: Instant,
        done: D,
    ) -> Result<Decision, ErrorBody>
    where
        D: Fn(Arc<dyn Coordinator>) -> F,
        F: Future<Output = Result<bool, ReadError>>,
    {
        loop {
            let Some(session) = self.shared.connected() else {
                if !sent {
                    return Err(unavailable());
                }
                self.pause(deadline).await?;
                continue;
            };
            // Sent again, the same write still applies once at most: every step names what it expects.
            let answer = tokio::time::timeout_at(deadline, session.write(writes.clone())).await;
            let decision = match answer {
                Ok(Ok(_)) => return Ok(Decision::Done),
                Ok(Err(WriteError::Refused { index, conflict })) => {
                    Some(Decision::Refused { index, conflict })
                }
                Ok(Err(WriteError::Invalid(why))) => {
                    return Err(ErrorBody::not_done(ErrorCode::InvalidOption, why));
                }
                Ok(Err(WriteError::Undecided(_) | WriteError::SessionOver)) => None,
                Err(_elapsed) => return Err(timed_out()),
            };
            if let (Some(decision), false) = (decision, sent) {
                return Ok(decision);
            }
            // An earlier attempt may have been applied: what it would have left behind decides.
            sent = true;
            let applied = async {
                session.sync().await?;
                done(Arc::clone(&session)).await
            };
            match (tokio::time::timeout_at(deadline, applied).await, decision) {
                (Ok(Ok(true)), _) => return Ok(Decision::Done),
                (Ok(Ok(false)), Some(decision)) => return Ok(decision),
                (Ok(Ok(false) | Err(_)), _) => self.pause(deadline).await?,
                (Err(_elapsed), _) => return Err(timed_out()),
            }
        }
    }

    /// Reads, again if need be, for as long as the session is said to be connected: a connection may just be changing.
    ///
    /// # Errors
    /// The coordinator is away.
    pub(super) async fn reading<T, R, F>(&self, deadline: Instant, read: R) -> Result<T, ErrorBody>
    where
        R: Fn(Arc<dyn Coordinator>) -> F,
        F: Future<Output = Result<T, ReadError>>,
    {
        loop {
            let session = self.shared.connected().ok_or_else(unavailable)?;
            match read(session).await {
                Ok(found) => return Ok(found),
                Err(ReadError::Denied(why)) => {
                    return Err(ErrorBody::not_done(ErrorCode::Internal, why));
                }
                Err(ReadError::Unavailable(_) | ReadError::SessionOver) => {}
            }
            if Instant::now() + LOOK_AGAIN >= deadline {
                return Err(unavailable());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A little time, for what is undecided.
    async fn pause(&self, deadline: Instant) -> Result<(), ErrorBody> {
        if Instant::now() + LOOK_AGAIN >= deadline {
            return Err(timed_out());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        Ok(())
    }

    /// Makes the folders of these documents.
    pub(super) async fn make_folders(&self, paths: &[Path]) -> Result<(), ErrorBody> {
        let session = self.shared.connected().ok_or_else(unavailable)?;
        for folder in paths.iter().filter_map(Path::parent) {
            // Made twice it is still one folder: an undecided answer costs no more than the refusal of the next write.
            match session.make_parents(&folder).await {
                Ok(()) | Err(WriteError::Undecided(_)) => {}
                Err(WriteError::SessionOver | WriteError::Refused { .. }) => {
                    return Err(unavailable());
                }
                Err(WriteError::Invalid(why)) => {
                    return Err(ErrorBody::not_done(ErrorCode::InvalidOption, why));
                }
            }
        }
        Ok(())
    }

    /// Reads these paths into the copy, so that what was declared can be used at once.
    pub(super) async fn enter(&self, paths: Vec<Path>, deadline: Instant) {
        let (reply, entered) = oneshot::channel();
        if self.shared.commands.send(Command::Enter(paths, reply)).await.is_ok()
            && tokio::time::timeout_at(deadline, entered).await.is_err()
        {
            tracing::debug!("what was declared is not in the catalog yet; the watch will bring it");
        }
    }

    /// Something asked for is not known here: takes in what was declared elsewhere a moment ago, as far as that is
    /// possible within `time`.
    pub async fn look_closer(&self, time: Duration) {
        if self.shared.connected().is_some()
            && let Err(error) = self.catch_up(Instant::now() + time).await
        {
            tracing::debug!(error = %error.message, "the catalog did not catch up in time");
        }
    }

    /// Brings the copy up to everything committed before this call.
    pub(super) async fn catch_up(&self, deadline: Instant) -> Result<(), ErrorBody> {
        let (reply, done) = oneshot::channel();
        self.shared.commands.send(Command::CatchUp(reply)).await.map_err(|_| unavailable())?;
        match tokio::time::timeout_at(deadline, done).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(unavailable()),
        }
    }
}

/// The coordinator is away, and nothing was sent to it.
pub(super) fn unavailable() -> ErrorBody {
    ErrorBody::not_done(
        ErrorCode::CoordinatorUnavailable,
        "the coordinator cannot be reached at the moment; publishing and consuming go on, declarations have to wait: try again",
    )
}

/// Sent, and not decided in time.
fn timed_out() -> ErrorBody {
    ErrorBody::unknown(
        ErrorCode::TimedOut,
        "the connection to the coordinator was lost while it was asked to do this; it may be done or not: look, or ask again",
    )
}
