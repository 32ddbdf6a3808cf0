//! Faults that begin, last while other things happen, and end.

use anyhow::{Result, bail};
use bellwether_client::Drain;
use bellwether_integration_tests::faults::{Fault, FaultKind, Strike};

use super::Injector;

impl Injector {
    /// The fault and what goes wrong meanwhile, to the end of both.
    pub(super) async fn carry_out(&mut self, fault: &Fault) -> Result<()> {
        let first = fault.first;
        if !first.kind.lasts() && first.kind != FaultKind::Drain {
            return self.pass(first, fault.lasts).await;
        }
        let rest = tokio::time::sleep(fault.lasts);
        if first.kind == FaultKind::Drain {
            let id = self.id(first.victim);
            self.drain(id, Some(Drain::Copies)).await?;
        } else {
            self.begin(first)?;
        }
        if let Some(second) = fault.meanwhile {
            tokio::time::sleep(fault.lasts / 3).await;
            self.begin(second)?;
        }
        rest.await;
        // Nobody is waited for before both have ended: a broker that was killed cannot be ready without the ensemble.
        if let Some(second) = fault.meanwhile {
            self.end(second).await?;
        }
        if first.kind == FaultKind::Drain {
            self.cluster.start_brokers().await?;
            let id = self.id(first.victim);
            self.drain(id, None).await?;
        } else {
            self.end(first).await?;
        }
        self.cluster.ensemble().start_all().await?;
        self.cluster.start_brokers().await?;
        self.damage_is_reported().await
    }

    fn begin(&mut self, strike: Strike) -> Result<()> {
        let id = self.id(strike.victim);
        match strike.kind {
            FaultKind::Kill => self.cluster.broker(id).kill(),
            FaultKind::Pause => self.cluster.broker(id).pause(),
            FaultKind::ZkKill => self.cluster.ensemble().kill(strike.victim),
            FaultKind::ZkAll => self.cluster.ensemble().kill_all(),
            FaultKind::Wipe => {
                self.cluster.broker(id).kill()?;
                self.cluster.broker(id).wipe()
            }
            FaultKind::DiskSlow => self.cluster.broker(id).disk_stalls(),
            FaultKind::DiskFull => self.fill_the_disk(id),
            FaultKind::FsyncError => self.let_syncs_fail(id),
            FaultKind::Corrupt => self.turn_a_bit(id, strike.draw),
            FaultKind::Partition => self.cut(strike),
            FaultKind::SlowLink => self.slow_down(strike),
            FaultKind::ClockJump => self.set_the_clock(id, strike.draw),
            kind => bail!("{kind} does not begin and end"),
        }
    }

    async fn end(&mut self, strike: Strike) -> Result<()> {
        let id = self.id(strike.victim);
        match strike.kind {
            FaultKind::Kill | FaultKind::Wipe | FaultKind::Corrupt => {
                self.cluster.broker(id).start()
            }
            FaultKind::Pause => self.cluster.broker(id).resume(),
            FaultKind::ZkKill => self.cluster.ensemble().launch(strike.victim),
            FaultKind::ZkAll => self.cluster.ensemble().start_all().await,
            FaultKind::DiskSlow => self.cluster.broker(id).disk_is_well(),
            FaultKind::DiskFull => self.empty_the_disk(id).await,
            FaultKind::FsyncError => self.replace_the_failed(id).await,
            FaultKind::Partition => self.mend_cuts(),
            FaultKind::SlowLink => self.speed_up(),
            FaultKind::ClockJump => self.cluster.broker(id).clock_is_right(),
            kind => bail!("{kind} does not begin and end"),
        }
    }
}
