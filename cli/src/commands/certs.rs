//! `bellwether certs`: an authority of one's own, certificates of brokers and clients, and the list of those that were revoked, for trials and
//! small installations.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bellwether_tls::BrokerName;
use bellwether_tls::make::{Authority, MakeError, Pair};
use clap::{Args, Subcommand};
use uuid::Uuid;

use crate::outcome::Failure;

/// How long an authority lasts: replacing it means a new file for everyone.
const AUTHORITY_LASTS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Name of the file that holds the id of the cluster that certificates are made for.
const CLUSTER_ID: &str = "cluster-id";

/// Makes certificates
#[derive(Args, Debug)]
pub struct CertsArgs {
    /// Folder of the authority, and of all that is made
    #[arg(long, global = true, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
    /// Days that a certificate of a broker or client lasts
    #[arg(long, global = true, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Make an authority, and the id of the cluster that its brokers are of
    Ca {
        /// Id of a cluster that exists already [default: a new one]
        #[arg(long, value_name = "UUID")]
        cluster_id: Option<Uuid>,
    },
    /// Make a broker's certificate: for its clients and for other brokers
    Broker {
        /// The broker's number, as in `serve --id`
        id: u32,
        /// Names and IP addresses by which clients reach it
        #[arg(long = "host", value_name = "HOST", value_delimiter = ',', default_values = ["localhost", "127.0.0.1", "::1"])]
        hosts: Vec<String>,
    },
    /// Make a client's certificate
    Client {
        /// Who the client is: the name that brokers read from it
        name: String,
    },
    /// Put certificates on the list of those that are not accepted any more, and make that list when there is none
    Revoke {
        /// Their files; none: only make the list, or renew it
        #[arg(value_name = "FILE")]
        certificates: Vec<PathBuf>,
    },
}

/// Name of the list of revoked certificates.
const REVOKED: &str = "ca.crl";

/// Makes what was asked for, and says where it is.
pub fn run(args: &CertsArgs) -> Result<(), Failure> {
    let lasts = Duration::from_secs(u64::from(args.days) * 24 * 3600);
    let folder = Folder(&args.dir);
    match &args.what {
        What::Ca { cluster_id } => folder.found(cluster_id.unwrap_or_else(Uuid::new_v4)),
        What::Broker { id, hosts } => {
            let name = BrokerName { cluster: folder.cluster()?, broker: *id };
            let pair = folder.authority()?.broker(name, hosts, lasts).map_err(refused)?;
            folder.put(&format!("broker-{id}"), &pair)
        }
        What::Client { name } => {
            if name.contains('/') || name.starts_with('.') {
                return Err(Failure::usage(format!(
                    "{name:?} cannot be the name of a file: leave out slashes, and do not begin with a dot"
                )));
            }
            let pair = folder.authority()?.client(name, lasts).map_err(refused)?;
            folder.put(name, &pair)
        }
        What::Revoke { certificates } => folder.revoke(certificates, lasts),
    }
}

fn refused(error: MakeError) -> Failure {
    match error {
        MakeError::Name(..) | MakeError::Revocation(_) => Failure::usage(error),
        MakeError::Authority(_) | MakeError::Failed(_) => Failure::not_done(error),
    }
}

/// Where certificates lie.
struct Folder<'a>(&'a Path);

impl Folder<'_> {
    fn found(&self, cluster: Uuid) -> Result<(), Failure> {
        std::fs::create_dir_all(self.0).map_err(|error| failed(self.0, &error))?;
        // A name for each, so that two authorities are told apart.
        let name = format!("Bellwether cluster {cluster}");
        let authority = Authority::new(&name, AUTHORITY_LASTS).map_err(refused)?;
        write_new(&self.path(CLUSTER_ID), &format!("{cluster}\n"))?;
        self.put("ca", authority.pair())?;
        println!("cluster {cluster}");
        Ok(())
    }

    /// All of them, or none: the list is replaced in one step, so that no broker reads half of it.
    fn revoke(&self, certificates: &[PathBuf], lasts: Duration) -> Result<(), Failure> {
        let authority = self.authority()?;
        let texts: Vec<String> = certificates
            .iter()
            .map(|path| {
                std::fs::read_to_string(path)
                    .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
            })
            .collect::<Result<_, _>>()?;
        let path = self.path(REVOKED);
        let before = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&path, &error)),
        };
        let (list, added) =
            authority.revoke_more(before.as_deref(), &texts, lasts).map_err(refused)?;
        replace(&path, &list)?;
        for subject in &added {
            println!("revoked: {subject}");
        }
        let already = texts.len() - added.len();
        if already > 0 {
            println!("{already} of them were on the list already");
        }
        println!(
            "{}: give it to every broker with --tls-crl (clients' certificates) and --peer-tls-crl (brokers'); those that have it read it again within seconds of its being replaced, and refuse new connections. Make it anew before it is overdue: `bellwether certs revoke`",
            path.display()
        );
        Ok(())
    }

    fn authority(&self) -> Result<Authority, Failure> {
        let pair = Pair { certificate: self.read("ca.crt")?, key: self.read("ca.key")? };
        Authority::open(pair).map_err(refused)
    }

    fn cluster(&self) -> Result<Uuid, Failure> {
        let text = self.read(CLUSTER_ID)?;
        Uuid::try_parse(text.trim()).map_err(|_| {
            Failure::usage(format!("{} holds no UUID", self.path(CLUSTER_ID).display()))
        })
    }

    fn read(&self, name: &str) -> Result<String, Failure> {
        let path = self.path(name);
        std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Failure::usage(format!(
                "there is no {}: make an authority first, with `bellwether certs ca --dir {}`",
                path.display(),
                self.0.display()
            )),
            _ => failed(&path, &error),
        })
    }

    /// Writes a pair, the certificate last: it is what others look for.
    fn put(&self, name: &str, pair: &Pair) -> Result<(), Failure> {
        let (certificate, key) =
            (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        refuse_existing(&certificate)?;
        write_new(&key, &pair.key)?;
        write_new(&certificate, &pair.certificate)?;
        println!("{} and {}", certificate.display(), key.display());
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

fn refuse_existing(path: &Path) -> Result<(), Failure> {
    match path.exists() {
        true => Err(exists(path)),
        false => Ok(()),
    }
}

fn exists(path: &Path) -> Failure {
    Failure::usage(format!(
        "{} exists already, and nothing is overwritten: move it away, or use another --dir",
        path.display()
    ))
}

/// Only the owner may read it: a key in the hands of another is no key.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(path),
        _ => failed(path, &error),
    })
}

