//! What an operator's tools ask over HTTP: `/metrics`, `/healthz`, `/readyz`. Read only.

mod doors;
mod health;
mod render;
mod scrape;

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use doors::Doors;
pub use health::{Health, Trouble};
pub use render::render;
pub use scrape::Scraper;

/// The type that Prometheus expects of its text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone)]
struct Admin {
    scraper: Arc<Scraper>,
    health: Arc<Health>,
}

/// Answers on `listener` until `shutdown`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    scraper: Arc<Scraper>,
    health: Arc<Health>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .layer(map_response(once))
        .with_state(Admin { scraper, health });
    // A scraper that never ends its request must not hold up a stop.
    tokio::select! {
        served = axum::serve(Doors::new(listener), routes) => served,
        () = shutdown.cancelled() => Ok(()),
    }
}

/// One request for each connection, so that the time that one may take bounds the other.
async fn once(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn metrics_page(State(admin): State<Admin>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], admin.scraper.page().await)
}

/// Whether this process should be left alone: `503` means that a restart, or a new disk, is due.
async fn healthz(State(admin): State<Admin>) -> impl IntoResponse {
    verdict(admin.health.broken())
}

/// Whether clients should be sent here.
async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    verdict(admin.health.troubles())
}

fn verdict(troubles: Vec<Trouble>) -> (StatusCode, String) {
    if troubles.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let lines: String = troubles.iter().map(|trouble| format!("{trouble}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::config::Watch;
    use crate::metrics::Metrics;

    async fn ask(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_broker_that_starts_is_healthy_but_not_ready_and_a_dead_disk_makes_it_unhealthy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, health) = (Arc::new(Metrics::default()), Arc::new(Health::default()));
        let scraper = Arc::new(Scraper::new(metrics.clone(), &Watch::default()));
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, scraper, health.clone(), shutdown.clone()));

        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let starting = ask(address, "/readyz").await;
        assert!(
            starting.starts_with("HTTP/1.1 503") && starting.contains("starting"),
            "{starting}"
        );

        health.clear(&Trouble::Starting);
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200"));

        health.raise(Trouble::StoreFailed("fdatasync: Input/output error".to_owned()));
        let dead = ask(address, "/healthz").await;
        assert!(dead.starts_with("HTTP/1.1 503") && dead.contains("Input/output error"), "{dead}");

        metrics.journal_syncs.add(7);
        assert!(ask(address, "/metrics").await.contains("\nbellwether_journal_syncs_total 7\n"));

        shutdown.cancel();
        server.await.unwrap().unwrap();
    }

    /// Each connection that said nothing was kept for ever: enough of them took the broker's last file descriptor, and with it the journal's next
    /// segment.
    #[tokio::test]
    async fn connections_that_say_nothing_are_few_and_keep_no_probe_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, health) = (Arc::new(Metrics::default()), Arc::new(Health::default()));
        let scraper = Arc::new(Scraper::new(metrics, &Watch::default()));
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, scraper, health, shutdown.clone()));

        let mut silent = Vec::new();
        for _ in 0..=doors::CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
            silent.push(stream);
        }
        // The oldest had to go; the youngest may still say the rest.
        assert!(!matches!(silent[0].read(&mut [0]).await, Ok(1..)), "it is closed");
        let mut last = silent.pop().unwrap();
        last.write_all(b"host: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        last.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));

        shutdown.cancel();
        server.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_end_is_cut_off_and_so_is_a_connection_that_is_kept_open() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, health) = (Arc::new(Metrics::default()), Arc::new(Health::default()));
        let scraper = Arc::new(Scraper::new(metrics, &Watch::default()));
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, scraper, health, shutdown.clone()));

        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n").await.unwrap();
        let mut kept = TcpStream::connect(address).await.unwrap();
        kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        kept.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("connection: close"), "{answer}");
        assert!(!matches!(half.read(&mut [0]).await, Ok(1..)), "it is closed, and not answered");

        shutdown.cancel();
        server.await.unwrap().unwrap();
    }
}
