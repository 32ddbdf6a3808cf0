//! Answers for operators: how a queue is and why, the last elections, what needs a person; and the order to lead without the
//! in-sync set, from the read it is decided by to the read that shows what came of it.

use std::sync::Arc;
use std::time::Duration;

use bellwether_coordinator::coordinator::{Coordinator, Version};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::{Election, QueueDefinition, QueueState};
use bellwether_protocol::client::{
    Attention, CommittedNote, ElectionReport, LiveBroker, QueueCondition, QueueSummary, Recover,
    Resigned, TaintCleared, TaintNote,
};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::{BrokerLife, Epoch, QueueId};
use bellwether_protocol::names::{QueueName, VirtualHost};
use bellwether_replication::{Force, NotForced};
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::verdict::{Asked, Verdict};
use super::Catalog;
use super::answers::{PAGE_MAX, summary};
use super::queues::no_such_queue;
use super::tree::Tree;
use super::writes::{LOOK_AGAIN, REQUEST_FOR};
use crate::shard::input::{ForceOrder, ShardInput};

/// How long the coordinator may take before an answer is given without it.
const LOOK_FOR: Duration = Duration::from_secs(5);

/// What was read after a sync on one session: the state first, the live brokers second.
struct Read {
    state: QueueState,
    version: Version,
    live: Vec<BrokerLife>,
}

impl Catalog {
    /// How a queue is and why: as the coordinator holds it, or, without it, as it was last heard of.
    ///
    /// # Errors
    /// There is no such queue.
    pub async fn condition(
        &self,
        host: &VirtualHost,
        name: &QueueName,
    ) -> Result<QueueCondition, ErrorBody> {
        let id = self.known(host, name)?;
        let read = match self.shared.connected() {
            Some(_) => {
                let read = self.read_state(id, Instant::now() + LOOK_FOR);
                let read = tokio::time::timeout(LOOK_FOR, read).await;
                read.ok().and_then(Result::ok).flatten()
            }
            None => None,
        };
        let tree = self.shared.tree();
        let (definition, state, version) =
            tree.queue(id).ok_or_else(|| self.unknown(no_such_queue(host, name)))?;
        Ok(match &read {
            Some(read) => condition(&tree, definition, &read.state, read.version, Some(&read.live)),
            None => condition(&tree, definition, state, version, None),
        })
    }

