//! Disks that are full, whose syncs fail, or that have rotted: and whether the broker says so, and believes nothing that is not true.

use std::time::Duration;

use anyhow::{Result, ensure};
use bellwether_integration_tests::broker::Failing;
use bellwether_integration_tests::checker::Violation;
use bellwether_integration_tests::damage::{self, Which};
use bellwether_integration_tests::eventually::eventually;

use super::Injector;

/// After a failed sync a broker gives its store up within this, on a machine that is busy.
const SAID_WITHIN: Duration = Duration::from_secs(15);
/// 1 when a store was given up.
const GIVEN_UP: &str = "bellwether_journal_failed";
/// What a broker says of a folder of which a sync has failed.
const NOT_TRUSTED: &str = "cannot be trusted";

impl Injector {
    pub(super) fn fill_the_disk(&mut self, id: u32) -> Result<()> {
        self.cluster.broker(id).disk_fails(Failing::Full)
    }

    /// There is room again: the broker goes on by itself, unless it has given the store up, which only a restart heals.
    pub(super) async fn empty_the_disk(&mut self, id: u32) -> Result<()> {
        let broker = self.cluster.broker(id);
        broker.disk_is_mended()?;
        if broker.metric(GIVEN_UP).await? == 0.0 {
            return Ok(());
        }
        broker.kill()?;
        broker.start()?;
        self.stuck("all", &format!("broker {id} gave its store up when the disk was full"));
        Ok(())
    }

    pub(super) fn let_syncs_fail(&mut self, id: u32) -> Result<()> {
        let broker = self.cluster.broker(id);
        broker.failed_syncs()?;
        broker.disk_fails(Failing::Syncs)
    }

    /// What the failed syncs did not carry is lost with the process.
    pub(super) async fn replace_the_failed(&mut self, id: u32) -> Result<()> {
        let recorder = self.recorder.clone();
        let broker = self.cluster.broker(id);
        broker.disk_is_mended()?;
        let syncs = broker.failed_syncs()?;
        recorder.note(&format!("syncs of broker {id} that failed: {:?}", syncs.failed));
        if !syncs.failed.is_empty() {
            let said = eventually("a store to be given up", SAID_WITHIN, async || {
                let given_up = broker.metric(GIVEN_UP).await?;
                ensure!(given_up == 1.0, "{GIVEN_UP} is {given_up}");
                Ok(())
            });
            if let Err(error) = said.await {
                let what = format!("a sync of broker {id} failed ({:?}): {error:#}", syncs.failed);
                recorder.broken(Violation::Unsaid { what });
            }
        }
        let again = [syncs.again, broker.failed_syncs()?.again].concat();
        if !again.is_empty() {
            let what = format!("broker {id} synced again what it could not sync: {again:?}");
            recorder.broken(Violation::SyncRetried { what });
        }
        broker.kill()?;
        broker.start()?;
        if !syncs.failed.is_empty() {
            self.is_not_trusted(id).await?;
        }
        Ok(())
    }

    /// What the system holds in memory of a file whose sync failed is not what lies on the disk: the broker must not start with it, and
    /// starts with an empty folder.
    async fn is_not_trusted(&mut self, id: u32) -> Result<()> {
        let broker = self.cluster.broker(id);
        match broker.end(SAID_WITHIN).await {
            Ok(status) => {
                ensure!(
                    !status.success(),
                    "broker {id} ended well with a folder that cannot be trusted"
                );
                ensure!(broker.tail().contains(NOT_TRUSTED), "broker {id}:\n{}", broker.tail());
            }
            Err(_) => {
                broker.kill()?;
                let what = format!("broker {id} started with a folder of which a sync had failed");
                self.recorder.broken(Violation::Unsaid { what });
            }
        }
        let broker = self.cluster.broker(id);
        broker.wipe()?;
        broker.start()
    }

    /// Kills it and turns a bit of what it had synced: as often in the newest batch as anywhere.
    pub(super) fn turn_a_bit(&mut self, id: u32, draw: u64) -> Result<()> {
        let broker = self.cluster.broker(id);
        broker.kill()?;
        let which = if draw.is_multiple_of(2) { Which::Newest } else { Which::Any };
        let reported = damage::reports(&broker.logged()?);
        match damage::turn_a_bit(broker.data(), which, draw / 2)? {
            Some(place) => {
                self.damaged = Some((id, reported));
                self.recorder.note(&format!("a bit of broker {id} is turned in {place}"));
            }
            None => self.recorder.note(&format!("broker {id} had nothing synced to turn a bit of")),
        }
        Ok(())
    }

    /// A broker in whose data a bit was turned, and that is up again, has noticed it.
    pub(super) async fn damage_is_reported(&mut self) -> Result<()> {
        let Some((id, before)) = self.damaged.take() else { return Ok(()) };
        let broker = self.cluster.broker(id);
        let said = eventually("damage to be reported", SAID_WITHIN, async || {
            damage::ensure_reported(&broker.logged()?, before)
        });
        if let Err(error) = said.await {
            let what = format!("a bit of broker {id} was turned, and {error:#}");
            self.recorder.broken(Violation::Unsaid { what });
        }
        Ok(())
    }
}
