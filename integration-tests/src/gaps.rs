//! How long the flow of confirms or deliveries stood still: what a user feels of a fault.

use std::time::{Duration, Instant};

/// Watches one flow. Between [`Flow::watch`] and [`Flow::longest`] it remembers the longest time without an event,
/// the time before the first and after the last of them included.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    since: Instant,
    last: Instant,
    /// The longest, and how long after the beginning of the watch it began.
    longest: (Duration, Duration),
    events: u64,
}

impl Flow {
    /// Watches from `now` on.
    #[must_use]
    pub fn watch(now: Instant) -> Flow {
        Flow { since: now, last: now, longest: Default::default(), events: 0 }
    }

    /// Something flowed.
    pub fn event(&mut self, now: Instant) {
        self.longest = self.with_present(now);
        self.last = self.last.max(now);
        self.events += 1;
    }

    /// The longest gap up to `now`.
    #[must_use]
    pub fn longest(&self, now: Instant) -> Duration {
        self.with_present(now).0
    }

    /// How long after the beginning of the watch that one began: what begins seconds after a fault was healed is not felt of it.
    #[must_use]
    pub fn longest_began(&self, now: Instant) -> Duration {
        self.with_present(now).1
    }

    fn with_present(&self, now: Instant) -> (Duration, Duration) {
        let present = now.saturating_duration_since(self.last);
        if present <= self.longest.0 {
            return self.longest;
        }
        (present, self.last.saturating_duration_since(self.since))
    }

    /// How many events there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }
}

/// The median and the largest of some gaps; nothing when there are none.
#[must_use]
pub fn median_and_worst(mut gaps: Vec<Duration>) -> Option<(Duration, Duration)> {
    gaps.sort_unstable();
    Some((*gaps.get(gaps.len() / 2)?, *gaps.last()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_counts_the_time_before_the_first_and_after_the_last_event() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut flow = Flow::watch(start);
        assert_eq!(flow.longest(after(70)), Duration::from_millis(70));
        flow.event(after(30));
        flow.event(after(80));
        assert_eq!(flow.longest(after(90)), Duration::from_millis(50));
        assert_eq!(flow.longest(after(190)), Duration::from_millis(110));
        assert_eq!(flow.longest_began(after(90)), Duration::from_millis(30));
        assert_eq!(flow.longest_began(after(190)), Duration::from_millis(80));
        assert_eq!(flow.events(), 2);
    }

    #[test]
    fn the_median_is_the_middle_one() {
        let gaps = [5, 1, 9].map(Duration::from_millis).to_vec();
        assert_eq!(
            median_and_worst(gaps),
            Some((Duration::from_millis(5), Duration::from_millis(9)))
        );
        assert_eq!(median_and_worst(Vec::new()), None);
    }
}
