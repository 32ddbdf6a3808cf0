//! What is shown to those who watch a broker.

use crate::config::{InvalidSetting, between};

/// Most queues with metrics of their own: each is some 15 lines of a scrape and as many series in a Prometheus.
pub const METRICS_QUEUES_MAX: usize = 10_000;

/// What is shown to those who watch a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Queues with metrics of their own, of those led here: patterns of names with `*` and `?`, separated by commas. Narrow it to
    /// the queues that matter when there are more than are shown. Default: `*`.
    pub queues: String,
    /// How many of them at most, the first by name: a series in Prometheus costs memory for as long as it is kept. Default: 100.
    pub queues_max: usize,
}

impl Default for Watch {
    fn default() -> Watch {
        Watch { queues: "*".to_owned(), queues_max: 100 }
    }
}

impl Watch {
    /// # Errors
    /// Names the setting that cannot be worked with, and what is allowed.
    pub(crate) fn check(&self) -> Result<(), InvalidSetting> {
        if self.queues.split(',').any(|pattern| pattern.trim().is_empty()) {
            return Err(InvalidSetting {
                key: "metrics-queues",
                given: format!("{:?}", self.queues),
                allowed: "write patterns of queue names, separated by commas, such as orders.*,billing; for none set metrics-queues-max to 0".to_owned(),
            });
        }
        between("metrics-queues-max", self.queues_max as u64, 0, METRICS_QUEUES_MAX as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pattern_is_refused_with_what_to_do_instead() {
        let watch = Watch { queues: "orders.*,".to_owned(), ..Watch::default() };
        let refused = watch.check().unwrap_err().to_string();
        assert!(refused.contains("metrics-queues") && refused.contains("metrics-queues-max to 0"));
        assert_eq!(Watch::default().check(), Ok(()));
    }
}
