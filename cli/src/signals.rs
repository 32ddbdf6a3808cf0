//! SIGTERM, SIGINT and SIGHUP, and the end of the process that started this one.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::outcome::Failure;

/// What a signal says to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Stop,
    Reload,
}

/// Requests to stop, or to read the configuration again.
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

    /// What a broker is told next: to it, a hang-up means to read its configuration again, as to other services.
    pub async fn told(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    /// SIGTERM or SIGINT. A hang-up that comes meanwhile is kept for [`Signals::told`].
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
        }
    }

    /// The next one; each is a request to stop.
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
