//! Keeps a session attached: notices a lost link, attaches again to the same session, sets the watches again, and gives up only
//! when a server says that the session is over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::link::{Attached, DialError, Dialer, Link};
use super::{OUTSTANDING_MAX, Session, Shared, Standing, Subscribers};
use crate::coordinator::{ConnectError, Path, SessionEvent, SessionInfo};

/// Pause after the first failed attempt; doubled up to the longest.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(40);

/// Longest pause between attempts, whatever the time-out: a returned ensemble is noticed within this.
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// How often an ensemble that cannot be reached is complained of.
const COMPLAINT_EVERY: Duration = Duration::from_secs(10);

/// Opens a session: tries until there is one.
pub(crate) async fn open(
    dialer: Box<dyn Dialer>,
    asked: Duration,
) -> Result<Arc<Session>, ConnectError> {
    let mut pauses = Pauses::new(asked);
    let attached = loop {
        match dialer.dial().await {
            Ok(attached) => break attached,
            Err(DialError::AuthFailed(reason)) => return Err(ConnectError::AuthFailed(reason)),
            Err(DialError::Invalid(reason)) => return Err(ConnectError::Invalid(reason)),
            Err(DialError::Unreachable(reason)) => pauses.complain(dialer.as_ref(), &reason),
            // Said of a session that was being opened: it took longer than it lives. The next attempt opens another.
            Err(DialError::Expired) => {
                pauses.complain(dialer.as_ref(), "the session ended while it was opened")
            }
        }
        pauses.wait().await;
    };
    announce(attached.info);
    let (flushes, flushed) = mpsc::channel(OUTSTANDING_MAX);
    let shared = Arc::new(Shared {
        dialer,
        flushes,
        info: Mutex::new(attached.info),
        standing: watch::Sender::new(Standing::Attached(Arc::clone(&attached.link))),
        subscribers: Subscribers::default(),
        watching: tokio::sync::Mutex::new(()),
        sending: tokio::sync::Mutex::new(()),
        outstanding: Arc::new(Semaphore::new(OUTSTANDING_MAX)),
        released: CancellationToken::new(),
    });
    tokio::spawn(keep(Arc::clone(&shared), attached, flushed));
    Ok(Arc::new(Session { shared }))
}

fn announce(info: SessionInfo) {
    let (id, timeout, asked) =
        (format!("{:#x}", info.id), info.timeout.as_millis(), info.timeout_asked.as_millis());
    debug!(session.id = id, session.timeout_ms = timeout, "coordinator session opened");
    if info.timeout != info.timeout_asked {
        warn!(
            session.timeout_ms = timeout,
            session.timeout_asked_ms = asked,
            "the coordinator granted another session time-out than was asked for; every timer follows the granted one"
        );
    }
}

/// Runs until the session is over, closed or given up.
async fn keep(shared: Arc<Shared>, first: Attached, mut flushes: Flushes) {
    let mut attached = first;
    loop {
        let Attached { link, mut changes, .. } = attached;
        let lost = tokio::select! {
            reason = relay(&shared, link.as_ref(), &mut changes, &mut flushes) => reason,
            () = shared.released.cancelled() => return,
        };
        shared.standing.send_replace(Standing::Detached);
        // What is still queued in it must not run after the next link is up.
        link.cut();
        info!(reason = lost, "coordinator connection lost");
        shared.subscribers.tell(&SessionEvent::Disconnected);
        let again = tokio::select! {
            again = attach_again(&shared) => again,
            () = drop_all(&mut flushes) => return,
            () = shared.released.cancelled() => return,
        };
        match again {
            Some(again) => attached = again,
            None => {
                warn!(
                    session.id = format!("{:#x}", shared.info().id),
                    "the coordinator says that the session is over"
                );
                shared.standing.send_replace(Standing::Over);
                shared.subscribers.tell(&SessionEvent::Expired);
                shared.subscribers.finish();
                return;
            }
        }
    }
}

