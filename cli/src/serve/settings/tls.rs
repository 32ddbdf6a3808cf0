//! The settings of TLS: for clients, between brokers, and with ZooKeeper.

use std::path::PathBuf;

use bellwether_broker::tls::Tls;
use bellwether_coordinator::zookeeper::ZooKeeperTls;
use bellwether_protocol::ids::{BrokerId, ClusterId};
use bellwether_tls::{ClientCertificates, Files};
use clap::Args;
use uuid::Uuid;

use crate::outcome::Failure;

/// Certificates and keys, all in PEM files. They are looked at every few seconds: new ones need no restart.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "TLS")]
pub struct TlsSettings {
    /// Certificate of the port for clients, with those that lead to its authority; clients then have to speak TLS
    ///
    /// Without it clients speak plainly, and only loopback addresses are taken. It is read again when the file changes; open connections stay.
    #[arg(long, value_name = "FILE", env = "BELLWETHER_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// Its key
    ///
    /// Not encrypted, and readable by the broker alone.
    #[arg(long, value_name = "FILE", env = "BELLWETHER_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Whether clients have to speak TLS, once the port for them has a certificate [default: require]
    ///
    /// `accept` while clients are brought to TLS, or away from it, some at a time: those that do not speak it are taken as well, and on an address other than loopback that wants `insecure`. Set it back to `require` as soon as all of them do.
    #[arg(long, value_name = "WHETHER", env = "BELLWETHER_TLS")]
    pub tls: Option<TlsMode>,
    /// Authorities of clients' certificates; clients are then asked for one
    ///
    /// With it clients are asked for a certificate, whose name may then be their login.
    #[arg(long, value_name = "FILE", env = "BELLWETHER_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<PathBuf>,
    /// Whether clients have to show a certificate [default: required with --tls-client-ca]
    ///
    /// `optional` where some clients log in with a password.
    #[arg(long, value_name = "WHETHER", env = "BELLWETHER_TLS_CLIENT_CERT")]
    pub tls_client_cert: Option<ClientCert>,
    /// Clients' certificates that are not accepted any more, although their authority is
    ///
    /// Lists that authorities have signed (PEM, `BEGIN X509 CRL`), one after the other. Read again when the file changes; connections that are open stay.
    #[arg(long, value_name = "FILE", env = "BELLWETHER_TLS_CRL")]
    pub tls_crl: Option<PathBuf>,
    /// Certificate of this broker for other brokers: it names the broker and the cluster; brokers then have to speak TLS
    ///
    /// It names the broker and the cluster, as `bellwether://<cluster id>/broker/<id>`. With it brokers speak TLS with each other, and take nobody else.
    #[arg(long, value_name = "FILE", env = "BELLWETHER_PEER_TLS_CERT")]
    pub peer_tls_cert: Option<PathBuf>,
    /// Its key
    ///
    /// Not encrypted, and readable by the broker alone.
    #[arg(long, value_name = "FILE", env = "BELLWETHER_PEER_TLS_KEY")]
    pub peer_tls_key: Option<PathBuf>,
    /// Authorities of brokers' certificates
    ///
    /// An authority of its own: whoever it certifies can be a broker.
    #[arg(long, value_name = "FILE", env = "BELLWETHER_PEER_TLS_CA")]
    pub peer_tls_ca: Option<PathBuf>,
    /// Brokers' certificates that are not accepted any more, although their authority is
    ///
    /// As `tls-crl`, for whoever connects to the port of brokers, and for brokers that are dialed: when a broker's key may be in other hands.
    #[arg(long, value_name = "FILE", env = "BELLWETHER_PEER_TLS_CRL")]
    pub peer_tls_crl: Option<PathBuf>,
    /// Whether other brokers have to speak TLS, once this one has a certificate for them [default: require]
    ///
    /// `accept` while TLS is brought to a running cluster, or taken from it, one broker at a time: brokers that do not speak it are taken and dialed as well, so nothing is proved of whoever connects. Set it back to `require` as soon as all brokers have their certificates.
    #[arg(long, value_name = "WHETHER", env = "BELLWETHER_PEER_TLS")]
    pub peer_tls: Option<TlsMode>,
    /// The cluster's id: it is founded with it, and another one is refused [default: as in --peer-tls-cert, or any]
    ///
    /// The first broker founds the cluster with it; a broker that finds another one does not start. Choose it to make certificates before the first start.
    #[arg(long, value_name = "UUID", env = "BELLWETHER_CLUSTER_ID")]
    pub cluster_id: Option<Uuid>,
    #[command(flatten)]
    pub zookeeper: ZooKeeperTlsArgs,
}

