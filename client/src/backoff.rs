//! How long to wait before trying again: soon at first, because a new leader is named within milliseconds,
//! and less and less often later. Jittered, so that clients do not come back in step.

use std::time::Duration;

use rand::Rng;

/// The first wait.
const FIRST: Duration = Duration::from_millis(10);

/// Waits grow only to this while the trouble is young: a failover takes well under a second, and a longer wait
/// would add to the gap that the application sees.
const EARLY_MAX: Duration = Duration::from_millis(40);

/// How long trouble counts as young, as a sum of waits.
const EARLY_FOR: Duration = Duration::from_secs(3);

/// Waits never grow beyond this.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Successive waits of one piece of trouble.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    last: Duration,
    sum: Duration,
}

impl Backoff {
    /// The next wait: twice the last one within the limits, and then between half of it and all of it.
    pub(crate) fn next(&mut self) -> Duration {
        let longest = if self.sum < EARLY_FOR { EARLY_MAX } else { WAIT_MAX };
        self.last = (self.last * 2).clamp(FIRST, longest);
        let wait = self.last.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.sum += wait;
        wait
    }

    /// The trouble is over.
    pub(crate) fn reset(&mut self) {
        *self = Backoff::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_waits_are_short_and_the_later_ones_grow_to_a_second() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..200).map(|_| backoff.next()).collect();
        assert!(waits[0] <= FIRST);
        assert!(waits[..20].iter().all(|wait| *wait <= EARLY_MAX));
        assert!(waits.iter().all(|wait| *wait >= FIRST / 2 && *wait <= WAIT_MAX));
        assert!(waits[150..].iter().all(|wait| *wait >= WAIT_MAX / 2));
    }
}