    /// The last changes of leaders, the newest first: of one queue, or of all in the virtual host.
    ///
    /// # Errors
    /// There is no such queue.
    pub fn elections(
        &self,
        host: &VirtualHost,
        queue: Option<&QueueName>,
        limit: u32,
    ) -> Result<Vec<ElectionReport>, ErrorBody> {
        let only = queue.map(|name| self.known(host, name)).transpose()?;
        let tree = self.shared.tree();
        let of_host = tree.names.get(host).filter(|_| only.is_none());
        let all = of_host.into_iter().flat_map(|names| names.values().copied());
        let mut elections: Vec<(&QueueDefinition, &Election)> = all
            .chain(only)
            .filter_map(|id| tree.queue(id))
            .flat_map(|(definition, state, _)| {
                state.past.elections.iter().map(move |election| (&**definition, election))
            })
            .collect();
        elections.sort_by(|(one, a), (two, b)| {
            (b.at_ms, b.epoch, &one.name).cmp(&(a.at_ms, a.epoch, &two.name))
        });
        elections.truncate(usize::try_from(limit).unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX));
        Ok(elections
            .into_iter()
            .map(|(definition, election)| report(definition, election))
            .collect())
    }

    /// Queues that need a person, at most `limit` by name of each kind. What this broker alone knows is for the caller to add.
    #[must_use]
    pub fn attention(&self, limit: u32) -> Attention {
        let limit = usize::try_from(limit).unwrap_or(PAGE_MAX).min(PAGE_MAX);
        let tree = self.shared.tree();
        let mut attention = Attention::calm(self.me());
        let mut hosts: Vec<_> = tree.names.iter().collect();
        hosts.sort_unstable_by_key(|(host, _)| *host);
        for (host, name, id) in hosts
            .into_iter()
            .flat_map(|(host, names)| names.iter().map(move |(n, id)| (host, n, id)))
        {
            let Some((definition, state, _)) = tree.queue(*id) else { continue };
            let live = state.isr.iter().filter(|member| tree.broker_by_id(member.broker).is_some());
            let led = state.leader.is_some_and(|life| tree.brokers.contains_key(&life));
            let troubles = [
                (!led, &mut attention.without_leader),
                (state.past.open_taint().is_some(), &mut attention.tainted),
                (live.count() < usize::from(state.min_isr), &mut attention.below_min_isr),
                (
                    state.isr.len() < usize::from(definition.replicas_wanted),
                    &mut attention.under_replicated,
                ),
            ];
            for (_, troubled) in troubles.into_iter().filter(|(is_so, _)| *is_so) {
                troubled.count += 1;
                if troubled.first.len() < limit {
                    troubled.first.push((host.clone(), name.clone()));
                }
            }
        }
        attention
    }

    /// Has the copy here lead without the in-sync set, as an operator ordered who was shown what that costs.
    ///
    /// # Errors
    /// Something is not any more as it was shown, or the queue needs no such thing; "unknown" when the coordinator was lost on
    /// the way.
    pub async fn recover(
        &self,
        host: &VirtualHost,
        asked: Recover,
    ) -> Result<QueueSummary, ErrorBody> {
        let deadline = Instant::now() + REQUEST_FOR;
        let id = self.known(host, &asked.queue)?;
        let gone = || no_such_queue(host, &asked.queue);
        let read = self.read_state(id, deadline).await?.ok_or_else(gone)?;
        let shown = Version(i32::try_from(asked.version).unwrap_or(i32::MAX));
        if read.version != shown {
            let what = format!("the queue's state has version {} by now", read.version.0);
            return Err(refusal(&NotForced::Changed { what }));
        }
        let proposal = &self.order(id, &read, &asked, deadline).await?;
        let order = Asked { before: &read.state, version: shown, proposal };
        loop {
            let now = self.read_state(id, deadline).await.map_err(undecided)?;
            let Some(now) = now else { return Err(gone()) };
            match order.came_of(&now.state, now.version) {
                Verdict::Pending => {}
                Verdict::NotDone => {
                    let what = "another change of the queue came first".to_owned();
                    return Err(refusal(&NotForced::Changed { what }));
                }
                Verdict::Unknown => return Err(undecided_for_good(&asked.queue)),
                Verdict::Done => {
                    tracing::warn!(queue = %asked.queue, queue.id = %id, "an operator recovered the queue with the copy on this broker");
                    self.enter(vec![paths::queue_state(id)], deadline).await;
                    let tree = self.shared.tree();
                    let (definition, ..) = tree.queue(id).ok_or_else(gone)?;
                    return Ok(summary(definition, &now.state));
                }
            }
            if Instant::now() + LOOK_AGAIN >= deadline {
                return Err(undecided(super::writes::unavailable()));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Hands the order to the copy here; answers what it asked of the coordinator.
    async fn order(
        &self,
        id: QueueId,
        read: &Read,
        asked: &Recover,
        deadline: Instant,
    ) -> Result<Box<QueueState>, ErrorBody> {
        let me = self.me();
        let given_up = |life: &BrokerLife| asked.given_up.iter().any(|m| m.broker == life.broker);
        let lives = read.live.iter().filter(|life| life.broker != me && given_up(life));
        let ask = lives.copied().collect();
        let order = Force {
            version: read.version,
            last_epoch: asked.last_epoch.unwrap_or(Epoch(0)),
            log_end: asked.log_end,
            given_up: asked.given_up.clone(),
            ask,
            lost: asked.lost,
            more: asked.more,
        };
        let gone = read.state.leader.filter(|leader| !read.live.contains(leader));
        let (reply, answered) = oneshot::channel();
        let (state, version) = (read.state.clone(), read.version);
        let input = ForceOrder { queue: id, state, version, gone, order, reply };
        let shard = self.shared.shards.shard_of(id);
        self.shared.shards.send(shard, ShardInput::Force(Box::new(input))).await;
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(outcome)) => outcome.map_err(|refused| refusal(&refused)),
            Ok(Err(_)) | Err(_) => Err(undecided(super::writes::unavailable())),
        }
    }

    fn known(&self, host: &VirtualHost, name: &QueueName) -> Result<QueueId, ErrorBody> {
        self.queue_named(host, name).ok_or_else(|| self.unknown(no_such_queue(host, name)))
    }

    /// The state first, the live brokers second, after a sync on one session: only then does the absence of a leader's path
    /// prove its end.
    async fn read_state(&self, id: QueueId, deadline: Instant) -> Result<Option<Read>, ErrorBody> {
        let read = |session: Arc<dyn Coordinator>| async move {
            session.sync().await?;
            let document = session.read(&paths::queue_state(id)).await?;
            let live = session.children(&paths::live_brokers()).await?;
            Ok(document.map(|document| (document, live)))
        };
        let Some((document, live)) = self.reading(deadline, read).await? else { return Ok(None) };
        let state = QueueState::parse(&document.bytes)
            .map_err(|error| ErrorBody::not_done(ErrorCode::Internal, error.to_string()))?;
        let live = live.iter().filter_map(|life| paths::parse_life(life)).collect();
        Ok(Some(Read { state, version: document.version, live }))
    }
}

