//! A cluster of broker processes on a real ensemble, in a folder of its own. It ends with this value, and shows the ends of
//! its logs when a test fails.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_client::TlsOptions;
use tempfile::TempDir;

use crate::broker::{Broker, BrokerOptions};
use crate::driver::{Driver, QueueView, Reach};
use crate::eventually::eventually;
use crate::network::{Network, Station};
use crate::zookeeper::Ensemble;

/// A queue that has no leader, or is not whole, after so long will not be.
pub const HEALED_WITHIN: Duration = Duration::from_secs(60);

/// How a cluster is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    pub brokers: u32,
    /// Servers of the ensemble.
    pub servers: usize,
    pub options: BrokerOptions,
    /// Where everything lies; none: in a temporary folder that goes with the cluster.
    pub folder: Option<PathBuf>,
    /// How the cluster's own clients speak TLS, if the brokers do.
    pub tls: Option<TlsOptions>,
    /// Certificate with key, and authority, of an ensemble that speaks TLS.
    pub zookeeper_tls: Option<(PathBuf, PathBuf)>,
    /// Whether brokers reach each other and the ensemble by links that can be broken: [`Cluster::network`].
    pub network: bool,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            brokers: 3,
            servers: 3,
            options: BrokerOptions::default(),
            folder: None,
            tls: None,
            zookeeper_tls: None,
            network: false,
        }
    }
}

/// The cluster.
pub struct Cluster {
    // In this order they are dropped: brokers, ensemble, folder.
    brokers: Vec<Broker>,
    ensemble: Ensemble,
    options: BrokerOptions,
    folder: PathBuf,
    tls: Option<TlsOptions>,
    network: Option<Network>,
    /// No number is given twice: one that was retired would have to be taken back.
    last_id: u32,
    _temporary: Option<TempDir>,
}

impl Cluster {
    /// Three brokers on an ensemble of three.
    pub async fn start() -> Result<Cluster> {
        Cluster::start_with(Setup::default()).await
    }

    /// A cluster as `setup` says, all of its brokers ready.
    pub async fn start_with(setup: Setup) -> Result<Cluster> {
        let (temporary, folder) = match setup.folder {
            Some(folder) => {
                std::fs::create_dir_all(&folder)?;
                (None, folder)
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("bellwether-test-").tempdir()?;
                let folder = temporary.path().to_owned();
                (Some(temporary), folder)
            }
        };
        let ensemble = Ensemble::start_with(setup.servers, setup.zookeeper_tls).await?;
        let mut cluster = Cluster {
            network: setup.network.then(|| Network::new(&folder)),
            last_id: setup.brokers,
            brokers: Vec::new(),
            ensemble,
            options: BrokerOptions { detours: setup.network, ..setup.options },
            folder,
            tls: setup.tls,
            _temporary: temporary,
        };
        if let Some(network) = &mut cluster.network {
            for server in 0..setup.servers {
                network
                    .join(Station::Server(server), port_of(&cluster.ensemble.address(server))?)?;
            }
        }
        for id in 1..=setup.brokers {
            cluster.new_broker(id)?;
        }
        cluster.start_brokers().await?;
        Ok(cluster)
    }

    fn new_broker(&mut self, id: u32) -> Result<()> {
        let broker = Broker::new(id, &self.folder, &self.zookeeper(), self.options.clone())?;
        if let Some(network) = &mut self.network {
            network.join(Station::Broker(id), broker.peer_port())?;
        }
        self.brokers.push(broker);
        Ok(())
    }

    /// Starts every broker that is not running, and waits until all are ready.
    pub async fn start_brokers(&mut self) -> Result<()> {
        for broker in self.brokers.iter_mut().filter(|broker| !broker.is_running()) {
            broker.start()?;
        }
        for broker in &mut self.brokers {
            broker.ready().await?;
        }
        Ok(())
    }

    /// One more broker joins; says its number.
    pub async fn add_broker(&mut self) -> Result<u32> {
        self.last_id += 1;
        let id = self.last_id;
        self.new_broker(id)?;
        self.start_brokers().await?;
        Ok(id)
    }

