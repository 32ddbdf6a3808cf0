//! Brokers that come and go: one joins, another is emptied, stopped and retired.

use std::time::Duration;

use anyhow::{Result, ensure};
use bellwether_client::{BrokerId, Drain};
use bellwether_integration_tests::eventually::eventually;

use super::{FLOWING_WITHIN, Injector};

/// All copies of a broker are elsewhere after so long, under load, or it is stuck.
const EMPTIED_WITHIN: Duration = Duration::from_secs(120);

impl Injector {
    pub(super) async fn swap_a_member(&mut self, place: usize, lasts: Duration) -> Result<()> {
        let joined = self.cluster.add_broker().await?;
        self.recorder.note(&format!("broker {joined} has joined"));
        tokio::time::sleep(lasts).await;
        // Never the first: it is the one address of the clients that stays true.
        let others = self.cluster.brokers().len() - 1;
        let leaving = self.id(1 + place % others);
        self.drain(leaving, Some(Drain::Copies)).await?;
        if let Err(error) = self.emptied(leaving).await {
            self.stuck("all", &format!("broker {leaving} was not emptied: {error:#}"));
            return self.drain(leaving, None).await;
        }
        let driver = self.cluster.driver().await?;
        eventually("a retirement to be taken", FLOWING_WITHIN, async || {
            Ok(driver.client().retire(BrokerId(leaving)).await?)
        })
        .await?;
        self.stop(leaving).await?;
        self.cluster.forget_broker(leaving)?;
        self.recorder.note(&format!("broker {leaving} is retired"));
        Ok(())
    }

    async fn emptied(&self, broker: u32) -> Result<()> {
        let driver = self.cluster.driver().await?;
        eventually("its copies to be elsewhere", EMPTIED_WITHIN, async || {
            for queue in &self.queues {
                let seen = driver.describe(queue).await?;
                ensure!(!seen.replicas.contains(&broker), "{queue}: {seen:?}");
            }
            Ok(())
        })
        .await
    }
}
