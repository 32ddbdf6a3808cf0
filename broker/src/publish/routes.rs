//! Where a connection's publishes go: routes looked up once and kept until the topology changes.

use std::collections::HashMap;
use std::sync::Arc;

use bellwether_protocol::error::ErrorBody;
use bellwether_protocol::ids::QueueId;
use bellwether_protocol::names::{ExchangeName, RoutingKey};

/// Addresses a connection remembers; beyond it all are looked up anew.
const ROUTES_MAX: usize = 4_096;

/// Addresses and their queues, as of one version of the topology.
#[derive(Debug, Default)]
pub struct Routes {
    version: u64,
    known: HashMap<(ExchangeName, RoutingKey), Arc<[QueueId]>>,
}

impl Routes {
    /// The queues that this address leads to; `look_up` is asked when the topology is newer than the answer kept. Errors
    /// are not kept: the exchange may be declared the next moment.
    ///
    /// # Errors
    /// What `look_up` says.
    pub fn route(
        &mut self,
        version: u64,
        exchange: &ExchangeName,
        key: &RoutingKey,
        look_up: impl FnOnce() -> Result<Vec<QueueId>, ErrorBody>,
    ) -> Result<Arc<[QueueId]>, ErrorBody> {
        if version != self.version || self.known.len() >= ROUTES_MAX {
            self.known.clear();
            self.version = version;
        }
        let address = (exchange.clone(), key.clone());
        if let Some(queues) = self.known.get(&address) {
            return Ok(Arc::clone(queues));
        }
        let queues: Arc<[QueueId]> = look_up()?.into();
        self.known.insert(address, Arc::clone(&queues));
        Ok(queues)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_looked_up_once_for_each_version_of_the_topology() {
        let mut routes = Routes::default();
        let (exchange, key) = (ExchangeName::default(), RoutingKey::new("orders").unwrap());
        let mut look_ups = 0;
        for version in [1, 1, 1, 2, 2] {
            let queues = routes.route(version, &exchange, &key, || {
                look_ups += 1;
                Ok(vec![])
            });
            assert!(queues.unwrap().is_empty());
        }
        assert_eq!(look_ups, 2);
    }
}
