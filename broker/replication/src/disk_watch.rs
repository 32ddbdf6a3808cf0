//! When a disk counts as stalling: no write or sync has returned for longer than a limit; and when it is fine again: none has taken
//! half as long for three times that.

use std::time::{Duration, Instant};

/// So many limits have to pass without a long sync before the disk is fine.
const CALM: u32 = 3;

/// What is to be said of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskNews {
    Stalls,
    /// Said again, for queues that could not act on it before.
    StillStalls,
    /// Syncs return, and have not been fine for long enough. Said again and again, too.
    Returns,
    Fine,
}

/// Watches one disk.
#[derive(Debug)]
pub struct DiskWatch {
    limit: Duration,
    /// How long it has to be fine.
    calm: Duration,
    /// The last time that it was not, while it counts as stalling.
    last_bad: Option<Instant>,
}

impl DiskWatch {
    /// One to which a disk stalls that is at one write or sync for `limit`.
    #[must_use]
    pub fn new(limit: Duration) -> DiskWatch {
        DiskWatch { limit, calm: limit * CALM, last_bad: None }
    }

    /// `busy`: since when the disk has been at what it is at, if it is at anything.
    pub fn look(&mut self, now: Instant, busy: Option<Duration>) -> Option<DiskNews> {
        let busy = busy.unwrap_or(Duration::ZERO);
        match self.last_bad {
            None if busy >= self.limit => {
                self.last_bad = Some(now);
                Some(DiskNews::Stalls)
            }
            None => None,
            // One that comes and goes by half is not fine: its leaderships would go to and fro.
            Some(_) if busy >= self.limit / 2 => {
                self.last_bad = Some(now);
                Some(DiskNews::StillStalls)
            }
            Some(bad) if now.duration_since(bad) >= self.calm => {
                self.last_bad = None;
                Some(DiskNews::Fine)
            }
            Some(_) => Some(DiskNews::Returns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);
    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_disk_stalls_after_the_limit_and_is_fine_only_after_three_of_them() {
        let mut watch = DiskWatch::new(LIMIT);
        let start = Instant::now();
        assert_eq!(watch.look(start, Some(ms(1_999))), None, "a long sync is no stall");
        assert_eq!(watch.look(start, Some(ms(2_000))), Some(DiskNews::Stalls));
        assert_eq!(watch.look(start + ms(250), Some(ms(2_250))), Some(DiskNews::StillStalls));
        let returns = Some(DiskNews::Returns);
        assert_eq!(watch.look(start + ms(500), None), returns, "for how long?");
        assert_eq!(watch.look(start + ms(6_000), Some(ms(10))), returns);
        assert_eq!(watch.look(start + ms(6_250), None), Some(DiskNews::Fine));
        assert_eq!(watch.look(start + ms(6_500), None), None);
    }

    #[test]
    fn a_disk_that_comes_and_goes_stalls_all_the_while() {
        let mut watch = DiskWatch::new(LIMIT);
        let mut now = Instant::now();
        assert_eq!(watch.look(now, Some(ms(3_000))), Some(DiskNews::Stalls));
        for _ in 0..10 {
            now += ms(5_000);
            assert_eq!(watch.look(now, None), Some(DiskNews::Returns));
            now += ms(900);
            assert_eq!(watch.look(now, Some(ms(1_000))), Some(DiskNews::StillStalls));
        }
    }
}
