//! Opens a connection: the socket, the handshake, and the two tasks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::client::Welcome;
use bellwether_protocol::error::ErrorBody;
use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::login::shake_hands;
use super::{Link, reader, writer};
use crate::builder::Config;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectFailure {
    #[error("{address}: {error}")]
    Socket { address: String, error: io::Error },
    #[error("{address} refused: {} (code {})", error.message, error.code.number())]
    Refused { address: String, error: ErrorBody },
    #[error("{address} does not speak this protocol: {why}")]
    Protocol { address: String, why: String },
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
    let (stream, arrived, welcome) =
        tokio::time::timeout(patience, open(address, config)).await.map_err(silent)??;
    let link = Arc::new(Link::new(address.to_owned(), welcome));
    let (read_half, write_half) = stream.into_split();
    tokio::spawn(reader::run(Arc::clone(&link), read_half, arrived, config.heartbeat));
    tokio::spawn(writer::run(Arc::clone(&link), write_half, closing.child_token()));
    tracing::debug!(broker.id = %link.broker(), broker.address = address, "connected");
    Ok(link)
}

async fn open(
    address: &str,
    config: &Config,
) -> Result<(TcpStream, BytesMut, Welcome), ConnectFailure> {
    let socket = |error| ConnectFailure::Socket { address: address.to_owned(), error };
    let mut stream = TcpStream::connect(address).await.map_err(socket)?;
    // Confirms are waited for one at a time by careful producers: 40 ms of Nagle would be their latency.
    stream.set_nodelay(true).map_err(socket)?;
    let (arrived, welcome) = shake_hands(address, &mut stream, config).await?;
    Ok((stream, arrived, welcome))
}
