//! What the shards and the peer links are told of changes, and in which order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bellwether_coordinator::records::{BrokerRecord, QueueState};
use bellwether_protocol::ids::{BrokerId, QueueId};

use super::Shared;
use super::tree::{Changes, Tree};
use crate::shard::input::{LiveBrokers, QueueNews, ShardInput};

/// Pieces of news in one input, so that other inputs get their turn when everything is read anew.
const NEWS_MAX: usize = 1_024;

/// Whom to tell what.
pub(super) struct Feed {
    /// Queues with a replica or a log here.
    local: HashSet<QueueId>,
}

impl Feed {
    pub fn new(local: impl IntoIterator<Item = QueueId>) -> Feed {
        Feed { local: local.into_iter().collect() }
    }

    /// Queues with a replica or a log here.
    pub fn local(&self) -> &HashSet<QueueId> {
        &self.local
    }

    /// Whether a queue of `changes` that concerns this broker names a leader that is not known to be registered. The
    /// brokers have to be read (again) before a shard hears of it: what was read *before* the state says nothing.
    pub fn names_unknown_life(&self, shared: &Shared, changes: &Changes) -> bool {
        let tree = shared.tree();
        changes.queues.iter().filter_map(|id| tree.queue(*id)).any(|(definition, state, _)| {
            (self.local.contains(&definition.queue) || concerns(state, shared.config.me))
                && state.leader.is_some_and(|life| !tree.brokers.contains_key(&life))
        })
    }

    /// Tells the shards of queues. The publishers hear of it through [`Shared::tell_changed`].
    pub async fn queues(&mut self, shared: &Shared, changes: &Changes, synced: bool) {
        let mut by_shard: HashMap<usize, Vec<QueueNews>> = HashMap::new();
        let mut news = |queue: QueueId, news: QueueNews| {
            by_shard.entry(shared.shards.shard_of(queue)).or_default().push(news)
        };
        {
            let tree = shared.tree();
            for id in &changes.queues {
                if let Some(state) = self.state(&tree, shared, *id, synced) {
                    news(*id, state);
                }
            }
        }
        for id in &changes.deleted {
            if self.local.remove(id) {
                news(*id, QueueNews::Deleted(*id));
            }
        }
        for id in changes.missing.iter().filter(|id| self.local.contains(id)) {
            news(*id, QueueNews::Vanished(*id));
        }
        for (shard, mut all) in by_shard {
            while !all.is_empty() {
                let rest = all.split_off(all.len().min(NEWS_MAX));
                shared
                    .shards
                    .send(shard, ShardInput::Queues(std::mem::replace(&mut all, rest)))
                    .await;
            }
        }
    }

    fn state(
        &mut self,
        tree: &Tree,
        shared: &Shared,
        id: QueueId,
        synced: bool,
    ) -> Option<QueueNews> {
        let (definition, state, version) = tree.queue(id)?;
        if concerns(state, shared.config.me) {
            self.local.insert(id);
        }
        self.local.contains(&id).then(|| QueueNews::State {
            definition: Arc::clone(definition),
            state: state.clone(),
            version,
            synced,
        })
    }

    /// Tells everybody which brokers are live. To be called after [`Feed::queues`] of what was read before.
    pub async fn brokers(&self, shared: &Shared) {
        let live = Arc::new(live_brokers(&shared.tree()));
        shared.peers.brokers(&live);
        for shard in 0..shared.shards.shards() {
            shared.shards.send(shard, ShardInput::Brokers(Arc::clone(&live))).await;
        }
    }
}

/// Whether a broker is to hold a copy, or is counted on to hold one.
fn concerns(state: &QueueState, broker: BrokerId) -> bool {
    state.replicas.contains(&broker) || state.isr.iter().any(|member| member.broker == broker)
}

fn live_brokers(tree: &Tree) -> LiveBrokers {
    LiveBrokers {
        brokers: tree.brokers.values().map(|record| BrokerRecord::clone(record)).collect(),
    }
}

/// Makes what was entered visible to publishers and requests.
pub(super) fn publish(shared: &Shared, changes: &Changes) {
    if changes.routing {
        let version = shared.tree().routing_version;
        shared.routing_version.store(version, Ordering::Release);
    }
    if changes.routing || changes.leaders || changes.brokers {
        shared.tell_changed();
    }
}