fn condition(
    tree: &Tree,
    definition: &QueueDefinition,
    state: &QueueState,
    version: Version,
    live: Option<&Vec<BrokerLife>>,
) -> QueueCondition {
    let is_live = |life: &BrokerLife| live.is_none_or(|live| live.contains(life));
    let registered = tree.brokers.values().filter(|record| is_live(&record.life));
    let past = &state.past;
    QueueCondition {
        queue: summary(definition, state),
        version: u32::try_from(version.0).unwrap_or(0),
        fresh: live.is_some(),
        leader: state.leader,
        isr: state.isr.clone(),
        replicas_wanted: definition.replicas_wanted,
        min_isr_wanted: definition.min_isr,
        live: registered
            .map(|record| LiveBroker { life: record.life, address: record.client_address.clone() })
            .collect(),
        resigned: past
            .resignation
            .as_ref()
            .filter(|_| state.leader.is_none())
            .map(|resigned| Resigned { by: resigned.by, why: resigned.why.clone() }),
        committed: past.committed.map(|committed| CommittedNote {
            end: committed.end,
            enqueued: committed.enqueued,
            settled: committed.settled,
            at_ms: committed.at_ms,
            term: committed.term,
        }),
        taint: past.taint.as_ref().map(|taint| TaintNote {
            epoch: taint.epoch,
            by: taint.by,
            at_ms: taint.at_ms,
            end: taint.end,
            lost: taint.lost,
            more: taint.more,
            cleared: taint
                .cleared
                .as_ref()
                .map(|cleared| TaintCleared { at_ms: cleared.at_ms, by: cleared.by.clone() }),
        }),
        drained: tree.drained.iter().map(|(broker, drain)| (*broker, *drain)).collect(),
    }
}

fn report(definition: &QueueDefinition, election: &Election) -> ElectionReport {
    ElectionReport {
        virtual_host: definition.virtual_host.clone(),
        queue: definition.name.clone(),
        epoch: election.epoch,
        at_ms: election.at_ms,
        from: election.from,
        to: election.to,
        trigger: election.trigger.as_str().to_owned(),
        why: election.why.clone(),
        took_ms: election.took_ms,
    }
}

fn refusal(refused: &NotForced) -> ErrorBody {
    let code = match refused {
        NotForced::Changed { .. } => ErrorCode::Changed,
        NotForced::InSync(_) | NotForced::Silent(_) | NotForced::Led(_) => {
            ErrorCode::InSyncCopyLives
        }
        NotForced::NotNeeded { .. } => ErrorCode::NothingToRecover,
        NotForced::Unusable { .. } => ErrorCode::CopyUnusable,
    };
    ErrorBody::not_done(code, refused.to_string())
}

/// It was given, and so much has happened since that what is read does not tell.
fn undecided_for_good(queue: &QueueName) -> ErrorBody {
    let words = format!(
        "the state of queue {queue} has changed more than once since the order was given, and does not tell whether it was carried out; look at `queue explain`"
    );
    ErrorBody::unknown(ErrorCode::Changed, words)
}

/// The order was given, and what came of it could not be read.
fn undecided(error: ErrorBody) -> ErrorBody {
    ErrorBody::unknown(ErrorCode::TimedOut, error.message)
}

mod verdict;

#[cfg(test)]
mod tests;
