//! Makes certificates, for trials, small installations and tests: an authority, and with it certificates of brokers and clients.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::certificate::{BrokerName, revocable, serial_of};
use crate::revoked::Revoked;

/// How far back a certificate begins to be valid, so that a machine whose clock is a little late takes it at once.
const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(3600);

/// A certificate and its key, as they stand in PEM files.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    #[error("{0:?} cannot stand in a certificate: {1}")]
    Name(String, String),
    #[error("the authority's certificate or key cannot be used: {0}")]
    Authority(String),
    #[error("{0}")]
    Revocation(String),
    #[error("the certificate could not be made: {0}")]
    Failed(String),
}

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pair: Pair,
}

impl Authority {
    /// A new one, called `name`, for as long as `lasts`.
    ///
    /// # Errors
    /// [`MakeError`].
    pub fn new(name: &str, lasts: Duration) -> Result<Authority, MakeError> {
        let mut params = params(name, lasts)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        let pair = Pair { certificate: certificate.pem(), key: key.serialize_pem() };
        Ok(Authority { issuer: Issuer::new(params, key), pair })
    }

    /// One that was made before.
    ///
    /// # Errors
    /// [`MakeError::Authority`] when it is none.
    pub fn open(pair: Pair) -> Result<Authority, MakeError> {
        let unusable = |error: rcgen::Error| MakeError::Authority(error.to_string());
        let key = KeyPair::from_pem(&pair.key).map_err(unusable)?;
        let issuer = Issuer::from_ca_cert_pem(&pair.certificate, key).map_err(unusable)?;
        Ok(Authority { issuer, pair })
    }

    /// Its own certificate, which others are to trust, and its key, which nobody is to see.
    #[must_use]
    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    /// For a broker: for its port of clients, where `hosts` are the names and IP addresses that clients dial, and for its port of
    /// brokers.
    ///
    /// # Errors
    /// [`MakeError`].
    pub fn broker(
        &self,
        name: BrokerName,
        hosts: &[String],
        lasts: Duration,
    ) -> Result<Pair, MakeError> {
        let mut params = params(&format!("broker {}", name.broker), lasts)?;
        params.subject_alt_names.push(uri(&name.to_string())?);
        for host in hosts {
            params.subject_alt_names.push(match host.parse() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(ia5(host)?),
            });
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// For a client that is to be known as `name`.
    ///
    /// # Errors
    /// [`MakeError`].
    pub fn client(&self, name: &str, lasts: Duration) -> Result<Pair, MakeError> {
        let mut params = params(name, lasts)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// The list of those of its certificates that are not to be accepted any more.
    ///
    /// # Errors
    /// [`MakeError`].
    pub fn revoke(&self, certificates: &[&Pair], lasts: Duration) -> Result<String, MakeError> {
        let now = SystemTime::now();
        let revoked = |pair: &&Pair| {
            let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes());
            let der = der.map_err(|error| MakeError::Failed(error.to_string()))?;
            let serial = serial_of(&der).map_err(MakeError::Failed)?;
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: now.into(),
                reason_code: None,
                invalidity_date: None,
            })
        };
        let params = CertificateRevocationListParams {
            this_update: (now - CLOCKS_DIFFER_BY).into(),
            next_update: (now + lasts).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: certificates.iter().map(revoked).collect::<Result<_, _>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(failed)
    }

    /// The list `before` (none: an empty one) with these certificates on it, too; and whose they are, of those that were not on it.
    ///
    /// # Errors
    /// [`MakeError::Revocation`] when one of them is none of this authority's, or the list is not: a broker would not heed it.
    pub fn revoke_more(
        &self,
        before: Option<&str>,
        certificates: &[String],
        lasts: Duration,
    ) -> Result<(String, Vec<String>), MakeError> {
        let refused = |why: String| MakeError::Revocation(why);
        let own = self.pair.certificate.as_bytes();
        let own = CertificateDer::from_pem_slice(own)
            .map_err(|error| MakeError::Authority(error.to_string()))?;
        let own = revocable(&own).map_err(MakeError::Authority)?.name;
        let mut list = match before {
            Some(text) => Revoked::read(text, &own).map_err(refused)?,
            None => Revoked::default(),
        };
        let mut added = Vec::new();
        for text in certificates {
            let der = CertificateDer::from_pem_slice(text.as_bytes())
                .map_err(|error| refused(format!("this is no certificate ({error})")))?;
            let one = revocable(&der).map_err(refused)?;
            if one.issuer != own {
                return Err(refused(format!(
                    "the certificate of {} was signed by another authority: only that one can revoke it",
                    one.subject
                )));
            }
            if list.add(one.serial, SystemTime::now()) {
                added.push(one.subject);
            }
        }
        let now = SystemTime::now();
        let params = CertificateRevocationListParams {
            this_update: (now - CLOCKS_DIFFER_BY).into(),
            next_update: (now + lasts).into(),
            crl_number: SerialNumber::from(list.number + 1),
            issuing_distribution_point: None,
            revoked_certs: list
                .entries
                .into_iter()
                .map(|(serial, since)| RevokedCertParams {
                    serial_number: SerialNumber::from(serial),
                    revocation_time: since.into(),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let text = params.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(failed)?;
        Ok((text, added))
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Pair, MakeError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn params(name: &str, lasts: Duration) -> Result<CertificateParams, MakeError> {
    if name.is_empty() {
        return Err(MakeError::Name(String::new(), "it is empty".to_owned()));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - CLOCKS_DIFFER_BY).into();
    params.not_after = (now + lasts).into();
    Ok(params)
}

fn uri(text: &str) -> Result<SanType, MakeError> {
    Ok(SanType::URI(ia5(text)?))
}

fn ia5(text: &str) -> Result<rcgen::string::Ia5String, MakeError> {
    text.try_into()
        .map_err(|error: rcgen::Error| MakeError::Name(text.to_owned(), error.to_string()))
}

fn failed(error: rcgen::Error) -> MakeError {
    MakeError::Failed(error.to_string())
}
