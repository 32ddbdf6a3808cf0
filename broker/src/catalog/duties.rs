//! What the catalog does for the controller: shows it the cluster as a picture to plan from, and keeps what operators want
//! of brokers.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bellwether_coordinator::balance::{
    BrokerView, Change, Picture, QueueView, Standing, Why, foresee,
};
use bellwether_coordinator::coordinator::{Coordinator, Document, Path, Version, Write};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::{DrainRecord, UnknownFields};
use bellwether_coordinator::stuck::{What, stuck, takers};
use bellwether_protocol::client::{Drain, Moved, PlannedMove, Stuck, StuckQueues, Troubled};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::{BrokerId, BrokerLife, QueueId};
use tokio::time::Instant;

use super::Catalog;
use super::answers::PAGE_MAX;
use super::queues::{create, raced};
use super::tree::Tree;
use super::writes::{Decision, REQUEST_FOR};

/// Leaderships given another home in one round: each is a write, and then a hand-over.
const LEADERS_MAX: usize = 256;

/// Moves that a plan names: enough to see what it is about, few enough to be planned at once for ten thousands of queues.
const PLAN_MAX: usize = 200;

impl Catalog {
    /// Who holds `/controller`.
    #[must_use]
    pub fn controller(&self) -> Option<BrokerLife> {
        self.shared.tree().controller
    }

    /// Brokers that queues count on, or that are being drained, and that are not live.
    #[must_use]
    pub fn absent(&self) -> Vec<BrokerId> {
        self.shared.tree().absent()
    }