/// In one step: whoever reads it meanwhile sees the one or the other.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let beside = path.with_extension("new");
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside);
    let written = opened.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| std::fs::rename(&beside, path)).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::not_done(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use bellwether_tls::{CertificateIdentity, Files};

    use super::*;

    fn made(dir: &Path, what: What) -> Result<(), Failure> {
        run(&CertsArgs { dir: dir.to_owned(), days: 30, what })
    }

    fn usage(failed: Result<(), Failure>) -> String {
        match failed {
            Err(Failure::Usage(words)) => words,
            other => panic!("{other:?}"),
        }
    }

    fn broker(id: u32) -> What {
        What::Broker { id, hosts: vec!["localhost".to_owned(), "127.0.0.1".to_owned()] }
    }

    #[test]
    fn an_authority_and_what_it_signs_can_be_used_and_read_by_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Uuid::new_v4();
        made(folder.path(), What::Ca { cluster_id: Some(cluster) }).unwrap();
        made(folder.path(), broker(1)).unwrap();
        made(folder.path(), What::Client { name: "billing".to_owned() }).unwrap();
        let read = |name: &str| {
            let path = |end| folder.path().join(format!("{name}.{end}"));
            let ca = Some(folder.path().join("ca.crt"));
            Files { certificate: path("crt"), key: path("key"), ca, crl: None }.read().unwrap()
        };
        let name = BrokerName::of(&read("broker-1").chain).unwrap();
        assert_eq!(name, BrokerName { cluster, broker: 1 });
        assert_eq!(CertificateIdentity::of(&read("billing").chain).unwrap().name, "billing");
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap();
            let mode = file.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", file.path());
        }
    }

    #[test]
    fn a_revoked_certificate_stays_on_the_list_that_is_made_longer_and_strangers_never_get_on_it() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, path) = (folder.path(), |name: &str| folder.path().join(name));
        made(dir, What::Ca { cluster_id: None }).unwrap();
        for name in ["one", "two"] {
            made(dir, What::Client { name: name.to_owned() }).unwrap();
        }
        let revoke = |names: &[&str]| {
            let certificates = names.iter().map(|name| path(name)).collect();
            made(dir, What::Revoke { certificates })
        };
        let read = || std::fs::read_to_string(path(REVOKED)).unwrap();
        revoke(&[]).unwrap();
        assert!(read().contains("BEGIN X509 CRL"), "an empty list to begin with");
        revoke(&["one.crt"]).unwrap();
        let shorter = read();
        revoke(&["two.crt", "one.crt"]).unwrap();
        let longer = read();
        assert!(longer.len() > shorter.len() && shorter.len() > 300);

        let strange = tempfile::tempdir().unwrap();
        made(strange.path(), What::Ca { cluster_id: None }).unwrap();
        made(strange.path(), What::Client { name: "three".to_owned() }).unwrap();
        let certificates = vec![path("two.crt"), strange.path().join("three.crt")];
        let words = usage(made(dir, What::Revoke { certificates }));
        assert!(words.contains("another authority"), "{words}");
        assert_eq!(read(), longer, "all or none");
        std::fs::copy(path(REVOKED), strange.path().join(REVOKED)).unwrap();
        let certificates = Vec::new();
        let words = usage(made(strange.path(), What::Revoke { certificates }));
        assert!(words.contains("another authority's"), "{words}");
        assert!(usage(revoke(&["ca.key"])).contains("no certificate"));
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        made(folder.path(), What::Ca { cluster_id: None }).unwrap();
        made(folder.path(), broker(1)).unwrap();
        let before = std::fs::read(folder.path().join("broker-1.key")).unwrap();
        for again in [What::Ca { cluster_id: None }, broker(1)] {
            let words = usage(made(folder.path(), again));
            assert!(words.contains("exists already"), "{words}");
        }
        assert_eq!(std::fs::read(folder.path().join("broker-1.key")).unwrap(), before);
    }

    #[test]
    fn without_an_authority_the_command_that_makes_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let words = usage(made(folder.path(), broker(1)));
        assert!(words.contains("bellwether certs ca"), "{words}");
        let words = usage(made(folder.path(), What::Client { name: "../x".to_owned() }));
        assert!(words.contains("name of a file"), "{words}");
    }
}
