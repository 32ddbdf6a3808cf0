//! Takes connections of other brokers: streams of those that follow, and fetches of snapshots.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_protocol::error::ErrorCode;
use bellwether_protocol::peer::Purpose;
use tokio::net::{TcpListener, TcpStream};

use super::dial::Suspect;
use super::hello::{Framed, GreetError, HELLO_WAIT, hello, welcome};
use super::link::{End, Link};
use super::secure::{self, Stream, Unsecured};
use super::{Me, Shared, snapshot};
use crate::seldom::Seldom;
use crate::shard::input::Side;

/// How long all that comes before and with the hello may take together: TLS, a life to answer as, the hellos. Who is slow in each of them holds a
/// place no longer than who is slow in one.
const WELCOME_WAIT: Duration = Duration::from_secs(5);

/// Pause after a failed accept, for instance for want of file descriptors, so that it is not tried in a tight loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the broker stops.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut not_accepted = Seldom::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.shutdown.cancelled() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(times) = not_accepted.happened(Instant::now()) {
                    tracing::warn!(%error, times, "a peer connection could not be accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let mut place = shared.strangers.enter(from.ip().to_canonical());
        let shared_by = shared.clone();
        shared.tracker.spawn(async move {
            let welcomed = tokio::select! {
                welcomed = take_in_time(&shared_by, stream, from) => welcomed,
                _ = &mut place => {
                    tracing::debug!(%from, "too many peer connections without a hello: the oldest goes");
                    return;
                }
                () = shared_by.shutdown.cancelled() => return,
            };
            drop(place);
            if let Some((me, framed, theirs)) = welcomed {
                shared_by.strangers.know(from.ip().to_canonical());
                serve(&shared_by, me, framed, theirs).await;
            }
        });
    }
}

type Welcomed = (Me, Framed<Stream>, bellwether_protocol::peer::PeerHello);

async fn take_in_time(shared: &Shared, stream: TcpStream, from: SocketAddr) -> Option<Welcomed> {
    let taken = tokio::time::timeout(WELCOME_WAIT, take(shared, stream, from)).await;
    taken.unwrap_or_else(|_| {
        tracing::debug!(%from, "a peer connection took too long to say hello");
        None
    })
}

/// The hellos.
async fn take(shared: &Shared, stream: TcpStream, from: SocketAddr) -> Option<Welcomed> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a peer connection ended before it began");
        return None;
    }
    let (stream, named) = match secure::accepted(&shared.config, stream).await {
        Ok(secured) => secured,
        // Whoever looks whether a port is open comes and goes: not worth a word to the operator.
        Err(error @ (Unsecured::Ended | Unsecured::Silent)) => {
            tracing::debug!(%from, %error, "a peer connection ended before it was secure");
            return None;
        }
        Err(error) => {
            if let Some(times) = shared.refused_told.happened() {
                tracing::warn!(%from, %error, times, "no secure connection with whoever connected to the port of brokers");
            }
            return None;
        }
    };
    let me = present_life(shared).await?;
    let mut framed = Framed::new(stream);
    match welcome(&mut framed, &hello(&me, &shared.config, Purpose::Stream), named).await {
        Ok(theirs) => Some((me, framed, theirs)),
        Err(GreetError::Refused(error)) if error.code == ErrorCode::WrongCertificate => {
            if let Some(times) = shared.refused_told.happened() {
                tracing::warn!(%from, reason = error.message, times, "a peer connection was refused");
            }
            None
        }
        Err(error) => {
            tracing::debug!(%error, "a peer connection was not welcomed");
            None
        }
    }
}

/// Between two lives there is nobody to say hello as; the next one begins soon.
async fn present_life(shared: &Shared) -> Option<Me> {
    let mut lives = shared.me.clone();
    let living = tokio::time::timeout(HELLO_WAIT, lives.wait_for(Option::is_some)).await;
    *living.ok()?.ok()?
}

async fn serve(
    shared: &Arc<Shared>,
    me: Me,
    framed: Framed<Stream>,
    theirs: bellwether_protocol::peer::PeerHello,
) {
    // Not past the check of its leftovers, a broker answers no more than the hello: it might vote in an epoch that it has ended.
    if !me.ready || !theirs.ready {
        return;
    }
    match theirs.purpose {
        Purpose::Stream => {
            let link = Link::new(
                me.life,
                &theirs,
                Side::Accepted,
                shared.config.outbox_bytes_max,
                &shared.metrics,
            );
            let end = Arc::new(link).run_logged(shared, framed).await;
            if matches!(end, End::Reset) {
                shared.suspect(
                    theirs.life.broker,
                    Suspect { life: theirs.life, store: theirs.store },
                );
            }
        }
        Purpose::Snapshot => snapshot::serve(shared, framed, theirs.life).await,
    }
}
