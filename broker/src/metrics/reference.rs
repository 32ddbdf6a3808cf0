//! The list of all metrics, and docs/metrics.md made of it.

use std::fmt::Write as _;

use super::queues::{OF_ALL, OF_FOLLOWERS, OF_QUEUES};
use super::{Metric, Metrics, memory, process};

/// What kind of value a metric has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// All series of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

impl Metric<'_> {
    /// What kind of value it has.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Metric::Counter(_) => Kind::Counter,
            Metric::Gauge(_) | Metric::Seconds(_) => Kind::Gauge,
            Metric::Histogram(_) => Kind::Histogram,
        }
    }
}

/// What a broker counts itself.
fn counted() -> Vec<Family> {
    let metrics = Metrics::default();
    let mut families: Vec<Family> = Vec::new();
    for named in metrics.all() {
        if families.last().is_some_and(|last| last.name == named.name) {
            continue;
        }
        let labels = labels_of(named.label.map(|(name, _)| name));
        families.push(Family {
            name: named.name,
            kind: named.metric.kind(),
            labels,
            help: named.help,
        });
    }
    families
}

/// The label as a list that lives as long as the program.
fn labels_of(label: Option<&'static str>) -> &'static [&'static str] {
    match label {
        None => &[],
        Some("trigger") => &["trigger"],
        Some("request") => &["request"],
        Some("change") => &["change"],
        Some("kind") => &["kind"],
        Some(other) => unreachable!("the label {other} is not in the list of labels"),
    }
}

fn of_columns<Row, Value>(columns: &[super::queues::Column<Row, Value>]) -> Vec<Family> {
    columns.iter().map(|(family, _)| *family).collect()
}

/// Every metric that a broker has.
#[must_use]
pub fn families() -> Vec<Family> {
    sections().into_iter().flat_map(|(_, _, families)| families).collect()
}

/// By what they are taken from: title, introduction, metrics.
fn sections() -> Vec<(&'static str, &'static str, Vec<Family>)> {
    let mut process = vec![process::BUILD];
    process.extend(process::FAMILIES);
    vec![
        (
            "The broker",
            "Each broker counts what it does itself. A histogram is rendered in seconds, with `_bucket`, `_sum` and `_count`.",
            counted(),
        ),
        (
            "Queues led here, all together",
            "Whatever `metrics-queues` selects. The sum over all brokers is that of the cluster: every queue is counted by its leader alone.",
            of_columns(OF_ALL),
        ),
        (
            "Single queues",
            "For the queues led here whose names match `metrics-queues`, the first `metrics-queues-max` of them by name. Each is shown by its leader alone, so that no series is doubled; \
             a counter stands still while another broker leads and goes on when the leadership comes back, so `sum without (instance) (rate(…))` is the queue's rate.",
            of_columns(OF_QUEUES),
        ),
        (
            "Followers",
            "Of copies of queues led here, by the number of the broker that is to hold them.",
            of_columns(OF_FOLLOWERS),
        ),
        (
            "Memory",
            "What the broker holds, in pools; [Memory](operations.md#memory) says what is in each and what happens when it is full.",
            memory::OF_POOLS.iter().map(|(family, _)| *family).chain([memory::LIMIT]).collect(),
        ),
        ("The process", "What the system says of it.", process),
    ]
}

/// The text of docs/metrics.md.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         <!-- Made by `bellwether serve --print-metrics`: change broker/src/metrics.rs and what lies below it, and make this file anew. -->\n\n\
         What a broker shows under `/metrics` of its `admin-listen`, in the Prometheus text format. Names and units are stable: one that changes is named in the changelog. \
         Units are seconds and bytes; what ends in `_total` only grows while the process lives. What to do when one of them is wrong stands under \
         [Alerts](operations.md#alerts).\n",
    );
    for (title, introduction, families) in sections() {
        write!(text, "\n## {title}\n\n{introduction}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n")
            .expect("writing to a String cannot fail");
        for Family { name, kind, labels, help } in families {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let (kind, labels) = (kind.as_str(), labels.join(", "));
            writeln!(text, "| `{name}` | {kind} | {labels} | {help} |")
                .expect("writing to a String cannot fail");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_used_once_and_says_its_unit() {
        let mut names = std::collections::HashSet::new();
        for Family { name, kind, .. } in families() {
            assert!(
                names.insert(name),
                "{name} is there twice, or its rows do not follow each other"
            );
            assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            let strange = ["_ms", "milliseconds", "micros", "_mb", "kilobytes", "percent"];
            assert!(strange.iter().all(|unit| !name.contains(unit)), "{name} is in no base unit");
        }
    }

    #[test]
    fn the_reference_in_the_documentation_is_that_of_the_code() {
        let written = include_str!("../../../docs/metrics.md");
        assert!(
            written == reference(),
            "docs/metrics.md is outdated; make it anew: bellwether serve --print-metrics > docs/metrics.md"
        );
    }
}
