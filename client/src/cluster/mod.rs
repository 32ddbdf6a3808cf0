//! The brokers as this client sees them: which are known, to which there is a connection, and how to get one.
//! One connection for each broker, shared by all producers and consumers of the client.

mod addresses;
mod ask;
mod dial;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bellwether_protocol::error::BrokerAddress;
use bellwether_protocol::ids::BrokerId;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use ask::{At, Found, Question};

use crate::builder::Config;
use crate::consumer::Inbox;
use crate::error::FlushError;
use crate::link::Link;
use crate::lock::Locked;
use crate::producer::Pipe;
use addresses::Addresses;
use dial::{Dialed, Dialing, unreached};

/// How long a broker may take for its handshake before the next one is tried beside it. A frozen process accepts
/// connections and says nothing; waiting for it would be the failover time.
const HEAD_START: Duration = Duration::from_millis(150);

/// How long the last broker of a round may take before the round begins again: others may be back by then. Attempts
/// that are under way go on.
const ROUND_PATIENCE: Duration = Duration::from_millis(500);

/// What all parts of one client share.
#[derive(Debug)]
pub(crate) struct Cluster {
    me: Weak<Cluster>,
    pub(crate) config: Config,
    addresses: Locked<Addresses>,
    links: Locked<HashMap<BrokerId, Arc<Link>>>,
    dialing: Locked<Dialing>,
    /// What to flush when the client is closed. Those that are gone are dropped when another comes.
    users: Locked<Users>,
    closing: CancellationToken,
    /// Ends the connections when the last user of this client is gone.
    _closes: DropGuard,
}

/// Producers and consumers of this client. As many as the application has.
#[derive(Debug, Default)]
struct Users {
    producers: Vec<Weak<Pipe>>,
    consumers: Vec<Weak<Inbox>>,
}

impl Cluster {
    pub(crate) fn new(config: Config, given: Vec<String>) -> Arc<Cluster> {
        let closing = CancellationToken::new();
        Arc::new_cyclic(|me| Cluster {
            me: Weak::clone(me),
            config,
            addresses: Locked::new(Addresses::new(given)),
            links: Locked::default(),
            dialing: Locked::default(),
            users: Locked::default(),
            _closes: closing.clone().drop_guard(),
            closing,
        })
    }

    pub(crate) fn track_producer(&self, pipe: &Arc<Pipe>) {
        let producers = &mut self.users.lock().producers;
        producers.retain(|known| known.strong_count() > 0);
        producers.push(Arc::downgrade(pipe));
    }

    pub(crate) fn track_consumer(&self, inbox: &Arc<Inbox>) {
        let consumers = &mut self.users.lock().consumers;
        consumers.retain(|known| known.strong_count() > 0);
        consumers.push(Arc::downgrade(inbox));
    }

    /// Resolves when the client is closed.
    pub(crate) async fn closed(&self) {
        self.closing.cancelled().await;
    }

    /// Waits until everything sent and settled is confirmed or has failed, within the deadlines of each; then ends
    /// producers, consumers and connections.
    pub(crate) async fn close(&self) -> Result<(), FlushError> {
        let Users { producers, consumers } = std::mem::take(&mut *self.users.lock());
        let mut flushed = Ok(());
        for pipe in producers.iter().filter_map(Weak::upgrade) {
            pipe.close("the client was closed");
            flushed = flushed.and(pipe.flushed().await);
        }
        for inbox in consumers.iter().filter_map(Weak::upgrade) {
            if tokio::time::timeout(self.config.deadline, inbox.settled_all()).await.is_err() {
                tracing::warn!("the client was closed with settles unconfirmed");
            }
        }
        self.closing.cancel();
        let links: Vec<Arc<Link>> = self.links.lock().drain().map(|(_, link)| link).collect();
        for link in &links {
            link.closed().await;
        }
        flushed
    }

    /// Forgets connections that are gone. Their brokers are tried last for a while.
    fn sweep(&self) {
        let mut links = self.links.lock();
        let gone: Vec<String> = links
            .extract_if(|_, link| link.is_closed())
            .map(|(_, link)| link.address().to_owned())
            .collect();
        drop(links);
        for address in gone {
            self.suspect(&address);
        }
    }

    /// The connection to a broker, if there is one.
    fn live(&self, broker: BrokerId) -> Option<Arc<Link>> {
        self.links.lock().get(&broker).filter(|link| !link.is_closed()).cloned()
    }

    /// A connection that is up already, not to `avoid` if there is a choice.
    fn any_live(&self, avoid: Option<BrokerId>) -> Option<Arc<Link>> {
        self.sweep();
        let links = self.links.lock();
        links.values().find(|link| Some(link.broker()) != avoid).cloned()
    }

    /// A connection to this broker.
    pub(crate) async fn to(&self, broker: &BrokerAddress) -> Dialed {
        if let Some(link) = self.live(broker.broker) {
            return Ok(link);
        }
        self.addresses.lock().learn(broker);
        self.dial(&broker.address).await
    }

    /// A connection to any broker; `avoid` is the one that has just disappointed.
    pub(crate) async fn any(&self, avoid: Option<BrokerId>) -> Dialed {
        if let Some(link) = self.any_live(avoid) {
            return Ok(link);
        }
        let mut to_try = self.addresses.lock().to_try(Instant::now()).into_iter();
        let mut attempts = FuturesUnordered::new();
        let mut last = Arc::new(unreached("(none)", "no broker address is known"));
        loop {
            attempts.extend(to_try.next().map(|address| self.dial(&address)));
            // The next broker is tried beside the first when that has not answered within its head start.
            let head_start = if to_try.len() > 0 { HEAD_START } else { ROUND_PATIENCE };
            match tokio::time::timeout(head_start, attempts.next()).await {
                Ok(Some(Ok(link))) => return Ok(link),
                Ok(Some(Err(failure))) => last = failure,
                Ok(None) | Err(_) if to_try.len() == 0 => return Err(last),
                Ok(None) | Err(_) => {}
            }
        }
    }

    /// The broker at this address has disappointed: others first, for a while.
    pub(crate) fn suspect(&self, address: &str) {
        self.addresses.lock().suspect(address, Instant::now());
    }
}
