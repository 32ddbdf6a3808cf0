//! Opens a connection: the socket, the handshake, and the two tasks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::client::Welcome;
use bellwether_protocol::error::ErrorBody;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::login::shake_hands;
use super::{Link, reader, writer};
use crate::builder::Config;
use crate::tls::{Unsecured, unsecured};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectFailure {
    #[error("{address}: {error}")]
    Socket { address: String, error: io::Error },
    #[error("{address} refused: {} (code {})", error.message, error.code.number())]
    Refused { address: String, error: ErrorBody },
    #[error("{address} does not speak this protocol: {why}")]
    Protocol { address: String, why: String },
    #[error("no secure connection with {address}: {why}")]
    Insecure { address: String, why: String },
    #[error("{address} did not answer within {waited:.1?}")]
    Silent { address: String, waited: Duration },
    #[error("{address}: {why}")]
    Unreached { address: String, why: String },
}

/// Connects to `address` and shakes hands, within `patience`. The tasks end with the link or with `closing`.
pub(crate) async fn connect(
    address: &str,
    config: &Config,
    patience: Duration,
    closing: &CancellationToken,
) -> Result<Arc<Link>, ConnectFailure> {
    let silent = |_| ConnectFailure::Silent { address: address.to_owned(), waited: patience };
    let opening = open(address, config, closing);
    let link = tokio::time::timeout(patience, opening).await.map_err(silent)??;
    tracing::debug!(broker.id = %link.broker(), broker.address = address, "connected");
    Ok(link)
}

async fn open(
    address: &str,
    config: &Config,
    closing: &CancellationToken,
) -> Result<Arc<Link>, ConnectFailure> {
    let socket = |error| failed(address, error);
    let mut stream = TcpStream::connect(address).await.map_err(socket)?;
    // Confirms are waited for one at a time by careful producers: 40 ms of Nagle would be their latency.
    stream.set_nodelay(true).map_err(socket)?;
    let Some(tls) = &config.tls else {
        let greeted = shake_hands(address, &mut stream, config).await?;
        return Ok(begin(address, config, closing, greeted, stream.into_split()));
    };
    let secured = tls.connect(address, stream).await;
    let mut stream = secured.map_err(|error| insecure(address, error))?;
    let greeted = shake_hands(address, &mut stream, config).await?;
    Ok(begin(address, config, closing, greeted, tokio::io::split(stream)))
}

/// Starts the two tasks of a connection. They are the same code for a plain socket, whose halves share no lock, as for TLS.
fn begin<R, W>(
    address: &str,
    config: &Config,
    closing: &CancellationToken,
    (arrived, welcome): (BytesMut, Welcome),
    (read_half, write_half): (R, W),
) -> Arc<Link>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let link = Arc::new(Link::new(address.to_owned(), welcome));
    tokio::spawn(reader::run(Arc::clone(&link), read_half, arrived, config.heartbeat));
    tokio::spawn(writer::run(Arc::clone(&link), write_half, closing.child_token()));
    link
}

fn insecure(address: &str, error: Unsecured) -> ConnectFailure {
    let address = address.to_owned();
    match error {
        Unsecured::Tls(why) => ConnectFailure::Insecure { address, why },
        Unsecured::Socket(error) => ConnectFailure::Socket { address, error },
    }
}

/// An error of a socket. With TLS 1.3 a broker that refuses this side's certificate says so only behind the handshake.
pub(super) fn failed(address: &str, error: io::Error) -> ConnectFailure {
    insecure(address, unsecured(error))
}
