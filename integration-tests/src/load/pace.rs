//! A steady rate, in small steps.

use std::time::{Duration, Instant};

/// Messages go out in steps of this length: short beside what is measured, long beside a timer's grain.
const STEP: Duration = Duration::from_millis(5);

/// Lets so many through a second.
#[derive(Debug)]
pub struct Pace {
    /// 0: as fast as possible.
    per_second: u32,
    begun: Instant,
    let_through: u64,
}

impl Pace {
    pub fn new(per_second: u32) -> Pace {
        Pace { per_second, begun: Instant::now(), let_through: 0 }
    }

    /// Waits for the turn of the next one. What a stall kept back is not made up for: the load stays bounded.
    pub async fn next(&mut self) {
        if self.per_second == 0 {
            return;
        }
        while self.due(self.begun.elapsed()) <= self.let_through {
            tokio::time::sleep(STEP).await;
        }
        self.let_through += 1;
        let due = self.due(self.begun.elapsed());
        self.let_through =
            self.let_through.max(due.saturating_sub(u64::from(self.per_second) / 10));
    }

    fn due(&self, elapsed: Duration) -> u64 {
        (elapsed.as_secs_f64() * f64::from(self.per_second)) as u64
    }
}
