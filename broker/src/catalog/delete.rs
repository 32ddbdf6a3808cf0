//! Deleting queues. Fenced like an election: only a leader that has stopped for it deletes, under the version of the
//! state that made it leader; and whatever happens, that leader hears in the end whether the queue is gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use bellwether_coordinator::coordinator::{Conflict, Coordinator, Path, Version, Write};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::{HoldingStore, TombstoneRecord, UnknownFields};
use bellwether_protocol::error::{ErrorBody, ErrorCode, Outcome};
use bellwether_protocol::ids::{BrokerId, QueueId};
use bellwether_protocol::names::{QueueName, VirtualHost};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Catalog;
use super::queues::{RACES_MAX, create, raced};
use super::tombstones::KnownStores;
use super::writes::{Decision, LOOK_AGAIN, REQUEST_FOR, unavailable};
use crate::shard::input::{Deletable, ShardInput};

/// What is known of a delete that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deletion {
    /// It stands: there is the tombstone.
    Done,
    /// The state that the delete names is not there, and no tombstone says why. It may have been this delete: a tombstone that waits for
    /// nobody goes, also before who deleted has looked for it. Nobody may lead the queue any more.
    Untold,
}

impl Catalog {
    /// Deletes a queue that this broker leads. Runs to its end even when the caller goes away: a leader that has stopped
    /// for the delete must hear how it went.
    ///
    /// # Errors
    /// It is in use, not led here, or the coordinator is away; "unknown" when the coordinator was lost on the way.
    pub async fn delete_queue(
        &self,
        host: &VirtualHost,
        name: &QueueName,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<(), ErrorBody> {
        let queue = self.led_here(host, name)?;
        if self.shared.connected().is_none() {
            return Err(unavailable());
        }
        let (told, decided) = oneshot::channel();
        let (catalog, tombstone) = (self.clone(), tombstone(queue, host, name));
        // From the first step on in a task of its own: the caller may be dropped at any moment.
        tokio::spawn(catalog.begin_delete(tombstone, if_unused, if_empty, told));
        decided.await.map_err(|_| not_served(name))?
    }

    async fn begin_delete(
        self,
        tombstone: TombstoneRecord,
        if_unused: bool,
        if_empty: bool,
        told: oneshot::Sender<Result<(), ErrorBody>>,
    ) {
        let queue = tombstone.queue;
        let (reply, prepared) = oneshot::channel();
        let shard = self.shared.shards.shard_of(queue);
        self.shared
            .shards
            .send(shard, ShardInput::PrepareDelete { queue, if_unused, if_empty, reply })
            .await;
        let name = tombstone.name.clone();
        match prepared.await.unwrap_or_else(|_| Err(not_served(&name))) {
            Ok(deletable) => self.carry_out_delete(tombstone, deletable, told).await,
            Err(error) => {
                let _gone = told.send(Err(error));
            }
        }
    }

    /// The multi, however long it takes to learn what became of it; `told` hears of it within the deadline.
    async fn carry_out_delete(
        self,
        tombstone: TombstoneRecord,
        deletable: Deletable,
        told: oneshot::Sender<Result<(), ErrorBody>>,
    ) {
        let (queue, shard) = (tombstone.queue, self.shared.shards.shard_of(tombstone.queue));
        self.shared.tombstones.deletes(queue, true);
        let mut told = Some(told);
        let mut doubt = false;
        let decided = loop {
            let deadline = Instant::now() + REQUEST_FOR;
            let decided = self.try_delete(doubt, &tombstone, &deletable, deadline).await;
            match decided {
                Err(error) if error.outcome == Outcome::Unknown => {
                    warn!(queue = %tombstone.name, "it is not known yet whether the queue is deleted; it stays stopped until the coordinator answers");
                    doubt = true;
                    if let Some(told) = told.take() {
                        // The client may be gone; the delete is carried through all the same.
                        let _gone = told.send(Err(error));
                    }
                }
                decided => break decided,
            }
        };
        self.shared.tombstones.deletes(queue, false);
        // Only one that was refused leaves something to lead. A leader that went on without a state would confirm into nothing (promise G1).
        let deleted = decided.is_ok();
        self.shared.shards.send(shard, ShardInput::DeleteDecided { queue, deleted }).await;
        if decided == Ok(Deletion::Done) {
            info!(queue = %tombstone.name, queue.id = %queue, "queue deleted");
            let name = paths::name(&tombstone.virtual_host, &tombstone.name);
            self.enter(vec![paths::deleted(queue), name], Instant::now() + REQUEST_FOR).await;
        }
        if let Some(told) = told {
            let _gone = told.send(match decided {
                Ok(Deletion::Done) => Ok(()),
                Ok(Deletion::Untold) => Err(untold(&tombstone.name)),
                Err(error) => Err(error),
            });
        }
    }

    /// `doubt`: it was tried before, and nobody knows what became of that.
    async fn try_delete(
        &self,
        doubt: bool,
        tombstone: &TombstoneRecord,
        deletable: &Deletable,
        deadline: Instant,
    ) -> Result<Deletion, ErrorBody> {
        let queue = tombstone.queue;
        let bindings = paths::bindings(queue);
        for _ in 0..RACES_MAX {
            let BeforeDelete { bound, stores, folders } =
                match self.before_delete(queue, &bindings, deadline).await {
                    Ok(read) => read,
                    Err(error) if doubt => {
                        tokio::time::sleep(LOOK_AGAIN).await;
                        return Err(ErrorBody { outcome: Outcome::Unknown, ..error });
                    }
                    Err(error) => return Err(error),
                };
            let tombstone = TombstoneRecord { stores: Some(stores), ..tombstone.clone() };
            let mut writes = vec![
                Write::Delete { path: paths::queue_state(queue), version: Some(deletable.version) },
                Write::Delete { path: paths::queue(queue), version: None },
                Write::Delete {
                    path: paths::name(&tombstone.virtual_host, &tombstone.name),
                    version: None,
                },
                create(&paths::deleted(queue), tombstone.to_bytes()),
            ];
            if let Some(version) = bound {
                writes.push(Write::Delete { path: bindings.clone(), version: Some(version) });
            }
            // Whoever has to hold a copy and comes with another disk begins one there, under this very version of the state: that disk would
            // be in no list.
            writes.extend(folders);
            let is_deleted = |session: Arc<dyn Coordinator>| async move {
                Ok(session.read(&paths::deleted(queue)).await?.is_some())
            };
            match self.decide_after(doubt, writes, deadline, is_deleted).await? {
                Decision::Done => {
                    self.sweep_bindings(&bindings).await;
                    return Ok(Deletion::Done);
                }
                Decision::Refused { index: 0, conflict: Conflict::Missing } => {
                    warn!(queue = %tombstone.name, queue.id = %queue, "a queue that was to be deleted is not in the coordinator, and no tombstone says why");
                    return Ok(Deletion::Untold);
                }
                Decision::Refused { index: 0, .. } => {
                    let words = "the queue's state changed while it was being deleted (a failover, or another delete); look, and try again";
                    return Err(ErrorBody::not_done(ErrorCode::NotLeader, words));
                }
                Decision::Refused { index: 3, conflict: Conflict::Missing } => {
                    self.make_folders(&[paths::deleted(queue)]).await?;
                }
                // The bindings changed meanwhile, or a broker registered.
                Decision::Refused { .. } => {}
            }
        }
        let error = raced();
        Err(if doubt { ErrorBody { outcome: Outcome::Unknown, ..error } } else { error })
    }

    /// Bindings that came in while the queue was being deleted lead nowhere; they would only lie about.
    async fn sweep_bindings(&self, bindings: &Path) {
        let Some(session) = self.shared.connected() else { return };
        let delete = Write::Delete { path: bindings.clone(), version: None };
        if let Ok(Some(_)) = session.read(bindings).await
            && let Err(error) = session.write(vec![delete]).await
        {
            info!(path = %bindings, %error, "bindings of a deleted queue were left behind; they lead nowhere");
        }
    }

    /// Whoever begins with a copy later does so under another
    /// version of the state than the one that is deleted, or registers with another folder than was read.
    async fn before_delete(
        &self,
        queue: QueueId,
        bindings: &Path,
        deadline: Instant,
    ) -> Result<BeforeDelete, ErrorBody> {
        let shared = &self.shared;
        let read = |session: Arc<dyn Coordinator>| async move {
            let known = KnownStores::read(shared, &session).await?;
            Ok((session.read(bindings).await?, known))
        };
        let (document, mut known) = self.reading(deadline, read).await?;
        let mut folders = Vec::new();
        if let Some((_, state, _)) = shared.tree().queue(queue) {
            let members = state.isr.iter().chain(&state.given_up).map(|member| member.broker);
            let holders: BTreeSet<BrokerId> =
                members.chain(state.replicas.iter().copied()).collect();
            folders.extend(holders.iter().filter_map(|broker| known.unchanged(*broker)));
            known.stores.counted.extend(holders);
        }
        Ok(BeforeDelete {
            bound: document.map(|document| document.version),
            stores: known.stores.that_may_hold(),
            folders,
        })
    }
}

/// What is read before a delete.
struct BeforeDelete {
    /// The version of the bindings, if there are any.
    bound: Option<Version>,
    /// Who may hold a copy.
    stores: Vec<HoldingStore>,
    /// Checks that those who have to hold one have the folders that were read.
    folders: Vec<Write>,
}

fn tombstone(queue: QueueId, host: &VirtualHost, name: &QueueName) -> TombstoneRecord {
    TombstoneRecord {
        queue,
        virtual_host: host.clone(),
        name: name.clone(),
        stores: None,
        unknown: UnknownFields::new(),
    }
}

/// The queue is gone, by this delete or otherwise.
fn untold(name: &QueueName) -> ErrorBody {
    let words = format!(
        "queue {name} is not there any more, and nothing says what became of this delete of it; look, and if there is a queue of that name, it was declared since"
    );
    ErrorBody::unknown(ErrorCode::NotLeader, words)
}

/// The shard that should have answered has stopped.
fn not_served(name: &QueueName) -> ErrorBody {
    ErrorBody::not_done(
        ErrorCode::ShuttingDown,
        format!("this broker is stopping; ask another one about queue {name}"),
    )
}
