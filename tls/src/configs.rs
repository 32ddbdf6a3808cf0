//! The configurations of both sides of a connection, made of what was in the files.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, InconsistentKeys, RootCertStore,
    ServerConfig, SignatureScheme,
};

use crate::files::{Material, Revocations, TlsError};
use crate::provider;

/// Whether clients have to show certificates, signed by an authority of [`Material::ca`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked for.
    Ignored,
    /// Who shows one has to show a good one.
    Optional,
    /// Nobody is taken without.
    Required,
}

/// For those who accept connections.
///
/// # Errors
/// [`TlsError`] when certificate, key and authorities do not fit together, or the certificate has expired.
pub fn server_config(
    material: &Material,
    clients: ClientCertificates,
) -> Result<Arc<ServerConfig>, TlsError> {
    refuse_expired(material)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(setup)?;
    let builder = match clients {
        ClientCertificates::Ignored => builder.with_no_client_auth(),
        ClientCertificates::Optional | ClientCertificates::Required => {
            let roots = Arc::new(material.ca.clone());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = match clients {
                ClientCertificates::Optional => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            // An authority of which there is no list has revoked nothing.
            let verifier = verifier
                .with_crls(material.revocations.lists.clone())
                .allow_unknown_revocation_status();
            let verifier = verifier.build().map_err(|error| unbuilt(&material.revocations, error));
            builder.with_client_cert_verifier(verifier?)
        }
    };
    let mut config = builder
        .with_single_cert(material.chain.clone(), material.key.clone_key())
        .map_err(|error| unfit(material, error))?;
    if clients != ClientCertificates::Ignored {
        // A resumed session is not judged again: a certificate would be good beyond its end.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(Arc::new(config))
}

/// For those who dial by a host name that the other side's certificate has to bear.
///
/// # Errors
/// [`TlsError`] when certificate and key do not fit together.
pub fn client_config(
    roots: RootCertStore,
    revocations: &Revocations,
    identity: Option<&Material>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(setup)?;
    let builder = match revocations.lists.is_empty() {
        true => builder.with_root_certificates(roots),
        false => builder.with_webpki_verifier(server_verifier(roots, revocations)?),
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(material) => builder
            .with_client_auth_cert(material.chain.clone(), material.key.clone_key())
            .map_err(|error| unfit(material, error))?,
    };
    if !revocations.lists.is_empty() {
        // A resumed session is not judged again: a certificate would be good beyond its revocation.
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// For brokers that dial brokers. The chain is judged, and the host name is not: addresses change, and what counts is which
/// broker of which cluster answers. The dialer compares that ([`BrokerName`](crate::BrokerName)) before it says a word.
///
/// # Errors
/// [`TlsError`] when certificate and key do not fit together.
pub fn peer_client_config(material: &Material) -> Result<Arc<ClientConfig>, TlsError> {
    let chain = server_verifier(material.ca.clone(), &material.revocations)?;
    let verifier = ChainOnly { chain, provider: provider() };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(material.chain.clone(), material.key.clone_key())
        .map_err(|error| unfit(material, error))?;
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

fn server_verifier(
    roots: RootCertStore,
    revocations: &Revocations,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .with_crls(revocations.lists.clone())
        .allow_unknown_revocation_status()
        .build()
        .map_err(|error| unbuilt(revocations, error))
}

fn unbuilt(revocations: &Revocations, error: VerifierBuilderError) -> TlsError {
    match error {
        VerifierBuilderError::InvalidCrl(error) => {
            revocations.unusable(Error::InvalidCertRevocationList(error))
        }
        other => TlsError::Setup(other.to_string()),
    }
}

/// The authorities that this system trusts.
///
/// # Errors
/// [`TlsError::NoSystemRoots`] when there are none.
pub fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (taken, _unusable) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        let why: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let why = if why.is_empty() { "the list is empty".to_owned() } else { why.join("; ") };
        return Err(TlsError::NoSystemRoots(why));
    }
    Ok(roots)
}

/// An expired certificate would be refused by everyone who connects: said here, once, and an older one that is still valid stays.
fn refuse_expired(material: &Material) -> Result<(), TlsError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if material.facts.not_after < i64::try_from(now).unwrap_or(i64::MAX) {
        return Err(TlsError::Expired { path: material.files.certificate.clone() });
    }
    Ok(())
}

fn unfit(material: &Material, error: Error) -> TlsError {
    let files = &material.files;
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::KeyOfAnother {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
        },
        Error::InvalidCertificate(why) => {
            TlsError::BadCertificate { path: files.certificate.clone(), why: format!("{why}") }
        }
        other => TlsError::NoKey { path: files.key.clone(), why: other.to_string() },
    }
}

fn setup(error: Error) -> TlsError {
    TlsError::Setup(error.to_string())
}

/// Judges a chain and not the host name.
#[derive(Debug)]
struct ChainOnly {
    chain: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match judged {
            // The name is looked at last, when the chain and the revocations were found right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