/// How ZooKeeper is spoken to, by brokers and by who looks after users.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "TLS")]
pub struct ZooKeeperTlsArgs {
    /// Authorities of the ZooKeeper servers' certificates; ZooKeeper then has to speak TLS
    ///
    /// With it every connection with ZooKeeper is TLS; the servers' certificates have to bear the names in `zookeeper`.
    #[arg(long, global = true, value_name = "FILE", env = "BELLWETHER_ZOOKEEPER_TLS_CA")]
    pub zookeeper_tls_ca: Option<PathBuf>,
    /// Certificate to show to ZooKeeper
    ///
    /// Where the ensemble wants to know who comes.
    #[arg(long, global = true, value_name = "FILE", env = "BELLWETHER_ZOOKEEPER_TLS_CERT")]
    pub zookeeper_tls_cert: Option<PathBuf>,
    /// Its key
    ///
    /// Not encrypted, and readable by the broker alone.
    #[arg(long, global = true, value_name = "FILE", env = "BELLWETHER_ZOOKEEPER_TLS_KEY")]
    pub zookeeper_tls_key: Option<PathBuf>,
}

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ClientCert {
    /// Nobody is taken without.
    Required,
    /// Who shows one has to show a good one.
    Optional,
}

/// Whether who connects has to speak TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TlsMode {
    /// Nobody is taken without.
    Require,
    /// Until all speak it: those that do not are taken, too.
    Accept,
}

impl TlsSettings {
    /// What clients are asked for.
    pub fn client_certificates(&self) -> ClientCertificates {
        match (&self.tls_client_ca, self.tls_client_cert) {
            (None, _) => ClientCertificates::Ignored,
            (Some(_), Some(ClientCert::Optional)) => ClientCertificates::Optional,
            (Some(_), Some(ClientCert::Required) | None) => ClientCertificates::Required,
        }
    }

    /// Whether clients are taken that do not speak TLS, although the port for them does.
    pub fn takes_plain_clients(&self) -> bool {
        self.tls == Some(TlsMode::Accept)
    }

