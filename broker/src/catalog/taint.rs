//! Clearing a taint: an operator has dealt with what was lost when a leader was forced on a queue. A change of what the state
//! remembers for people, and of nothing that is decided: it is a compare-and-set beside those of the leader, which reads it like any other.

use std::sync::Arc;

use bellwether_coordinator::coordinator::{Coordinator, Document, ReadError, Write};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::{Cleared, Past, QueueState};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::Epoch;
use bellwether_protocol::names::{QueueName, UserName, VirtualHost};
use tokio::time::Instant;
use tracing::warn;

use super::Catalog;
use super::queues::{RACES_MAX, no_such_queue, now_ms, raced};
use super::writes::{Decision, REQUEST_FOR};

impl Catalog {
    /// Notes down that `user` has dealt with the taint of this epoch. Said again it is done already.
    ///
    /// # Errors
    /// The queue is not tainted, or was tainted anew since; the coordinator is away.
    pub async fn clear_taint(
        &self,
        host: &VirtualHost,
        name: &QueueName,
        epoch: Epoch,
        user: Option<&UserName>,
    ) -> Result<(), ErrorBody> {
        let deadline = Instant::now() + REQUEST_FOR;
        let gone = || no_such_queue(host, name);
        let id = self.queue_named(host, name).ok_or_else(|| self.unknown(gone()))?;
        let path = paths::queue_state(id);
        let cleared = Cleared { at_ms: now_ms(), by: who(user, self.me().0) };
        let read = |session: Arc<dyn Coordinator>| {
            let path = path.clone();
            async move {
                session.sync().await?;
                session.read(&path).await
            }
        };
        for _ in 0..RACES_MAX {
            let document = self.reading(deadline, read).await?.ok_or_else(gone)?;
            let state = parse(&document)?;
            let Some(next) = next_state(name, &state, epoch, &cleared)? else { return Ok(()) };
            let write = Write::Set {
                path: path.clone(),
                bytes: next.to_bytes(),
                version: document.version,
            };
            let done = |session: Arc<dyn Coordinator>| {
                let read = session.clone();
                let path = path.clone();
                let cleared = &cleared;
                async move {
                    let Some(document) = read.read(&path).await? else { return Ok(false) };
                    let state = QueueState::parse(&document.bytes)
                        .map_err(|error| ReadError::Denied(error.to_string()))?;
                    Ok(state.past.taint.and_then(|taint| taint.cleared).as_ref() == Some(cleared))
                }
            };
            // Else the leader, or somebody else, changed the state first.
            if self.decide(vec![write], deadline, done).await? == Decision::Done {
                warn!(queue = %name, queue.id = %id, by = %cleared.by, "the queue counts as tainted no more: somebody has dealt with what was lost");
                self.enter(vec![path], deadline).await;
                return Ok(());
            }
        }
        Err(raced())
    }
}

/// The state with that noted down; `None`: it is.
fn next_state(
    name: &QueueName,
    state: &QueueState,
    epoch: Epoch,
    cleared: &Cleared,
) -> Result<Option<QueueState>, ErrorBody> {
    let refused = |code, words| Err(ErrorBody::not_done(code, words));
    let Some(taint) = &state.past.taint else {
        let words = format!("queue {name} is not tainted: no leader was forced on it");
        return refused(ErrorCode::NothingToRecover, words);
    };
    if taint.epoch != epoch {
        let words = format!(
            "a leader was forced on queue {name} in epoch {}, not {epoch}: it is not any more as it was shown; look again",
            taint.epoch
        );
        return refused(ErrorCode::Changed, words);
    }
    let past = Past::clone(&state.past).with_taint_cleared(cleared.clone());
    Ok(past.map(|past| QueueState { past: Box::new(past), ..state.clone() }))
}

fn parse(document: &Document) -> Result<QueueState, ErrorBody> {
    QueueState::parse(&document.bytes)
        .map_err(|error| ErrorBody::not_done(ErrorCode::Internal, error.to_string()))
}

fn who(user: Option<&UserName>, broker: u32) -> String {
    match user {
        Some(user) => format!("user {user}"),
        None => format!("an operator without login, through broker {broker}"),
    }
}
