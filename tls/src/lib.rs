//! TLS for everyone in this repository who opens or accepts a connection: certificates from PEM files, what they say of
//! their holder, the configurations made of them, reading them again when they change, and what a failed handshake means.
//!
//! *Invariant:* no cryptography is chosen anywhere else: all configurations use [`provider`], TLS 1.2 and 1.3 only.

mod certificate;
mod configs;
mod files;
#[cfg(feature = "make")]
pub mod make;
mod reload;
#[cfg(feature = "make")]
mod revoked;
mod words;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use certificate::{BrokerName, CertificateIdentity, Facts, IdentitySource, NotABroker};
pub use configs::{
    ClientCertificates, client_config, peer_client_config, server_config, system_roots,
};
pub use files::{Files, Material, Revocations, TlsError, revocations, roots};
pub use reload::{Looked, Reloadable, Reloading};
pub use words::{Side, explain};

pub use rustls;
pub use tokio_rustls;

/// First byte of every TLS connection: a handshake record. As the first byte of a frame of this repository's protocols it
/// would announce more than 350 MB, so that neither is ever taken for the other.
pub const TLS_FIRST_BYTE: u8 = 0x16;

/// The cryptography: ring, which builds with a C compiler alone.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Makes [`provider`] the one of the process, for libraries that ask for none by name. The first call counts.
pub fn install_provider() {
    if CryptoProvider::get_default().is_none()
        && rustls::crypto::ring::default_provider().install_default().is_err()
    {
        tracing::debug!("another thread has chosen the cryptography at the same moment");
    }
}