    /// Reads the certificates of both ports.
    pub fn open(&self, broker: BrokerId) -> Result<Tls, Failure> {
        let mut tls = Tls::default();
        let client = [("--tls-cert", &self.tls_cert), ("--tls-key", &self.tls_key)];
        match together(client)? {
            Some([certificate, key]) => {
                let (ca, crl) = (self.tls_client_ca.clone(), self.tls_crl.clone());
                let files = Files { certificate, key, ca, crl };
                let certificates = self.client_certificates();
                tls = tls.with_client(files, certificates).map_err(|error| of("--tls-…", error))?;
            }
            None if self.tls_client_ca.is_some() => {
                return Err(Failure::usage(
                    "--tls-client-ca asks for clients' certificates, which needs TLS: give --tls-cert FILE and --tls-key FILE too",
                ));
            }
            None => {}
        }
        if self.tls.is_some() && self.tls_cert.is_none() {
            return Err(Failure::usage(
                "--tls says whom this broker takes where clients speak TLS, which needs a certificate: give --tls-cert FILE and --tls-key FILE too",
            ));
        }
        if self.takes_plain_clients() {
            // Else whoever leaves TLS away would be spared the certificate.
            if self.client_certificates() == ClientCertificates::Required {
                return Err(Failure::usage(
                    "--tls accept takes clients without TLS, which show no certificate, and --tls-client-ca asks all for one: say --tls-client-cert optional as long",
                ));
            }
            tls = tls.with_plain_clients();
        }
        if self.tls_client_cert.is_some() && self.tls_client_ca.is_none() {
            return Err(Failure::usage(
                "--tls-client-cert says whether clients have to show a certificate, and --tls-client-ca FILE, whose certificates those are, is missing",
            ));
        }
        if self.tls_crl.is_some() && self.tls_client_ca.is_none() {
            return Err(Failure::usage(
                "--tls-crl says which clients' certificates were revoked, and --tls-client-ca FILE, whose certificates those are, is missing",
            ));
        }
        let peer = [
            ("--peer-tls-cert", &self.peer_tls_cert),
            ("--peer-tls-key", &self.peer_tls_key),
            ("--peer-tls-ca", &self.peer_tls_ca),
        ];
        if let Some([certificate, key, ca]) = together(peer)? {
            let files = Files { certificate, key, ca: Some(ca), crl: self.peer_tls_crl.clone() };
            tls = tls.with_peer(files, broker).map_err(|error| of("--peer-tls-…", error))?;
        } else if self.peer_tls.is_some() || self.peer_tls_crl.is_some() {
            return Err(Failure::usage(
                "--peer-tls and --peer-tls-crl say whom this broker takes where brokers speak TLS, which needs a certificate: give --peer-tls-cert FILE, --peer-tls-key FILE and --peer-tls-ca FILE too",
            ));
        }
        if self.peer_tls == Some(TlsMode::Accept) {
            tls = tls.with_plain_peers();
        }
        Ok(tls)
    }

    /// The cluster that this broker is to be of: what was said, and what its certificate says.
    pub fn cluster(&self, tls: &Tls) -> Result<Option<ClusterId>, Failure> {
        match (self.cluster_id.map(ClusterId), tls.cluster()) {
            (Some(said), Some(certified)) if said != certified => Err(Failure::usage(format!(
                "--cluster-id is {said}, and the certificate of --peer-tls-cert is for cluster {certified}: give the one or the other"
            ))),
            (said, certified) => Ok(said.or(certified)),
        }
    }
}

impl ZooKeeperTlsArgs {
    /// What was said; `None`: nothing, and the connections are plain.
    pub fn open(&self) -> Result<Option<ZooKeeperTls>, Failure> {
        let identity = [
            ("--zookeeper-tls-cert", &self.zookeeper_tls_cert),
            ("--zookeeper-tls-key", &self.zookeeper_tls_key),
        ];
        let identity = together(identity)?.map(|[certificate, key]| (certificate, key));
        match (&self.zookeeper_tls_ca, identity) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(Failure::usage(
                "--zookeeper-tls-cert needs --zookeeper-tls-ca FILE, the authorities of the ZooKeeper servers' certificates",
            )),
            (Some(ca), identity) => ZooKeeperTls::open(ca.clone(), identity)
                .map(Some)
                .map_err(|error| of("--zookeeper-tls-…", error)),
        }
    }
}

fn of(flags: &str, error: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("{flags}: {error}"))
}

