//! The port of the metrics takes a bounded number of connections, each for a bounded time, one request each: nobody has to log in there.
//!
//! *Invariant:* whoever holds connections open keeps nobody else out, and takes no more of the broker's file descriptors than these.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::places::Places;
use crate::seldom::Seldom;

/// Connections at once. Prometheus, a board and the probes are a handful; beyond these the oldest one goes, since a probe that is turned
/// away restarts a broker that is well.
pub const CONNECTIONS_MAX: usize = 64;

/// How long a connection may last, from its first byte to the answer's last. Prometheus gives up after ten seconds by itself.
const LASTS_MAX: Duration = Duration::from_secs(10);

/// Pause after a failed accept, for instance for want of file descriptors, so that it is not tried in a tight loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes connections as above.
pub struct Doors {
    listener: TcpListener,
    open: Places<()>,
    not_accepted: Seldom,
}

impl Doors {
    pub fn new(listener: TcpListener) -> Doors {
        Doors { listener, open: Places::default(), not_accepted: Seldom::default() }
    }

    /// Room for one more.
    fn enter(&mut self, stream: TcpStream) -> Visit {
        if self.open.count(|()| true) >= CONNECTIONS_MAX {
            self.open.end_oldest(|()| true);
        }
        let ended = self.open.enter(());
        let late = Box::pin(tokio::time::sleep(LASTS_MAX));
        Visit { stream, ended, late, over: None }
    }
}

impl Listener for Doors {
    type Io = Visit;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Visit, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => return (self.enter(stream), from),
                Err(error) => {
                    if let Some(times) = self.not_accepted.happened(Instant::now()) {
                        tracing::warn!(%error, times, "a connection for the metrics could not be accepted");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One connection. It fails once it has lasted too long, or another one needs its place.
pub struct Visit {
    stream: TcpStream,
    ended: oneshot::Receiver<()>,
    late: Pin<Box<Sleep>>,
    /// Why it is over, once it is.
    over: Option<&'static str>,
}

impl Visit {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.over.is_none() && self.late.as_mut().poll(context).is_ready() {
            self.over = Some("the request took too long");
        }
        if self.over.is_none() && Pin::new(&mut self.ended).poll(context).is_ready() {
            self.over = Some("another connection needs the place");
        }
        self.over.map_or(Ok(()), |why| Err(io::Error::other(why)))
    }
}

impl AsyncRead for Visit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
