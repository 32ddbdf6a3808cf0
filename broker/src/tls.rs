//! The broker's certificates: what is made of them for the ports of clients and of brokers, and the task that follows their
//! files, so that they are replaced without a restart.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bellwether_protocol::ids::{BrokerId, ClusterId};
use bellwether_tls::rustls::{ClientConfig, ServerConfig};
use bellwether_tls::{
    BrokerName, ClientCertificates, Facts, Files, Looked, Material, Reloadable, Reloading,
    TlsError, peer_client_config, server_config,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::metrics::{Gauge, Metrics};

/// How often the files are looked at. Tools that renew certificates do so weeks ahead, and a person who has just replaced one
/// looks at once: seconds serve both, and a look is six small reads.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long before its end a certificate is warned of: time for a person to come back from a weekend.
const WARN_BEFORE: Duration = Duration::from_secs(7 * 24 * 3600);

/// TLS on the port of clients: a configuration that follows its files.
pub type ClientTls = Reloading<Arc<ServerConfig>>;

/// TLS between brokers: likewise.
pub type PeerTls = Reloading<PeerConfigs>;

/// Both sides of TLS between brokers.
#[derive(Clone, Debug)]
pub struct PeerConfigs {
    /// For those that dial this broker.
    pub server: Arc<ServerConfig>,
    /// For those that this broker dials.
    pub client: Arc<ClientConfig>,
}

/// The broker's certificates. The default is none: both ports are plain.
#[derive(Clone, Default)]
pub struct Tls {
    client: Option<Arc<ClientTls>>,
    peer: Option<Arc<PeerTls>>,
    plain_peers: bool,
    plain_clients: bool,
    cluster: Option<ClusterId>,
    asked: Arc<Notify>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("client", &self.client.is_some())
            .field("peer", &self.peer.is_some())
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the certificates for the port of clients.
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it.
    pub fn with_client(
        self,
        files: Files,
        certificates: ClientCertificates,
    ) -> Result<Tls, TlsError> {
        warn_of_open_key(&files);
        let client = Reloading::open(files, move |material| server_config(material, certificates))?;
        Ok(Tls { client: Some(Arc::new(client)), ..self })
    }

    /// Reads the certificates for connections between brokers. The certificate has to name `broker`, and says which cluster
    /// this broker belongs to.
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it.
    pub fn with_peer(self, files: Files, broker: BrokerId) -> Result<Tls, TlsError> {
        warn_of_open_key(&files);
        // A renewed certificate may not move a running broker to another cluster.
        let cluster = Arc::new(OnceLock::new());
        let first = cluster.clone();
        let peer = Reloading::open(files, move |material| {
            let named = named(material, broker)?;
            let expected = *first.get_or_init(|| named.cluster);
            if named.cluster != expected {
                let why =
                    format!("it is for cluster {}, and this one is {expected}", named.cluster);
                return Err(unfit(material, why));
            }
            Ok(PeerConfigs {
                server: server_config(material, ClientCertificates::Required)?,
                client: peer_client_config(material)?,
            })
        })?;
        let cluster = cluster.get().copied().map(ClusterId);
        Ok(Tls { peer: Some(Arc::new(peer)), cluster, ..self })
    }

    /// Until all brokers speak TLS with each other: takes those that do not, too. Does nothing without [`Tls::with_peer`].
    #[must_use]
    pub fn with_plain_peers(self) -> Tls {
        Tls { plain_peers: true, ..self }
    }

    /// Whether brokers are taken that do not speak TLS, although this one does.
    #[must_use]
    pub fn takes_plain_peers(&self) -> bool {
        self.plain_peers && self.peer.is_some()
    }

    /// Until all clients speak TLS: takes those that do not, too. Does nothing without [`Tls::with_client`].
    #[must_use]
    pub fn with_plain_clients(self) -> Tls {
        Tls { plain_clients: true, ..self }
    }

    /// Whether clients are taken that do not speak TLS, although their port does.
    #[must_use]
    pub fn takes_plain_clients(&self) -> bool {
        self.plain_clients && self.client.is_some()
    }

    /// For the port of clients.
    #[must_use]
    pub fn client(&self) -> Option<Arc<ClientTls>> {
        self.client.clone()
    }

    /// For connections between brokers.
    #[must_use]
    pub fn peer(&self) -> Option<Arc<PeerTls>> {
        self.peer.clone()
    }

    /// The cluster that the certificate for brokers names.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Looks at the files now, and says what is wrong with them if something is.
    pub fn reload(&self) {
        self.asked.notify_one();
    }
}

/// Who has the key can pose as this broker. A secret that an orchestrator mounts may be readable by all of a container's own users: no error.
fn warn_of_open_key(files: &Files) {
    if files.key_is_open() {
        warn!(key = %files.key.display(), "everybody on this machine may read or change this private key: chmod 600 it, and give it to the broker's user");
    }
}

fn named(material: &Material, broker: BrokerId) -> Result<BrokerName, TlsError> {
    let path = || material.files.certificate.clone();
    let named = BrokerName::of(&material.chain)
        .map_err(|why| TlsError::NotABroker { path: path(), why })?;
    if named.broker != broker.0 {
        let why = format!("it is for broker {}, and this is broker {broker}", named.broker);
        return Err(unfit(material, why));
    }
    Ok(named)
}

fn unfit(material: &Material, why: String) -> TlsError {
    TlsError::BadCertificate { path: material.files.certificate.clone(), why }
}

/// How often it is said again that somebody without TLS is taken: a change-over takes hours at most, and is easily forgotten.
const WARN_OF_PLAIN_EVERY: Duration = Duration::from_secs(3600);

const WARN_OF_PLAIN_PEERS: &str = "--peer-tls accept: connections with brokers that do not speak TLS are neither encrypted nor proved to be a broker's. Once all brokers run with their certificates, restart each with --peer-tls require";
const WARN_OF_PLAIN_CLIENTS: &str = "--tls accept: connections of clients that do not speak TLS can be read and changed on the way. Once bellwether_client_connections_plain_total stays where it is, restart each broker with --tls require";

/// Says it for as long as whoever does not speak TLS is taken.
async fn warn_of_plain(words: &'static str, stop: CancellationToken) {
    loop {
        warn!("{words}");
        tokio::select! {
            () = tokio::time::sleep(WARN_OF_PLAIN_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Whose port a certificate is for.
#[derive(Clone, Copy, Debug)]
enum Port {
    Clients,
    Brokers,
}

/// One port's certificate, as the follower sees it.
struct Followed {
    port: Port,
    certificate: Arc<dyn Reloadable>,
    refused: bool,
    warned: bool,
}

/// Looks at the files every few seconds, and when asked to, until the broker stops.
pub(crate) async fn follow(tls: Tls, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut followed = Vec::new();
    if let Some(client) = &tls.client {
        followed.push(Followed::new(Port::Clients, client.clone()));
    }
    if let Some(peer) = &tls.peer {
        followed.push(Followed::new(Port::Brokers, peer.clone()));
    }
    if followed.is_empty() {
        return;
    }
    metrics.peer_tls_optional.set(u64::from(tls.takes_plain_peers()));
    if tls.takes_plain_peers() {
        tokio::spawn(warn_of_plain(WARN_OF_PLAIN_PEERS, stop.clone()));
    }
    metrics.client_tls_optional.set(u64::from(tls.takes_plain_clients()));
    if tls.takes_plain_clients() {
        tokio::spawn(warn_of_plain(WARN_OF_PLAIN_CLIENTS, stop.clone()));
    }
    let mut at_once = false;
    loop {
        let looked = tokio::task::spawn_blocking(move || {
            followed.iter_mut().for_each(|followed| followed.look(at_once));
            followed
        });
        followed = match looked.await {
            Ok(followed) => followed,
            Err(failure) => {
                error!(%failure, "the certificates are no longer followed. Please report this");
                return;
            }
        };
        metrics.tls_reload_failed.set(u64::from(followed.iter().any(|followed| followed.refused)));
        followed.iter().for_each(|followed| followed.count(&metrics));
        at_once = tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => false,
            () = tls.asked.notified() => true,
            () = stop.cancelled() => return,
        };
    }
}

impl Followed {
    fn new(port: Port, certificate: Arc<dyn Reloadable>) -> Followed {
        Followed { port, certificate, refused: false, warned: false }
    }

    fn look(&mut self, at_once: bool) {
        match self.certificate.look(at_once) {
            Looked::Unchanged => self.refused = false,
            Looked::Replaced(facts) => {
                (self.refused, self.warned) = (false, false);
                info!(port = ?self.port, serial = facts.serial, "a new certificate is in use");
            }
            Looked::Refused(why) => {
                self.refused = true;
                error!(port = ?self.port, %why, "new certificate files are no good: the old certificate stays in use");
            }
            Looked::Unsettled | Looked::StillRefused => {}
        }
        let facts = self.certificate.facts();
        if !self.warned && ends_within(&facts, WARN_BEFORE) {
            self.warned = true;
            warn!(
                port = ?self.port,
                serial = facts.serial,
                "the certificate in use expires within a week, or has expired"
            );
        }
    }

    fn count(&self, metrics: &Metrics) {
        let gauge: &Gauge = match self.port {
            Port::Clients => &metrics.tls_client_certificate_expires,
            Port::Brokers => &metrics.tls_peer_certificate_expires,
        };
        gauge.set(u64::try_from(self.certificate.facts().not_after).unwrap_or(0));
    }
}

fn ends_within(facts: &Facts, time: Duration) -> bool {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let then = now.unwrap_or_default() + time;
    facts.not_after < i64::try_from(then.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use bellwether_tls::make::{Authority, Pair};
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;

    const LASTS: Duration = Duration::from_secs(30 * 24 * 3600);
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    fn put(folder: &TempDir, pair: &Pair) -> Files {
        let path = |name| folder.path().join(name);
        std::fs::write(path("b.key"), &pair.key).unwrap();
        std::fs::write(path("b.crt"), &pair.certificate).unwrap();
        let ca = Some(path("ca.crt"));
        Files { certificate: path("b.crt"), key: path("b.key"), ca, crl: None }
    }

    fn broker(authority: &Authority, cluster: u128) -> Pair {
        let name = BrokerName { cluster: Uuid::from_u128(cluster), broker: 1 };
        authority.broker(name, &[], LASTS).unwrap()
    }

    #[tokio::test]
    async fn asked_to_reload_it_takes_what_is_good_and_refuses_another_cluster() {
        let folder = TempDir::new().unwrap();
        let authority = Authority::new("test authority", LASTS).unwrap();
        std::fs::write(folder.path().join("ca.crt"), &authority.pair().certificate).unwrap();
        let files = put(&folder, &broker(&authority, 7));
        let tls = Tls::default()
            .with_peer(files.clone(), BrokerId(1))
            .and_then(|tls| tls.with_client(files, ClientCertificates::Ignored))
            .unwrap();
        assert_eq!(tls.cluster(), Some(ClusterId(Uuid::from_u128(7))));
        let serial = || tls.peer().unwrap().facts().serial;
        let first = serial();
        let (metrics, stop) = (Arc::new(Metrics::default()), CancellationToken::new());
        let following = tokio::spawn(follow(tls.clone(), metrics.clone(), stop.clone()));
        eventually("the expiry to be told", || metrics.tls_peer_certificate_expires.get() > 0)
            .await;

        put(&folder, &broker(&authority, 7));
        tls.reload();
        eventually("the new certificate", || serial() != first).await;
        assert_eq!(metrics.tls_reload_failed.get(), 0);

        let second = serial();
        put(&folder, &broker(&authority, 8));
        tls.reload();
        eventually("the refusal", || metrics.tls_reload_failed.get() == 1).await;
        assert_eq!(serial(), second, "a certificate of another cluster is in use");

        put(&folder, &broker(&authority, 7));
        tls.reload();
        eventually("the end of the trouble", || metrics.tls_reload_failed.get() == 0).await;
        stop.cancel();
        following.await.unwrap();
    }
}
