//! Watches the journal's thread from outside: a disk that answers nothing for a third of the session time-out makes this
//! broker give its leaderships up while it still can, and take none until its disk has been fine for three times as long.

mod announce;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_journal::JournalMetrics;
use bellwether_replication::{DiskNews, DiskWatch};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{Health, Trouble};
use crate::metrics::Metrics;
use crate::shard::Shards;
use crate::shard::input::ShardInput;

pub(crate) use announce::announce;

/// The part of the session time-out after which a disk stalls: soon enough that elections are over before anybody would give
/// this broker up, late enough that a long sync of a busy disk is none.
const STALLS_AFTER: u32 = 3;

/// Never sooner: with short sessions a sync that is merely slow would cost leaderships.
const STALLS_AFTER_MIN: Duration = Duration::from_secs(2);

/// How often it is looked, as a part of that.
const LOOKS: u32 = 8;

/// What it looks at, and whom it tells.
pub(crate) struct Surroundings {
    pub journal: Arc<JournalMetrics>,
    pub shards: Shards,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    /// From the first moment on at which a disk stalls until it is fine: for the other brokers.
    pub stalls: watch::Sender<bool>,
}

/// Until `stop`.
pub(crate) async fn watch(
    surroundings: Surroundings,
    session_timeout: Duration,
    stop: CancellationToken,
) {
    let limit = limit_in(session_timeout);
    let mut watch = DiskWatch::new(limit);
    let mut every = tokio::time::interval(limit / LOOKS);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.cancelled() => return,
        }
        let busy = surroundings.journal.busy_for();
        if let Some(told) = watch.look(Instant::now(), busy) {
            surroundings.tell(told, busy, limit).await;
        }
    }
}

impl Surroundings {
    async fn tell(&self, told: DiskNews, busy: Option<Duration>, limit: Duration) {
        let trouble = Trouble::DiskStalls;
        match told {
            DiskNews::Stalls => {
                warn!(
                    ?busy,
                    ?limit,
                    "the disk stalls: no write or sync returns. Leaderships are given up where another in-sync copy can take them; look at the disk"
                );
                self.metrics.disk_stalled.set(1);
                self.metrics.disk_stalls.increment();
                self.health.raise(trouble);
                self.stalls.send_replace(true);
            }
            DiskNews::StillStalls | DiskNews::Returns => {}
            DiskNews::Fine => {
                info!("the disk has been fine for a while: leaderships are taken again");
                self.metrics.disk_stalled.set(0);
                self.health.clear(&trouble);
                self.stalls.send_replace(false);
            }
        }
        for shard in self.shards.all() {
            let input = match told {
                DiskNews::Stalls | DiskNews::StillStalls => ShardInput::DiskStalls(true),
                DiskNews::Returns => ShardInput::DiskReturns,
                DiskNews::Fine => ShardInput::DiskStalls(false),
            };
            shard.send(input).await;
        }
    }
}

fn limit_in(session_timeout: Duration) -> Duration {
    (session_timeout / STALLS_AFTER).max(STALLS_AFTER_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_session_is_a_stall_but_with_a_short_session_a_slow_sync_is_none() {
        assert_eq!(limit_in(Duration::from_secs(18)), Duration::from_secs(6));
        assert_eq!(limit_in(Duration::from_millis(400)), Duration::from_secs(2));
    }
}
