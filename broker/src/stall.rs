//! Watches the journal's thread from outside: a disk that answers nothing for a third of the session time-out makes this
//! broker give its leaderships up while it still can, and take none until its disk has been fine for three times as long.

use std::sync::Arc;
use std::time::Duration;

use bellwether_journal::JournalMetrics;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{Health, Trouble};
use crate::metrics::Metrics;
use crate::shard::Shards;
use crate::shard::input::ShardInput;

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
}

/// Until `stop`.
pub(crate) async fn watch(
    surroundings: Surroundings,
    session_timeout: Duration,
    stop: CancellationToken,
) {
    let mut watch = Watch::new(session_timeout);
    let mut every = tokio::time::interval(watch.limit / LOOKS);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.cancelled() => return,
        }
        let busy = surroundings.journal.busy_for();
        if let Some(told) = watch.look(Instant::now(), busy) {
            surroundings.tell(told, busy, watch.limit).await;
        }
    }
}

impl Surroundings {
    async fn tell(&self, told: Told, busy: Option<Duration>, limit: Duration) {
        let trouble = Trouble::DiskStalls;
        match told {
            Told::Stalls => {
                warn!(
                    ?busy,
                    ?limit,
                    "the disk stalls: no write or sync returns. Leaderships are given up where another in-sync copy can take them; look at the disk"
                );
                self.metrics.disk_stalled.set(1);
                self.metrics.disk_stalls.increment();
                self.health.raise(trouble);
            }
            Told::StillStalls | Told::Returns => {}
            Told::Fine => {
                info!("the disk has been fine for a while: leaderships are taken again");
                self.metrics.disk_stalled.set(0);
                self.health.clear(&trouble);
            }
        }
        for shard in self.shards.all() {
            let input = match told {
                Told::Stalls | Told::StillStalls => ShardInput::DiskStalls(true),
                Told::Returns => ShardInput::DiskReturns,
                Told::Fine => ShardInput::DiskStalls(false),
            };
            shard.send(input).await;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Stalls,
    /// Said again, for queues that could not act on it before.
    StillStalls,
    /// Syncs return, and have not been fine for long enough. Said again and again, too.
    Returns,
    Fine,
}

/// When a disk stalls and when it is fine again.
struct Watch {
    limit: Duration,
    /// How long it has to be fine.
    calm: Duration,
    /// The last time that it was not, while it counts as stalling.
    last_bad: Option<Instant>,
}

impl Watch {
    fn new(session_timeout: Duration) -> Watch {
        let limit = (session_timeout / STALLS_AFTER).max(STALLS_AFTER_MIN);
        Watch { limit, calm: limit * STALLS_AFTER, last_bad: None }
    }

    /// `busy`: since when the journal's thread has been at what it is at.
    fn look(&mut self, now: Instant, busy: Option<Duration>) -> Option<Told> {
        let busy = busy.unwrap_or(Duration::ZERO);
        match self.last_bad {
            None if busy >= self.limit => {
                self.last_bad = Some(now);
                Some(Told::Stalls)
            }
            None => None,
            // One that comes and goes by half is not fine: its leaderships would go to and fro.
            Some(_) if busy >= self.limit / 2 => {
                self.last_bad = Some(now);
                Some(Told::StillStalls)
            }
            Some(bad) if now.duration_since(bad) >= self.calm => {
                self.last_bad = None;
                Some(Told::Fine)
            }
            Some(_) => Some(Told::Returns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(6);
    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_disk_stalls_after_a_third_of_the_session_and_is_fine_only_after_a_whole_one() {
        let mut watch = Watch::new(SESSION);
        let start = Instant::now();
        assert_eq!(watch.look(start, Some(ms(1_999))), None, "a long sync is no stall");
        assert_eq!(watch.look(start, Some(ms(2_000))), Some(Told::Stalls));
        assert_eq!(watch.look(start + ms(250), Some(ms(2_250))), Some(Told::StillStalls));
        let returns = Some(Told::Returns);
        assert_eq!(watch.look(start + ms(500), None), returns, "for how long?");
        assert_eq!(watch.look(start + ms(6_000), Some(ms(10))), returns);
        assert_eq!(watch.look(start + ms(6_250), None), Some(Told::Fine));
        assert_eq!(watch.look(start + ms(6_500), None), None);
    }

    #[test]
    fn with_a_short_session_a_slow_sync_is_no_stall() {
        let mut watch = Watch::new(ms(400));
        assert_eq!(watch.look(Instant::now(), Some(ms(1_900))), None);
        assert_eq!(watch.look(Instant::now(), Some(ms(2_000))), Some(Told::Stalls));
    }

    #[test]
    fn a_disk_that_comes_and_goes_stalls_all_the_while() {
        let mut watch = Watch::new(SESSION);
        let mut now = Instant::now();
        assert_eq!(watch.look(now, Some(ms(3_000))), Some(Told::Stalls));
        for _ in 0..10 {
            now += ms(5_000);
            assert_eq!(watch.look(now, None), Some(Told::Returns));
            now += ms(900);
            assert_eq!(watch.look(now, Some(ms(1_000))), Some(Told::StillStalls));
        }
    }
}
