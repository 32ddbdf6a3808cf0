//! What is shown to those who watch a broker.

use bellwether_broker::config::{Ratio, Watch};
use clap::Args;

/// What is shown to those who watch a broker.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Watching")]
pub struct WatchSettings {
    /// Queues with metrics of their own: names with * and ?, separated by commas
    ///
    /// Each costs a dozen series: name those that somebody looks at.
    #[arg(long, value_name = "PATTERN", env = "BELLWETHER_METRICS_QUEUES", default_value_t = Watch::default().queues)]
    pub metrics_queues: String,
    /// How many queues have metrics of their own at most, the first by name
    ///
    /// What is left out is counted in `bellwether_metrics_queues_left_out`. It bounds what a scrape costs, whatever the pattern.
    #[arg(long, value_name = "N", env = "BELLWETHER_METRICS_QUEUES_MAX", default_value_t = Watch::default().queues_max)]
    pub metrics_queues_max: usize,
    /// Send spans of traced messages to this collector, OTLP over HTTP: http://host:4318 [default: nowhere]
    ///
    /// Messages that carry a sampled `traceparent` header are then followed from publish to settle. Without it nothing looks at headers.
    #[arg(long, value_name = "URL", env = "BELLWETHER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// Which part of the traces that producers sample is taken, 0 to 1
    ///
    /// Lower it where producers sample more than the collector can take.
    #[arg(long, value_name = "RATIO", env = "BELLWETHER_TRACE_SAMPLE", default_value_t = Watch::default().trace_sample)]
    pub trace_sample: Ratio,
}

impl WatchSettings {
    pub fn to_watch(&self) -> Watch {
        Watch {
            queues: self.metrics_queues.clone(),
            queues_max: self.metrics_queues_max,
            otlp_endpoint: self.otlp_endpoint.clone(),
            trace_sample: self.trace_sample,
        }
    }
}
