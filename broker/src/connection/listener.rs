//! Accepts clients, a bounded number of them, until the broker stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_protocol::Frame;
use bellwether_protocol::client::BrokerFrame;
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::{Service, serve_connection};
use crate::config::BrokerConfig;
use crate::seldom::Seldom;

/// Pause after a failed accept: mostly it is for want of file descriptors, and those come back with time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a client that is turned away may take to hear why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Accepts clients until `shutdown`, and returns when every connection has ended.
pub async fn serve(
    listener: TcpListener,
    service: Service,
    mut config: watch::Receiver<Arc<BrokerConfig>>,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    let mut service = Arc::new(service);
    // Held by each connection, and counted: a limit that changes would leave a semaphore in debt.
    let seat = Arc::new(());
    let (mut not_accepted, mut turned_away) = (Seldom::default(), Seldom::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Ok(()) = config.changed() => {
                service = Arc::new(service.reconfigured(&config.borrow_and_update()));
                continue;
            }
            () = shutdown.cancelled() => break,
        };
        let (socket, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(times) = not_accepted.happened(Instant::now()) {
                    warn!(%error, times, "a client could not be accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let limit = service.limits.connections_max;
        if Arc::strong_count(&seat) > limit {
            service.metrics.client_connections_refused.increment();
            if let Some(times) = turned_away.happened(Instant::now()) {
                warn!(%from, limit, times, "clients were turned away: too many connections");
            }
            connections.spawn(turn_away(socket, limit));
            continue;
        }
        if let Err(error) = socket.set_nodelay(true) {
            debug!(%error, "a client's socket keeps its delay");
        }
        let (service, shutdown, seat) = (Arc::clone(&service), shutdown.clone(), Arc::clone(&seat));
        connections.spawn(async move {
            serve_connection(socket, service, shutdown).await;
            drop(seat);
        });
    }
    connections.close();
    connections.wait().await;
}

async fn turn_away(mut socket: TcpStream, limit: usize) {
    let words = format!(
        "this broker has {limit} connections, the most that are allowed; connect to another one"
    );
    let error = ErrorBody::not_done(ErrorCode::ConnectionLimit, words);
    let mut bytes = BytesMut::new();
    BrokerFrame::Goodbye(error).encode(&mut bytes);
    let told = tokio::time::timeout(REFUSAL_TIMEOUT, socket.write_all(&bytes)).await;
    if !matches!(told, Ok(Ok(()))) {
        debug!("a client did not hear why it was turned away");
    }
}
