//! Where a publish goes: exchanges and their bindings, by virtual host. Pure, and looked up by hash, never
//! scanned. The watched changes may be entered in any order: a binding may come before its exchange or its queue.

use std::collections::HashMap;

use bellwether_protocol::client::{Binding, ExchangeKind};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::QueueId;
use bellwether_protocol::names::{ExchangeName, QueueName, RoutingKey, VirtualHost};

/// Exchanges, queues and bindings of every virtual host.
#[derive(Clone, Debug, Default)]
pub struct RoutingTable {
    hosts: HashMap<VirtualHost, Host>,
}

/// Why a publish has nowhere to go. It was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("there is no exchange {exchange:?} in virtual host {virtual_host:?}; declare it first")]
    NoSuchExchange { virtual_host: VirtualHost, exchange: ExchangeName },
    /// Only the default exchange names its queue; others may be bound to nothing.
    #[error("there is no queue {queue:?} in virtual host {virtual_host:?}; declare it first")]
    NoSuchQueue { virtual_host: VirtualHost, queue: RoutingKey },
}

impl From<RouteError> for ErrorBody {
    fn from(error: RouteError) -> ErrorBody {
        let code = match error {
            RouteError::NoSuchExchange { .. } => ErrorCode::NoSuchExchange,
            RouteError::NoSuchQueue { .. } => ErrorCode::NoSuchQueue,
        };
        ErrorBody::not_done(code, error.to_string())
    }
}

#[derive(Clone, Debug, Default)]
struct Host {
    queues: HashMap<QueueName, QueueId>,
    exchanges: HashMap<ExchangeName, Exchange>,
}

/// *Invariant:* `by_key` and `by_queue` hold the same bindings, neither holds an empty list, and the
/// lists are sorted without repetition.
#[derive(Clone, Debug, Default)]
struct Exchange {
    /// `None`: bindings are known, the exchange itself is not (yet, or any more).
    kind: Option<ExchangeKind>,
    by_key: HashMap<RoutingKey, Vec<QueueName>>,
    by_queue: HashMap<QueueName, Vec<RoutingKey>>,
}

impl RoutingTable {
    /// The queues that messages published to `exchange` by `key` go to, each once. None is an answer
    /// too: nothing is bound, and the messages are dropped as in AMQP.
    ///
    /// # Errors
    /// [`RouteError`] when the exchange is unknown, or the default exchange does not know the queue.
    pub fn route(
        &self,
        host: &VirtualHost,
        exchange: &ExchangeName,
        key: &RoutingKey,
    ) -> Result<Vec<QueueId>, RouteError> {
        if exchange.is_default() {
            let queue = QueueName::new(key).ok().and_then(|name| self.queue(host, &name));
            return queue.map(|queue| vec![queue]).ok_or_else(|| RouteError::NoSuchQueue {
                virtual_host: host.clone(),
                queue: key.clone(),
            });
        }
        let known = self.hosts.get(host).and_then(|host| {
            let exchange = host.exchanges.get(exchange)?;
            Some((host, exchange, exchange.kind?))
        });
        let Some((host, exchange, kind)) = known else {
            let (virtual_host, exchange) = (host.clone(), exchange.clone());
            return Err(RouteError::NoSuchExchange { virtual_host, exchange });
        };
        // A binding to a queue that is not known is one to a queue that is just coming or going.
        let id = |name: &QueueName| host.queues.get(name).copied();
        Ok(match kind {
            ExchangeKind::Direct => {
                exchange.by_key.get(key).into_iter().flatten().filter_map(id).collect()
            }
            ExchangeKind::Fanout => exchange.by_queue.keys().filter_map(id).collect(),
        })
    }

    /// The queue of that name.
    #[must_use]
    pub fn queue(&self, host: &VirtualHost, name: &QueueName) -> Option<QueueId> {
        self.hosts.get(host)?.queues.get(name).copied()
    }

    /// How an exchange routes, if there is one of that name.
    #[must_use]
    pub fn exchange(&self, host: &VirtualHost, name: &ExchangeName) -> Option<ExchangeKind> {
        if name.is_default() {
            return Some(ExchangeKind::Direct);
        }
        self.hosts.get(host)?.exchanges.get(name)?.kind
    }

    /// Whether anything is bound to an exchange.
    #[must_use]
    pub fn is_bound(&self, host: &VirtualHost, exchange: &ExchangeName) -> bool {
        let exchange = self.hosts.get(host).and_then(|host| host.exchanges.get(exchange));
        exchange.is_some_and(|exchange| !exchange.by_queue.is_empty())
    }

