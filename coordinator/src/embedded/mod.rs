//! The embedded coordinator: the contract of ZooKeeper in one process, for `dev`, `demo`, tests and simulation. It has no
//! replicas: not for production. It can be told to have faults.

mod core;
mod frames;
mod hub;
mod local;
mod remote;
mod server;
mod store;
mod tree;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpListener;

use self::core::Watches;
use self::hub::Hub;
use self::local::LocalDialer;
use self::remote::RemoteDialer;
pub use self::server::EmbeddedServer;
use self::store::Store;
pub use self::store::StoreError;
use self::tree::Tree;
use crate::coordinator::{ConnectError, Connector, Coordinator};
use crate::session;

/// How an embedded coordinator is run.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// Where permanent documents are kept; nowhere by default, so that they go with the process. After a restart every
    /// session is over.
    pub data: Option<PathBuf>,
    /// Session time-outs asked for are brought between these two.
    pub shortest_timeout: Duration,
    pub longest_timeout: Duration,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            data: None,
            shortest_timeout: Duration::from_millis(400),
            longest_timeout: Duration::from_secs(60),
        }
    }
}

/// A running coordinator. Lives as long as this, its servers and its connections.
#[derive(Clone, Debug)]
pub struct Embedded {
    hub: Arc<Hub>,
}

impl Embedded {
    /// Starts one on the current runtime.
    ///
    /// # Errors
    /// When its folder cannot be used or read.
    pub fn start(config: EmbeddedConfig) -> Result<Embedded, StoreError> {
        let (store, tree) = match config.data {
            Some(folder) => Store::open(&folder).map(|(store, tree)| (Some(store), tree))?,
            None => (None, Tree::default()),
        };
        Ok(Embedded {
            hub: Hub::start(tree, store, config.shortest_timeout, config.longest_timeout),
        })
    }

    /// Opens sessions within this process.
    #[must_use]
    pub fn connector(&self, timeout: Duration) -> InProcessConnector {
        InProcessConnector { hub: Arc::clone(&self.hub), timeout }
    }

    /// Serves it to other processes. There is no login: the listener should be on loopback.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn serve(&self, listener: TcpListener) -> io::Result<EmbeddedServer> {
        EmbeddedServer::start(Arc::clone(&self.hub), listener)
    }

    /// What can go wrong with it on demand.
    #[must_use]
    pub fn faults(&self) -> Faults {
        Faults { hub: Arc::clone(&self.hub) }
    }
}

/// Makes an embedded coordinator fail as a real ensemble does.
#[derive(Clone, Debug)]
pub struct Faults {
    hub: Arc<Hub>,
}

impl Faults {
    /// The next `writes` writes are carried out, but their authors lose the connection and never hear of it.
    pub fn lose_replies(&self, writes: u32) {
        self.hub.lose_replies(writes);
    }

    /// The next `writes` writes are lost on the way, and with them the connection.
    pub fn lose_requests(&self, writes: u32) {
        self.hub.lose_requests(writes);
    }

    /// Changes are told only when [`Faults::tell_changes`] is called.
    pub fn delay_changes(&self) {
        self.hub.set_watches(Watches::Delayed);
    }

    /// Changes are not told at all.
    pub fn drop_changes(&self) {
        self.hub.set_watches(Watches::Dropped);
    }

    /// Changes are told at once again, delayed ones now.
    pub fn tell_changes(&self) {
        self.hub.set_watches(Watches::Told);
    }

    /// Every session reads what is true now, whatever happens, until it syncs, writes or loses its connection.
    pub fn serve_stale(&self) {
        self.hub.serve_stale();
    }

    /// Ends the session of that number ([`crate::coordinator::SessionInfo::id`]); `false` when there is none.
    pub fn expire(&self, session: i64) -> bool {
        self.hub.expire(session)
    }

    /// Cuts every connection; sessions stay.
    pub fn cut_connections(&self) {
        self.hub.cut_all();
    }

    /// Cuts every connection and takes none until [`Faults::come_back`]; sessions stay, as with an ensemble that is down.
    pub fn go_away(&self) {
        self.hub.go_away();
    }

    pub fn come_back(&self) {
        self.hub.come_back();
    }
}

/// Opens sessions with an embedded coordinator in this process.
#[derive(Clone, Debug)]
pub struct InProcessConnector {
    hub: Arc<Hub>,
    timeout: Duration,
}

#[async_trait]
impl Connector for InProcessConnector {
    async fn connect(&self) -> Result<Arc<dyn Coordinator>, ConnectError> {
        let dialer = LocalDialer::new(Arc::clone(&self.hub), self.timeout);
        Ok(session::open(Box::new(dialer), self.timeout).await?)
    }
}

/// Opens sessions with an embedded coordinator that another process serves.
#[derive(Clone, Debug)]
pub struct EmbeddedConnector {
    address: String,
    timeout: Duration,
}

impl EmbeddedConnector {
    /// `address` is the `host:port` of an [`EmbeddedServer`].
    #[must_use]
    pub fn new(address: impl Into<String>, timeout: Duration) -> Self {
        Self { address: address.into(), timeout }
    }
}

#[async_trait]
impl Connector for EmbeddedConnector {
    async fn connect(&self) -> Result<Arc<dyn Coordinator>, ConnectError> {
        let dialer = RemoteDialer::new(self.address.clone(), self.timeout);
        Ok(session::open(Box::new(dialer), self.timeout).await?)
    }
}
