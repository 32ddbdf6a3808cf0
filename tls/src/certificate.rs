//! What a certificate says of its holder: names, serial number, expiry, and whether it is a broker's.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use uuid::Uuid;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Where a broker's name begins. No client's login begins so.
const BROKER_SCHEME: &str = "bellwether://";

/// What rustls does not tell of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Serial number in hexadecimal, as `openssl x509 -serial` shows it.
    pub serial: String,
    /// Common name of the subject.
    pub common_name: Option<String>,
    /// E-mail addresses of the subject's alternative names.
    pub emails: Vec<String>,
    /// URIs of the subject's alternative names.
    pub uris: Vec<String>,
    /// Last second in which it is valid, since 1970.
    pub not_after: i64,
}

impl Facts {
    /// Reads them.
    ///
    /// # Errors
    /// In words, when it is no X.509 certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Facts, String> {
        let (_, parsed) = X509Certificate::from_der(certificate.as_ref())
            .map_err(|error| format!("it is no X.509 certificate ({error})"))?;
        let (mut emails, mut uris) = (Vec::new(), Vec::new());
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| format!("its alternative names cannot be read ({error})"))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::RFC822Name(email) => emails.push((*email).to_owned()),
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                _ => {}
            }
        }
        let common_name = parsed.subject().iter_common_name().next();
        Ok(Facts {
            serial: parsed
                .raw_serial()
                .iter()
                .skip_while(|byte| **byte == 0)
                .map(|byte| format!("{byte:02X}"))
                .collect(),
            common_name: common_name.and_then(|name| name.as_str().ok()).map(str::to_owned),
            emails,
            uris,
            not_after: parsed.validity().not_after.timestamp(),
        })
    }

    fn is_a_brokers(&self) -> bool {
        self.uris.iter().any(|uri| uri.starts_with(BROKER_SCHEME))
    }
}

/// What a list of revoked certificates needs of one of them.
#[cfg(feature = "make")]
pub(crate) struct Revocable {
    /// As it stands in the certificate.
    pub serial: Vec<u8>,
    /// Whose certificate it is, for people.
    pub subject: String,
    /// The name of the authority that signed it, as it stands there.
    pub issuer: Vec<u8>,
    /// Its own name, likewise.
    pub name: Vec<u8>,
}

#[cfg(feature = "make")]
pub(crate) fn revocable(certificate: &CertificateDer<'_>) -> Result<Revocable, String> {
    let (_, parsed) = X509Certificate::from_der(certificate.as_ref())
        .map_err(|error| format!("it is no X.509 certificate ({error})"))?;
    Ok(Revocable {
        serial: parsed.raw_serial().to_vec(),
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().as_raw().to_vec(),
        name: parsed.subject().as_raw().to_vec(),
    })
}

/// The serial number as it stands in the certificate.
#[cfg(feature = "make")]
pub(crate) fn serial_of(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, String> {
    let (_, parsed) = X509Certificate::from_der(certificate.as_ref())
        .map_err(|error| format!("it is no X.509 certificate ({error})"))?;
    Ok(parsed.raw_serial().to_vec())
}

/// Whom a verified client certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// The name: never empty.
    pub name: String,
    /// Which part of the certificate it was taken from.
    pub source: IdentitySource,
    /// Serial number of the certificate, to find it again.
    pub serial: String,
}

/// A part of a certificate that may name its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentitySource {
    /// Common name of the subject.
    CommonName,
    /// First e-mail address of the alternative names.
    Email,
    /// First URI of the alternative names.
    Uri,
}

impl CertificateIdentity {
    /// Whom the first certificate of a verified chain names: its common name; without one, its first e-mail address; without
    /// that, its first URI. A broker's certificate names nobody: who runs a broker is no user by that.
    #[must_use]
    pub fn of(chain: &[CertificateDer<'_>]) -> Option<CertificateIdentity> {
        let facts = Facts::of(chain.first()?).ok()?;
        if facts.is_a_brokers() {
            return None;
        }
        let candidates = [
            (facts.common_name.as_ref(), IdentitySource::CommonName),
            (facts.emails.first(), IdentitySource::Email),
            (facts.uris.first(), IdentitySource::Uri),
        ];
        let (name, source) = candidates
            .into_iter()
            .find_map(|(name, source)| Some((name.filter(|name| !name.is_empty())?, source)))?;
        Some(CertificateIdentity { name: name.clone(), source, serial: facts.serial })
    }
}

impl fmt::Display for CertificateIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Which broker of which cluster a certificate is for: the URI `bellwether://<cluster uuid>/broker/<id>` among its
/// alternative names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerName {
    /// The cluster's id.
    pub cluster: Uuid,
    /// The broker's number.
    pub broker: u32,
}