    /// The queues of a virtual host, in no order.
    pub fn queues(&self, host: &VirtualHost) -> impl Iterator<Item = (&QueueName, QueueId)> {
        let queues = self.hosts.get(host).into_iter().flat_map(|host| &host.queues);
        queues.map(|(name, id)| (name, *id))
    }

    /// The exchanges of a virtual host, in no order, without the default one.
    pub fn exchanges(
        &self,
        host: &VirtualHost,
    ) -> impl Iterator<Item = (&ExchangeName, ExchangeKind)> {
        let exchanges = self.hosts.get(host).into_iter().flat_map(|host| &host.exchanges);
        exchanges.filter_map(|(name, exchange)| Some((name, exchange.kind?)))
    }

    /// The bindings of a virtual host, in no order.
    pub fn bindings(&self, host: &VirtualHost) -> impl Iterator<Item = Binding> {
        let exchanges = self.hosts.get(host).into_iter().flat_map(|host| &host.exchanges);
        exchanges.flat_map(|(exchange, bound)| {
            bound.by_queue.iter().flat_map(move |(queue, keys)| {
                keys.iter().map(move |key| Binding {
                    exchange: exchange.clone(),
                    queue: queue.clone(),
                    routing_key: key.clone(),
                })
            })
        })
    }

    /// A name stands for this queue from now on.
    pub fn add_queue(&mut self, host: &VirtualHost, name: QueueName, queue: QueueId) {
        self.host(host).queues.insert(name, queue);
    }

    /// A name stands for no queue any more. Its bindings go one by one, by [`RoutingTable::unbind`].
    pub fn remove_queue(&mut self, host: &VirtualHost, name: &QueueName) {
        self.change(host, |host| {
            host.queues.remove(name);
        });
    }

    /// There is an exchange of this name and kind from now on.
    pub fn add_exchange(&mut self, host: &VirtualHost, name: ExchangeName, kind: ExchangeKind) {
        self.host(host).exchanges.entry(name).or_default().kind = Some(kind);
    }

    /// There is no exchange of this name any more. Its bindings go one by one, by [`RoutingTable::unbind`].
    pub fn remove_exchange(&mut self, host: &VirtualHost, name: &ExchangeName) {
        self.change(host, |host| {
            if let Some(exchange) = host.exchanges.get_mut(name) {
                exchange.kind = None;
            }
            host.forget_exchange_if_empty(name);
        });
    }

    /// A binding exists from now on.
    pub fn bind(&mut self, host: &VirtualHost, binding: Binding) {
        let Binding { exchange, queue, routing_key } = binding;
        let exchange = self.host(host).exchanges.entry(exchange).or_default();
        insert(exchange.by_key.entry(routing_key.clone()).or_default(), queue.clone());
        insert(exchange.by_queue.entry(queue).or_default(), routing_key);
    }

    /// A binding is gone.
    pub fn unbind(&mut self, host: &VirtualHost, binding: &Binding) {
        self.change(host, |host| {
            if let Some(exchange) = host.exchanges.get_mut(&binding.exchange) {
                remove(&mut exchange.by_key, &binding.routing_key, &binding.queue);
                remove(&mut exchange.by_queue, &binding.queue, &binding.routing_key);
            }
            host.forget_exchange_if_empty(&binding.exchange);
        });
    }

    fn host(&mut self, host: &VirtualHost) -> &mut Host {
        self.hosts.entry(host.clone()).or_default()
    }

    /// Changes a virtual host that may be empty afterwards: it then leaves nothing behind.
    fn change(&mut self, name: &VirtualHost, change: impl FnOnce(&mut Host)) {
        if let Some(host) = self.hosts.get_mut(name) {
            change(host);
            if host.queues.is_empty() && host.exchanges.is_empty() {
                self.hosts.remove(name);
            }
        }
    }
}

impl Host {
    fn forget_exchange_if_empty(&mut self, name: &ExchangeName) {
        let is_empty = |exchange: &Exchange| exchange.kind.is_none() && exchange.by_key.is_empty();
        if self.exchanges.get(name).is_some_and(is_empty) {
            self.exchanges.remove(name);
        }
    }
}

fn insert<T: Ord>(sorted: &mut Vec<T>, item: T) {
    if let Err(at) = sorted.binary_search(&item) {
        sorted.insert(at, item);
    }
}

