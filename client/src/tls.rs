//! TLS with the brokers: what an application says about it, and the connections made of that.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bellwether_tls::rustls::pki_types::ServerName;
use bellwether_tls::rustls::{ClientConfig, RootCertStore};
use bellwether_tls::tokio_rustls::TlsConnector;
use bellwether_tls::tokio_rustls::client::TlsStream;
use bellwether_tls::{
    Files, Side, TlsError, client_config, explain, revocations, roots, system_roots,
};
use tokio::net::TcpStream;

use crate::lock::Locked;

/// How a client speaks TLS with the brokers. The default trusts the authorities that this system trusts, shows no
/// certificate, and expects of each broker the host name that it was dialed by.
///
/// Files are PEM, and are read again for each connection: a renewed certificate needs no restart.
///
/// ```no_run
/// # async fn example() -> Result<(), bellwether_client::ConnectError> {
/// use bellwether_client::{Client, TlsOptions};
/// let tls = TlsOptions::new().ca_file("ca.crt").certificate("billing.crt", "billing.key");
/// let client = Client::builder().tls(tls).connect(["broker-1:7400"]).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    ca: Option<PathBuf>,
    crl: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
    server_name: Option<String>,
}

impl TlsOptions {
    /// The default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities in this file, in place of the system's.
    #[must_use]
    pub fn ca_file(mut self, path: impl AsRef<Path>) -> Self {
        self.ca = Some(path.as_ref().to_owned());
        self
    }

    /// Refuses brokers whose certificates stand in the lists in this file, which their authorities have signed.
    #[must_use]
    pub fn crl_file(mut self, path: impl AsRef<Path>) -> Self {
        self.crl = Some(path.as_ref().to_owned());
        self
    }

    /// Shows this certificate to brokers that ask for one.
    #[must_use]
    pub fn certificate(mut self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.certificate = Some((certificate.as_ref().to_owned(), key.as_ref().to_owned()));
        self
    }

    /// Expects this name of every broker, by whatever address it is dialed: for addresses that no certificate bears.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Whether brokers can tell by it who the client is.
    pub(crate) fn shows_certificate(&self) -> bool {
        self.certificate.is_some()
    }

    /// Judges it all once, before anything is dialed.
    pub(crate) fn open(self) -> Result<Secure, TlsError> {
        let name = self.server_name.as_deref().map(server_name).transpose()?;
        let system = match self.ca {
            Some(_) => None,
            None => Some(system_roots()?),
        };
        let config = self.read(system.as_ref())?;
        Ok(Secure { options: self, name, system, config: Locked::new(config) })
    }

    fn read(&self, system: Option<&RootCertStore>) -> Result<Arc<ClientConfig>, TlsError> {
        let roots = match (&self.ca, system) {
            (Some(path), _) => roots(path)?,
            (None, Some(system)) => system.clone(),
            (None, None) => system_roots()?,
        };
        let identity = match self.certificate.clone() {
            Some((certificate, key)) => {
                Some(Files { certificate, key, ca: None, crl: None }.read()?)
            }
            None => None,
        };
        let revoked = self.crl.as_deref().map(revocations).transpose()?.unwrap_or_default();
        client_config(roots, &revoked, identity.as_ref())
    }
}

/// [`TlsOptions`] that have been judged.
#[derive(Debug)]
pub(crate) struct Secure {
    options: TlsOptions,
    name: Option<ServerName<'static>>,
    /// Many files in many places: read once.
    system: Option<RootCertStore>,
    /// Of the last files that were good.
    config: Locked<Arc<ClientConfig>>,
}

/// Why a connection is not secure.
pub(crate) enum Unsecured {
    Socket(std::io::Error),
    Tls(String),
}

impl Secure {
    /// TLS with whoever is at the other end of `stream`, which was dialed as `address`.
    pub(crate) async fn connect(
        &self,
        address: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Unsecured> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                server_name(host_of(address)).map_err(|error| Unsecured::Tls(error.to_string()))?
            }
        };
        TlsConnector::from(self.current()).connect(name, stream).await.map_err(unsecured)
    }

    fn current(&self) -> Arc<ClientConfig> {
        let read = self.options.read(self.system.as_ref());
        let mut config = self.config.lock();
        match read {
            Ok(now) => *config = now,
            Err(error) => {
                tracing::warn!(%error, "the certificate files are no good: what was read before stays in use");
            }
        }
        Arc::clone(&config)
    }
}

/// What an error of a secure connection means.
pub(crate) fn unsecured(error: std::io::Error) -> Unsecured {
    match explain(&error, Side::Dialer) {
        Some(words) => Unsecured::Tls(words),
        None => Unsecured::Socket(error),
    }
}

fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_matches(['[', ']'])
}

fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_expected_of_the_host_and_not_of_the_port() {
        assert_eq!(host_of("broker-1.example:7400"), "broker-1.example");
        assert_eq!(host_of("[::1]:7400"), "::1");
        assert!(matches!(server_name(host_of("[::1]:1")), Ok(ServerName::IpAddress(_))));
        assert!(matches!(server_name("no name"), Err(TlsError::ServerName(_))));
    }

    #[test]
    fn files_that_are_no_good_are_named_before_anything_is_dialed() {
        let error = TlsOptions::new().ca_file("/nowhere/ca.crt").open().unwrap_err();
        assert!(error.to_string().contains("/nowhere/ca.crt"), "{error}");
    }
}
