//! What flowed in each second of a run, and how long confirms took.

use std::time::Duration;

/// A day and a quarter; what comes later is not drawn.
const SECONDS_MAX: usize = 110_000;
/// Latencies are told apart to a quarter of their power of two.
const STEPS: usize = 4;
/// Up to 2^27 microseconds, more than two minutes: deadlines are shorter.
const BUCKETS: usize = 28 * STEPS;

/// Numbers of latencies, by how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latencies {
    buckets: [u32; BUCKETS],
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies { buckets: [0; BUCKETS] }
    }
}

impl Latencies {
    /// One more.
    pub fn add(&mut self, latency: Duration) {
        let us = (latency.as_micros() as u64).max(1);
        let power = us.ilog2() as usize;
        let step = ((us << 2) >> power) as usize % STEPS;
        self.buckets[(power * STEPS + step).min(BUCKETS - 1)] += 1;
    }

    /// Those of another one, too.
    pub fn merge(&mut self, other: &Latencies) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
    }

    /// The latency that this part of them, from 0 to 1, does not exceed by more than a quarter. Nothing when there are none.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let all: u64 = self.buckets.iter().map(|&count| u64::from(count)).sum();
        let wanted = ((all as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted && *count > 0 {
                let (power, step) = (bucket / STEPS, bucket % STEPS);
                let us = (1_u64 << power) as f64 * (1.0 + step as f64 / STEPS as f64);
                return Some(Duration::from_micros(us as u64));
            }
        }
        None
    }
}

/// One second, or several together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flowed {
    pub confirms: u64,
    pub deliveries: u64,
    pub latencies: Latencies,
}

/// Second by second.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    seconds: Vec<Flowed>,
}

impl Timeline {
    /// A confirm, that took so long if that is known.
    pub fn confirmed(&mut self, at: Duration, took: Duration) {
        if let Some(second) = self.second(at) {
            second.confirms += 1;
            second.latencies.add(took);
        }
    }

    /// A delivery.
    pub fn delivered(&mut self, at: Duration) {
        if let Some(second) = self.second(at) {
            second.deliveries += 1;
        }
    }

    /// In spans of equal length, as few as need be and `spans_max` at most; and that length in seconds.
    #[must_use]
    pub fn spans(&self, spans_max: usize) -> (Vec<Flowed>, u64) {
        let length = self.seconds.len().div_ceil(spans_max.max(1)).max(1);
        let spans = self.seconds.chunks(length).map(|seconds| {
            let mut sum = Flowed::default();
            for second in seconds {
                sum.confirms += second.confirms;
                sum.deliveries += second.deliveries;
                sum.latencies.merge(&second.latencies);
            }
            sum
        });
        (spans.collect(), length as u64)
    }

    fn second(&mut self, at: Duration) -> Option<&mut Flowed> {
        let at = at.as_secs() as usize;
        if at >= SECONDS_MAX {
            return None;
        }
        if at >= self.seconds.len() {
            self.seconds.resize_with(at + 1, Flowed::default);
        }
        self.seconds.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_quarter() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), None);
        for ms in 1..=1_000 {
            latencies.add(Duration::from_millis(ms));
        }
        for (part, ms) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let found = latencies.quantile(part).unwrap().as_secs_f64() * 1_000.0;
            assert!((ms * 0.75..=ms).contains(&found), "{part}: {found}");
        }
        latencies.add(Duration::from_secs(10_000));
        latencies.add(Duration::ZERO);
    }

    #[test]
    fn seconds_are_put_together_when_there_are_many() {
        let mut timeline = Timeline::default();
        for second in 0..10 {
            timeline.confirmed(Duration::from_secs(second), Duration::from_millis(1));
        }
        timeline.delivered(Duration::from_secs(9));
        let (spans, length) = timeline.spans(4);
        assert_eq!(length, 3);
        assert_eq!(spans.iter().map(|span| span.confirms).collect::<Vec<_>>(), [3, 3, 3, 1]);
        assert_eq!(spans[3].deliveries, 1);
    }
}
