//! Faults that take their course by themselves: restarts, and power that fails.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bellwether_client::{BrokerId, Drain};
use bellwether_integration_tests::eventually::eventually;
use bellwether_integration_tests::faults::{FaultKind, Strike};

use super::{FLOWING_WITHIN, Injector};

/// A broker that was asked to stop has its drain time-out (30 s) for it, and some more to close.
const STOPPED_WITHIN: Duration = Duration::from_secs(40);

impl Injector {
    pub(super) async fn pass(&mut self, strike: Strike, lasts: Duration) -> Result<()> {
        match strike.kind {
            FaultKind::Term => {
                let id = self.id(strike.victim);
                self.stop(id).await?;
                tokio::time::sleep(lasts).await;
                self.cluster.start_brokers().await
            }
            FaultKind::RollingRestart => {
                let ids: Vec<u32> =
                    self.cluster.brokers().iter().map(|broker| broker.id()).collect();
                for id in ids {
                    self.stop(id).await?;
                    self.cluster.start_brokers().await?;
                    tokio::time::sleep(lasts / 3).await;
                }
                Ok(())
            }
            FaultKind::RestartAll => {
                for broker in self.cluster.brokers() {
                    broker.kill()?;
                    tokio::time::sleep(lasts / 10).await;
                }
                tokio::time::sleep(lasts).await;
                self.cluster.start_brokers().await
            }
            FaultKind::PowerLoss => {
                self.cluster.kill_all()?;
                tokio::time::sleep(lasts).await;
                self.cluster.start_brokers().await
            }
            FaultKind::Membership => self.swap_a_member(strike.victim, lasts).await,
            kind => bail!("{kind} does not pass by itself"),
        }
    }

    /// Asks a broker to stop, and waits for its end.
    pub(super) async fn stop(&mut self, id: u32) -> Result<()> {
        let broker = self.cluster.broker(id);
        broker.terminate()?;
        let status = broker.end(STOPPED_WITHIN).await?;
        ensure!(status.success(), "broker {id} ended with {status}:\n{}", broker.tail());
        Ok(())
    }

    /// Said until it is heard: the brokers may still be looking for each other.
    pub(super) async fn drain(&mut self, broker: u32, drain: Option<Drain>) -> Result<()> {
        let driver = self.cluster.driver().await?;
        eventually("a drain to be taken", FLOWING_WITHIN, async || {
            Ok(driver.client().drain(BrokerId(broker), drain).await?)
        })
        .await
    }
}
