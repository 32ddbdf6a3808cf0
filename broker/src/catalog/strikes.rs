//! Tombstones that wait for this broker's store: it strikes itself off when it durably holds nothing of the queue, and not before, so
//! that the power may go at any moment in between. What a crash leaves undone is done at the next start, when every tombstone that is
//! there is read anew. Many go in batches; each is a compare-and-set, for the other brokers do the same.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwether_coordinator::coordinator::{Coordinator, Document, Path, Write};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::TombstoneRecord;
use bellwether_coordinator::tombstone::{Fate, names, struck_off};
use bellwether_protocol::ids::QueueId;
use futures::future::join_all;
use rand::seq::SliceRandom as _;
use tokio::sync::{Notify, oneshot};
use tracing::{debug, warn};

use super::Shared;
use crate::shard::input::ShardInput;

/// Tombstones taken up in one go: enough to hide the round trips, below what one session may have outstanding.
pub(super) const BATCH: usize = 256;

/// Pause after the first attempt that did not come through. Usually the log's removal is being synced.
const AGAIN: Duration = Duration::from_millis(50);
/// The longest pause: something is away, and nobody waits for this.
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// How long a shard may take to say what it holds.
const SHARD_ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// What is known of tombstones here besides what the tree holds.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    /// Those that the shards were told of, and that may name this store. At most as many as there are tombstones.
    told: Mutex<HashSet<QueueId>>,
    /// Queues that this broker is deleting: until it knows how that went, their tombstones are its proof. At most as many as there are
    /// deletes under way.
    deleting: Mutex<HashSet<QueueId>>,
    wake: Notify,
}

impl Tombstones {
    /// The shards were told that these queues are deleted.
    pub fn told(&self, deleted: &HashSet<QueueId>) {
        locked(&self.told).extend(deleted);
        self.wake.notify_one();
    }

    /// This broker begins to delete a queue, or knows how that went.
    pub fn deletes(&self, queue: QueueId, under_way: bool) {
        if under_way {
            locked(&self.deleting).insert(queue);
        } else {
            locked(&self.deleting).remove(&queue);
            self.wake.notify_one();
        }
    }
}

fn locked(set: &Mutex<HashSet<QueueId>>) -> MutexGuard<'_, HashSet<QueueId>> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For as long as the broker runs.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut pause = AGAIN;
    loop {
        let wake = shared.tombstones.wake.notified();
        match round(&shared).await {
            Round::Idle => {
                wake.await;
                pause = AGAIN;
            }
            Round::Struck => pause = AGAIN,
            Round::Waits => {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = wake => {}
                }
                pause = (pause * 2).min(AGAIN_MAX);
            }
        }
    }
}

/// What came of one attempt.
enum Round {
    /// Nothing waits for this store.
    Idle,
    Struck,
    /// Something does, and could not be struck off now.
    Waits,
}

async fn round(shared: &Shared) -> Round {
    let batch = waiting(shared);
    if batch.is_empty() {
        return Round::Idle;
    }
    let Some(session) = shared.connected() else { return Round::Waits };
    let gone = durably_gone(shared, batch).await;
    let config = &shared.config;
    let fate = |record: &TombstoneRecord| struck_off(record, config.me, config.store);
    let settled = rewrite(&session, &gone, fate).await;
    if settled.is_empty() {
        return Round::Waits;
    }
    debug!(tombstones = settled.len(), "nothing is held of these deleted queues any more");
    let mut told = locked(&shared.tombstones.told);
    settled.iter().for_each(|queue| {
        told.remove(queue);
    });
    Round::Struck
}

/// Some of the tombstones that wait for this store; each broker in another order, so that they do not get into each other's way.
fn waiting(shared: &Shared) -> Vec<QueueId> {
    let (me, store) = (shared.config.me, shared.config.store);
    let mut told = locked(&shared.tombstones.told);
    {
        let tree = shared.tree();
        told.retain(|queue| match tree.tombstones.get(queue) {
            Some(Some(stores)) => stores.iter().any(|listed| names(*listed, me, store)),
            // Gone, or of a former version: told of again when it has its list.
            Some(None) | None => false,
        });
    }
    let deleting = locked(&shared.tombstones.deleting);
    let mut batch: Vec<QueueId> =
        told.iter().copied().filter(|queue| !deleting.contains(queue)).collect();
    batch.shuffle(&mut rand::rng());
    batch.truncate(BATCH);
    batch
}

async fn durably_gone(shared: &Shared, queues: Vec<QueueId>) -> Vec<QueueId> {
    let mut by_shard: BTreeMap<usize, Vec<QueueId>> = BTreeMap::new();
    for queue in queues {
        by_shard.entry(shared.shards.shard_of(queue)).or_default().push(queue);
    }
    let mut gone = Vec::new();
    for (shard, queues) in by_shard {
        let (reply, answered) = oneshot::channel();
        shared.shards.send(shard, ShardInput::DurablyGone { queues, reply }).await;
        match tokio::time::timeout(SHARD_ANSWERS_WITHIN, answered).await {
            Ok(Ok(answer)) => gone.extend(answer),
            // Asked again: until it says so, what it holds is not known.
            Ok(Err(_)) | Err(_) => debug!(shard, "a shard does not say what it holds"),
        }
    }
    gone
}

/// Makes of these tombstones what they are to be, pipelined; answers those that are so by now. What others changed meanwhile, and what
/// is undecided, is for another time.
pub(super) async fn rewrite(
    session: &Arc<dyn Coordinator>,
    queues: &[QueueId],
    fate: impl Fn(&TombstoneRecord) -> Fate,
) -> Vec<QueueId> {
    let all: Vec<Path> = queues.iter().map(|queue| paths::deleted(*queue)).collect();
    let documents = match session.read_many(&all).await {
        Ok(documents) => documents,
        Err(error) => {
            debug!(%error, "tombstones could not be read");
            return Vec::new();
        }
    };
    let writes = queues.iter().zip(all).zip(documents).map(|((queue, path), document)| {
        let write = next_write(path, document, &fate);
        async move {
            match write {
                Next::AsItShouldBe => Some(*queue),
                Next::Unreadable => None,
                Next::Write(write) => session.write(vec![write]).await.ok().map(|_| *queue),
            }
        }
    });
    join_all(writes).await.into_iter().flatten().collect()
}

enum Next {
    AsItShouldBe,
    Unreadable,
    Write(Write),
}

fn next_write(
    path: Path,
    document: Option<Document>,
    fate: impl Fn(&TombstoneRecord) -> Fate,
) -> Next {
    let Some(document) = document else { return Next::AsItShouldBe };
    let version = document.version;
    match TombstoneRecord::parse(&document.bytes).map(|record| fate(&record)) {
        Ok(Fate::Stays) => Next::AsItShouldBe,
        Ok(Fate::Changes(record)) => {
            Next::Write(Write::Set { path, bytes: record.to_bytes(), version })
        }
        Ok(Fate::Goes) => Next::Write(Write::Delete { path, version: Some(version) }),
        Err(error) => {
            warn!(%path, %error, "a tombstone cannot be read; it is left as it is");
            Next::Unreadable
        }
    }
}

#[cfg(test)]
mod tests;
