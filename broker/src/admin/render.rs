//! Metrics as the Prometheus text format.

use std::fmt::Write as _;

use crate::memory::{Memory, Pool};
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
    render_memory(&mut text, &metrics.memory).expect("writing to a String cannot fail");
    text
}

/// One family for what the pools hold, one for what they may.
fn render_memory(text: &mut String, memory: &Memory) -> std::fmt::Result {
    let held = |pool| Some(memory.held(pool).get());
    let limit = |pool| memory.limit_of(pool);
    render_pools(text, "bellwether_memory_pool_bytes", "What a pool of memory holds.", &held)?;
    let name = "bellwether_memory_pool_limit_bytes";
    render_pools(text, name, "What a pool of memory may hold.", &limit)?;
    let name = "bellwether_memory_limit_bytes";
    writeln!(
        text,
        "# HELP {name} What all pools of memory may hold together.\n# TYPE {name} gauge"
    )?;
    writeln!(text, "{name} {}", memory.limit_of_all().unwrap_or(0))
}

fn render_pools(
    text: &mut String,
    name: &str,
    help: &str,
    bytes: &dyn Fn(Pool) -> Option<u64>,
) -> std::fmt::Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge")?;
    for pool in Pool::ALL {
        if let Some(bytes) = bytes(*pool) {
            writeln!(text, "{name}{{pool=\"{}\"}} {bytes}", pool.name())?;
        }
    }
    Ok(())
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
    fn every_pool_of_memory_is_shown_by_name() {
        let metrics = Metrics::default();
        metrics.memory.held(Pool::Outboxes).set(7);
        let text = render(&metrics);
        assert!(
            text.contains("\nbellwether_memory_pool_bytes{pool=\"client_outboxes\"} 7\n"),
            "{text}"
        );
        metrics.memory.limit(crate::memory::PoolLimits::split(100 << 20, 1 << 20, 3 << 20));
        let text = render(&metrics);
        for line in [
            "bellwether_memory_pool_limit_bytes{pool=\"publishes\"} 3145728",
            "bellwether_memory_limit_bytes 104857600",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

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
