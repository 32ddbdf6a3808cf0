//! Carries faults out, heals them, and measures how long the flows stood still meanwhile. Each family of faults has a file of its own.

mod disks;
mod lasting;
mod members;
mod passing;
mod wires;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether_integration_tests::checker::Violation;
use bellwether_integration_tests::cluster::Cluster;
use bellwether_integration_tests::eventually::eventually;
use bellwether_integration_tests::faults::Fault;
use bellwether_integration_tests::recorder::{Gaps, Recorder};

/// When everything is up again, flows that stand still for so long are stuck (promise G10).
const FLOWING_WITHIN: Duration = Duration::from_secs(60);

/// Holds the cluster and breaks it.
pub struct Injector {
    cluster: Cluster,
    recorder: Arc<Recorder>,
    queues: Vec<String>,
    /// A broker in whose data a bit was turned, and how often it had reported damage before.
    damaged: Option<(u32, usize)>,
}

impl Injector {
    pub async fn new(
        cluster: Cluster,
        recorder: Arc<Recorder>,
        queues: Vec<String>,
    ) -> Result<Injector> {
        let injector = Injector { cluster, recorder, queues, damaged: None };
        eventually("everything to flow", FLOWING_WITHIN, async || injector.flowing()).await?;
        Ok(injector)
    }

    /// Servers of the ensemble.
    pub fn servers(&mut self) -> usize {
        self.cluster.ensemble().servers()
    }

    /// Carries the fault out, heals it, waits until everything flows, and says how long it stood still.
    pub async fn inject(&mut self, fault: &Fault) -> Result<Gaps> {
        let what = fault.to_string();
        if fault.costs_a_disk() {
            // One disk at a time, and only when every queue has all its copies: more would break more than is promised.
            self.whole().await?;
        }
        self.recorder.note(&format!("{what} for {:?}", fault.lasts));
        self.recorder.watch();
        self.carry_out(fault).await.with_context(|| what.clone())?;
        self.recorder.note(&format!("{what} is healed"));
        if fault.costs_a_disk() {
            self.whole().await?;
        }
        let flowing =
            eventually("everything to flow", FLOWING_WITHIN, async || self.flowing()).await;
        if let Err(error) = flowing {
            self.stuck("all", &format!("after {what}: {error:#}"));
        }
        Ok(self.recorder.gaps())
    }

    /// Everything runs again and every queue is whole, or it is reported as stuck.
    pub async fn heal(&mut self) -> Result<()> {
        self.cluster.start_brokers().await?;
        self.whole().await
    }

    /// Puts the logs of the ensemble beside those of the brokers.
    pub fn keep_logs(&mut self, folder: &Path) -> Result<()> {
        self.cluster.ensemble().keep_logs(folder)
    }

    /// Waits until every queue is whole; one that is not in time is stuck.
    async fn whole(&self) -> Result<()> {
        for queue in &self.queues {
            if let Err(error) = self.cluster.whole(&[queue]).await {
                self.stuck(queue, &format!("{error:#}"));
            }
        }
        Ok(())
    }

    fn stuck(&self, queue: &str, what: &str) {
        self.recorder.broken(Violation::Stuck { queue: queue.to_owned(), what: what.to_owned() });
    }

    fn flowing(&self) -> Result<()> {
        ensure!(self.recorder.all_flow(), "some producer or queue stands still");
        Ok(())
    }

    /// The number of the broker at this place: numbers change when brokers come and go.
    fn id(&mut self, place: usize) -> u32 {
        let brokers = self.cluster.brokers();
        brokers[place % brokers.len()].id()
    }
}
