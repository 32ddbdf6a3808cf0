//! A revoked certificate is refused at both ends, between brokers too, and from the moment on in which the list is read.

use std::sync::Arc;
use std::time::Duration;

use bellwether_tls::make::{Authority, Pair};
use bellwether_tls::rustls::{ClientConfig, ServerConfig};
use bellwether_tls::tokio_rustls::{TlsAcceptor, TlsConnector};
use bellwether_tls::{
    BrokerName, ClientCertificates, Files, Looked, Reloadable, Reloading, Revocations, Side,
    TlsError, client_config, explain, peer_client_config, revocations, roots, server_config,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;

const LASTS: Duration = Duration::from_secs(3600);

struct Ministry {
    authority: Authority,
    folder: TempDir,
}

impl Ministry {
    fn new() -> Ministry {
        let authority = Authority::new("test authority", LASTS).unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.crt"), &authority.pair().certificate).unwrap();
        Ministry { authority, folder }
    }

    fn broker(&self, broker: u32) -> Pair {
        let name = BrokerName { cluster: Uuid::from_u128(7), broker };
        self.authority.broker(name, &["localhost".to_owned()], LASTS).unwrap()
    }

    /// The list now holds these and no others.
    fn revokes(&self, pairs: &[&Pair]) {
        self.writes("list.crl", &self.authority.revoke(pairs, LASTS).unwrap());
    }

    fn writes(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn files(&self, name: &str, pair: &Pair) -> Files {
        let path = |end: &str| self.folder.path().join(end);
        self.writes(&format!("{name}.crt"), &pair.certificate);
        self.writes(&format!("{name}.key"), &pair.key);
        Files {
            certificate: path(&format!("{name}.crt")),
            key: path(&format!("{name}.key")),
            ca: Some(path("ca.crt")),
            crl: Some(path("list.crl")),
        }
    }

    fn client(&self, pair: Option<&Pair>) -> Arc<ClientConfig> {
        let list = revocations(&self.folder.path().join("list.crl")).unwrap();
        let identity = pair.map(|pair| self.files("client", pair).read().unwrap());
        let roots = roots(&self.folder.path().join("ca.crt")).unwrap();
        client_config(roots, &list, identity.as_ref()).unwrap()
    }
}

/// What both ends come to: the dialer's words, and the acceptor's.
async fn meet(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> (Result<(), String>, Result<(), String>) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let words = |error: std::io::Error, side| explain(&error, side).unwrap_or(error.to_string());
    let dials = async {
        let name = "localhost".try_into().unwrap();
        let mut stream = TlsConnector::from(client)
            .connect(name, ours)
            .await
            .map_err(|error| words(error, Side::Dialer))?;
        // With TLS 1.3 whoever accepts says only behind the handshake that it refuses.
        let mut one = [0];
        stream.read_exact(&mut one).await.map_err(|error| words(error, Side::Dialer))?;
        Ok(())
    };
    let accepts = async {
        let mut stream = TlsAcceptor::from(server)
            .accept(theirs)
            .await
            .map_err(|error| words(error, Side::Acceptor))?;
        stream.write_all(&[1]).await.map_err(|error| words(error, Side::Acceptor))?;
        stream.flush().await.map_err(|error| words(error, Side::Acceptor))
    };
    tokio::join!(dials, accepts)
}

fn requiring(files: &Files) -> Arc<ServerConfig> {
    server_config(&files.read().unwrap(), ClientCertificates::Required).unwrap()
}

#[tokio::test]
async fn a_client_whose_certificate_was_revoked_is_refused_and_others_are_not() {
    let ministry = Ministry::new();
    let (good, bad) = (
        ministry.authority.client("good", LASTS).unwrap(),
        ministry.authority.client("bad", LASTS).unwrap(),
    );
    ministry.revokes(&[&bad]);
    let server = requiring(&ministry.files("broker", &ministry.broker(1)));
    let (dialer, acceptor) = meet(ministry.client(Some(&good)), server.clone()).await;
    assert_eq!((dialer, acceptor), (Ok(()), Ok(())));
    let (dialer, acceptor) = meet(ministry.client(Some(&bad)), server).await;
    assert!(acceptor.unwrap_err().contains("revoked"));
    assert!(dialer.unwrap_err().contains("Revoked"));
}

#[tokio::test]
async fn a_broker_whose_certificate_was_revoked_is_refused_by_clients_and_by_brokers() {
    let ministry = Ministry::new();
    let (good, bad) = (ministry.broker(1), ministry.broker(2));
    ministry.revokes(&[&bad]);
    let (from_good, from_bad) = (ministry.files("good", &good), ministry.files("bad", &bad));
    let peer = |files: &Files| peer_client_config(&files.read().unwrap()).unwrap();
    for dialer in [ministry.client(Some(&good)), peer(&from_good)] {
        let (dialed, _) = meet(dialer.clone(), requiring(&from_good)).await;
        assert_eq!(dialed, Ok(()));
        let (dialed, _) = meet(dialer, requiring(&from_bad)).await;
        assert!(dialed.unwrap_err().contains("revoked"));
    }
    let (_, accepted) = meet(peer(&from_bad), requiring(&from_good)).await;
    assert!(accepted.unwrap_err().contains("revoked"));
}

/// A host name is not looked at between brokers; whose authority it is always is.
#[tokio::test]
async fn a_broker_of_another_name_is_dialed_and_one_of_another_authority_is_not() {
    let (ministry, stranger) = (Ministry::new(), Ministry::new());
    ministry.revokes(&[]);
    stranger.revokes(&[]);
    let name = BrokerName { cluster: Uuid::from_u128(7), broker: 2 };
    let nameless = ministry.authority.broker(name, &["elsewhere".to_owned()], LASTS).unwrap();
    let mine = ministry.files("mine", &ministry.broker(1));
    let dialer = || peer_client_config(&mine.read().unwrap()).unwrap();
    let (dialed, accepted) = meet(dialer(), requiring(&ministry.files("two", &nameless))).await;
    assert_eq!((dialed, accepted), (Ok(()), Ok(())));
    let theirs = requiring(&stranger.files("theirs", &stranger.broker(2)));
    assert!(meet(dialer(), theirs).await.0.is_err());
}

#[tokio::test]
async fn a_list_is_read_again_when_it_changes_and_a_bad_one_leaves_the_old_in_use() {
    let ministry = Ministry::new();
    let lost = ministry.authority.client("lost", LASTS).unwrap();
    ministry.revokes(&[]);
    let files = ministry.files("broker", &ministry.broker(1));
    let reloading =
        Reloading::open(files, |material| server_config(material, ClientCertificates::Required))
            .unwrap();
    let meets = async || meet(ministry.client(Some(&lost)), reloading.current()).await.1;
    assert_eq!(meets().await, Ok(()));
    ministry.revokes(&[&lost]);
    assert!(matches!(reloading.look(true), Looked::Replaced(_)));
    assert!(meets().await.unwrap_err().contains("revoked"));

    ministry.writes("list.crl", "nothing");
    let Looked::Refused(error) = reloading.look(true) else { panic!("not refused") };
    assert!(matches!(error, TlsError::NoRevocations { .. }), "{error}");
    assert!(error.to_string().contains("list.crl"), "{error}");
    ministry.revokes(&[&lost]);
    assert!(meets().await.is_err(), "the old list stays");
}

/// As `bellwether certs revoke` makes it: what was on it stays on it.
#[tokio::test]
async fn a_list_that_is_made_longer_keeps_what_was_on_it() {
    let ministry = Ministry::new();
    let pairs: Vec<Pair> = ["first", "second", "third"]
        .map(|name| ministry.authority.client(name, LASTS).unwrap())
        .into();
    let mut list: Option<String> = None;
    for (pair, expected) in pairs.iter().zip(["first", "second"]) {
        let text = pair.certificate.clone();
        let (longer, added) =
            ministry.authority.revoke_more(list.as_deref(), &[text.clone(), text], LASTS).unwrap();
        assert_eq!(added, [format!("CN={expected}")]);
        list = Some(longer);
    }
    ministry.writes("list.crl", &list.unwrap());
    let server = requiring(&ministry.files("broker", &ministry.broker(1)));
    for (pair, refused) in pairs.iter().zip([true, true, false]) {
        let (_, accepted) = meet(ministry.client(Some(pair)), server.clone()).await;
        assert_eq!(accepted.is_err(), refused, "{accepted:?}");
    }
}

#[test]
fn a_list_that_cannot_be_read_is_named_and_none_is_needed() {
    let ministry = Ministry::new();
    let files = ministry.files("broker", &ministry.broker(1));
    assert!(files.read().unwrap_err().to_string().contains("list.crl"));
    let without = Files { crl: None, ..files };
    server_config(&without.read().unwrap(), ClientCertificates::Required).unwrap();
    let roots = roots(&ministry.folder.path().join("ca.crt")).unwrap();
    client_config(roots, &Revocations::default(), None).unwrap();
}
