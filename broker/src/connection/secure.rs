//! TLS in front of the handshake, on a port that has a certificate. It counts into the time of the handshake, and the
//! connection into the limit of connections from its first byte.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bellwether_protocol::client::BrokerFrame;
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_tls::tokio_rustls::TlsAcceptor;
use bellwether_tls::tokio_rustls::server::TlsStream;
use bellwether_tls::{CertificateIdentity, Side, TLS_FIRST_BYTE, explain};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::Service;
use super::admission::Admitted;
use super::handshake::{Arrival, drain, send, send_bytes, serve_arrived};
use crate::login::Origin;
use crate::tls::ClientTls;

/// Why a connection is not secure.
enum Unsecured {
    /// The client went away.
    Gone,
    /// What arrived is not TLS.
    Plain(TcpStream),
    /// The TLS handshake failed; the alert that says why has been sent.
    Failed(io::Error, TcpStream),
}

/// Serves whoever has connected to the port of clients.
pub(super) async fn serve_socket(
    socket: TcpStream,
    from: IpAddr,
    admitted: Admitted,
    service: Arc<Service>,
    shutdown: CancellationToken,
) {
    let until = Instant::now() + service.handshake_timeout;
    let Some(tls) = service.tls.clone() else {
        let arrival = Arrival { origin: Origin::plain(from), until, admitted: Some(admitted) };
        return serve_arrived(socket, arrival, service, shutdown).await;
    };
    let secured = tokio::select! {
        secured = tokio::time::timeout_at(until, secure(&tls, socket)) => secured,
        () = shutdown.cancelled() => return,
    };
    let (reason, rest) = match secured {
        Ok(Ok((stream, certificate))) => {
            let origin = Origin::tls(from, certificate);
            let arrival = Arrival { origin, until, admitted: Some(admitted) };
            return serve_arrived(stream, arrival, service, shutdown).await;
        }
        Ok(Err(Unsecured::Gone)) => ("it went away in the TLS handshake".to_owned(), None),
        Ok(Err(Unsecured::Plain(socket))) if service.plain_too => {
            service.metrics.client_connections_plain.increment();
            debug!(%from, "a client is taken without TLS");
            let arrival = Arrival { origin: Origin::plain(from), until, admitted: Some(admitted) };
            return serve_arrived(socket, arrival, service, shutdown).await;
        }
        Ok(Err(Unsecured::Plain(mut socket))) => {
            let error = tls_expected();
            if let Err(error) = send(&mut socket, &BrokerFrame::Goodbye(error.clone())).await {
                debug!(%error, "a client did not hear that this port speaks TLS");
            }
            (error.message, Some(socket))
        }
        Ok(Err(Unsecured::Failed(error, socket))) => {
            let words = explain(&error, Side::Acceptor).unwrap_or_else(|| error.to_string());
            (words, Some(socket))
        }
        Err(_elapsed) => ("the TLS handshake took too long".to_owned(), None),
    };
    service.metrics.handshakes_failed.increment();
    if let Some(times) = service.login.handshakes_told.happened() {
        info!(reason, %from, times, "a client's handshake failed");
    }
    if let Some(mut socket) = rest {
        drain(&mut socket).await;
    }
}

/// A TLS record: the fatal alert "internal error". Whoever is turned away is not worth a TLS handshake, and cannot read a
/// goodbye without one.
const TURNED_AWAY: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x50];

/// Tells a client that is not let in why; where TLS is spoken only that it is not let in.
pub(super) async fn turn_away(mut socket: TcpStream, reason: ErrorBody, secure: bool) {
    let told = match secure {
        true => send_bytes(&mut socket, &TURNED_AWAY).await,
        false => send(&mut socket, &BrokerFrame::Goodbye(reason)).await,
    };
    if let Err(error) = told {
        debug!(%error, "a client did not hear why it was turned away");
    }
    drain(&mut socket).await;
}

fn tls_expected() -> ErrorBody {
    ErrorBody::not_done(
        ErrorCode::TlsExpected,
        "this port speaks TLS, and what arrived is not TLS: connect with TLS (--tls, or --tls-ca FILE with the cluster's authority)",
    )
}

/// What a plain port says to who speaks TLS. Whoever it is cannot read it, but sees that the answer is not TLS.
pub(super) fn tls_unexpected() -> ErrorBody {
    ErrorBody::not_done(
        ErrorCode::TlsUnexpected,
        "what arrived is TLS, and this port does not speak TLS: connect without, or give the broker a certificate (--tls-cert, --tls-key)",
    )
}

type Secured = (TlsStream<TcpStream>, Option<CertificateIdentity>);

async fn secure(tls: &ClientTls, socket: TcpStream) -> Result<Secured, Unsecured> {
    let mut first = [0];
    match socket.peek(&mut first).await {
        Ok(0) | Err(_) => return Err(Unsecured::Gone),
        Ok(_) if first[0] != TLS_FIRST_BYTE => return Err(Unsecured::Plain(socket)),
        Ok(_) => {}
    }
    let accepting = TlsAcceptor::from(tls.current()).accept(socket).into_fallible();
    let stream = accepting.await.map_err(|(error, socket)| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Unsecured::Gone,
        _ => Unsecured::Failed(error, socket),
    })?;
    let chain = stream.get_ref().1.peer_certificates();
    let certificate = chain.and_then(CertificateIdentity::of);
    Ok((stream, certificate))
}
