//! A whole cluster on one machine: brokers as processes of this very binary, each with its own folder and
//! ports, and the embedded coordinator in this process, on loopback.

pub mod child;
pub mod demo;
pub mod dev;
mod folder;
mod score;
mod tally;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bellwether_coordinator::embedded::{Embedded, EmbeddedConfig, EmbeddedServer};
use clap::Args;
use tokio::net::TcpListener;

use crate::outcome::Failure;
use crate::signals::Signals;
use child::{BrokerProcess, BrokerSpec};
use folder::Folder;

/// Bounds the failover of a broker that hangs; a killed one is replaced sooner.
const SESSION_TIMEOUT: Duration = Duration::from_secs(2);

/// What `dev` and `demo` can both be told.
#[derive(Args, Clone, Debug)]
pub struct LocalArgs {
    /// Use ports from here on: one a broker for clients, then as many between brokers, then as many for metrics; 0: any free
    /// ones [default: `dev`: 7400 if all are free; `demo`: any]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(0..=65_500))]
    pub base_port: Option<u16>,
    /// Keep the data here; without it, it lies in a temporary folder and is removed at the end
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Brokers on this machine, started or not.
#[derive(Debug)]
pub struct LocalCluster {
    brokers: Vec<LocalBroker>,
    folder: PathBuf,
    _coordinator: EmbeddedServer,
}

#[derive(Debug)]
struct LocalBroker {
    spec: BrokerSpec,
    process: Option<BrokerProcess>,
}

/// Starts `count` brokers, does `work` with them, stops them and removes what is temporary: also when the work fails,
/// or a signal ends it.
pub async fn with_cluster(
    count: u16,
    args: &LocalArgs,
    work: impl AsyncFnOnce(&mut LocalCluster) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    let folder = Folder::open(args.data.as_deref())?;
    let mut cluster = LocalCluster::prepare(count, args, folder.path()).await?;
    let worked = tokio::select! {
        worked = async {
            cluster.start().await?;
            work(&mut cluster).await
        } => worked,
        () = signals.next() => Err(Failure::Interrupted),
    };
    tokio::select! {
        () = cluster.stop() => (),
        // In a hurry: dropping the cluster kills what still runs. Nothing confirmed is lost by that.
        () = signals.next() => (),
    }
    drop(cluster);
    worked.and(folder.close().await)
}

impl LocalCluster {
    /// Starts the coordinator, and no broker yet.
    async fn prepare(count: u16, args: &LocalArgs, folder: &Path) -> Result<LocalCluster, Failure> {
        let coordinator = coordinator(folder).await?;
        let address = coordinator.address().to_string();
        let brokers = (0..count).map(|index| {
            let spec = spec(index, count, args.base_port, folder, &address)?;
            Ok(LocalBroker { spec, process: None })
        });
        let brokers = brokers.collect::<Result<_, Failure>>()?;
        Ok(LocalCluster { brokers, folder: folder.to_owned(), _coordinator: coordinator })
    }

    /// Starts all brokers at once and waits until all are ready.
    async fn start(&mut self) -> Result<(), Failure> {
        let ready =
            futures::future::join_all(self.brokers.iter_mut().map(LocalBroker::start)).await;
        ready.into_iter().collect()
    }

    /// Where everything lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where clients reach the brokers, running or not.
    pub fn addresses(&self) -> Vec<String> {
        self.brokers.iter().map(|broker| broker.spec.listen.clone()).collect()
    }

    /// The brokers that run: number, process id, addresses for clients and for metrics.
    pub fn running(&self) -> impl Iterator<Item = (u32, u32, &str, &str)> {
        self.brokers.iter().filter_map(|LocalBroker { spec, process }| {
            let pid = process.as_ref()?.pid()?;
            Some((spec.id, pid, spec.listen.as_str(), spec.admin_listen.as_str()))
        })
    }

    /// SIGKILL for broker `id`.
    pub async fn kill(&mut self, id: u32) -> Result<(), Failure> {
        let broker = self.brokers.iter_mut().find(|broker| broker.spec.id == id);
        let Some(mut process) = broker.and_then(|broker| broker.process.take()) else {
            return Err(Failure::NotDone(format!("broker {id} is not running")));
        };
        process
            .kill()
            .await
            .map_err(|error| Failure::NotDone(format!("cannot kill broker {id}: {error}")))
    }

    /// Waits until one of the brokers ends; its number and how it ended.
    pub async fn one_ended(&mut self) -> (u32, String) {
        let ends = self.brokers.iter_mut().filter_map(|LocalBroker { spec, process }| {
            let process = process.as_mut()?;
            Some(Box::pin(async { (spec.id, process.ended().await) }))
        });
        let ends: Vec<_> = ends.collect();
        if ends.is_empty() {
            return std::future::pending().await;
        }
        futures::future::select_all(ends).await.0
    }

    /// Starts broker `id` again, on the folder and the ports it had.
    pub async fn restart(&mut self, id: u32) -> Result<(), Failure> {
        match self.brokers.iter_mut().find(|broker| broker.spec.id == id) {
            Some(broker) => broker.start().await,
            None => Err(Failure::NotDone(format!("there is no broker {id}"))),
        }
    }

    async fn stop(&mut self) {
        let running = self.brokers.iter_mut().filter_map(|broker| broker.process.as_mut());
        futures::future::join_all(running.map(BrokerProcess::stop)).await;
    }
}

impl LocalBroker {
    async fn start(&mut self) -> Result<(), Failure> {
        let process = self.process.insert(BrokerProcess::start(&self.spec)?);
        let ready = process.ready(&self.spec).await?;
        // The ports that were bound, so that a restart has the same.
        self.spec.listen = ready.clients;
        self.spec.peer_listen = ready.brokers;
        if let Some(admin) = ready.admin {
            self.spec.admin_listen = admin;
        }
        Ok(())
    }
}

async fn coordinator(folder: &Path) -> Result<EmbeddedServer, Failure> {
    let cannot = |error: &dyn std::fmt::Display| {
        Failure::NotDone(format!("cannot start the embedded coordinator: {error}"))
    };
    let config =
        EmbeddedConfig { data: Some(folder.join("coordinator")), ..EmbeddedConfig::default() };
    let embedded = Embedded::start(config).map_err(|error| cannot(&error))?;
    // The brokers alone need to know the port.
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| cannot(&error))?;
    embedded.serve(listener).map_err(|error| cannot(&error))
}

/// Broker `index` of `count`: its ports from `base`, or free ones.
fn spec(
    index: u16,
    count: u16,
    base: Option<u16>,
    folder: &Path,
    coordinator: &str,
) -> Result<BrokerSpec, Failure> {
    let port = |block: u16| match base {
        Some(base) if base > 0 => base.checked_add(block * count + index).ok_or_else(|| {
            Failure::usage(format!("--base-port {base} leaves no room for {} ports", 3 * count))
        }),
        _ => Ok(0),
    };
    let id = u32::from(index) + 1;
    Ok(BrokerSpec {
        id,
        listen: format!("127.0.0.1:{}", port(0)?),
        peer_listen: format!("127.0.0.1:{}", port(1)?),
        admin_listen: format!("127.0.0.1:{}", port(2)?),
        data: folder.join(format!("broker-{id}")),
        log: folder.join(format!("broker-{id}.log")),
        coordinator: coordinator.to_owned(),
        session_timeout: SESSION_TIMEOUT,
    })
}
