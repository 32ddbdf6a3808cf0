//! What a run says when it is over: a table, what was violated, a line of JSON, and the page.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use bellwether_integration_tests::checker::Verdict;
use bellwether_integration_tests::timeline::Timeline;

use crate::leaders::Reign;
use crate::page::Page;
use crate::progress::Faults;
use crate::report::Report;

/// Violations that are printed; the JSON line has more, and their number.
const PRINTED_MAX: usize = 20;

/// Everything there is to tell.
pub struct Ending {
    pub facts: String,
    pub seed: u64,
    pub took: Duration,
    pub queues: Vec<String>,
    pub reigns: Vec<Reign>,
    pub timeline: Timeline,
    pub faults: Faults,
    pub verdict: Verdict,
    /// The folder, if it stays.
    pub kept: Option<PathBuf>,
}

impl Ending {
    /// Tells it; the page goes to `page`, if that is wanted.
    pub fn tell(&self, page: Option<&Path>) -> Result<()> {
        print!("{}", self.faults.table);
        for evidence in self.verdict.evidence.iter().take(PRINTED_MAX) {
            println!("VIOLATED {evidence}");
        }
        if let Some(folder) = &self.kept {
            println!("kept: {}", folder.display());
        }
        if let Some(file) = page {
            std::fs::write(file, self.page().html())
                .with_context(|| format!("writing {}", file.display()))?;
            println!("page: {}", file.display());
        }
        let report = Report::new(
            self.seed,
            self.took,
            &self.faults.table,
            &self.verdict,
            self.kept.as_deref(),
        );
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }

    fn page(&self) -> Page<'_> {
        Page {
            facts: format!("{}; {} seconds", self.facts, self.took.as_secs()),
            timeline: &self.timeline,
            bands: &self.faults.bands,
            queues: &self.queues,
            reigns: &self.reigns,
            table: &self.faults.table,
            verdict: &self.verdict,
        }
    }
}
