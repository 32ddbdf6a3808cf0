//! Metrics as the Prometheus text format.

use std::fmt::Write as _;

use crate::metrics::{BUCKETS_MICROS, Histogram, Metric, Metrics};

/// All of `metrics` as text.
#[must_use]
pub fn render(metrics: &Metrics) -> String {
    let mut text = String::with_capacity(16 * 1024);
    for named in metrics.all() {
        let (name, help) = (named.name, named.help);
        let written = match named.metric {
            Metric::Counter(counter) => {
                write!(
                    text,
                    "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}\n",
                    counter.get()
                )
            }
            Metric::Gauge(gauge) => {
                write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {}\n", gauge.get())
            }
            Metric::Histogram(histogram) => {
                text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} histogram\n"));
                render_histogram(&mut text, name, histogram)
            }
        };
        written.expect("writing to a String cannot fail");
    }
    text
}

fn render_histogram(text: &mut String, name: &str, histogram: &Histogram) -> std::fmt::Result {
    let (counts, sum_micros) = histogram.read();
    let mut below = 0;
    for (bound, count) in BUCKETS_MICROS.iter().zip(counts) {
        below += count;
        writeln!(text, "{name}_bucket{{le=\"{}\"}} {below}", seconds(*bound))?;
    }
    let total: u64 = counts.iter().sum();
    writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {total}")?;
    writeln!(text, "{name}_sum {}", seconds(sum_micros))?;
    writeln!(text, "{name}_count {total}")
}

#[allow(clippy::cast_precision_loss)] // A sum of microseconds beyond 2^53 is 285 years.
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_histogram_is_cumulative_and_in_seconds() {
        let metrics = Metrics::default();
        metrics.journal_sync_seconds.observe(Duration::from_micros(170));
        metrics.journal_sync_seconds.observe(Duration::from_millis(2));
        let text = render(&metrics);
        for line in [
            "# TYPE bellwether_journal_sync_seconds histogram",
            "bellwether_journal_sync_seconds_bucket{le=\"0.0001\"} 0",
            "bellwether_journal_sync_seconds_bucket{le=\"0.00025\"} 1",
            "bellwether_journal_sync_seconds_bucket{le=\"0.0025\"} 2",
            "bellwether_journal_sync_seconds_bucket{le=\"+Inf\"} 2",
            "bellwether_journal_sync_seconds_sum 0.00217",
            "bellwether_journal_sync_seconds_count 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
