//! Opens connections beside whoever waits for them: a waiter may lose patience and ask elsewhere, and the connection
//! still comes about. One attempt at a time for each address.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::task::AbortHandle;

use super::Cluster;
use crate::link::{ConnectFailure, Link, connect};

/// How long a broker may take for its handshake.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(3);

/// What came of an attempt. All who waited for it share it.
pub(super) type Dialed = Result<Arc<Link>, Arc<ConnectFailure>>;

/// Attempts that are under way, at most one for each address.
#[derive(Debug, Default)]
pub(super) struct Dialing(HashMap<String, Attempt>);

#[derive(Debug)]
struct Attempt {
    task: AbortHandle,
    dialed: Shared<BoxFuture<'static, Dialed>>,
}

impl Cluster {
    /// A connection to this address: the one there is, or what comes of the attempt that is under way or begins now.
    pub(super) fn dial(&self, address: &str) -> Shared<BoxFuture<'static, Dialed>> {
        if let Some(link) = self.live_at(address) {
            return std::future::ready(Ok(link)).boxed().shared();
        }
        let mut dialing = self.dialing.lock();
        dialing.0.retain(|_, attempt| !attempt.task.is_finished());
        if let Some(attempt) = dialing.0.get(address) {
            return attempt.dialed.clone();
        }
        let (me, owned) = (Weak::clone(&self.me), address.to_owned());
        let (config, closing) = (self.config.clone(), self.closing.clone());
        let attempt = tokio::spawn(async move {
            let connected = tokio::select! {
                connected = connect(&owned, &config, HANDSHAKE_PATIENCE, &closing) => connected,
                () = closing.cancelled() => Err(unreached(&owned, "the client was closed")),
            };
            match (me.upgrade(), connected) {
                (Some(cluster), connected) => cluster.dialed(&owned, connected),
                (None, _) => Err(Arc::new(unreached(&owned, "the client was dropped"))),
            }
        });
        let (task, owned) = (attempt.abort_handle(), address.to_owned());
        let dialed = async move {
            attempt
                .await
                .unwrap_or_else(|error| Err(Arc::new(unreached(&owned, &error.to_string()))))
        };
        let dialed = dialed.boxed().shared();
        dialing.0.insert(address.to_owned(), Attempt { task, dialed: dialed.clone() });
        dialed
    }

    fn dialed(&self, address: &str, connected: Result<Arc<Link>, ConnectFailure>) -> Dialed {
        match connected {
            Ok(link) => Ok(self.connected(link)),
            Err(failure) => {
                tracing::debug!(broker.address = address, %failure, "could not connect");
                self.addresses.lock().suspect(address, Instant::now());
                Err(Arc::new(failure))
            }
        }
    }

    fn live_at(&self, address: &str) -> Option<Arc<Link>> {
        let links = self.links.lock();
        links.values().find(|link| link.address() == address && !link.is_closed()).cloned()
    }

    /// Takes a new connection in; when there is one to the same broker under another address, that stays.
    fn connected(&self, link: Arc<Link>) -> Arc<Link> {
        {
            let mut addresses = self.addresses.lock();
            addresses.refresh(&link.welcome().brokers);
            addresses.trust(link.address());
        }
        let mut links = self.links.lock();
        match links.get(&link.broker()) {
            Some(older) if !older.is_closed() => {
                link.close();
                Arc::clone(older)
            }
            _ => {
                links.insert(link.broker(), Arc::clone(&link));
                link
            }
        }
    }
}

pub(super) fn unreached(address: &str, why: &str) -> ConnectFailure {
    ConnectFailure::Unreached { address: address.to_owned(), why: why.to_owned() }
}
