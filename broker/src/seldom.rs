//! Saying seldom what happens often.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often one thing is said at most: a flood of connections must not become a flood of log lines.
const EVERY: Duration = Duration::from_secs(10);

/// One thing that is logged now and then, however often it happens.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    said: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// It happened: `Some` when it is time to say so, with how often it happened since it was said last, this time among them.
    pub fn happened(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < EVERY) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// The same thing, as it happens to many tasks.
#[derive(Debug, Default)]
pub(crate) struct SharedSeldom(Mutex<Seldom>);

impl SharedSeldom {
    /// As [`Seldom::happened`], now.
    pub fn happened(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).happened(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_said_at_once_and_then_counted() {
        let (mut flood, begin) = (Seldom::default(), Instant::now());
        assert_eq!(flood.happened(begin), Some(1));
        for _ in 0..99 {
            assert_eq!(flood.happened(begin + Duration::from_secs(9)), None);
        }
        assert_eq!(flood.happened(begin + EVERY), Some(100));
    }
}
