//! Accepts clients, as many and as quickly as is allowed, until the broker stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Service;
use super::admission::{Admission, Pace};
use super::secure::{serve_socket, turn_away};
use crate::config::BrokerConfig;
use crate::seldom::Seldom;

/// Pause after a failed accept: mostly it is for want of file descriptors, and those come back with time. Without it the loop
/// would spin: the connection that could not be accepted still waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Clients at once that hear why they are turned away; those beyond are closed without a word, for each that listens
/// takes a file descriptor.
const REFUSALS_MAX: usize = 64;

/// Bytes that the system keeps for a client which is not ready for them. A client that does not read would have megabytes of answers
/// made for it otherwise, in memory that no pool counts. What is under way to a client that reads does not count.
const NOT_SENT_BYTES: u32 = 256 * 1024;

/// Accepts clients until `shutdown`, and returns when every connection has ended.
pub async fn serve(
    listener: TcpListener,
    service: Service,
    mut config: watch::Receiver<Arc<BrokerConfig>>,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    let mut service = Arc::new(service);
    let admission =
        Admission::new(&service.limits, Arc::clone(&service.metrics), service.tls.is_some());
    let mut pace = Pace::new(service.limits.bounds.accepts_per_second_max);
    let mut not_before = None;
    let (mut not_accepted, mut turned_away) = (Seldom::default(), Seldom::default());
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, not_before) => accepted,
            Ok(()) = config.changed() => {
                service = Arc::new(service.reconfigured(&config.borrow_and_update()));
                admission.reconfigure(&service.limits);
                continue;
            }
            () = shutdown.cancelled() => break,
        };
        not_before = pace.next();
        let (socket, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                service.metrics.accepts_failed.increment();
                if let Some(times) = not_accepted.happened(Instant::now()) {
                    warn!(%error, times, "clients could not be accepted; they wait");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let admitted = match admission.admit(from.ip()) {
            Ok(admitted) => admitted,
            Err(reason) => {
                if let Some(times) = turned_away.happened(Instant::now()) {
                    warn!(%from, times, reason = reason.message, "clients were turned away");
                }
                let secure = service.tls.is_some();
                // Which of the two it speaks is not known: what one can read tells the other that it is not spoken here, for good.
                if !service.plain_too {
                    refuse(&connections, &refusals, turn_away(socket, reason, secure));
                }
                continue;
            }
        };
        prepare(&socket);
        let (service, shutdown) = (Arc::clone(&service), shutdown.clone());
        connections.spawn(serve_socket(socket, from.ip(), admitted, service, shutdown));
    }
    connections.close();
    connections.wait().await;
}

/// The next connection, not before its time. Until then it waits where the system keeps it: once it is taken from there this ends, so that
/// whoever drops it drops no client.
async fn accept(
    listener: &TcpListener,
    not_before: Option<tokio::time::Instant>,
) -> std::io::Result<(TcpStream, SocketAddr)> {
    if let Some(at) = not_before {
        tokio::time::sleep_until(at).await;
    }
    listener.accept().await
}

/// What is written goes out at once, and little of it waits in the system.
fn prepare(socket: &TcpStream) {
    if let Err(error) = socket.set_nodelay(true) {
        debug!(%error, "a client's socket keeps its delay");
    }
    if let Err(error) = SockRef::from(socket).set_tcp_notsent_lowat(NOT_SENT_BYTES) {
        debug!(%error, "a client's socket keeps as much unsent as the system likes");
    }
}

fn refuse(
    connections: &TaskTracker,
    refusals: &Arc<Semaphore>,
    turning_away: impl Future<Output = ()> + Send + 'static,
) {
    if let Ok(turn) = Arc::clone(refusals).try_acquire_owned() {
        connections.spawn(async move {
            turning_away.await;
            drop(turn);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a storm of clients each setting that changed cost one of them its connection, without a word.
    #[tokio::test]
    async fn a_client_that_waits_for_its_turn_is_still_there_after_settings_have_changed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let later = tokio::time::Instant::now() + Duration::from_secs(3600);
        tokio::select! {
            biased;
            _ = accept(&listener, Some(later)) => panic!("it is not its turn"),
            () = tokio::task::yield_now() => {}
        }
        let (_, from) = accept(&listener, None).await.unwrap();
        assert_eq!(from, client.local_addr().unwrap());
    }
}
