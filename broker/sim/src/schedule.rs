//! Simulated time: what happens next, and when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Happenings in the order of their times; at the same time, in the order in which they were scheduled.
#[derive(Debug)]
pub struct Schedule<H> {
    origin: Instant,
    now_us: u64,
    next: u64,
    happenings: BTreeMap<(u64, u64), H>,
}

impl<H> Schedule<H> {
    #[must_use]
    pub fn new() -> Schedule<H> {
        // Far enough from the clock's zero that no duration reaches back before it.
        let origin = Instant::now() + Duration::from_secs(3600);
        Schedule { origin, now_us: 0, next: 0, happenings: BTreeMap::new() }
    }

    /// Microseconds since the beginning.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The time as the machines are told it. Only differences between such times mean anything.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.origin + Duration::from_micros(self.now_us)
    }

    pub fn at(&mut self, time_us: u64, happening: H) {
        self.happenings.insert((time_us.max(self.now_us), self.next), happening);
        self.next += 1;
    }

    pub fn after(&mut self, delay_us: u64, happening: H) {
        self.at(self.now_us + delay_us, happening);
    }

    /// The next happening; time moves on to it. Time is not taken past `until_us`.
    pub fn next(&mut self, until_us: u64) -> Option<H> {
        let (&(time_us, _), _) = self.happenings.first_key_value()?;
        if time_us > until_us {
            self.now_us = until_us;
            return None;
        }
        self.now_us = time_us;
        self.happenings.pop_first().map(|(_, happening)| happening)
    }
}

impl<H> Default for Schedule<H> {
    fn default() -> Self {
        Schedule::new()
    }
}
