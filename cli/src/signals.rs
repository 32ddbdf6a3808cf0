//! SIGTERM, SIGINT and SIGHUP, and the end of the process that started this one.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::outcome::Failure;

/// Requests to stop.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal was closed.
    hangup: Signal,
}

impl Signals {
    /// Catches them from now on.
    pub fn catch() -> Result<Signals, Failure> {
        let catch = |kind| {
            signal(kind).map_err(|error| Failure::NotDone(format!("cannot catch signals: {error}")))
        };
        Ok(Signals {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hangup: catch(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
            _ = self.hangup.recv() => (),
        }
    }
}

/// Cancelled when standard input ends. The starter keeps the other end open for as long as it lives: the
/// system closes it whichever way the starter dies, SIGKILL included, so no broker is left behind.
pub fn starter_gone() -> CancellationToken {
    let gone = CancellationToken::new();
    let told = gone.clone();
    std::thread::spawn(move || {
        // Neither what comes in nor how it ends matters.
        let _copied = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        told.cancel();
    });
    gone
}
