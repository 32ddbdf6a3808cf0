//! What is shown to those who watch a broker.

use std::fmt;
use std::str::FromStr;

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
    /// Where spans of traced messages are sent: a collector that takes OTLP over HTTP. Default: nowhere.
    pub otlp_endpoint: Option<String>,
    /// Which part of the traces that producers sample is taken: less when they are more than the collector can bear. All
    /// brokers take the same ones when they have the same setting. Default: all.
    pub trace_sample: Ratio,
}

/// A part of something, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio(u32);

impl Ratio {
    pub const ALL: Ratio = Ratio(1_000_000);

    /// Whether this trace is of the part. The lower half of its id is random, and the same for every broker.
    #[must_use]
    pub fn takes(self, trace: [u8; 16]) -> bool {
        let [.., a, b, c, d, e, f, g, h] = trace;
        let random = u128::from(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
        (random * 1_000_000) >> 64 < u128::from(self.0)
    }
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Ratio, String> {
        let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        let ratio = ratio
            .ok_or_else(|| format!("{text:?} is no part of a whole; write 0 to 1, such as 0.01"))?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // It lies between 0 and 1.
        Ok(Ratio((ratio * 1e6).round() as u32))
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1e6)
    }
}

impl Default for Watch {
    fn default() -> Watch {
        Watch {
            queues: "*".to_owned(),
            queues_max: 100,
            otlp_endpoint: None,
            trace_sample: Ratio::ALL,
        }
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
        if let Some(endpoint) = &self.otlp_endpoint
            && endpoint.strip_prefix("http://").is_none_or(str::is_empty)
        {
            return Err(InvalidSetting {
                key: "otlp-endpoint",
                given: format!("{endpoint:?}"),
                allowed: "write the address of a collector that takes OTLP over HTTP, such as http://127.0.0.1:4318; there is no https, so run the collector on this machine or network".to_owned(),
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

    #[test]
    fn a_collector_is_named_by_a_plain_http_address() {
        for (endpoint, allowed) in [
            ("http://127.0.0.1:4318", true),
            ("https://collector", false),
            ("collector:4318", false),
        ] {
            let otlp_endpoint = Some(endpoint.to_owned());
            let watch = Watch { otlp_endpoint, ..Watch::default() };
            assert_eq!(watch.check().is_ok(), allowed, "{endpoint}");
        }
    }

    #[test]
    fn a_ratio_takes_that_part_of_the_traces() {
        let trace = |lower: u64| {
            let mut id = [7; 16];
            id[8..].copy_from_slice(&lower.to_be_bytes());
            id
        };
        let quarter: Ratio = "0.25".parse().unwrap();
        assert_eq!(quarter.to_string(), "0.25");
        assert!(quarter.takes(trace(u64::MAX / 5)) && !quarter.takes(trace(u64::MAX / 3)));
        assert!(Ratio::ALL.takes(trace(u64::MAX)) && Ratio::ALL.takes(trace(0)));
        assert!(!"0".parse::<Ratio>().unwrap().takes(trace(0)));
        for wrong in ["1.1", "-0.1", "NaN", "half", ""] {
            assert!(wrong.parse::<Ratio>().unwrap_err().contains("0 to 1"), "{wrong}");
        }
    }
}
