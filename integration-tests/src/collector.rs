//! A collector of traces: takes OTLP over HTTP and keeps what it is sent.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Most bytes of one request that are read: brokers send some hundred KiB.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A span as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The broker that sent it.
    pub broker: String,
    pub name: String,
    pub trace: Vec<u8>,
    pub parent: Vec<u8>,
    pub began: u64,
    pub ended: u64,
}

/// The collector. It ends with this value.
#[derive(Debug)]
pub struct Collector {
    address: String,
    spans: Arc<Mutex<Vec<Span>>>,
    serving: JoinHandle<()>,
}

impl Collector {
    /// Listens on a free port.
    pub async fn start() -> Result<Collector> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let spans = Arc::new(Mutex::new(Vec::new()));
        let kept = spans.clone();
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, kept.clone()));
            }
        });
        Ok(Collector { address, spans, serving })
    }

    /// What brokers are given as `--otlp-endpoint`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(socket: TcpStream, spans: Arc<Mutex<Vec<Span>>>) {
    let mut socket = BufStream::new(socket);
    loop {
        match request(&mut socket).await {
            Ok(Some(taken)) => spans.lock().unwrap_or_else(PoisonError::into_inner).extend(taken),
            Ok(None) => return,
            Err(error) => {
                eprintln!("the collector was sent something strange: {error:#}");
                return;
            }
        }
    }
}

/// Takes one request; `None` when the connection ends.
async fn request(socket: &mut BufStream<TcpStream>) -> Result<Option<Vec<Span>>> {
    let mut line = String::new();
    if socket.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    ensure!(line.starts_with("POST /v1/traces "), "{line}");
    let mut length = 0;
    loop {
        line.clear();
        socket.read_line(&mut line).await?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().context("a length")?;
        }
    }
    ensure!(length <= REQUEST_BYTES_MAX, "{length} bytes");
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
    socket.flush().await?;
    let request = ExportTraceServiceRequest::decode(body.as_slice())?;
    Ok(Some(spans_of(request)))
}

fn spans_of(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_broker in request.resource_spans {
        let attributes = of_broker.resource.map(|resource| resource.attributes).unwrap_or_default();
        let broker = text(&attributes, "service.instance.id");
        for span in of_broker.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                broker: broker.clone(),
                name: span.name,
                trace: span.trace_id,
                parent: span.parent_span_id,
                began: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
            });
        }
    }
    spans
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}
