//! Carries faults out, heals them, and measures how long the flows stood still meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bellwether_client::{BrokerId, Drain};
use bellwether_integration_tests::checker::Violation;
use bellwether_integration_tests::cluster::Cluster;
use bellwether_integration_tests::eventually::eventually;
use bellwether_integration_tests::faults::{Fault, FaultKind};
use bellwether_integration_tests::recorder::{Gaps, Progress, Recorder};

/// A broker that was asked to stop has its drain time-out (30 s) for it, and some more to close.
const STOPPED_WITHIN: Duration = Duration::from_secs(40);
/// When everything is up again, flows that stand still for so long are stuck (promise G10).
const FLOWING_WITHIN: Duration = Duration::from_secs(60);

/// Holds the cluster and breaks it.
pub struct Injector {
    cluster: Cluster,
    recorder: Arc<Recorder>,
    queues: Vec<String>,
}

impl Injector {
    pub async fn new(
        cluster: Cluster,
        recorder: Arc<Recorder>,
        queues: Vec<String>,
    ) -> Result<Injector> {
        let injector = Injector { cluster, recorder, queues };
        eventually("everything to flow", FLOWING_WITHIN, async || injector.flowing()).await?;
        Ok(injector)
    }

    /// Servers of the ensemble.
    pub fn servers(&mut self) -> usize {
        self.cluster.ensemble().servers()
    }

    /// How much has flowed.
    pub fn progress(&self) -> Progress {
        self.recorder.progress()
    }

    /// Carries the fault out, heals it, waits until everything flows, and says how long it stood still.
    pub async fn inject(&mut self, fault: &Fault) -> Result<Gaps> {
        let what = fault.to_string();
        if fault.kind == FaultKind::Wipe {
            // One disk at a time, and only when every queue has all its copies: more would break more than is promised.
            self.whole().await?;
        }
        self.recorder.note(&format!("{what} for {:?}", fault.lasts));
        self.recorder.watch();
        self.carry_out(fault).await.with_context(|| what.clone())?;
        self.recorder.note(&format!("{what} is healed"));
        if fault.kind == FaultKind::Wipe {
            self.whole().await?;
        }
        let flowing =
            eventually("everything to flow", FLOWING_WITHIN, async || self.flowing()).await;
        if let Err(error) = flowing {
            self.recorder.broken(Violation::Stuck {
                queue: "all".to_owned(),
                what: format!("after {what}: {error:#}"),
            });
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

    async fn carry_out(&mut self, fault: &Fault) -> Result<()> {
        let rest = tokio::time::sleep(fault.lasts);
        let id = fault.victim as u32 + 1;
        match fault.kind {
            FaultKind::Kill
            | FaultKind::Pause
            | FaultKind::ZkKill
            | FaultKind::ZkAll
            | FaultKind::DiskSlow
            | FaultKind::Drain => {
                if fault.kind == FaultKind::Drain {
                    self.drain(id, Some(Drain::Copies)).await?;
                } else {
                    self.begin(fault.kind, fault.victim)?;
                }
                if let Some((kind, victim)) = fault.meanwhile {
                    tokio::time::sleep(fault.lasts / 3).await;
                    self.begin(kind, victim)?;
                }
                rest.await;
                if let Some((kind, victim)) = fault.meanwhile {
                    // A broker that was killed cannot be ready before the ensemble is back: it is waited for below.
                    self.end(kind, victim).await?;
                }
                if fault.kind == FaultKind::Drain {
                    self.cluster.start_brokers().await?;
                    self.drain(id, None).await?;
                } else {
                    self.end(fault.kind, fault.victim).await?;
                }
                self.cluster.ensemble().start_all().await?;
                self.cluster.start_brokers().await
            }
            FaultKind::Term => {
                let broker = self.cluster.broker(id);
                broker.terminate()?;
                let status = broker.end(STOPPED_WITHIN).await?;
                ensure!(status.success(), "broker {id} ended with {status}:\n{}", broker.tail());
                rest.await;
                self.cluster.start_brokers().await
            }
            FaultKind::RestartAll => {
                for broker in self.cluster.brokers() {
                    broker.kill()?;
                    tokio::time::sleep(fault.lasts / 10).await;
                }
                rest.await;
                self.cluster.start_brokers().await
            }
            FaultKind::PowerLoss => {
                self.cluster.kill_all()?;
                rest.await;
                self.cluster.start_brokers().await
            }
            FaultKind::Wipe => {
                let broker = self.cluster.broker(id);
                broker.kill()?;
                broker.wipe()?;
                rest.await;
                self.cluster.start_brokers().await
            }
        }
    }

    /// Said until it is heard: the brokers may still be looking for each other.
    async fn drain(&mut self, broker: u32, drain: Option<Drain>) -> Result<()> {
        let driver = self.cluster.driver().await?;
        eventually("a drain to be taken", FLOWING_WITHIN, async || {
            Ok(driver.client().drain(BrokerId(broker), drain).await?)
        })
        .await
    }

    fn begin(&mut self, kind: FaultKind, victim: usize) -> Result<()> {
        match kind {
            FaultKind::Kill => self.cluster.broker(victim as u32 + 1).kill(),
            FaultKind::Pause => self.cluster.broker(victim as u32 + 1).pause(),
            FaultKind::ZkKill => self.cluster.ensemble().kill(victim),
            FaultKind::ZkAll => self.cluster.ensemble().kill_all(),
            FaultKind::DiskSlow => self.cluster.broker(victim as u32 + 1).disk_stalls(),
            FaultKind::Term
            | FaultKind::RestartAll
            | FaultKind::PowerLoss
            | FaultKind::Wipe
            | FaultKind::Drain => {
                bail!("{kind} does not begin and end")
            }
        }
    }

    async fn end(&mut self, kind: FaultKind, victim: usize) -> Result<()> {
        match kind {
            FaultKind::Kill => self.cluster.broker(victim as u32 + 1).start(),
            FaultKind::Pause => self.cluster.broker(victim as u32 + 1).resume(),
            FaultKind::ZkKill => self.cluster.ensemble().launch(victim),
            FaultKind::ZkAll => self.cluster.ensemble().start_all().await,
            FaultKind::DiskSlow => self.cluster.broker(victim as u32 + 1).disk_is_well(),
            FaultKind::Term
            | FaultKind::RestartAll
            | FaultKind::PowerLoss
            | FaultKind::Wipe
            | FaultKind::Drain => {
                bail!("{kind} does not begin and end")
            }
        }
    }

    /// Waits until every queue is whole; one that is not in time is stuck.
    async fn whole(&self) -> Result<()> {
        for queue in &self.queues {
            if let Err(error) = self.cluster.whole(&[queue]).await {
                self.recorder
                    .broken(Violation::Stuck { queue: queue.clone(), what: format!("{error:#}") });
            }
        }
        Ok(())
    }

    fn flowing(&self) -> Result<()> {
        ensure!(self.recorder.all_flow(), "some producer or queue stands still");
        Ok(())
    }
}