    /// How many brokers are live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.shared.tree().brokers.len()
    }

    /// Whether just those that are to hold a copy of the queue are in sync. `None`: there is no such queue any more.
    #[must_use]
    pub fn is_whole(&self, queue: QueueId) -> Option<bool> {
        let tree = self.shared.tree();
        let (_, state, _) = tree.queue(queue)?;
        let in_sync = |broker: &BrokerId| state.isr.iter().any(|member| member.broker == *broker);
        Some(state.isr.len() == state.replicas.len() && state.replicas.iter().all(in_sync))
    }

    /// What should change, one change a queue at most. `given_up`: who is away for too long; `copies`: whether a copy may be
    /// begun now.
    #[must_use]
    pub fn balance(&self, given_up: impl Fn(BrokerId) -> bool, copies: bool) -> Vec<Change> {
        let tree = self.shared.tree();
        let views = queue_views(&tree);
        let picture = Picture::new(broker_views(&tree, given_up), views);
        let mut changes = picture.min_isr_to_raise();
        changes.extend(picture.next_copy().filter(|_| copies));
        changes.extend(picture.next_leaders(LEADERS_MAX));
        let mut changed = HashSet::new();
        changes.retain(|change| changed.insert(change.queue));
        changes
    }

    /// What will be moved, as things stand: the first moves, and whether there are more. Brokers that are away are waited for.
    pub async fn planned_moves(&self) -> Result<(Vec<PlannedMove>, bool), ErrorBody> {
        let catalog = self.clone();
        // It may walk over all queues many times.
        let planned = tokio::task::spawn_blocking(move || {
            let (brokers, queues) = {
                let tree = catalog.shared.tree();
                let queues: Vec<_> = queue_views(&tree)
                    .into_iter()
                    .map(|view| (view.queue, view.wanted, view.min_isr, view.state.clone()))
                    .collect();
                (broker_views(&tree, |_| false), queues)
            };
            let views: Vec<QueueView<'_>> = queues
                .iter()
                .map(|(queue, wanted, min_isr, state)| QueueView {
                    queue: *queue,
                    wanted: *wanted,
                    min_isr: *min_isr,
                    state,
                    version: Version(0),
                })
                .collect();
            let steps = foresee(&brokers, &views, PLAN_MAX + 1);
            let tree = catalog.shared.tree();
            let moves = steps.iter().take(PLAN_MAX).filter_map(|(queue, why)| {
                let (definition, ..) = tree.queue(*queue)?;
                let (what, from, to) = moved(*why)?;
                let (virtual_host, queue) =
                    (definition.virtual_host.clone(), definition.name.clone());
                Some(PlannedMove { virtual_host, queue, what, from, to })
            });
            (moves.collect(), steps.len() > PLAN_MAX)
        });
        planned.await.map_err(|error| {
            ErrorBody::not_done(ErrorCode::Internal, format!("planning broke off: {error}"))
        })
    }

    /// Queues with copies or leaderships that nobody can take; `suppose`: as it would be with this to be moved away from a broker.
    /// Brokers that are away are waited for.
    pub async fn stuck(
        &self,
        suppose: Option<(BrokerId, Drain)>,
        limit: u32,
    ) -> Result<Stuck, ErrorBody> {
        let catalog = self.clone();
        // It walks over all queues, with the names of those that it finds.
        let judged = tokio::task::spawn_blocking(move || {
            let limit = usize::try_from(limit).unwrap_or(PAGE_MAX).min(PAGE_MAX);
            let tree = catalog.shared.tree();
            let mut brokers = broker_views(&tree, |_| false);
            for view in &mut brokers {
                match suppose {
                    Some((broker, Drain::Copies)) if view.broker == broker => {
                        view.standing = Standing::Leaves;
                    }
                    Some((broker, Drain::Leaderships)) if view.broker == broker => {
                        view.standing = Standing::LeadsNothing;
                    }
                    _ => {}
                }
            }
            stuck_queues(&tree, &brokers, limit)
        });
        judged.await.map_err(|error| {
            ErrorBody::not_done(ErrorCode::Internal, format!("looking broke off: {error}"))
        })
    }

    /// Writes down what an operator wants of a broker; `retire`: it goes for good.
    ///
    /// # Errors
    /// There is no such broker, or the coordinator is away.
    pub async fn drain(
        &self,
        broker: BrokerId,
        drain: Option<Drain>,
        retire: bool,
    ) -> Result<(), ErrorBody> {
        {
            let tree = self.shared.tree();
            if drain.is_some()
                && tree.broker_by_id(broker).is_none()
                && !tree.absent().contains(&broker)
                && !tree.waited_for().iter().any(|(waited, _)| *waited == broker)
            {
                let mut live: Vec<u32> = tree.brokers.keys().map(|life| life.broker.0).collect();
                live.sort_unstable();
                let live: Vec<String> = live.iter().map(ToString::to_string).collect();
                let words = format!(
                    "there is no broker {broker}: none of that number is live, and no queue counts on one; live are {}",
                    live.join(", ")
                );
                return Err(ErrorBody::not_done(ErrorCode::InvalidOption, words));
            }
        }
        let deadline = Instant::now() + REQUEST_FOR;
        let path = paths::drained(broker);
        let next = |session: Arc<dyn Coordinator>| {
            let path = path.clone();
            async move {
                // Another broker may have been asked for the contrary a moment ago.
                session.sync().await?;
                Ok(step(&path, session.read(&path).await?.as_ref(), drain, retire))
            }
        };
        while let Some(write) = self.reading(deadline, next).await? {
            let done = |session: Arc<dyn Coordinator>| {
                let next = next(session);
                async move { Ok(next.await?.is_none()) }
            };
            if self.decide(vec![write], deadline, done).await? == Decision::Done {
                tracing::info!(
                    broker = broker.0,
                    ?drain,
                    retire,
                    "an operator wants this of the broker"
                );
                // However late: "not done" would be untrue (promise G11).
                break;
            }
            if Instant::now() >= deadline {
                return Err(raced());
            }
        }
        self.enter(vec![path], deadline).await;
        Ok(())
    }
}

