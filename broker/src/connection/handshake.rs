//! The first frames of a connection: who is there, which version both speak, and which limits hold.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::client::{BrokerFrame, ClientFrame, Hello, LoginData, VERSIONS, Welcome};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::{CodecError, Frame, FrameCodec, Limits, negotiate};
use bellwether_tls::{CertificateIdentity, TLS_FIRST_BYTE};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_util::codec::Decoder;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::admission::Admitted;
use super::login::{Door, Entry};
use super::secure::tls_unexpected;
use super::session::Session;
use super::{Service, shutting_down};
use crate::login::{Origin, User};

/// How long a client may take to read the first frames that it is sent: a few hundred bytes.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Shortest heartbeat that a client may ask for: more often would be load, not life.
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);

/// What is known of a connection before its first frame.
pub(super) struct Arrival {
    pub origin: Origin,
    /// When the handshake has to be done. TLS has used some of the time already.
    pub until: Instant,
    /// Its right to be connected; none: nobody counts it.
    pub admitted: Option<Admitted>,
}

/// What is known once both have said hello.
pub(super) struct Greeted {
    pub hello: Hello,
    /// Whom the client's verified certificate names.
    pub certificate: Option<CertificateIdentity>,
    pub codec: FrameCodec<ClientFrame>,
    /// What came behind the hello.
    pub arrived: BytesMut,
    /// Who it is; none: nobody in particular, where that is enough.
    pub user: Option<Arc<User>>,
    /// Where it is.
    pub from: Option<IpAddr>,
    /// Nobody between can read what is sent.
    pub secured: bool,
}

impl Greeted {
    /// How often the client wants to hear something. Half of what it asked for, so that a late one is still in time.
    pub fn heartbeat(&self) -> Option<Duration> {
        let asked = Duration::from_millis(u64::from(self.hello.heartbeat_ms));
        (!asked.is_zero()).then(|| (asked / 2).max(HEARTBEAT_MIN / 2))
    }
}

/// Serves one client that nobody counts.
pub async fn serve_connection<S>(
    socket: S,
    origin: Origin,
    service: Arc<Service>,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let until = Instant::now() + service.handshake_timeout;
    serve_arrived(socket, Arrival { origin, until, admitted: None }, service, shutdown).await;
}

/// Serves one client from its first byte, or from its first behind TLS, to its last.
pub(super) async fn serve_arrived<S>(
    mut socket: S,
    arrival: Arrival,
    service: Arc<Service>,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Arrival { origin, until, mut admitted } = arrival;
    let greeting = greet(&mut socket, &origin, &service);
    let greeted = tokio::select! {
        greeted = tokio::time::timeout_at(until, greeting) => greeted,
        () = shutdown.cancelled() => Ok(Err(Refusal::Said(shutting_down()))),
    };
    let refusal = match greeted {
        Ok(Ok(greeted)) => {
            if let Some(admitted) = &mut admitted {
                admitted.greeted();
            }
            service.metrics.client_connections_opened.increment();
            service.metrics.client_connections.add(1);
            let user = greeted.user.as_ref().map(|user| user.name.as_str());
            let certificate = greeted.certificate.as_ref().map(|named| named.name.as_str());
            debug!(client = ?greeted.hello.client_name, user, certificate, virtual_host = %greeted.hello.virtual_host, "client connected");
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
        debug!(reason = %error.message, "a client's handshake failed");
        if let Err(error) = send(&mut socket, &BrokerFrame::Goodbye(error)).await {
            debug!(%error, "a client did not hear why its handshake failed");
        }
        drain(&mut socket).await;
    }
}

/// Why there was no handshake.
pub(super) enum Refusal {
    /// The client went away.
    Gone,
    /// The client is to be told.
    Said(ErrorBody),
}

async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
    origin: &Origin,
    service: &Service,
) -> Result<Greeted, Refusal> {
    let mut codec = FrameCodec::<ClientFrame>::new(Limits {
        frame_bytes_max: usize::try_from(service.limits.handshake_bytes_max).unwrap_or(usize::MAX),
    });
    let mut arrived = BytesMut::new();
    let first = next_frame(socket, &mut codec, &mut arrived).await?;
    let ClientFrame::Hello(hello) = first else {
        let words = "the first frame of a connection has to be Hello";
        return Err(Refusal::Said(ErrorBody::not_done(ErrorCode::UnexpectedFrame, words)));
    };
    let version =
        negotiate(hello.version_min..=hello.version_max, VERSIONS).map_err(Refusal::Said)?;
    let mut door =
        Door { socket: &mut *socket, codec: &mut codec, arrived: &mut arrived, service, origin };
    let Entry { user, proof } = door.admit(&hello).await?;
    let welcome = BrokerFrame::Welcome(welcome(service, version, proof));
    send(socket, &welcome).await.map_err(|_| Refusal::Gone)?;
    codec.set_limits(service.frame_limits());
    let certificate = origin.certificate.clone();
    let (from, secured) = (origin.address, origin.secured);
    Ok(Greeted { hello, certificate, codec, arrived, user, from, secured })
}

/// The next frame of a client that has not been let in yet.
pub(super) async fn next_frame<S: AsyncRead + Unpin>(
    socket: &mut S,
    codec: &mut FrameCodec<ClientFrame>,
    arrived: &mut BytesMut,
) -> Result<ClientFrame, Refusal> {
    loop {
        if arrived.first() == Some(&TLS_FIRST_BYTE) {
            return Err(Refusal::Said(tls_unexpected()));
        }
        match codec.decode(arrived) {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => {}
            Err(CodecError::Frame(error)) => return Err(Refusal::Said(error.into())),
            Err(CodecError::Io(_)) => return Err(Refusal::Gone),
        }
        match socket.read_buf(arrived).await {
            Ok(0) | Err(_) => return Err(Refusal::Gone),
            Ok(_) => {}
        }
    }
}

fn welcome(service: &Service, version: u16, proof: Option<LoginData>) -> Welcome {
    let narrow = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    Welcome {
        version,
        cluster: service.catalog.cluster(),
        broker: service.catalog.me(),
        heartbeat_ms: u32::try_from(service.heartbeat.as_millis()).unwrap_or(u32::MAX),
        frame_bytes_max: narrow(service.limits.frame_bytes_max),
        message_bytes_max: narrow(service.limits.message_bytes_max),
        brokers: service.catalog.addresses(),
        proof,
    }
}

pub(super) async fn send<S: AsyncWrite + Unpin>(
    socket: &mut S,
    frame: &BrokerFrame,
) -> std::io::Result<()> {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    send_bytes(socket, &bytes).await
}

/// The same with what is a frame already, or is none.
pub(super) async fn send_bytes<S: AsyncWrite + Unpin>(
    socket: &mut S,
    bytes: &[u8],
) -> std::io::Result<()> {
    let written = async {
        socket.write_all(bytes).await?;
        socket.flush().await
    };
    tokio::time::timeout(GREETING_TIMEOUT, written).await.map_err(std::io::Error::from)?
}

/// Reads a little of what a refused client still sends: closed with unread bytes, a socket is reset, and the goodbye lost.
pub(crate) async fn drain<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut S) {
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
