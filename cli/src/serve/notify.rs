//! What a service manager is told: that the broker is ready, reads its configuration again, or stops; and, for a watchdog, that it
//! is really alive. Does nothing where NOTIFY_SOCKET is not set.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};

/// The way to the service manager.
pub struct Notify {
    /// How often the manager wants to hear that the broker lives, at least; none: it does not watch.
    every: Option<Duration>,
    /// Moves whenever every part of the broker has answered.
    pulse: watch::Receiver<u64>,
    fed: Option<Instant>,
}

impl Notify {
    /// Over a broker with this pulse.
    pub fn new(pulse: watch::Receiver<u64>) -> Notify {
        // At half of what the manager allows: one beat may come late.
        let every = sd_notify::watchdog_enabled().map(|allowed| allowed / 2);
        Notify { every, pulse, fed: None }
    }

    /// Clients can be served.
    pub fn ready(&self) {
        tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
    }

    /// Reads its configuration again; [`Notify::ready`] says when that is over.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => debug!(%error, "no clock: the service manager is not told of the reload"),
        }
    }

    /// Hands its queues over, and ends.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("handing its queues over")]);
    }

    /// Waits for the next beat that is worth telling, and tells it. Never returns when nobody watches: a broker whose parts do not
    /// answer is then found by its probes.
    pub async fn beat(&mut self) {
        let Some(every) = self.every else { return std::future::pending().await };
        loop {
            if self.pulse.changed().await.is_err() {
                // The broker is ending; how that goes, its end says.
                return std::future::pending().await;
            }
            self.pulse.mark_unchanged();
            if self.fed.is_none_or(|fed| fed.elapsed() >= every / 2) {
                self.fed = Some(Instant::now());
                return tell(&[NotifyState::Watchdog]);
            }
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "the service manager could not be told");
    }
}
