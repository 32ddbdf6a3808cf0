//! Reads certificates again when their files change. What is in use is replaced by what is good, and by nothing else.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::certificate::Facts;
use crate::files::{Bytes, Files, Material, TlsError};

type Build<T> = Box<dyn Fn(&Material) -> Result<T, TlsError> + Send + Sync>;

/// What is made of certificates in files, and follows them.
pub struct Reloading<T> {
    files: Files,
    build: Build<T>,
    current: ArcSwap<Loaded<T>>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Loaded<T> {
    value: T,
    facts: Facts,
}

/// What the files held when they were looked at last.
struct Seen {
    in_use: Bytes,
    bad: Option<Bad>,
}

/// What was no good when it was looked at last.
struct Bad {
    /// `None`: a file could not even be read.
    bytes: Option<Bytes>,
    told: bool,
}

/// What came of looking at the files.
#[derive(Debug)]
pub enum Looked {
    /// As before.
    Unchanged,
    /// They hold something new, which is in use from now on.
    Replaced(Facts),
    /// They hold something new that is no good, and it may be half written: looking again will tell.
    Unsettled,
    /// They hold something new that is no good. What was in use stays.
    Refused(TlsError),
    /// The same as in the last refusal, of which was told.
    StillRefused,
}

/// A [`Reloading`], whatever it makes.
pub trait Reloadable: Send + Sync {
    /// Looks at the files. Reads disks, so not for tasks that must not wait. `at_once`: what is no good is refused also when it
    /// was never seen before.
    fn look(&self, at_once: bool) -> Looked;

    /// The certificate in use.
    fn facts(&self) -> Facts;
}

impl<T> std::fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloading").field("files", &self.files).finish_non_exhaustive()
    }
}

impl<T> Reloading<T> {
    /// Reads `files` for the first time.
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it.
    pub fn open(
        files: Files,
        build: impl Fn(&Material) -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Reloading<T>, TlsError> {
        let bytes = files.bytes()?;
        let material = files.understand(&bytes)?;
        let loaded = Loaded { value: build(&material)?, facts: material.facts };
        Ok(Reloading {
            files,
            build: Box::new(build),
            current: ArcSwap::from_pointee(loaded),
            seen: Mutex::new(Seen { in_use: bytes, bad: None }),
        })
    }

    /// What is in use now.
    pub fn current(&self) -> T
    where
        T: Clone,
    {
        self.current.load().value.clone()
    }

    fn take(&self, bytes: &Bytes) -> Result<Facts, TlsError> {
        let material = self.files.understand(bytes)?;
        let value = (self.build)(&material)?;
        let facts = material.facts.clone();
        self.current.store(Arc::new(Loaded { value, facts: material.facts }));
        Ok(facts)
    }
}

impl<T: Send + Sync> Reloadable for Reloading<T> {
    fn look(&self, at_once: bool) -> Looked {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, error) = match self.files.bytes() {
            Ok(bytes) if bytes == seen.in_use => {
                // Whatever was refused is gone again: the next refusal is a new one.
                seen.bad = None;
                return Looked::Unchanged;
            }
            Ok(bytes) => match self.take(&bytes) {
                Ok(facts) => {
                    *seen = Seen { in_use: bytes, bad: None };
                    return Looked::Replaced(facts);
                }
                Err(error) => (Some(bytes), error),
            },
            Err(error) => (None, error),
        };
        // Certificate and key are two files, replaced one after the other: between the two they do not fit. So only what is
        // seen twice is refused.
        let before = seen.bad.take().filter(|bad| bad.bytes == bytes);
        let told = before.as_ref().is_some_and(|bad| bad.told);
        let tell = at_once || before.is_some();
        seen.bad = Some(Bad { bytes, told: tell });
        match (tell, told) {
            (false, _) => Looked::Unsettled,
            (true, true) if !at_once => Looked::StillRefused,
            (true, _) => Looked::Refused(error),
        }
    }

    fn facts(&self) -> Facts {
        self.current.load().facts.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;
    use crate::configs::{ClientCertificates, server_config};

    /// Certificate and key as they lie in files.
    struct Made {
        certificate: String,
        key: String,
    }

    fn made() -> Made {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        Made { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn files(folder: &Path) -> Files {
        Files {
            certificate: folder.join("tls.crt"),
            key: folder.join("tls.key"),
            ca: None,
            crl: None,
        }
    }

    fn write(folder: &TempDir, name: &str, text: &str) {
        std::fs::write(folder.path().join(name), text).unwrap();
    }

    fn open(folder: &TempDir) -> Reloading<Arc<rustls::ServerConfig>> {
        let first = made();
        write(folder, "tls.crt", &first.certificate);
        write(folder, "tls.key", &first.key);
        Reloading::open(files(folder.path()), |material| {
            server_config(material, ClientCertificates::Ignored)
        })
        .unwrap()
    }

    #[test]
    fn a_certificate_and_key_replaced_one_after_the_other_are_taken_when_both_are_there() {
        let folder = TempDir::new().unwrap();
        let reloading = open(&folder);
        let before = reloading.facts().serial;
        assert!(matches!(reloading.look(false), Looked::Unchanged));

        let second = made();
        write(&folder, "tls.crt", &second.certificate);
        assert!(matches!(reloading.look(false), Looked::Unsettled), "half of it is no refusal");
        assert_eq!(reloading.facts().serial, before);
        write(&folder, "tls.key", &second.key);
        let Looked::Replaced(facts) = reloading.look(false) else { panic!("not taken") };
        assert_ne!(facts.serial, before);
        assert_eq!(reloading.facts(), facts);
    }

    #[test]
    fn bad_files_keep_what_was_in_use_and_are_told_of_once() {
        let folder = TempDir::new().unwrap();
        let reloading = open(&folder);
        let before = reloading.facts();
        write(&folder, "tls.crt", "something else");
        assert!(matches!(reloading.look(false), Looked::Unsettled));
        let Looked::Refused(error) = reloading.look(false) else { panic!("not refused") };
        let words = error.to_string();
        assert!(words.contains("tls.crt") && words.contains("BEGIN CERTIFICATE"), "{words}");
        assert!(matches!(reloading.look(false), Looked::StillRefused));
        assert!(matches!(reloading.look(true), Looked::Refused(_)), "who asks is told again");
        assert_eq!(reloading.facts(), before);

        std::fs::remove_file(folder.path().join("tls.key")).unwrap();
        assert!(matches!(reloading.look(true), Looked::Refused(TlsError::Unreadable { .. })));
    }

    #[test]
    fn a_key_of_another_certificate_and_an_expired_certificate_are_named() {
        let folder = TempDir::new().unwrap();
        let reloading = open(&folder);
        write(&folder, "tls.key", &made().key);
        let Looked::Refused(error) = reloading.look(true) else { panic!("not refused") };
        assert!(matches!(error, TlsError::KeyOfAnother { .. }), "{error}");

        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        write(&folder, "tls.crt", &params.self_signed(&key).unwrap().pem());
        write(&folder, "tls.key", &key.serialize_pem());
        let Looked::Refused(error) = reloading.look(true) else { panic!("not refused") };
        assert!(matches!(error, TlsError::Expired { .. }), "{error}");
    }
}
