//! The first frames of a connection: who is there, which version both speak, and which limits hold.

use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::client::{BrokerFrame, ClientFrame, Hello, VERSIONS, Welcome};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::{CodecError, Frame, FrameCodec, Limits, negotiate};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::codec::Decoder;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::admission::Admitted;
use super::session::Session;
use super::{Service, shutting_down};

/// How long a client may take to read the first frames that it is sent: a few hundred bytes.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Shortest heartbeat that a client may ask for: more often would be load, not life.
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);

/// What is known once both have said hello.
pub(super) struct Greeted {
    pub hello: Hello,
    pub codec: FrameCodec<ClientFrame>,
    /// What came behind the hello.
    pub arrived: BytesMut,
}

impl Greeted {
    /// How often the client wants to hear something. Half of what it asked for, so that a late one is still in time.
    pub fn heartbeat(&self) -> Option<Duration> {
        let asked = Duration::from_millis(u64::from(self.hello.heartbeat_ms));
        (!asked.is_zero()).then(|| (asked / 2).max(HEARTBEAT_MIN / 2))
    }
}

/// Serves one client that nobody counts.
pub async fn serve_connection<S>(socket: S, service: Arc<Service>, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    serve(socket, service, None, shutdown).await;
}

/// Serves one client that was let in, from its first byte to its last.
pub(super) async fn serve_admitted<S>(
    socket: S,
    service: Arc<Service>,
    admitted: Admitted,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    serve(socket, service, Some(admitted), shutdown).await;
}

async fn serve<S>(
    mut socket: S,
    service: Arc<Service>,
    mut admitted: Option<Admitted>,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(service.handshake_timeout, greet(&mut socket, &service)) => greeted,
        () = shutdown.cancelled() => Ok(Err(Refusal::Said(shutting_down()))),
    };
    let refusal = match greeted {
        Ok(Ok(greeted)) => {
            if let Some(admitted) = &mut admitted {
                admitted.greeted();
            }
            service.metrics.client_connections_opened.increment();
            service.metrics.client_connections.add(1);
            debug!(client = %greeted.hello.client_name, virtual_host = %greeted.hello.virtual_host, "client connected");
            Session::serve(socket, greeted, Arc::clone(&service), shutdown).await;
            service.metrics.client_connections.subtract(1);
            return;
        }
        Ok(Err(Refusal::Gone)) => None,
        Ok(Err(Refusal::Said(error))) => Some(error),
        Err(_elapsed) => {
            let words = format!("no hello within {} s", service.handshake_timeout.as_secs_f32());
            Some(ErrorBody::not_done(ErrorCode::HeartbeatMissed, words))
        }
    };
    service.metrics.handshakes_failed.increment();
    if let Some(error) = refusal {
        info!(reason = %error.message, "a client's handshake failed");
        if let Err(error) = send(&mut socket, &BrokerFrame::Goodbye(error)).await {
            debug!(%error, "a client did not hear why its handshake failed");
        }
        drain(&mut socket).await;
    }
}

/// Tells a client that is not let in why.
pub(super) async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(mut socket: S, reason: ErrorBody) {
    if let Err(error) = send(&mut socket, &BrokerFrame::Goodbye(reason)).await {
        debug!(%error, "a client did not hear why it was turned away");
    }
    drain(&mut socket).await;
}

/// Why there was no handshake.
enum Refusal {
    /// The client went away.
    Gone,
    /// The client is to be told.
    Said(ErrorBody),
}

async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
    service: &Service,
) -> Result<Greeted, Refusal> {
    let mut codec = FrameCodec::<ClientFrame>::new(Limits {
        frame_bytes_max: usize::try_from(service.limits.handshake_bytes_max).unwrap_or(usize::MAX),
    });
    let mut arrived = BytesMut::new();
    let first = loop {
        match codec.decode(&mut arrived) {
            Ok(Some(frame)) => break frame,
            Ok(None) => {}
            Err(CodecError::Frame(error)) => return Err(Refusal::Said(error.into())),
            Err(CodecError::Io(_)) => return Err(Refusal::Gone),
        }
        match socket.read_buf(&mut arrived).await {
            Ok(0) | Err(_) => return Err(Refusal::Gone),
            Ok(_) => {}
        }
    };
    let ClientFrame::Hello(hello) = first else {
        let words = "the first frame of a connection has to be Hello";
        return Err(Refusal::Said(ErrorBody::not_done(ErrorCode::UnexpectedFrame, words)));
    };
    let version =
        negotiate(hello.version_min..=hello.version_max, VERSIONS).map_err(Refusal::Said)?;
    let welcome = BrokerFrame::Welcome(welcome(service, version));
    send(socket, &welcome).await.map_err(|_| Refusal::Gone)?;
    codec.set_limits(service.frame_limits());
    Ok(Greeted { hello, codec, arrived })
}

fn welcome(service: &Service, version: u16) -> Welcome {
    let narrow = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    Welcome {
        version,
        cluster: service.catalog.cluster(),
        broker: service.catalog.me(),
        heartbeat_ms: u32::try_from(service.heartbeat.as_millis()).unwrap_or(u32::MAX),
        frame_bytes_max: narrow(service.limits.frame_bytes_max),
        message_bytes_max: narrow(service.limits.message_bytes_max),
        brokers: service.catalog.addresses(),
    }
}

async fn send<S: AsyncWrite + Unpin>(socket: &mut S, frame: &BrokerFrame) -> std::io::Result<()> {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    let written = async {
        socket.write_all(&bytes).await?;
        socket.flush().await
    };
    tokio::time::timeout(GREETING_TIMEOUT, written).await.map_err(std::io::Error::from)?
}

/// Reads a little of what a refused client still sends: closed with unread bytes, a socket is reset, and the goodbye lost.
async fn drain<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut S) {
    const DRAIN_FOR: Duration = Duration::from_millis(200);
    const DRAIN_BYTES_MAX: usize = 64 * 1024;
    let drained = async {
        if socket.shutdown().await.is_err() {
            return;
        }
        let mut buffer = [0; 4096];
        let mut read = 0;
        while read < DRAIN_BYTES_MAX {
            match socket.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(bytes) => read += bytes,
            }
        }
    };
    // Whoever goes on sending is cut off.
    let _elapsed = tokio::time::timeout(DRAIN_FOR, drained).await;
}
