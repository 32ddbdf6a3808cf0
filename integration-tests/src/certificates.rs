//! An authority of a test's own, and the certificates of its cluster in files, as an operator would put them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use bellwether_client::TlsOptions;
use bellwether_tls::make::{Authority, Pair};
use bellwether_tls::rustls::pki_types::{CertificateDer, ServerName};
use bellwether_tls::tokio_rustls::TlsConnector;
use bellwether_tls::{BrokerName, Facts, Revocations, client_config, roots};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// How long certificates last, where a test does not say otherwise.
pub const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// `HHHHHHHH-…` of every cluster of these tests.
pub const CLUSTER: &str = "1b4e28ba-2fa1-4d2a-883f-0016d3cca427";

/// An authority and its folder.
pub struct Certificates {
    authority: Authority,
    folder: TempDir,
}

impl Certificates {
    /// A new authority, with certificates for so many brokers, one for the servers of ZooKeeper, and one for the client `test`.
    pub fn for_brokers(brokers: u32) -> Result<Certificates> {
        let authority = Authority::new("test authority", A_DAY)?;
        let folder = tempfile::Builder::new().prefix("bellwether-certificates-").tempdir()?;
        let made = Certificates { authority, folder };
        std::fs::write(made.path("ca.crt"), &made.authority.pair().certificate)?;
        for broker in 1..=brokers {
            made.renew_broker(broker, A_DAY)?;
        }
        made.put("test", &made.authority.client("test", A_DAY)?)?;
        let zookeeper = made.broker(0, A_DAY)?;
        std::fs::write(
            made.path("zookeeper.pem"),
            format!("{}{}", zookeeper.key, zookeeper.certificate),
        )?;
        Ok(made)
    }

    /// Another certificate for a broker, in the place of the one before.
    pub fn renew_broker(&self, broker: u32, lasts: Duration) -> Result<()> {
        self.put(&format!("broker-{broker}"), &self.broker(broker, lasts)?)
    }

    fn broker(&self, broker: u32, lasts: Duration) -> Result<Pair> {
        let name = BrokerName { cluster: CLUSTER.parse()?, broker };
        let hosts = ["localhost", "127.0.0.1"].map(str::to_owned);
        Ok(self.authority.broker(name, &hosts, lasts)?)
    }

    /// Where a file is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a client with a certificate of this authority says.
    #[must_use]
    pub fn client(&self) -> TlsOptions {
        self.anonymous().certificate(self.path("test.crt"), self.path("test.key"))
    }

    /// What a client says that trusts this authority and has no certificate.
    #[must_use]
    pub fn anonymous(&self) -> TlsOptions {
        TlsOptions::new().ca_file(self.path("ca.crt"))
    }

    /// Flags of `serve`: TLS on every port, and with ZooKeeper. `{id}` is the broker's number.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        let (ca, id) = (self.path("ca.crt"), self.path("broker-{id}"));
        let (ca, id) = (ca.display(), id.display());
        let others = [
            format!("--tls-cert={id}.crt"),
            format!("--tls-key={id}.key"),
            format!("--tls-client-ca={ca}"),
            format!("--zookeeper-tls-ca={ca}"),
            format!("--zookeeper-tls-cert={id}.crt"),
            format!("--zookeeper-tls-key={id}.key"),
        ];
        [self.peer_flags(), others.to_vec()].concat()
    }

    /// The same of TLS between brokers alone.
    #[must_use]
    pub fn peer_flags(&self) -> Vec<String> {
        let (ca, id) = (self.path("ca.crt"), self.path("broker-{id}"));
        let (ca, id) = (ca.display(), id.display());
        [
            format!("--peer-tls-cert={id}.crt"),
            format!("--peer-tls-key={id}.key"),
            format!("--peer-tls-ca={ca}"),
        ]
        .to_vec()
    }

    /// Serial number of the certificate that `address` shows now.
    pub async fn serial_at(&self, address: &str) -> Result<String> {
        let connector = TlsConnector::from(client_config(
            roots(&self.path("ca.crt"))?,
            &Revocations::default(),
            None,
        )?);
        let socket = TcpStream::connect(address).await?;
        let stream = connector.connect(ServerName::try_from("localhost")?, socket).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[CertificateDer]>::first);
        let facts = Facts::of(shown.context("no certificate was shown")?);
        Ok(facts.map_err(anyhow::Error::msg)?.serial)
    }

    fn put(&self, name: &str, pair: &Pair) -> Result<()> {
        replace(&self.path(&format!("{name}.crt")), &pair.certificate)?;
        replace(&self.path(&format!("{name}.key")), &pair.key)
    }
}

/// In one step, as tools that renew certificates do.
fn replace(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text)?;
    Ok(std::fs::rename(&beside, path)?)
}
