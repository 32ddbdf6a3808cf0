//! Certificates and keys in PEM files.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::certificate::{Facts, NotABroker};

/// Largest PEM file that is read, in bytes: a system's whole list of authorities is a quarter of it. A wrong path must not
/// bring a disk image into memory.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What is wrong with certificates, keys and what was said about them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("{} is larger than {FILE_BYTES_MAX} bytes: it is no PEM file of certificates or of a key", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is no PEM file: {why}", path.display())]
    NotPem { path: PathBuf, why: String },
    #[error("there is no certificate in {}: a PEM file with -----BEGIN CERTIFICATE----- is expected", path.display())]
    NoCertificate { path: PathBuf },
    #[error("there is no usable private key in {} ({why}): an unencrypted PEM file with -----BEGIN PRIVATE KEY----- is expected", path.display())]
    NoKey { path: PathBuf, why: String },
    #[error("the certificate in {}: {why}", path.display())]
    BadCertificate { path: PathBuf, why: String },
    #[error("there is no list of revoked certificates in {}: a PEM file with -----BEGIN X509 CRL----- is expected", path.display())]
    NoRevocations { path: PathBuf },
    #[error("the list of revoked certificates in {}: {why}", path.display())]
    BadRevocations { path: PathBuf, why: String },
    #[error("the certificate in {} has expired: make a new one", path.display())]
    Expired { path: PathBuf },
    #[error("the key in {} is not the key of the certificate in {}", key.display(), certificate.display())]
    KeyOfAnother { certificate: PathBuf, key: PathBuf },
    #[error("the certificate in {}: {why}", path.display())]
    NotABroker { path: PathBuf, why: NotABroker },
    #[error(
        "no certificates of authorities are known to this system ({0}): name the one that signed the broker's certificate"
    )]
    NoSystemRoots(String),
    #[error("{0:?} is neither a host name nor an IP address")]
    ServerName(String),
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// Where certificates lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and behind it those that lead to the authority's.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authorities whose certificates are accepted of the other side.
    pub ca: Option<PathBuf>,
    /// Certificates of the other side that are not accepted any more, although their authorities are.
    pub crl: Option<PathBuf>,
}

/// What was in [`Files`].
#[derive(Debug)]
pub struct Material {
    pub files: Files,
    /// The certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// Empty without a file of authorities.
    pub ca: RootCertStore,
    /// Empty without a file of revocations.
    pub revocations: Revocations,
    pub facts: Facts,
}

/// Lists of revoked certificates, each signed by the authority whose certificates they are.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    pub(crate) lists: Vec<CertificateRevocationListDer<'static>>,
    path: PathBuf,
}

impl Revocations {
    /// What is wrong with them.
    pub(crate) fn unusable(&self, why: impl std::fmt::Display) -> TlsError {
        TlsError::BadRevocations { path: self.path.clone(), why: why.to_string() }
    }
}

/// The bytes of [`Files`], to see whether they have changed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bytes {
    certificate: Vec<u8>,
    key: Vec<u8>,
    ca: Option<Vec<u8>>,
    crl: Option<Vec<u8>>,
}

impl Files {
    /// Reads and understands them.
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it.
    pub fn read(&self) -> Result<Material, TlsError> {
        self.understand(&self.bytes()?)
    }

    /// Whether everybody on the machine may read the key, as far as that can be seen.
    #[must_use]
    pub fn key_is_open(&self) -> bool {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(&self.key).is_ok_and(|about| about.permissions().mode() & 0o007 != 0)
    }

    pub(crate) fn bytes(&self) -> Result<Bytes, TlsError> {
        Ok(Bytes {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
            ca: self.ca.as_deref().map(read).transpose()?,
            crl: self.crl.as_deref().map(read).transpose()?,
        })
    }

    pub(crate) fn understand(&self, bytes: &Bytes) -> Result<Material, TlsError> {
        let chain = certificates(&self.certificate, &bytes.certificate)?;
        let path = self.certificate.clone();
        let facts = Facts::of(&chain[0]).map_err(|why| TlsError::BadCertificate { path, why })?;
        let key = PrivateKeyDer::from_pem_slice(&bytes.key)
            .map_err(|error| TlsError::NoKey { path: self.key.clone(), why: error.to_string() })?;
        let ca = match (&self.ca, &bytes.ca) {
            (Some(path), Some(bytes)) => store(path, bytes)?,
            _ => RootCertStore::empty(),
        };
        let revocations = match (&self.crl, &bytes.crl) {
            (Some(path), Some(bytes)) => lists(path, bytes)?,
            _ => Revocations::default(),
        };
        Ok(Material { files: self.clone(), chain, key, ca, revocations, facts })
    }
}

/// The authorities in a PEM file.
///
/// # Errors
/// [`TlsError`] names the file and what is wrong with it.
pub fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    store(path, &read(path)?)
}

/// The lists of revoked certificates in a PEM file.
///
/// # Errors
/// [`TlsError`] names the file and what is wrong with it.
pub fn revocations(path: &Path) -> Result<Revocations, TlsError> {
    lists(path, &read(path)?)
}

fn lists(path: &Path, bytes: &[u8]) -> Result<Revocations, TlsError> {
    let found = CertificateRevocationListDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    let path = path.to_owned();
    match found {
        Err(error) => Err(TlsError::NotPem { path, why: error.to_string() }),
        Ok(lists) if lists.is_empty() => Err(TlsError::NoRevocations { path }),
        Ok(lists) => Ok(Revocations { lists, path }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    use std::io::Read as _;
    let unreadable = |error| TlsError::Unreadable { path: path.to_owned(), error };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(TlsError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let not_pem = |error: rustls::pki_types::pem::Error| TlsError::NotPem {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let found = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(not_pem)?;
    match found.is_empty() {
        true => Err(TlsError::NoCertificate { path: path.to_owned() }),
        false => Ok(found),
    }
}

fn store(path: &Path, bytes: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path, bytes)? {
        store.add(certificate).map_err(|error| TlsError::BadCertificate {
            path: path.to_owned(),
            why: error.to_string(),
        })?;
    }
    Ok(store)
}