/// Settings that only work together: all of them, or none.
fn together<const N: usize>(
    settings: [(&str, &Option<PathBuf>); N],
) -> Result<Option<[PathBuf; N]>, Failure> {
    let given = settings.iter().filter(|(_, path)| path.is_some()).count();
    if given != 0 && given != N {
        let missing: Vec<String> = settings
            .iter()
            .filter(|(_, path)| path.is_none())
            .map(|(flag, _)| format!("{flag} FILE"))
            .collect();
        let (there, _) = settings.iter().find(|(_, path)| path.is_some()).expect("one is given");
        return Err(Failure::usage(format!("{there} needs {} too", missing.join(" and "))));
    }
    if given == 0 {
        return Ok(None);
    }
    Ok(Some(settings.map(|(_, path)| path.clone().unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage<T: std::fmt::Debug>(failed: Result<T, Failure>) -> String {
        match failed {
            Err(Failure::Usage(words)) => words,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_given_by_halves_is_refused_with_the_other_half_named() {
        let file = || Some(PathBuf::from("x.pem"));
        let open = |settings: TlsSettings| usage(settings.open(BrokerId(1)));
        let default = TlsSettings::default;
        let error = open(TlsSettings { tls_cert: file(), ..default() });
        assert_eq!(error, "--tls-cert needs --tls-key FILE too");
        let error = open(TlsSettings { peer_tls_key: file(), ..default() });
        assert_eq!(error, "--peer-tls-key needs --peer-tls-cert FILE and --peer-tls-ca FILE too");
        let error = open(TlsSettings { tls_client_ca: file(), ..default() });
        assert!(error.contains("--tls-cert FILE"), "{error}");
        let error = open(TlsSettings { peer_tls: Some(TlsMode::Accept), ..default() });
        assert!(error.contains("--peer-tls-cert FILE"), "{error}");
        let error = open(TlsSettings { tls: Some(TlsMode::Accept), ..default() });
        assert!(error.contains("--tls-cert FILE"), "{error}");
        let error = open(TlsSettings { peer_tls_crl: file(), ..default() });
        assert!(error.contains("--peer-tls-cert FILE"), "{error}");
        let error = open(TlsSettings { tls_crl: file(), ..default() });
        assert!(error.contains("--tls-client-ca FILE"), "{error}");
        let optional = Some(ClientCert::Optional);
        let error = open(TlsSettings { tls_client_cert: optional, ..default() });
        assert!(error.contains("--tls-client-ca FILE"), "{error}");
        let error = usage(
            ZooKeeperTlsArgs {
                zookeeper_tls_ca: None,
                zookeeper_tls_cert: file(),
                zookeeper_tls_key: file(),
            }
            .open(),
        );
        assert!(error.contains("--zookeeper-tls-ca FILE"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let file = || Some(PathBuf::from("/nowhere/x.pem"));
        let settings = TlsSettings { tls_cert: file(), tls_key: file(), ..TlsSettings::default() };
        let error = usage(settings.open(BrokerId(1)));
        assert!(error.contains("--tls-") && error.contains("/nowhere/x.pem"), "{error}");
    }

    #[test]
    fn clients_have_to_show_a_certificate_once_there_is_an_authority_unless_it_is_optional() {
        let ca = Some(PathBuf::from("ca.pem"));
        let with = |tls_client_ca, tls_client_cert| {
            TlsSettings { tls_client_ca, tls_client_cert, ..TlsSettings::default() }
                .client_certificates()
        };
        assert_eq!(with(None, None), ClientCertificates::Ignored);
        assert_eq!(with(ca.clone(), None), ClientCertificates::Required);
        assert_eq!(with(ca, Some(ClientCert::Optional)), ClientCertificates::Optional);
    }

    #[test]
    fn whoever_leaves_tls_away_is_not_spared_a_certificate_that_all_have_to_show() {
        let folder = tempfile::tempdir().unwrap();
        let lasts = std::time::Duration::from_secs(3600);
        let authority = bellwether_tls::make::Authority::new("test", lasts).unwrap();
        let name = bellwether_tls::BrokerName { cluster: Uuid::from_u128(7), broker: 1 };
        let pair = authority.broker(name, &["localhost".to_owned()], lasts).unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let with = |tls_client_cert| TlsSettings {
            tls: Some(TlsMode::Accept),
            tls_cert: put("b.crt", &pair.certificate),
            tls_key: put("b.key", &pair.key),
            tls_client_ca: put("ca.crt", &authority.pair().certificate),
            tls_client_cert,
            ..TlsSettings::default()
        };
        let error = usage(with(None).open(BrokerId(1)));
        assert!(error.contains("--tls-client-cert optional"), "{error}");
        let open = with(Some(ClientCert::Optional)).open(BrokerId(1)).unwrap();
        assert!(open.takes_plain_clients());
    }
}
