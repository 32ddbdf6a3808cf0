//! What becomes of published messages: counts by outcome, latencies, and the longest silence.

use std::time::{Duration, Instant};

use bellwether_client::{Outcome, PublishError, Receipt};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::outcome::Failure;

/// Longest latency that is told from longer ones, in microseconds: an hour.
const MICROS_MAX: u64 = 3_600_000_000;
/// Receipts whose outcome is waited for. The producer's own window is what bounds them; this is only room for it.
const RECEIPTS_MAX: usize = 4_096;

/// What became of the messages of one producer.
#[derive(Debug)]
pub struct Outcomes {
    pub confirmed: u64,
    pub not_done: u64,
    pub unknown: u64,
    /// The first that failed.
    pub first_failure: Option<PublishError>,
    /// From sending to the confirm, in microseconds.
    pub latency: Histogram<u64>,
    /// The longest time without any confirm, between the first and the last.
    pub longest_gap: Duration,
    last_confirm: Option<Instant>,
}

/// Takes receipts in the order of sending, and waits for them.
#[derive(Debug)]
pub struct Confirms {
    receipts: mpsc::Sender<(Receipt, Instant)>,
    collecting: JoinHandle<Outcomes>,
}

impl Confirms {
    /// `told` hears of each message, by its number from zero, whether it was confirmed.
    pub fn collect(mut told: impl FnMut(u64, bool) + Send + 'static) -> Confirms {
        let (receipts, mut coming) = mpsc::channel::<(Receipt, Instant)>(RECEIPTS_MAX);
        let collecting = tokio::spawn(async move {
            let mut outcomes = Outcomes::none();
            let mut number = 0;
            while let Some((receipt, sent)) = coming.recv().await {
                let outcome = receipt.await;
                told(number, outcome.is_ok());
                outcomes.count(outcome, sent);
                number += 1;
            }
            outcomes
        });
        Confirms { receipts, collecting }
    }

    /// One more, sent at `sent`.
    pub async fn expect(&self, receipt: Receipt, sent: Instant) -> Result<(), Failure> {
        let taken = self.receipts.send((receipt, sent)).await;
        taken.map_err(|_| Failure::not_done("the collector of confirms has ended"))
    }

    /// Waits for all of them.
    pub async fn finish(self) -> Result<Outcomes, Failure> {
        drop(self.receipts);
        self.collecting.await.map_err(|error| {
            Failure::NotDone(format!("the collector of confirms has failed: {error}"))
        })
    }
}

impl Outcomes {
    fn none() -> Outcomes {
        Outcomes {
            confirmed: 0,
            not_done: 0,
            unknown: 0,
            first_failure: None,
            latency: histogram(),
            longest_gap: Duration::ZERO,
            last_confirm: None,
        }
    }

    fn count(&mut self, outcome: Result<(), PublishError>, sent: Instant) {
        let Err(error) = outcome else {
            self.confirmed += 1;
            let now = Instant::now();
            self.latency.saturating_record(micros(now - sent));
            if let Some(last) = self.last_confirm.replace(now) {
                self.longest_gap = self.longest_gap.max(now - last);
            }
            return;
        };
        match error.outcome() {
            Outcome::NotDone => self.not_done += 1,
            Outcome::Unknown => self.unknown += 1,
        }
        self.first_failure.get_or_insert(error);
    }

    /// Nothing when all were confirmed; unknown outweighs not done.
    pub fn verdict(self) -> Result<(), Failure> {
        let Some(first) = self.first_failure else { return Ok(()) };
        let words = match (self.not_done, self.unknown) {
            (1, 0) => format!("one message was not stored: {first}"),
            (0, 1) => format!("one message is perhaps stored: {first}"),
            (failed, 0) => format!("{failed} messages were not stored; the first: {first}"),
            (0, unknown) => format!("{unknown} messages are perhaps stored; the first: {first}"),
            (failed, unknown) => format!(
                "{failed} of the messages were not stored, {unknown} perhaps; the first: {first}"
            ),
        };
        Err(if self.unknown > 0 { Failure::Unknown(words) } else { Failure::NotDone(words) })
    }
}

/// For latencies up to an hour, to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MICROS_MAX, 3)
        .expect("the bounds are in order and the precision is below 6")
}

/// `took` in microseconds, at least one.
pub fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1)
}

/// Percentiles in milliseconds.
pub fn percentiles_json(latency: &Histogram<u64>) -> Value {
    let at = |quantile: f64| milliseconds(latency.value_at_quantile(quantile));
    json!({ "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": milliseconds(latency.max()) })
}

/// Percentiles for people.
pub fn percentiles_text(latency: &Histogram<u64>) -> String {
    let at = |quantile: f64| milliseconds(latency.value_at_quantile(quantile));
    let max = milliseconds(latency.max());
    format!(
        "p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {max:.1} ms",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999)
    )
}

/// To three digits behind the point: finer than anything measured here.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[allow(clippy::cast_precision_loss)] // An hour of microseconds is far below 2^53.
fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// How many a second; zero for no time at all.
#[allow(clippy::cast_precision_loss)] // For people; nobody counts 2^53 messages here.
pub fn rate(count: u64, took: Duration) -> f64 {
    if took.is_zero() { 0.0 } else { count as f64 / took.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(failures: Vec<PublishError>) -> Outcomes {
        let mut outcomes = Outcomes::none();
        outcomes.count(Ok(()), Instant::now());
        for failure in failures {
            outcomes.count(Err(failure), Instant::now());
        }
        outcomes
    }

    #[test]
    fn unknown_is_never_reported_as_not_done() {
        let refused = || PublishError::Closed { reason: "x".into() };
        let unknown = || PublishError::Unconfirmed { message: "y".into() };
        assert!(outcomes(vec![]).verdict().is_ok());
        assert!(matches!(outcomes(vec![refused()]).verdict(), Err(Failure::NotDone(_))));
        assert!(matches!(outcomes(vec![refused(), unknown()]).verdict(), Err(Failure::Unknown(_))));
        assert!(matches!(outcomes(vec![unknown()]).verdict(), Err(Failure::Unknown(_))));
    }
}
