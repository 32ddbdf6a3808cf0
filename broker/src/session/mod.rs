//! The broker's lives: one coordinator session each. Registers the broker, waits until its leftovers
//! are gone, and begins a new life when the ensemble says that the session is over.

mod register;
mod timed;

use std::sync::Arc;
use std::time::Duration;

use bellwether_coordinator::coordinator::{ConnectError, Connector, Coordinator, SessionEvent};
use bellwether_coordinator::records::BrokerRecord;
use bellwether_protocol::ids::{BrokerLife, ClusterId, Incarnation};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use register::{RegisterError, join_cluster};
pub use timed::Timed;

/// A life: its session, and who the broker is in it.
#[derive(Clone, Debug)]
pub struct Life {
    /// The broker and its incarnation.
    pub life: BrokerLife,
    /// The session; ends with the life.
    pub coordinator: Arc<dyn Coordinator>,
    /// Whether the session is connected at the moment.
    pub connected: bool,
}

/// Why a broker cannot live.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// What stays the same in every life.
#[derive(Clone, Debug)]
pub struct Registrant {
    /// Addresses, store and so on; the incarnation is minted anew for each life.
    pub record: BrokerRecord,
    pub cluster: ClusterId,
}

/// How long to wait before another attempt after a passing fault of the coordinator.
const RETRY: Duration = Duration::from_millis(200);

/// Lives one life after the other until `shutdown`. `lives` shows the present one; `None` between two. `coming` shows the one
/// that is to be registered, or is.
///
/// # Errors
/// [`SessionError`] when no further life can be had: refused credentials, or the broker's id is taken by another store.
pub async fn live(
    connector: Arc<dyn Connector>,
    registrant: Registrant,
    first: Arc<dyn Coordinator>,
    lives: watch::Sender<Option<Life>>,
    coming: watch::Sender<Option<BrokerLife>>,
    shutdown: CancellationToken,
) -> Result<(), SessionError> {
    let mut coordinator = first;
    loop {
        let life = BrokerLife {
            broker: registrant.record.life.broker,
            incarnation: Incarnation(rand::random()),
        };
        // Peers hear at once that the former life of this store is over, long before its registration is gone.
        coming.send_replace(Some(life));
        let registered = tokio::select! {
            registered = register::register(&coordinator, &registrant, life) => registered,
            () = shutdown.cancelled() => return Ok(()),
        };
        match registered {
            Ok(()) => {
                info!(life = %life, session.timeout_ms = coordinator.session().timeout.as_millis() as u64, "broker registered");
                lives.send_replace(Some(Life {
                    life,
                    coordinator: coordinator.clone(),
                    connected: true,
                }));
                watch_session(&coordinator, &lives, &shutdown).await;
                lives.send_replace(None);
                if shutdown.is_cancelled() {
                    return Ok(());
                }
                warn!(life = %life, "the coordinator session expired: every leadership is given up, a new life begins");
            }
            Err(RegisterError::SessionOver) => {
                warn!("the coordinator session expired while the broker was registering");
            }
            Err(error) => return Err(error.into()),
        }
        coordinator = tokio::select! {
            connected = connector.connect() => connected?,
            () = shutdown.cancelled() => return Ok(()),
        };
    }
}

/// Returns when the session is over, or on shutdown.
async fn watch_session(
    coordinator: &Arc<dyn Coordinator>,
    lives: &watch::Sender<Option<Life>>,
    shutdown: &CancellationToken,
) {
    loop {
        let mut events = match coordinator.watch(&[]).await {
            Ok(events) => events,
            Err(bellwether_coordinator::coordinator::ReadError::SessionOver) => return,
            Err(error) => {
                warn!(%error, "the coordinator session cannot be watched yet");
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => continue,
                    () = shutdown.cancelled() => return,
                }
            }
        };
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = shutdown.cancelled() => return,
            };
            let connected = match event {
                Some(SessionEvent::Connected) => true,
                Some(SessionEvent::Disconnected) => false,
                Some(SessionEvent::Expired) => return,
                Some(SessionEvent::Changed(_) | SessionEvent::Overrun) => continue,
                None => break,
            };
            lives.send_if_modified(|life| match life {
                Some(life) if life.connected != connected => {
                    life.connected = connected;
                    true
                }
                _ => false,
            });
            if connected {
                info!("the coordinator session is connected again");
            } else {
                warn!(
                    "the coordinator is out of reach: serving goes on, elections and declarations wait"
                );
            }
        }
    }
}
