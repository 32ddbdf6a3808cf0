//! What stands on a list of revoked certificates that is to be made longer.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

/// Serial numbers, and since when each is revoked.
#[derive(Debug, Default)]
pub(crate) struct Revoked {
    pub entries: Vec<(Vec<u8>, SystemTime)>,
    /// Counts the lists of an authority: whoever has two takes the higher.
    pub number: u64,
}

impl Revoked {
    /// A list in PEM, of the authority of this name.
    pub fn read(text: &str, authority: &[u8]) -> Result<Revoked, String> {
        let none = |error: &dyn std::fmt::Display| {
            format!("this is no list of revoked certificates that can be made longer ({error})")
        };
        let der = CertificateRevocationListDer::from_pem_slice(text.as_bytes())
            .map_err(|error| none(&error))?;
        let (_, list) =
            CertificateRevocationList::from_der(der.as_ref()).map_err(|error| none(&error))?;
        if list.issuer().as_raw() != authority {
            return Err("this list is another authority's: move it away".to_owned());
        }
        let entries = list.iter_revoked_certificates().map(|one| {
            let seconds = u64::try_from(one.revocation_date.timestamp()).unwrap_or_default();
            (one.raw_serial().to_vec(), SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        });
        let digits = list.crl_number().map(ToString::to_string).unwrap_or_default();
        Ok(Revoked { entries: entries.collect(), number: digits.parse().unwrap_or_default() })
    }

    /// `false`: it was on it already.
    pub fn add(&mut self, serial: Vec<u8>, since: SystemTime) -> bool {
        let known = self.entries.iter().any(|(known, _)| *known == serial);
        if !known {
            self.entries.push((serial, since));
        }
        !known
    }
}