/// What is stuck, by kind and by the copies that were asked for.
fn stuck_queues(tree: &Tree, brokers: &[BrokerView], limit: usize) -> Stuck {
    let mut kinds: BTreeMap<(What, u8), Troubled> = BTreeMap::new();
    for one in stuck(brokers, &queue_views(tree)) {
        let Some((definition, ..)) = tree.queue(one.queue) else { continue };
        let troubled = kinds.entry((one.what, one.copies)).or_default();
        troubled.count += 1;
        if troubled.first.len() < limit {
            troubled.first.push((definition.virtual_host.clone(), definition.name.clone()));
        }
    }
    let queues = kinds.into_iter().map(|((what, copies), queues)| {
        let (what, missing) = match what {
            What::LeavingCopy => (Moved::Copy, false),
            What::MissingCopy => (Moved::Copy, true),
            What::Leadership => (Moved::Leadership, false),
        };
        StuckQueues { what, missing, copies, queues }
    });
    Stuck { takers: takers(brokers).into_iter().collect(), queues: queues.collect() }
}

/// Every broker that is live or that queues count on.
fn broker_views(tree: &Tree, given_up: impl Fn(BrokerId) -> bool) -> Vec<BrokerView> {
    let standing = |broker: BrokerId, live: bool| match tree.drained.get(&broker) {
        Some(Drain::Copies) => Standing::Leaves,
        Some(Drain::Leaderships) => Standing::LeadsNothing,
        None if live => Standing::Serves,
        None if given_up(broker) => Standing::Leaves,
        None => Standing::Away,
    };
    let live = tree.brokers.values().map(|record| BrokerView {
        broker: record.life.broker,
        rack: record.rack.clone(),
        standing: standing(record.life.broker, true),
    });
    let absent = tree.absent().into_iter().map(|broker| BrokerView {
        broker,
        rack: None,
        standing: standing(broker, false),
    });
    live.chain(absent).collect()
}

fn queue_views(tree: &Tree) -> Vec<QueueView<'_>> {
    let view = |id: &QueueId| {
        let (definition, state, version) = tree.queue(*id)?;
        let (wanted, min_isr) = (definition.replicas_wanted, definition.min_isr);
        Some(QueueView { queue: *id, wanted, min_isr, state, version })
    };
    let mut views: Vec<QueueView<'_>> = tree.queues.keys().filter_map(view).collect();
    views.sort_unstable_by_key(|view| view.queue);
    views
}

/// What moves by a change.
fn moved(why: Why) -> Option<(Moved, Option<BrokerId>, BrokerId)> {
    match why {
        Why::Replaces { from, to }
        | Why::EvensCopies { from, to }
        | Why::SpreadsRacks { from, to } => Some((Moved::Copy, Some(from), to)),
        Why::Adds { to } => Some((Moved::Copy, None, to)),
        Why::Leads { from, to } => Some((Moved::Leadership, Some(from), to)),
        Why::RaisesMinIsr { .. } => None,
    }
}

/// The write that makes the document what it should be; none when it is.
fn step(
    path: &Path,
    present: Option<&Document>,
    drain: Option<Drain>,
    retired: bool,
) -> Option<Write> {
    let record = present.and_then(|document| DrainRecord::parse(&document.bytes).ok());
    match (present, drain) {
        (None, None) => None,
        (Some(_), Some(wanted))
            if record.as_ref().is_some_and(|now| (now.drain, now.retired) == (wanted, retired)) =>
        {
            None
        }
        (Some(document), None) => {
            Some(Write::Delete { path: path.clone(), version: Some(document.version) })
        }
        (None, Some(drain)) => {
            let bytes = DrainRecord { drain, retired, unknown: UnknownFields::new() }.to_bytes();
            Some(create(path, bytes))
        }
        (Some(document), Some(drain)) => {
            let unknown = record.map_or_else(UnknownFields::new, |record| record.unknown);
            let bytes = DrainRecord { drain, retired, unknown }.to_bytes();
            Some(Write::Set { path: path.clone(), bytes, version: document.version })
        }
    }
}
