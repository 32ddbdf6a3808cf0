//! Accepts clients, a bounded number of them, until the broker stops.

use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::Frame;
use bellwether_protocol::client::BrokerFrame;
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Service;
use super::secure::serve_socket;

/// Pause after a failed accept: mostly it is for want of file descriptors, and those come back with time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a client that is turned away may take to hear why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Accepts clients until `shutdown`, and returns when every connection has ended.
pub async fn serve(listener: TcpListener, service: Arc<Service>, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(service.limits.connections_max));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (socket, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a client could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            warn!(%from, limit = service.limits.connections_max, "a client was turned away: too many connections");
            let secure = service.tls.is_some();
            connections.spawn(turn_away(socket, service.limits.connections_max, secure));
            continue;
        };
        if let Err(error) = socket.set_nodelay(true) {
            debug!(%error, "a client's socket keeps its delay");
        }
        let (service, shutdown) = (Arc::clone(&service), shutdown.clone());
        connections.spawn(async move {
            serve_socket(socket, from.ip(), service, shutdown).await;
            drop(permit);
        });
    }
    connections.close();
    connections.wait().await;
}

/// A TLS record: the fatal alert "internal error". Whoever is turned away is not worth a TLS handshake, and cannot read a
/// goodbye without one.
const TURNED_AWAY: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x50];

async fn turn_away(mut socket: TcpStream, limit: usize, secure: bool) {
    let words = format!(
        "this broker has {limit} connections, the most that are allowed; connect to another one"
    );
    let error = ErrorBody::not_done(ErrorCode::ConnectionLimit, words);
    let mut bytes = BytesMut::new();
    match secure {
        true => bytes.extend_from_slice(&TURNED_AWAY),
        false => BrokerFrame::Goodbye(error).encode(&mut bytes),
    }
    let told = tokio::time::timeout(REFUSAL_TIMEOUT, socket.write_all(&bytes)).await;
    if !matches!(told, Ok(Ok(()))) {
        debug!("a client did not hear why it was turned away");
    }
}
