//! Answers from the copy: lists, summaries, the state of the cluster.

use std::collections::HashMap;
use std::ops::Bound;

use bellwether_coordinator::records::{QueueDefinition, QueueState};
use bellwether_protocol::client::{
    AbsentBroker, Binding, BrokerStatus, ClusterStatus, ExchangeKind, QueueOptions, QueueSummary,
};
use bellwether_protocol::ids::{BrokerLife, QueueId};
use bellwether_protocol::names::{ExchangeName, QueueName, VirtualHost};

use super::Catalog;

/// Queues in one page at most: some hundred bytes each.
pub const PAGE_MAX: usize = 1_000;

/// Names that are looked at while others wait for the copy: a fraction of a millisecond.
const LOOK_AT_MAX: usize = 1_000;

impl Catalog {
    /// All exchanges of a virtual host, the default one first.
    #[must_use]
    pub fn exchanges(&self, host: &VirtualHost) -> Vec<(ExchangeName, ExchangeKind)> {
        let tree = self.shared.tree();
        let mut exchanges: Vec<_> =
            tree.routing.exchanges(host).map(|(name, kind)| (name.clone(), kind)).collect();
        exchanges.push((ExchangeName::default(), ExchangeKind::Direct));
        exchanges.sort_by(|one, two| one.0.cmp(&two.0));
        exchanges
    }

    /// A page of the queues of a virtual host that are `shown`, in order of name. Others wait for the copy between two parts of the
    /// look at most: who is shown little makes it look at many.
    pub async fn queues(
        &self,
        host: &VirtualHost,
        after: Option<QueueName>,
        limit: u32,
        shown: impl Fn(&QueueName) -> bool,
    ) -> Vec<QueueSummary> {
        let limit = usize::try_from(limit).unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
        let (mut page, mut after) = (Vec::new(), after);
        loop {
            let looked = self.some_queues(host, after.as_ref(), limit, &shown, &mut page);
            match looked {
                Some(last) if page.len() < limit => after = Some(last),
                _ => return page,
            }
            tokio::task::yield_now().await;
        }
    }

    /// Adds those of the next [`LOOK_AT_MAX`] names, up to `limit`. The last name looked at; none when there are no more.
    fn some_queues(
        &self,
        host: &VirtualHost,
        after: Option<&QueueName>,
        limit: usize,
        shown: &impl Fn(&QueueName) -> bool,
        page: &mut Vec<QueueSummary>,
    ) -> Option<QueueName> {
        let tree = self.shared.tree();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names = tree.names.get(host)?.range((from, Bound::Unbounded)).take(LOOK_AT_MAX);
        let mut last = None;
        for (name, id) in names {
            last = Some(name);
            if !shown(name) {
                continue;
            }
            page.extend(tree.queue(*id).map(|(definition, state, _)| summary(definition, state)));
            if page.len() == limit {
                break;
            }
        }
        last.cloned()
    }

    /// A page of how the queues of a virtual host were asked for, in order of name.
    #[must_use]
    pub fn definitions(
        &self,
        host: &VirtualHost,
        after: Option<&QueueName>,
        limit: u32,
    ) -> Vec<(QueueName, QueueOptions)> {
        let tree = self.shared.tree();
        let Some(names) = tree.names.get(host) else { return Vec::new() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let limit = usize::try_from(limit).unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
        let known = |(name, id): (&QueueName, &QueueId)| {
            let (definition, ..) = tree.queue(*id)?;
            let options = QueueOptions {
                replicas: definition.replicas_wanted,
                min_isr: Some(definition.min_isr),
                strict: false,
                class: definition.class,
            };
            Some((name.clone(), options))
        };
        names.range((from, Bound::Unbounded)).filter_map(known).take(limit).collect()
    }

    /// One queue.
    #[must_use]
    pub fn summary(&self, queue: QueueId) -> Option<QueueSummary> {
        self.shared.tree().queue(queue).map(|(definition, state, _)| summary(definition, state))
    }

    /// The bindings of a virtual host, or of one of its queues, in order.
    #[must_use]
    pub fn bindings(&self, host: &VirtualHost, queue: Option<&QueueName>) -> Vec<Binding> {
        let tree = self.shared.tree();
        let mut bindings: Vec<Binding> = tree
            .routing
            .bindings(host)
            .filter(|binding| queue.is_none_or(|queue| binding.queue == *queue))
            .collect();
        bindings.sort_unstable();
        bindings
    }

    /// The brokers, and how the queues are.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        let session = self.shared.session();
        let timeout = session.map_or(0, |session| session.session().timeout.as_millis());
        let tree = self.shared.tree();
        let mut leads: HashMap<BrokerLife, u64> = HashMap::new();
        let (mut queues, mut without_leader, mut under_replicated) = (0, 0, 0);
        for (definition, state, _) in tree.queues.keys().filter_map(|id| tree.queue(*id)) {
            queues += 1;
            match state.leader.filter(|life| tree.brokers.contains_key(life)) {
                Some(life) => *leads.entry(life).or_default() += 1,
                None => without_leader += 1,
            }
            under_replicated +=
                u64::from(state.isr.len() < usize::from(definition.replicas_wanted));
        }
        ClusterStatus {
            cluster: self.cluster(),
            brokers: tree
                .brokers
                .values()
                .map(|record| BrokerStatus {
                    address: record.address(),
                    incarnation: record.life.incarnation.to_string(),
                    version: record.version.clone(),
                    leads: leads.get(&record.life).copied().unwrap_or(0),
                    copies: tree.copies(record.life.broker).into(),
                    drain: tree.drained.get(&record.life.broker).copied(),
                })
                .collect(),
            coordinator_connected: self.shared.connected().is_some(),
            session_timeout_ms: u32::try_from(timeout).unwrap_or(u32::MAX),
            queues,
            queues_without_leader: without_leader,
            queues_under_replicated: under_replicated,
            absent: tree
                .absent()
                .into_iter()
                .map(|broker| AbsentBroker {
                    broker,
                    copies: tree.copies(broker).into(),
                    drain: tree.drained.get(&broker).copied(),
                })
                .collect(),
            controller: tree.controller.map(|life| life.broker),
            tombstones: tree.waited_for(),
        }
    }
}

/// A queue as clients are told of it.
pub(super) fn summary(definition: &QueueDefinition, state: &QueueState) -> QueueSummary {
    QueueSummary {
        name: definition.name.clone(),
        id: definition.queue,
        replicas: state.replicas.clone(),
        in_sync: state.isr.iter().map(|member| member.broker).collect(),
        min_isr: state.min_isr,
        leader: state.leader.map(|life| life.broker),
        epoch: state.epoch,
        class: definition.class,
        tainted: state.past.open_taint().is_some(),
    }
}
