//! How a broker stops: it hands over what it leads, and then ends everything it has started.

use std::time::{Duration, Instant};

use bellwether_journal::JournalThread;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::session::Life;
use crate::shard::Shards;
use crate::shard::input::ShardInput;

/// How often a draining broker looks whether its queues are handed over.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// How long the goodbyes of a stopping broker may take, each.
const GOODBYE: Duration = Duration::from_secs(2);

/// Hands over what is led here; ends when there is nothing left that somebody else could take, or at the time-out.
pub(super) async fn drain(shards: &Shards, timeout: Duration) {
    let deadline = Instant::now() + timeout;
    let mut begin = true;
    loop {
        let mut left = 0;
        for shard in shards.all() {
            let (reply, answer) = oneshot::channel();
            shard.send(ShardInput::HandOver { begin, reply }).await;
            left += answer.await.unwrap_or(0);
        }
        if begin && left > 0 {
            info!(queues = left, "handing over the queues that this broker leads");
        }
        begin = false;
        if left == 0 {
            return;
        }
        if Instant::now() >= deadline {
            warn!(
                queues = left,
                "the drain time-out passed: the remaining queues are taken over when this broker is gone"
            );
            return;
        }
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

/// Ends every task, syncs the journal, and closes the session, so that nobody waits for its time-out.
pub(super) async fn leave(
    life: Option<Life>,
    serving: tokio::task::JoinHandle<()>,
    tracker: &TaskTracker,
    thread: JournalThread,
) {
    if tokio::time::timeout(GOODBYE, serving).await.is_err() {
        warn!("some clients did not take their goodbye");
    }
    tracker.close();
    if tokio::time::timeout(GOODBYE, tracker.wait()).await.is_err() {
        warn!("some tasks did not end in time");
    }
    if let Err(failure) = tokio::task::spawn_blocking(move || thread.stop()).await {
        error!(%failure, "the journal thread did not end well");
    }
    if let Some(life) = life {
        match tokio::time::timeout(GOODBYE, life.coordinator.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => {
                warn!(%failure, "the coordinator session could not be closed; it ends by its time-out")
            }
            Err(_) => warn!(
                "the coordinator session could not be closed in time; it ends by its time-out"
            ),
        }
    }
    info!("the broker has left");
}
