//! TLS between brokers: each shows a certificate that names its id and its cluster, and each checks the other's before a
//! frame is sent or read. Without certificates the socket is used as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bellwether_protocol::CodecError;
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::peer::PeerFrame;
use bellwether_tls::rustls::pki_types::ServerName;
use bellwether_tls::tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use bellwether_tls::{BrokerName, NotABroker, Side, TLS_FIRST_BYTE, explain};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::PeersConfig;
use super::dial::Target;
use super::hello::{Framed, GreetError, HELLO_WAIT};
use crate::connection::drain;

/// A connection between brokers. An enum and no `Box<dyn …>`: without TLS the two halves are the socket's own, which share no
/// lock, and all that is added is one branch a read.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What is read from.
pub(super) enum ReadHalf {
    Plain(OwnedReadHalf),
    Tls(tokio::io::ReadHalf<TlsStream<TcpStream>>),
}

/// What is written to.
pub(super) enum WriteHalf {
    Plain(OwnedWriteHalf),
    Tls(tokio::io::WriteHalf<TlsStream<TcpStream>>),
}

impl Stream {
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Stream::Plain(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Plain(read), WriteHalf::Plain(write))
            }
            Stream::Tls(stream) => {
                let (read, write) = tokio::io::split(*stream);
                (ReadHalf::Tls(read), WriteHalf::Tls(write))
            }
        }
    }
}

/// Why there is no secure connection. Proves nothing about the life of any broker.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsecured {
    #[error("{0}")]
    Handshake(String),
    #[error("the TLS handshake took longer than {} s", HELLO_WAIT.as_secs())]
    Silent,
    /// As the connections of a dying process do: it is dialed again soon.
    #[error("the connection ended in the TLS handshake")]
    Ended,
    /// What arrived is not TLS.
    #[error("this port speaks TLS, and what arrived is not TLS")]
    Plain,
    #[error("the certificate of whoever connected is not a broker's: {0}")]
    NotABroker(NotABroker),
    #[error("the certificate that was shown is for {found}; {wanted} was expected")]
    OtherBroker { found: BrokerName, wanted: String },
}

type Secured = (Stream, Option<BrokerName>);

/// Secures a connection that the target is to be at the other end of. Who has said that it speaks TLS is never spoken to without.
pub(super) async fn dialed(
    config: &PeersConfig,
    target: &Target,
    stream: TcpStream,
) -> Result<Secured, Unsecured> {
    let tls = config.tls.as_ref().filter(|_| target.tls || !config.plain_too);
    let Some(tls) = tls else { return Ok((Stream::Plain(stream), None)) };
    // The name is not judged, the certificate is: see below.
    let name = ServerName::try_from("broker.invalid").expect("this is a host name");
    let connecting = TlsConnector::from(tls.current().client).connect(name, stream);
    let stream = within(connecting).await?.map_err(|error| failed(&error, Side::Dialer))?;
    let named = name_of(stream.get_ref().1.peer_certificates())?;
    let wanted = BrokerName { cluster: config.cluster.0, broker: target.life.broker.0 };
    if named != wanted {
        return Err(Unsecured::OtherBroker { found: named, wanted: wanted.to_string() });
    }
    Ok((Stream::Tls(Box::new(TlsStream::from(stream))), Some(named)))
}

