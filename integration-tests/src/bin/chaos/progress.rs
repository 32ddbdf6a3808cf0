//! The faults of a run as they come: a line for each while it goes on, and what is told of them at the end.

use std::time::{Duration, Instant};

use bellwether_integration_tests::recorder::{Gaps, Recorder};

use crate::page::Band;
use crate::report::Table;

/// With so many broken promises there is nothing more to learn from the rest of the run.
const VIOLATIONS_ENOUGH: u64 = 1_000;

/// What has gone wrong so far.
#[derive(Debug)]
pub struct Faults {
    begun: Instant,
    until: Duration,
    pub table: Table,
    pub bands: Vec<Band>,
}

impl Faults {
    /// None yet; no more are begun after so long.
    pub fn until(until: Duration) -> Faults {
        Faults { begun: Instant::now(), until, table: Table::default(), bands: Vec::new() }
    }

    /// Whether there are to be no more.
    pub fn are_over(&self, recorder: &Recorder) -> bool {
        self.begun.elapsed() >= self.until || recorder.progress().violations >= VIOLATIONS_ENOUGH
    }

    /// One begins; says when.
    pub fn begin(&mut self, recorder: &Recorder, words: &str) -> Band {
        let progress = recorder.progress();
        println!(
            "{:6.1} s  {words:<42} {:>8} confirmed {:>8} delivered {:>3} violations",
            self.begun.elapsed().as_secs_f64(),
            progress.confirmed,
            progress.delivered,
            progress.violations
        );
        let from = recorder.elapsed();
        Band { from, to: from, words: words.to_owned() }
    }

    /// It is healed, and everything flows.
    pub fn end(&mut self, recorder: &Recorder, begun: Band, name: String, gaps: Gaps) {
        self.bands.push(Band { to: recorder.elapsed(), ..begun });
        self.table.add(name, gaps);
    }
}