fn remove<K: Eq + std::hash::Hash, T: Ord>(lists: &mut HashMap<K, Vec<T>>, key: &K, item: &T) {
    let Some(sorted) = lists.get_mut(key) else { return };
    if let Ok(at) = sorted.binary_search(item) {
        sorted.remove(at);
    }
    if sorted.is_empty() {
        lists.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERS: QueueId = QueueId(uuid::Uuid::from_u128(1));
    const AUDIT: QueueId = QueueId(uuid::Uuid::from_u128(2));

    fn host() -> VirtualHost {
        VirtualHost::default()
    }

    fn queue(name: &str) -> QueueName {
        QueueName::new(name).unwrap()
    }

    fn binding(exchange: &str, queue_name: &str, key: &str) -> Binding {
        Binding {
            exchange: exchange_name(exchange),
            queue: queue(queue_name),
            routing_key: by(key),
        }
    }

    fn exchange_name(name: &str) -> ExchangeName {
        ExchangeName::new(name).unwrap()
    }

    fn by(key: &str) -> RoutingKey {
        RoutingKey::new(key).unwrap()
    }

    fn route(table: &RoutingTable, exchange: &str, key: &str) -> Vec<QueueId> {
        let mut targets = table.route(&host(), &exchange_name(exchange), &by(key)).unwrap();
        targets.sort();
        targets
    }

    fn two_queues() -> RoutingTable {
        let mut table = RoutingTable::default();
        table.add_queue(&host(), queue("orders"), ORDERS);
        table.add_queue(&host(), queue("audit"), AUDIT);
        table
    }

    #[test]
    fn the_default_exchange_goes_to_the_queue_that_the_key_names() {
        let table = two_queues();
        assert_eq!(route(&table, "", "orders"), [ORDERS]);
        let error = table.route(&host(), &exchange_name(""), &by("oders")).unwrap_err();
        assert_eq!(error, RouteError::NoSuchQueue { virtual_host: host(), queue: by("oders") });
        assert!(table.route(&host(), &exchange_name(""), &by("")).is_err());
    }

    #[test]
    fn a_direct_exchange_goes_by_the_key_and_a_fanout_does_not() {
        let mut table = two_queues();
        table.add_exchange(&host(), exchange_name("direct"), ExchangeKind::Direct);
        table.add_exchange(&host(), exchange_name("fanout"), ExchangeKind::Fanout);
        for exchange in ["direct", "fanout"] {
            table.bind(&host(), binding(exchange, "orders", "eu"));
            table.bind(&host(), binding(exchange, "audit", "eu"));
            table.bind(&host(), binding(exchange, "audit", "us"));
        }
        assert_eq!(route(&table, "direct", "eu"), [ORDERS, AUDIT]);
        assert_eq!(route(&table, "direct", "us"), [AUDIT]);
        assert_eq!(route(&table, "direct", "asia"), []);
        assert_eq!(route(&table, "fanout", "asia"), [ORDERS, AUDIT]);

        table.unbind(&host(), &binding("fanout", "audit", "eu"));
        assert_eq!(route(&table, "fanout", ""), [ORDERS, AUDIT], "still bound by another key");
        table.unbind(&host(), &binding("fanout", "audit", "us"));
        assert_eq!(route(&table, "fanout", ""), [ORDERS]);
    }

    #[test]
    fn an_unknown_exchange_is_an_error_even_when_a_binding_to_it_is_known() {
        let mut table = two_queues();
        table.bind(&host(), binding("events", "orders", "eu"));
        let error = table.route(&host(), &exchange_name("events"), &by("eu")).unwrap_err();
        let exchange = exchange_name("events");
        assert_eq!(error, RouteError::NoSuchExchange { virtual_host: host(), exchange });

        table.add_exchange(&host(), exchange_name("events"), ExchangeKind::Direct);
        assert_eq!(route(&table, "events", "eu"), [ORDERS]);
    }

    #[test]
    fn a_binding_whose_queue_is_gone_goes_nowhere_until_the_name_is_taken_again() {
        let mut table = two_queues();
        table.add_exchange(&host(), exchange_name("events"), ExchangeKind::Fanout);
        table.bind(&host(), binding("events", "orders", ""));
        table.remove_queue(&host(), &queue("orders"));
        assert_eq!(route(&table, "events", ""), []);
        table.add_queue(&host(), queue("orders"), AUDIT);
        assert_eq!(route(&table, "events", ""), [AUDIT]);
    }

    #[test]
    fn virtual_hosts_do_not_see_each_other_and_leave_nothing_behind() {
        let mut table = RoutingTable::default();
        let other = VirtualHost::new("other").unwrap();
        table.add_queue(&other, queue("orders"), ORDERS);
        table.add_exchange(&other, exchange_name("events"), ExchangeKind::Fanout);
        table.bind(&other, binding("events", "orders", ""));
        assert!(table.route(&host(), &exchange_name("events"), &by("")).is_err());

        table.remove_exchange(&other, &exchange_name("events"));
        table.remove_queue(&other, &queue("orders"));
        table.unbind(&other, &binding("events", "orders", ""));
        assert!(table.hosts.is_empty());
    }
}
