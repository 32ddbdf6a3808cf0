//! The broker under siege: its own, alone on a ZooKeeper and in a control group, or a running one; and what its memory does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bellwether_integration_tests::broker::BrokerOptions;
use bellwether_integration_tests::cluster::{Cluster, Setup};
use bellwether_integration_tests::control_group::MemoryGroup;
use tokio::task::JoinHandle;

/// How often its memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The share of its memory that a broker takes by itself, in percent; given as a setting where there is no control group.
const SHARE_PERCENT: u64 = 40;

/// See the module.
pub struct Besieged {
    address: String,
    pid: u32,
    own: Option<Cluster>,
    group: Option<MemoryGroup>,
}

impl Besieged {
    /// One that somebody else has started.
    pub fn running(address: &str, pid: u32) -> Besieged {
        Besieged { address: address.to_owned(), pid, own: None, group: None }
    }

    /// One of its own, with so much memory, and for so many connections at least.
    pub async fn start(memory: Option<u64>, connections: usize) -> Result<Besieged> {
        let mut options = BrokerOptions::default();
        // The honest client's, and room to try.
        let connections = (connections + 1000).max(10_000);
        options.arguments = vec!["--connections-max".to_owned(), connections.to_string()];
        let group = memory.and_then(|bytes| match MemoryGroup::new("bellwether-siege", bytes) {
            Ok(group) => Some(group),
            Err(error) => {
                let limit = bytes / 100 * SHARE_PERCENT;
                println!("No control group ({error:#}): --memory-limit {limit} alone bounds it.");
                options.arguments.extend(["--memory-limit".to_owned(), limit.to_string()]);
                None
            }
        });
        options.control_group = group.as_ref().map(|group| group.folder().to_owned());
        let setup = Setup { brokers: 1, servers: 1, options, ..Setup::default() };
        let mut cluster = Cluster::start_with(setup).await?;
        let broker = cluster.broker(1);
        let (address, pid) = (broker.address(), broker.process_id()?);
        Ok(Besieged { address, pid, own: Some(cluster), group })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// What its memory is now: what is its own, and not a part of files that the system could drop.
    pub fn memory(&self) -> Result<u64> {
        own_bytes(self.pid)
    }

    /// What all its pools together may hold; none: it does not tell us.
    pub async fn memory_limit(&mut self) -> Result<Option<u64>> {
        let limit = self.metric("bellwether_memory_limit_bytes").await?;
        Ok(limit.map(|bytes| bytes as u64))
    }

    /// One of its metrics; none: it is not our own, and does not tell us.
    pub async fn metric(&mut self, name: &str) -> Result<Option<f64>> {
        match &mut self.own {
            Some(cluster) => Ok(Some(cluster.broker(1).metric(name).await?)),
            None => Ok(None),
        }
    }

    /// The most that its control group has used, cached files included, and how often something in it was killed for want of memory.
    pub fn group(&self) -> Result<Option<(u64, u64)>> {
        let Some(group) = &self.group else { return Ok(None) };
        Ok(Some((group.most_used()?, group.killed()?)))
    }

    /// Looks at its memory until that is dropped or asked.
    pub fn watch(&self) -> Watch {
        let peak = Arc::new(AtomicU64::new(0));
        let (pid, seen) = (self.pid, Arc::clone(&peak));
        let looking = tokio::spawn(async move {
            // When it has ended there is nothing more to see; whoever speaks with it will notice.
            while let Ok(bytes) = own_bytes(pid) {
                seen.fetch_max(bytes, Ordering::Relaxed);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Watch { peak, looking }
    }

    /// Ends it, if it is our own.
    pub async fn end(self) -> Result<()> {
        drop(self.own);
        if let Some(group) = self.group {
            group.remove().await?;
        }
        Ok(())
    }
}

/// See [`Besieged::watch`].
pub struct Watch {
    peak: Arc<AtomicU64>,
    looking: JoinHandle<()>,
}

impl Watch {
    /// The most there was.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

fn own_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid}"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
