//! What a failed handshake means, and what to do about it.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// Who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Whoever dialed. `the other side` is a broker.
    Dialer,
    /// Whoever accepted.
    Acceptor,
}

/// The words for an error of a TLS stream; `None` when TLS has nothing to do with it.
#[must_use]
pub fn explain(error: &io::Error, side: Side) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(error) => certificate(error, side),
        Error::InvalidMessage(_) => match side {
            Side::Dialer => "the broker does not answer in TLS: its port takes plain connections. Leave the TLS options away, or give the broker a certificate".to_owned(),
            Side::Acceptor => "what arrived is not TLS".to_owned(),
        },
        Error::AlertReceived(alert) => alert_words(*alert, side),
        Error::NoCertificatesPresented => "the client showed no certificate, and this port asks for one".to_owned(),
        Error::PeerIncompatible(why) => format!("no TLS version or cipher that both sides know ({why:?}); TLS 1.2 or 1.3 is needed"),
        other => format!("the TLS handshake failed: {other}"),
    })
}

fn certificate(error: &CertificateError, side: Side) -> String {
    let whose = match side {
        Side::Dialer => "the broker's certificate",
        Side::Acceptor => "the certificate of whoever connected",
    };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => format!(
            "{whose} has expired. Replace it (brokers see new files by themselves), or correct this machine's clock"
        ),
        CertificateError::Revoked => format!("{whose} was revoked by its authority"),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => format!(
            "{whose} is not valid yet. Compare the clocks of this machine and of the one that made it"
        ),
        // A bad signature is what an authority of the same name and with another key comes to.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => match side {
            Side::Dialer => format!(
                "{whose} is signed by an authority that is not trusted here. Name the authority's certificate (--tls-ca FILE), and see that it is the one of this cluster"
            ),
            Side::Acceptor => {
                format!("{whose} is signed by an authority that is not trusted here")
            }
        },
        CertificateError::NotValidForName => format!(
            "{whose} is for another name than the one that was dialed. Connect by a name that it bears, or say which one to expect (--tls-server-name NAME)"
        ),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "{whose} is for {}, not for {}. Connect by a name that it bears, or say which one to expect (--tls-server-name NAME)",
            if presented.is_empty() { "no host".to_owned() } else { presented.join(", ") },
            expected.to_str(),
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            let purpose = match side {
                Side::Dialer => "serverAuth",
                Side::Acceptor => "clientAuth",
            };
            format!("{whose} was not made for this use: its extended key usage lacks {purpose}")
        }
        other => format!("{whose} is not acceptable: {other}"),
    }
}

fn alert_words(alert: AlertDescription, side: Side) -> String {
    let (whose, other) = match side {
        Side::Dialer => ("this side's certificate (--tls-cert)", "the broker"),
        Side::Acceptor => ("this broker's certificate", "whoever connected"),
    };
    match alert {
        AlertDescription::CertificateRequired => {
            format!("{other} asks for a certificate: give one with --tls-cert FILE --tls-key FILE")
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            format!("{other} does not trust the authority that signed {whose}")
        }
        AlertDescription::CertificateExpired => format!("{other} says that {whose} has expired"),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRevoked
        | AlertDescription::AccessDenied => {
            format!("{other} does not accept {whose} ({alert:?})")
        }
        AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => {
            format!("{other} knows no TLS version or cipher that this side knows ({alert:?})")
        }
        AlertDescription::InternalError => {
            format!("{other} takes no more connections, or has failed; its log says which")
        }
        _ => format!("{other} ended the TLS handshake ({alert:?})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(error: Error, side: Side) -> String {
        let error = io::Error::new(io::ErrorKind::InvalidData, error);
        explain(&error, side).expect("an error of TLS")
    }

    #[test]
    fn each_failure_of_a_clients_handshake_says_what_to_do() {
        let certificate = Error::InvalidCertificate;
        for (error, said) in [
            (certificate(CertificateError::Expired), "Replace it"),
            (certificate(CertificateError::NotValidYet), "Compare the clocks"),
            (certificate(CertificateError::UnknownIssuer), "--tls-ca FILE"),
            (certificate(CertificateError::BadSignature), "--tls-ca FILE"),
            (certificate(CertificateError::NotValidForName), "--tls-server-name NAME"),
            (Error::AlertReceived(AlertDescription::CertificateRequired), "--tls-cert FILE"),
            (Error::AlertReceived(AlertDescription::UnknownCA), "does not trust"),
            (Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType), "plain"),
        ] {
            let words = words(error, Side::Dialer);
            assert!(words.contains(said), "{words}");
        }
    }

    #[test]
    fn an_error_of_the_socket_is_not_one_of_tls() {
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(explain(&reset, Side::Dialer), None);
        assert_eq!(explain(&io::Error::other("something"), Side::Acceptor), None);
    }
}
