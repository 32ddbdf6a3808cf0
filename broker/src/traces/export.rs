//! Sends spans to a collector: OTLP over HTTP, in batches, from one task.

use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Traces;
use crate::seldom::Seldom;

/// Spans sent in one request at most: some hundred KiB.
const BATCH_MAX: usize = 512;
/// How long spans gather before they are sent.
const GATHER: Duration = Duration::from_secs(1);
/// How long the collector has for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there can be no traces.
#[derive(Debug, thiserror::Error)]
#[error("otlp-endpoint {endpoint}: {why}")]
pub struct ExportError {
    endpoint: String,
    why: String,
}

/// The way to a collector.
#[derive(Debug)]
pub struct Exporter(SpanExporter);

impl Exporter {
    /// To the collector at this address, such as `http://127.0.0.1:4318`, for a broker of this number.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(endpoint: &str, broker: u32) -> Result<Exporter, ExportError> {
        let address = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(address)
            .with_timeout(PATIENCE)
            .build()
            .map_err(|error| ExportError {
                endpoint: endpoint.to_owned(),
                why: error.to_string(),
            })?;
        let resource = Resource::builder_empty()
            .with_service_name("bellwether")
            .with_attribute(KeyValue::new("service.instance.id", broker.to_string()))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        exporter.set_resource(&resource);
        Ok(Exporter(exporter))
    }

    /// Sends what comes until `stop`, and then what is left.
    pub async fn run(
        self,
        traces: Traces,
        mut spans: mpsc::Receiver<SpanData>,
        stop: CancellationToken,
    ) {
        let mut failures = Seldom::default();
        loop {
            let mut batch = Vec::with_capacity(BATCH_MAX);
            let stops = tokio::select! {
                taken = spans.recv_many(&mut batch, BATCH_MAX) => taken == 0,
                () = stop.cancelled() => true,
            };
            if stops {
                spans.close();
                while spans.recv_many(&mut batch, BATCH_MAX).await > 0 {
                    self.send(&traces, std::mem::take(&mut batch), &mut failures).await;
                }
                return;
            }
            // A moment, so that they go together.
            tokio::select! {
                () = tokio::time::sleep(GATHER) => {}
                () = stop.cancelled() => {}
            }
            while batch.len() < BATCH_MAX
                && let Ok(span) = spans.try_recv()
            {
                batch.push(span);
            }
            self.send(&traces, batch, &mut failures).await;
        }
    }

    async fn send(&self, traces: &Traces, batch: Vec<SpanData>, failures: &mut Seldom) {
        if batch.is_empty() {
            return;
        }
        let spans = batch.len() as u64;
        match self.0.export(batch).await {
            Ok(()) => traces.metrics.spans_exported.add(spans),
            Err(error) => {
                traces.metrics.spans_dropped.add(spans);
                if let Some(times) = failures.happened(Instant::now()) {
                    tracing::warn!(%error, spans, times, "the collector did not take spans: they are dropped");
                }
            }
        }
    }
}
