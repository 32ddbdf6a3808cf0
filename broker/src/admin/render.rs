//! Metrics as the Prometheus text format.

use std::fmt::{Display, Write as _};

use crate::memory::{Memory, Pool};
use crate::metrics::memory::{LIMIT, OF_POOLS};
use crate::metrics::process;
use crate::metrics::queues::{Column, OF_ALL, OF_FOLLOWERS, OF_QUEUES, ShardSample};
use crate::metrics::{BUCKETS_MICROS, Family, Histogram, Kind, Metric, Metrics};

/// All that is known now, as text: `sample` is what the shards say of their queues, if they do.
#[must_use]
pub fn render(metrics: &Metrics, sample: Option<&ShardSample>) -> String {
    let mut page = Page(String::with_capacity(32 * 1024));
    page.counted(metrics);
    if let Some(sample) = sample {
        page.queues(sample);
    }
    page.memory(&metrics.memory);
    page.process();
    page.0
}

/// A page that is being written.
struct Page(String);

impl Page {
    fn counted(&mut self, metrics: &Metrics) {
        let mut last = "";
        for named in metrics.all() {
            if named.name != last {
                self.begin(named.name, named.metric.kind(), named.help);
                last = named.name;
            }
            let label = named.label;
            let labels = label.as_slice();
            match named.metric {
                Metric::Counter(counter) => self.line(named.name, labels, counter.get()),
                Metric::Gauge(gauge) => self.line(named.name, labels, gauge.get()),
                Metric::Seconds(time) => self.line(named.name, labels, time.get().as_secs_f64()),
                Metric::Histogram(histogram) => self.histogram(named.name, labels, histogram),
            }
        }
    }

    fn queues(&mut self, sample: &ShardSample) {
        for (family, value) in OF_ALL {
            self.family(family);
            self.line(family.name, &[], value(sample));
        }
        self.table(OF_QUEUES, &sample.queues, |queue| {
            [("virtual_host", queue.virtual_host.to_string()), ("queue", queue.queue.to_string())]
        });
        let followers: Vec<_> = sample.followers.iter().collect();
        for (family, value) in OF_FOLLOWERS {
            self.family(family);
            for (broker, lag) in &followers {
                self.line(family.name, &[("follower", &broker.0.to_string())], value(lag));
            }
        }
    }

    /// One family after the other, as the format wants it, each with a line for every row.
    fn table<Row, Value: Display, const LABELS: usize>(
        &mut self,
        columns: &[Column<Row, Value>],
        rows: &[Row],
        labels: impl Fn(&Row) -> [(&'static str, String); LABELS],
    ) {
        let labelled: Vec<_> = rows.iter().map(|row| (labels(row), row)).collect();
        for (family, value) in columns {
            self.family(family);
            for (labels, row) in &labelled {
                let labels =
                    std::array::from_fn::<_, LABELS, _>(|at| (labels[at].0, labels[at].1.as_str()));
                self.line(family.name, &labels, value(row));
            }
        }
    }

    fn memory(&mut self, memory: &Memory) {
        for (family, value) in OF_POOLS {
            self.family(family);
            for pool in Pool::ALL {
                if let Some(value) = value(memory, *pool) {
                    self.line(family.name, &[("pool", pool.name())], value);
                }
            }
        }
        self.family(&LIMIT);
        self.line(LIMIT.name, &[], memory.limit_of_all().unwrap_or(0));
    }

    fn process(&mut self) {
        self.family(&process::BUILD);
        self.line(process::BUILD.name, &[("version", env!("CARGO_PKG_VERSION"))], 1);
        for (family, value) in process::FAMILIES.iter().zip(process::read()) {
            if let Some(value) = value {
                self.family(family);
                self.line(family.name, &[], number(value));
            }
        }
    }

    fn family(&mut self, family: &Family) {
        self.begin(family.name, family.kind, family.help);
    }

    fn begin(&mut self, name: &str, kind: Kind, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.as_str()));
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            self.write(format_args!("{before}{label}=\"{}\"", Escaped(text)));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        self.write(format_args!("{after} {value}\n"));
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let (counts, sum_micros) = histogram.read();
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (at, count) in counts.iter().enumerate() {
            below += count;
            let bound = BUCKETS_MICROS
                .get(at)
                .map_or("+Inf".to_owned(), |bound| seconds(*bound).to_string());
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.line(&bucket, &labels, below);
        }
        self.line(&format!("{name}_sum"), labels, seconds(sum_micros));
        self.line(&format!("{name}_count"), labels, below);
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("writing to a String cannot fail");
    }
}

/// The value of a label between its quotes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

fn number(value: f64) -> String {
    if value == f64::INFINITY { "+Inf".to_owned() } else { value.to_string() }
}

#[allow(clippy::cast_precision_loss)] // A sum of microseconds beyond 2^53 is 285 years.
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn assert_lines(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn every_pool_of_memory_is_shown_by_name() {
        let metrics = Metrics::default();
        metrics.memory.held(Pool::Outboxes).set(7);
        let text = render(&metrics, None);
        assert!(
            text.contains("\nbellwether_memory_pool_bytes{pool=\"client_outboxes\"} 7\n"),
            "{text}"
        );
        metrics.memory.limit(crate::memory::PoolLimits::split(100 << 20, 1 << 20, 3 << 20));
        let text = render(&metrics, None);
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
        let text = render(&metrics, None);
        assert_lines(
            &text,
            &[
                "# TYPE bellwether_journal_sync_seconds histogram",
                "bellwether_journal_sync_seconds_bucket{le=\"0.0001\"} 0",
                "bellwether_journal_sync_seconds_bucket{le=\"0.00025\"} 1",
                "bellwether_journal_sync_seconds_bucket{le=\"0.0025\"} 2",
                "bellwether_journal_sync_seconds_bucket{le=\"+Inf\"} 2",
                "bellwether_journal_sync_seconds_sum 0.00217",
                "bellwether_journal_sync_seconds_count 2",
            ],
        );
    }

    #[test]
    fn series_of_one_name_stand_together_below_one_head() {
        let metrics = Metrics::default();
        metrics.elections_leader_lost.add(3);
        metrics.coordinator_writes.observe(Duration::from_millis(2));
        metrics.coordinator_session_timeout.set(Duration::from_millis(2_500));
        let text = render(&metrics, None);
        assert_eq!(text.matches("# TYPE bellwether_elections_won_total counter").count(), 1);
        assert_lines(
            &text,
            &[
                "bellwether_elections_won_total{trigger=\"declared\"} 0",
                "bellwether_elections_won_total{trigger=\"leader_lost\"} 3",
                "bellwether_coordinator_request_seconds_bucket{request=\"write\",le=\"+Inf\"} 1",
                "bellwether_coordinator_request_seconds_count{request=\"write\"} 1",
                "bellwether_coordinator_session_timeout_seconds 2.5",
            ],
        );
    }

    #[test]
    fn the_text_of_a_label_cannot_end_it() {
        let mut page = Page(String::new());
        page.begin("m", Kind::Gauge, "a \\ and\na line");
        page.line("m", &[("queue", "say \"no\"\\\n")], 1);
        assert_eq!(
            page.0,
            "# HELP m a \\\\ and\\na line\n# TYPE m gauge\nm{queue=\"say \\\"no\\\"\\\\\\n\"} 1\n"
        );
    }
}
