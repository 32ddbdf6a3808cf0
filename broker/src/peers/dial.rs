//! Keeps a connection to one broker up, and finds out whether its process is dead: after a reset, a refused connection
//! or an answer by a new life of the same store says so. A time-out never does: a broker that is frozen, or behind a broken
//! cable, may lead yet.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::ids::{BrokerId, BrokerLife, StoreId};
use bellwether_protocol::peer::{PeerHello, Purpose};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::hello::{Framed, GreetError, greet, hello, is_a_later_life};
use super::link::{End, Link};
use super::secure::{self, Stream, Unsecured};
use super::{Me, Shared};
use crate::shard::input::{PeerNews, Side};

/// How long a connection may take to be made. Says nothing when it passes.
const CONNECT_WAIT: Duration = Duration::from_secs(1);

/// Pause before the second attempt. Short: the sockets of a dying process are closed one by one, so that the first attempt
/// may still find its listener.
const PAUSE_MIN: Duration = Duration::from_millis(3);
/// Longest pause: a broker that comes back is followed within this.
const PAUSE_MAX: Duration = Duration::from_millis(300);

/// Where a broker is reached, and in which life, as the coordinator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub life: BrokerLife,
    pub address: String,
    /// Whether it says that it speaks TLS with brokers.
    pub tls: bool,
}

/// A broker whose connection was reset: perhaps dead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect {
    pub life: BrokerLife,
    pub store: StoreId,
}

/// Why a broker could not be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// Nobody listens there. The other half of the evidence.
    #[error("the connection was refused")]
    Refused,
    #[error("no connection within {} s", CONNECT_WAIT.as_secs())]
    TimedOut,
    #[error(transparent)]
    Io(std::io::Error),
    /// Never evidence of anything: whoever answers there may be anyone.
    #[error(transparent)]
    Unsecured(#[from] Unsecured),
    #[error(transparent)]
    Greet(#[from] GreetError),
}

/// Dials `broker` for as long as it is live, one connection after the other.
pub(super) async fn keep_dialing(
    shared: Arc<Shared>,
    broker: BrokerId,
    mut targets: watch::Receiver<Option<Target>>,
) {
    let mut pause = PAUSE_MIN;
    while let Some((me, target)) = next_target(&shared, &mut targets).await {
        match dial(&shared, &me, &target, Purpose::Stream).await {
            Ok((framed, theirs)) => {
                judge(&shared, broker, &theirs).await;
                if theirs.ready {
                    let link = Link::new(
                        me.life,
                        &theirs,
                        Side::Dialed,
                        shared.config.outbox_bytes_max,
                        &shared.metrics,
                    );
                    let end = Arc::new(link).run_logged(&shared, framed).await;
                    pause = PAUSE_MIN;
                    if matches!(end, End::Reset) {
                        shared.suspect(broker, Suspect { life: theirs.life, store: theirs.store });
                        continue;
                    }
                } else {
                    shared.tell_all(|| PeerNews::NotReady { broker }).await;
                }
            }
            Err(DialError::Refused) => {
                shared.metrics.peer_dials_refused.increment();
                if let Some(suspect) = shared.cleared(broker) {
                    dead(&shared, suspect.life, "its address refuses connections").await;
                }
            }
            Err(DialError::Unsecured(error)) if !matches!(error, Unsecured::Ended) => {
                tracing::warn!(peer.broker = %broker, peer.address = target.address, %error, "no secure connection with a broker");
                pause = PAUSE_MAX;
            }
            Err(DialError::Greet(error @ (GreetError::Refused(_) | GreetError::Goodbye(_)))) => {
                tracing::warn!(peer.broker = %broker, peer.address = target.address, %error, "no connection with a broker");
                pause = PAUSE_MAX;
            }
            Err(error) => {
                tracing::debug!(peer.broker = %broker, peer.address = target.address, %error, "a broker cannot be reached");
            }
        }
        wait(&shared, &mut targets, &mut pause).await;
    }
}

/// Whom to dial now, once there is somebody and this broker is ready itself. `None`: the broker is stopping.
async fn next_target(
    shared: &Shared,
    targets: &mut watch::Receiver<Option<Target>>,
) -> Option<(Me, Target)> {
    let mut me = shared.me.clone();
    loop {
        if shared.shutdown.is_cancelled() {
            return None;
        }
        let mine = *me.borrow_and_update();
        let target = targets.borrow_and_update().clone();
        if let (Some(mine @ Me { ready: true, .. }), Some(target)) = (mine, target) {
            return Some((mine, target));
        }
        tokio::select! {
            changed = me.changed() => changed.ok()?,
            changed = targets.changed() => changed.ok()?,
            () = shared.shutdown.cancelled() => return None,
        }
    }
}

/// Waits before the next attempt: jittered, twice as long each time, cut short by news of the broker.
async fn wait(
    shared: &Shared,
    targets: &mut watch::Receiver<Option<Target>>,
    pause: &mut Duration,
) {
    let jittered = pause.mul_f64(rand::random_range(0.5..1.5));
    tokio::select! {
        () = tokio::time::sleep(jittered) => *pause = (*pause * 2).min(PAUSE_MAX),
        // When the sender is gone the broker is stopping, and the loop ends by itself.
        Ok(()) = targets.changed() => *pause = PAUSE_MIN,
        () = shared.shutdown.cancelled() => {}
    }
}

/// A connection to a broker on which both have said hello.
pub(super) async fn dial(
    shared: &Shared,
    me: &Me,
    target: &Target,
    purpose: Purpose,
) -> Result<(Framed<Stream>, PeerHello), DialError> {
    let stream = match tokio::time::timeout(CONNECT_WAIT, TcpStream::connect(&target.address)).await
    {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            return Err(DialError::Refused);
        }
        Ok(Err(error)) => return Err(DialError::Io(error)),
        Err(_) => return Err(DialError::TimedOut),
    };
    stream.set_nodelay(true).map_err(DialError::Io)?;
    // The coordinator says that a broker is there: it will come from there, too.
    if let Ok(there) = stream.peer_addr() {
        shared.strangers.know(there.ip().to_canonical());
    }
    let (stream, named) = secure::dialed(&shared.config, target, stream).await?;
    let mut framed = Framed::new(stream);
    let theirs = greet(&mut framed, &hello(me, &shared.config, purpose), named).await;
    let theirs = theirs.map_err(|error| match secure::refused(&error) {
        Some(error) => DialError::Unsecured(error),
        None => DialError::Greet(error),
    })?;
    Ok((framed, theirs))
}

/// What the hello of `broker` says about the life that was suspected.
async fn judge(shared: &Shared, broker: BrokerId, theirs: &PeerHello) {
    if let Some(suspect) = shared.cleared(broker)
        && is_a_later_life(suspect.life, theirs.life)
        && suspect.store == theirs.store
    {
        dead(shared, suspect.life, "a new life of its store answers").await;
    }
}

async fn dead(shared: &Shared, life: BrokerLife, why: &'static str) {
    tracing::warn!(peer = %life, evidence = why, "a broker's process is dead");
    shared.tell_all(|| PeerNews::Dead { peer: life }).await;
}