type Flushes = mpsc::Receiver<oneshot::Sender<()>>;

/// Passes changes on until the link is lost.
async fn relay(
    shared: &Shared,
    link: &dyn Link,
    changes: &mut mpsc::Receiver<Path>,
    flushes: &mut Flushes,
) -> String {
    let lost = link.lost();
    tokio::pin!(lost);
    loop {
        tokio::select! {
            Some(path) = changes.recv() => shared.subscribers.changed(&path),
            Some(told) = flushes.recv() => {
                while let Ok(path) = changes.try_recv() {
                    shared.subscribers.changed(&path);
                }
                // Dropped, the sender tells as much as it would by sending.
                drop(told);
            }
            reason = &mut lost => return reason,
        }
    }
}

/// Without a link there is nothing to flush. Returns when nobody can ask any more.
async fn drop_all(flushes: &mut Flushes) {
    while let Some(told) = flushes.recv().await {
        drop(told);
    }
}

/// A link to the same session with all watches set and nothing stale to be read; `None` when a server says that the session is over.
async fn attach_again(shared: &Shared) -> Option<Attached> {
    let mut pauses = Pauses::new(shared.info().timeout);
    loop {
        let reason = match shared.dialer.dial().await {
            Ok(mut attached) => match take_over(shared, &mut attached).await {
                Ok(()) => return Some(attached),
                Err(reason) => {
                    attached.link.cut();
                    reason
                }
            },
            Err(DialError::Expired) => return None,
            Err(
                DialError::Unreachable(reason)
                | DialError::AuthFailed(reason)
                | DialError::Invalid(reason),
            ) => reason,
        };
        pauses.complain(shared.dialer.as_ref(), &reason);
        pauses.wait().await;
    }
}

async fn take_over(shared: &Shared, attached: &mut Attached) -> Result<(), String> {
    let _watching = shared.watching.lock().await;
    let ready = async {
        for prefix in shared.subscribers.prefixes() {
            attached.link.watch(prefix).await.map_err(|error| error.to_string())?;
        }
        // The new server may lag behind the old one: nothing that this session has seen may come undone.
        attached.link.sync().await.map_err(|error| error.to_string())
    };
    tokio::time::timeout(attached.info.timeout, ready)
        .await
        .map_err(|_| "no answer".to_owned())??;
    let before = std::mem::replace(
        &mut *shared.info.lock().unwrap_or_else(PoisonError::into_inner),
        attached.info,
    );
    if before.timeout != attached.info.timeout {
        announce(attached.info);
    }
    shared.standing.send_replace(Standing::Attached(Arc::clone(&attached.link)));
    debug!("coordinator connection is back, with the same session");
    shared.subscribers.tell(&SessionEvent::Connected);
    Ok(())
}

/// Pauses between attempts: growing, with jitter, but never longer than a quarter of the time-out, so that a returned ensemble
/// that still holds the session hears of it in time.
struct Pauses {
    next: Duration,
    longest: Duration,
    complained: Option<Instant>,
    since: Instant,
}

impl Pauses {
    fn new(timeout: Duration) -> Self {
        let longest = (timeout / 4).min(LONGEST_PAUSE);
        Self { next: FIRST_PAUSE.min(longest), longest, complained: None, since: Instant::now() }
    }

    async fn wait(&mut self) {
        let pause = self.next.mul_f64(rand::rng().random_range(0.5..1.0));
        self.next = (self.next * 2).min(self.longest);
        tokio::time::sleep(pause).await;
    }

    fn complain(&mut self, dialer: &dyn Dialer, reason: &str) {
        // A moment without a server is no news while another takes over.
        let due = match self.complained {
            None => self.since.elapsed() >= self.longest,
            Some(last) => last.elapsed() >= COMPLAINT_EVERY,
        };
        if due {
            self.complained = Some(Instant::now());
            let servers = dialer.servers();
            warn!(servers, reason, "the coordinator cannot be reached; still trying");
        }
    }
}
