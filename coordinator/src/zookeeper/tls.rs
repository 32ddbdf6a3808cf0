//! TLS with the ensemble. The files are read for each connection, so that new certificates need no restart.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bellwether_tls::{Files, TlsError};
use zookeeper_client as zk;

/// Authorities of the servers' certificates, and the certificate to show to them, in files.
#[derive(Clone)]
pub struct ZooKeeperTls {
    ca: PathBuf,
    identity: Option<(PathBuf, PathBuf)>,
    /// Of the last files that were good.
    options: Arc<Mutex<zk::TlsOptions>>,
}

impl fmt::Debug for ZooKeeperTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeperTls").field("ca", &self.ca).finish_non_exhaustive()
    }
}

impl PartialEq for ZooKeeperTls {
    fn eq(&self, other: &Self) -> bool {
        (&self.ca, &self.identity) == (&other.ca, &other.identity)
    }
}

impl Eq for ZooKeeperTls {}

impl ZooKeeperTls {
    /// Reads the files for the first time. `identity` is a certificate and its key.
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it.
    pub fn open(ca: PathBuf, identity: Option<(PathBuf, PathBuf)>) -> Result<Self, TlsError> {
        // The library asks for the cryptography of the process.
        bellwether_tls::install_provider();
        let options = Arc::new(Mutex::new(read(&ca, identity.as_ref())?));
        Ok(Self { ca, identity, options })
    }

    /// What to connect with: the files as they are now, or as they were when they were last good.
    pub(super) fn options(&self) -> zk::TlsOptions {
        let mut options = self.options.lock().unwrap_or_else(PoisonError::into_inner);
        match read(&self.ca, self.identity.as_ref()) {
            Ok(now) => *options = now,
            Err(error) => {
                tracing::error!(%error, "the certificate files for ZooKeeper are no good: the old ones stay in use");
            }
        }
        options.clone()
    }
}

fn read(ca: &PathBuf, identity: Option<&(PathBuf, PathBuf)>) -> Result<zk::TlsOptions, TlsError> {
    // Judged here first, whose errors name the file.
    bellwether_tls::roots(ca)?;
    let setup = |error: zk::Error| TlsError::Setup(error.to_string());
    let mut options = zk::TlsOptions::new().with_pem_ca(&text(ca)?).map_err(setup)?;
    if let Some((certificate, key)) = identity {
        let files =
            Files { certificate: certificate.clone(), key: key.clone(), ca: None, crl: None };
        bellwether_tls::client_config(
            bellwether_tls::rustls::RootCertStore::empty(),
            &bellwether_tls::Revocations::default(),
            Some(&files.read()?),
        )?;
        options = options.with_pem_identity(&text(certificate)?, &text(key)?).map_err(setup)?;
    }
    Ok(options)
}

fn text(path: &PathBuf) -> Result<String, TlsError> {
    std::fs::read_to_string(path)
        .map_err(|error| TlsError::Unreadable { path: path.clone(), error })
}
