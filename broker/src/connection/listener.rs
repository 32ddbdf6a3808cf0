//! Accepts clients, as many and as quickly as is allowed, until the broker stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Service;
use super::admission::{Admission, Pace};
use super::secure::{serve_socket, turn_away};

/// Pause after a failed accept: mostly it is for want of file descriptors, and those come back with time. Without it the loop
/// would spin: the connection that could not be accepted still waits.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often it is said that clients were turned away or could not be accepted: a flood of them must not fill the log.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Clients at once that hear why they are turned away; those beyond are closed without a word, for each that listens
/// takes a file descriptor.
const REFUSALS_MAX: usize = 64;

/// Accepts clients until `shutdown`, and returns when every connection has ended.
pub async fn serve(listener: TcpListener, service: Arc<Service>, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    let admission = Admission::new(&service.limits, Arc::clone(&service.metrics));
    let mut pace = Pace::new(service.limits.bounds.accepts_per_second_max);
    let mut complaints = Complaints::default();
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &mut pace) => accepted,
            () = shutdown.cancelled() => break,
        };
        let (socket, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                service.metrics.accepts_failed.increment();
                complaints.say(|times| {
                    warn!(%error, times, "clients could not be accepted; they wait");
                });
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let admitted = match admission.admit(from.ip()) {
            Ok(admitted) => admitted,
            Err(reason) => {
                complaints.say(|times| {
                    warn!(%from, times, reason = reason.message, "clients were turned away");
                });
                let secure = service.tls.is_some();
                refuse(&connections, &refusals, turn_away(socket, reason, secure));
                continue;
            }
        };
        if let Err(error) = socket.set_nodelay(true) {
            debug!(%error, "a client's socket keeps its delay");
        }
        let (service, shutdown) = (Arc::clone(&service), shutdown.clone());
        connections.spawn(serve_socket(socket, from.ip(), admitted, service, shutdown));
    }
    connections.close();
    connections.wait().await;
}

/// The next connection, not before its time.
async fn accept(
    listener: &TcpListener,
    pace: &mut Pace,
) -> std::io::Result<(TcpStream, SocketAddr)> {
    let accepted = listener.accept().await?;
    if let Some(at) = pace.next() {
        tokio::time::sleep_until(at).await;
    }
    Ok(accepted)
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

/// Says the same thing again only after a while, and then how often it happened.
#[derive(Default)]
struct Complaints {
    said: Option<Instant>,
    times: u64,
}

impl Complaints {
    fn say(&mut self, say: impl FnOnce(u64)) {
        self.times += 1;
        if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            say(self.times);
            (self.said, self.times) = (Some(Instant::now()), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_said_once_a_second_with_its_number() {
        let mut complaints = Complaints::default();
        let mut said = Vec::new();
        for _ in 0..100 {
            complaints.say(|times| said.push(times));
        }
        tokio::time::advance(SAY_EVERY).await;
        complaints.say(|times| said.push(times));
        assert_eq!(said, [1, 100]);
    }
}