/// Why a certificate is no broker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotABroker {
    /// No URI of that form.
    #[error(
        "it names no broker: among its alternative names there has to be the URI bellwether://<cluster id>/broker/<broker id>"
    )]
    NoName,
    /// One that cannot be read.
    #[error(
        "{0:?} names no broker; it should look like bellwether://1b4e28ba-2fa1-4d2a-883f-0016d3cca427/broker/1"
    )]
    Malformed(String),
    /// More than one: whoever signed it did not mean one broker.
    #[error("it names more than one broker")]
    Several,
    /// No certificate at all.
    #[error("{0}")]
    Unreadable(String),
}

impl BrokerName {
    /// Whom the first certificate of a verified chain is for.
    ///
    /// # Errors
    /// [`NotABroker`] when it does not name exactly one broker.
    pub fn of(chain: &[CertificateDer<'_>]) -> Result<BrokerName, NotABroker> {
        let certificate =
            chain.first().ok_or_else(|| NotABroker::Unreadable("there is none".to_owned()))?;
        let facts = Facts::of(certificate).map_err(NotABroker::Unreadable)?;
        let mut uris = facts.uris.iter().filter(|uri| uri.starts_with(BROKER_SCHEME));
        match (uris.next(), uris.next()) {
            (Some(uri), None) => uri.parse(),
            (None, _) => Err(NotABroker::NoName),
            (Some(_), Some(_)) => Err(NotABroker::Several),
        }
    }
}

impl fmt::Display for BrokerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BROKER_SCHEME}{}/broker/{}", self.cluster, self.broker)
    }
}

impl FromStr for BrokerName {
    type Err = NotABroker;

    fn from_str(uri: &str) -> Result<BrokerName, NotABroker> {
        let malformed = || NotABroker::Malformed(uri.to_owned());
        let rest = uri.strip_prefix(BROKER_SCHEME).ok_or_else(malformed)?;
        let (cluster, broker) = rest.split_once("/broker/").ok_or_else(malformed)?;
        let name = BrokerName {
            cluster: Uuid::try_parse(cluster).map_err(|_| malformed())?,
            broker: broker.parse().map_err(|_| malformed())?,
        };
        // One spelling for each name: "+1" and "01" are numbers too.
        if name.to_string() == uri { Ok(name) } else { Err(malformed()) }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    const CLUSTER: &str = "1b4e28ba-2fa1-4d2a-883f-0016d3cca427";

    fn certificate(common_name: &str, names: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !common_name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, common_name);
        }
        params.subject_alt_names = names;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn uri(uri: &str) -> SanType {
        SanType::URI(uri.try_into().unwrap())
    }

    fn email(email: &str) -> SanType {
        SanType::Rfc822Name(email.try_into().unwrap())
    }

    #[test]
    fn a_client_is_named_by_its_common_name_or_else_its_address_or_else_its_uri() {
        let named = |common_name, names| {
            CertificateIdentity::of(&[certificate(common_name, names)])
                .map(|identity| (identity.name, identity.source))
        };
        let all = || vec![uri("urn:billing"), email("billing@example.com")];
        assert_eq!(named("billing", all()), Some(("billing".into(), IdentitySource::CommonName)));
        assert_eq!(named("", all()), Some(("billing@example.com".into(), IdentitySource::Email)));
        assert_eq!(
            named("", vec![uri("urn:billing")]),
            Some(("urn:billing".into(), IdentitySource::Uri))
        );
        assert_eq!(named("", vec![]), None);
    }

    #[test]
    fn a_brokers_certificate_names_no_user_whatever_its_common_name() {
        let broker = uri(&format!("bellwether://{CLUSTER}/broker/1"));
        assert_eq!(CertificateIdentity::of(&[certificate("admin", vec![broker])]), None);
    }

    #[test]
    fn a_broker_is_named_by_exactly_one_uri() {
        let name = format!("bellwether://{CLUSTER}/broker/7");
        let of = |names| BrokerName::of(&[certificate("b", names)]);
        let found = of(vec![uri("urn:x"), uri(&name)]).unwrap();
        assert_eq!((found.cluster.to_string().as_str(), found.broker), (CLUSTER, 7));
        assert_eq!(found.to_string(), name);
        assert_eq!(of(vec![email("b@example.com")]), Err(NotABroker::NoName));
        assert_eq!(of(vec![uri(&name), uri(&name.replace('7', "8"))]), Err(NotABroker::Several));
        for wrong in [
            "bellwether://x/broker/1".to_owned(),
            format!("bellwether://{CLUSTER}/broker/+1"),
            format!("bellwether://{CLUSTER}/broker/01"),
            format!("bellwether://{CLUSTER}/broker/1/2"),
            format!("bellwether://{CLUSTER}"),
        ] {
            assert_eq!(of(vec![uri(&wrong)]), Err(NotABroker::Malformed(wrong)));
        }
    }
}
