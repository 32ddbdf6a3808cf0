//! What a run ends with: a table of the faults, and one line of JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use bellwether_integration_tests::checker::Verdict;
use bellwether_integration_tests::gaps::median_and_worst;
use bellwether_integration_tests::recorder::Gaps;
use serde::Serialize;

/// The gaps of each kind of fault, alone or with another on top.
#[derive(Debug, Default)]
pub struct Table {
    faults: BTreeMap<String, Vec<Gaps>>,
}

impl Table {
    pub fn add(&mut self, fault: String, gaps: Gaps) {
        self.faults.entry(fault).or_default().push(gaps);
    }

    /// A row for each kind.
    pub fn rows(&self) -> Vec<Row> {
        self.faults.iter().map(|(fault, gaps)| Row::new(fault, gaps)).collect()
    }
}

/// One kind of fault: how often, and the longest gaps in milliseconds.
#[derive(Debug, Serialize)]
pub struct Row {
    pub fault: String,
    pub times: usize,
    pub confirm_gap_median_ms: u64,
    pub confirm_gap_worst_ms: u64,
    pub delivery_gap_median_ms: u64,
    pub delivery_gap_worst_ms: u64,
}

impl Row {
    fn new(fault: &str, gaps: &[Gaps]) -> Row {
        let of = |gap: fn(&Gaps) -> Duration| {
            let (median, worst) =
                median_and_worst(gaps.iter().map(gap).collect()).unwrap_or_default();
            (median.as_millis() as u64, worst.as_millis() as u64)
        };
        let (confirm_gap_median_ms, confirm_gap_worst_ms) = of(|gaps| gaps.confirms);
        let (delivery_gap_median_ms, delivery_gap_worst_ms) = of(|gaps| gaps.deliveries);
        Row {
            fault: fault.to_owned(),
            times: gaps.len(),
            confirm_gap_median_ms,
            confirm_gap_worst_ms,
            delivery_gap_median_ms,
            delivery_gap_worst_ms,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<25} {:>5}   {:^21}   {:^21}",
            "", "", "longest gap between", "longest gap between"
        )?;
        writeln!(
            f,
            "{:<25} {:>5}   {:^21}   {:^21}",
            "", "", "two confirms (ms)", "two deliveries (ms)"
        )?;
        writeln!(
            f,
            "{:<25} {:>5}   {:>10} {:>10}   {:>10} {:>10}",
            "fault", "times", "median", "worst", "median", "worst"
        )?;
        for row in self.rows() {
            writeln!(
                f,
                "{:<25} {:>5}   {:>10} {:>10}   {:>10} {:>10}",
                row.fault,
                row.times,
                row.confirm_gap_median_ms,
                row.confirm_gap_worst_ms,
                row.delivery_gap_median_ms,
                row.delivery_gap_worst_ms
            )?;
        }
        writeln!(f)
    }
}

/// The last line.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    ok: bool,
    seed: u64,
    seconds: u64,
    faults: Vec<Row>,
    #[serde(flatten)]
    verdict: &'a Verdict,
    /// Where history, logs and data folders are, if they were kept.
    kept: Option<&'a Path>,
}

impl<'a> Report<'a> {
    pub fn new(
        seed: u64,
        took: Duration,
        table: &Table,
        verdict: &'a Verdict,
        kept: Option<&'a Path>,
    ) -> Report<'a> {
        Report {
            ok: verdict.is_clean(),
            seed,
            seconds: took.as_secs(),
            faults: table.rows(),
            verdict,
            kept,
        }
    }
}