/// Secures a connection that somebody has made. Whoever is refused is told, and none of its frames is read.
pub(super) async fn accepted(
    config: &PeersConfig,
    stream: TcpStream,
) -> Result<Secured, Unsecured> {
    let Some(tls) = &config.tls else { return Ok((Stream::Plain(stream), None)) };
    let mut first = [0];
    match within(stream.peek(&mut first)).await? {
        Ok(0) | Err(_) => return Err(Unsecured::Ended),
        // The first frame is a hello, whose length begins with a zero byte.
        Ok(_) if first[0] != TLS_FIRST_BYTE && config.plain_too => {
            return Ok((Stream::Plain(stream), None));
        }
        Ok(_) if first[0] != TLS_FIRST_BYTE => {
            refuse(stream, ErrorCode::TlsExpected, "this broker speaks TLS with other brokers: give --peer-tls-cert, --peer-tls-key and --peer-tls-ca, and where a running cluster is changed over --peer-tls accept").await;
            return Err(Unsecured::Plain);
        }
        Ok(_) => {}
    }
    let accepting = TlsAcceptor::from(tls.current().server).accept(stream).into_fallible();
    let stream = match within(accepting).await? {
        Ok(stream) => stream,
        Err((error, mut socket)) => {
            drain(&mut socket).await;
            return Err(failed(&error, Side::Acceptor));
        }
    };
    let cluster = config.cluster;
    match name_of(stream.get_ref().1.peer_certificates()) {
        Ok(named) if named.cluster == cluster.0 => {
            Ok((Stream::Tls(Box::new(TlsStream::from(stream))), Some(named)))
        }
        Ok(found) => {
            let words = format!("the certificate is for {found}, and this is cluster {cluster}");
            refuse(stream, ErrorCode::WrongCertificate, words).await;
            Err(Unsecured::OtherBroker { found, wanted: format!("a broker of cluster {cluster}") })
        }
        Err(error) => {
            let words = format!("this is a port for brokers, and of the certificate: {error}");
            refuse(stream, ErrorCode::WrongCertificate, words).await;
            Err(error)
        }
    }
}

fn name_of(
    chain: Option<&[bellwether_tls::rustls::pki_types::CertificateDer<'_>]>,
) -> Result<BrokerName, Unsecured> {
    BrokerName::of(chain.unwrap_or_default()).map_err(Unsecured::NotABroker)
}

async fn within<T>(doing: impl Future<Output = T>) -> Result<T, Unsecured> {
    tokio::time::timeout(HELLO_WAIT, doing).await.map_err(|_| Unsecured::Silent)
}

fn failed(error: &io::Error, side: Side) -> Unsecured {
    explain(error, side).map_or(Unsecured::Ended, Unsecured::Handshake)
}

/// Why an accepting broker has refused the certificate that it was shown: with TLS 1.3 that is heard behind the handshake.
pub(super) fn refused(error: &GreetError) -> Option<Unsecured> {
    match error {
        GreetError::Codec(CodecError::Io(error)) => {
            explain(error, Side::Dialer).map(Unsecured::Handshake)
        }
        _ => None,
    }
}

async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    code: ErrorCode,
    words: impl Into<String>,
) {
    let goodbye = PeerFrame::Goodbye(ErrorBody::not_done(code, words));
    let mut framed = Framed::new(stream);
    match within(framed.write(&goodbye)).await {
        Ok(Ok(())) => drain(&mut framed.stream).await,
        Ok(Err(error)) => {
            tracing::debug!(%error, "whoever was refused did not wait for the reason")
        }
        Err(error) => tracing::debug!(%error, "whoever was refused does not take the reason"),
    }
}

/// Hands each call on to what is inside.
macro_rules! hand_on {
    ($name:ident: read) => {
        impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $name::Plain(inner) => Pin::new(inner).poll_read(cx, buf),
                    $name::Tls(inner) => Pin::new(inner).poll_read(cx, buf),
                }
            }
        }
    };
    ($name:ident: write) => {
        impl AsyncWrite for $name {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $name::Plain(inner) => Pin::new(inner).poll_write(cx, buf),
                    $name::Tls(inner) => Pin::new(inner).poll_write(cx, buf),
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $name::Plain(inner) => Pin::new(inner).poll_flush(cx),
                    $name::Tls(inner) => Pin::new(inner).poll_flush(cx),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $name::Plain(inner) => Pin::new(inner).poll_shutdown(cx),
                    $name::Tls(inner) => Pin::new(inner).poll_shutdown(cx),
                }
            }
        }
    };
}

hand_on!(Stream: read);
hand_on!(Stream: write);
hand_on!(ReadHalf: read);
hand_on!(WriteHalf: write);