    /// Forgets a broker that was retired and has ended, and its data.
    pub fn forget_broker(&mut self, id: u32) -> Result<()> {
        let broker = self.broker(id);
        ensure!(!broker.is_running(), "broker {id} is running");
        std::fs::remove_dir_all(broker.data())?;
        self.brokers.retain(|broker| broker.id() != id);
        if let Some(network) = &mut self.network {
            network.leave(Station::Broker(id));
        }
        Ok(())
    }

    /// The links between brokers, and to the ensemble.
    pub fn network(&self) -> Result<&Network> {
        self.network.as_ref().context("this cluster was started without a network of its own")
    }

    /// Where clients reach the brokers, running or not.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.brokers.iter().map(Broker::address).collect()
    }

    /// A client of its own.
    pub async fn driver(&self) -> Result<Driver> {
        Driver::connect(&self.reach(), "test").await
    }

    /// What clients of its own need to connect.
    #[must_use]
    pub fn reach(&self) -> Reach {
        Reach { tls: self.tls.clone(), ..Reach::plain(self.addresses()) }
    }

    /// The brokers, in order of their numbers.
    pub fn brokers(&mut self) -> &mut [Broker] {
        &mut self.brokers
    }

    /// The broker of this number.
    ///
    /// # Panics
    /// When there is none.
    pub fn broker(&mut self, id: u32) -> &mut Broker {
        self.brokers.iter_mut().find(|broker| broker.id() == id).expect("a broker of this number")
    }

    /// The ensemble.
    pub fn ensemble(&mut self) -> &mut Ensemble {
        &mut self.ensemble
    }

    /// What the brokers are started with as `--zookeeper`.
    #[must_use]
    pub fn zookeeper(&self) -> String {
        format!("{}/bellwether", self.ensemble.connect_string())
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Kills every broker, as nearly at once as can be.
    pub fn kill_all(&mut self) -> Result<()> {
        // Paused first, so that none goes on while the others are being killed.
        for broker in self.brokers.iter_mut().filter(|broker| broker.is_running()) {
            broker.pause()?;
        }
        for broker in self.brokers.iter_mut().filter(|broker| broker.is_running()) {
            broker.kill()?;
        }
        Ok(())
    }

    /// Who leads, once someone does.
    pub async fn leader_of(&self, queue: &str) -> Result<u32> {
        let driver = self.driver().await?;
        eventually(&format!("a leader of {queue}"), HEALED_WITHIN, async || {
            driver.describe(queue).await?.leader.context("nobody leads")
        })
        .await
    }

    /// Kills the leader (SIGKILL) and says which broker it was.
    pub async fn kill_leader_of(&mut self, queue: &str) -> Result<u32> {
        let leader = self.leader_of(queue).await?;
        self.broker(leader).kill()?;
        Ok(leader)
    }

    /// Waits until these queues have a leader and every replica in sync.
    pub async fn whole(&self, queues: &[&str]) -> Result<()> {
        let driver = self.driver().await?;
        for queue in queues {
            eventually(&format!("{queue} to be whole"), HEALED_WITHIN, async || {
                let seen = driver.describe(queue).await?;
                ensure!(seen.leader.is_some() && seen.is_whole(), "{seen:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until this is true of the queue.
    pub async fn until(
        &self,
        queue: &str,
        fact: &str,
        is_so: impl Fn(&QueueView) -> bool,
    ) -> Result<QueueView> {
        let driver = self.driver().await?;
        eventually(&format!("{queue}: {fact}"), HEALED_WITHIN, async || {
            let seen = driver.describe(queue).await?;
            ensure!(is_so(&seen), "{seen:?}");
            Ok(seen)
        })
        .await
    }
}

fn port_of(address: &str) -> Result<u16> {
    let (_, port) = address.rsplit_once(':').context("an address has a port")?;
    Ok(port.parse()?)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for broker in &self.brokers {
            eprintln!("==== the end of the log of broker {} ====\n{}", broker.id(), broker.tail());
        }
    }
}
