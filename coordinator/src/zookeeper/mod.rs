//! The coordinator for production: a session with a ZooKeeper ensemble. The only place that names the client library, and the
//! place where its traps are hidden.

mod closing;
mod config;
mod dialer;
mod errors;
mod link;
mod tls;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::config::{Digest, InvalidEnsemble, ZooKeeperConfig};
use self::dialer::ZooKeeperDialer;
pub use self::tls::ZooKeeperTls;
use crate::coordinator::{ConnectError, Connector, Coordinator};
use crate::session;

/// Opens sessions with an ensemble.
#[derive(Clone, Debug)]
pub struct ZooKeeperConnector {
    config: ZooKeeperConfig,
}

impl ZooKeeperConnector {
    #[must_use]
    pub fn new(config: ZooKeeperConfig) -> Self {
        Self { config }
    }
}

#[async_trait]
impl Connector for ZooKeeperConnector {
    async fn connect(&self) -> Result<Arc<dyn Coordinator>, ConnectError> {
        if self.config.digest().is_some() && self.config.chroot().is_empty() {
            return Err(ConnectError::Invalid(format!(
                "--zookeeper-auth needs a chroot of the cluster's own, since ZooKeeper's root stays open to everybody: --zookeeper {}/bellwether",
                self.config
            )));
        }
        let dialer = ZooKeeperDialer::new(self.config.clone());
        Ok(session::open(Box::new(dialer), self.config.session_timeout()).await?)
    }
}
