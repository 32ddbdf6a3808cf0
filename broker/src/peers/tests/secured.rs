//! TLS between brokers: who is taken, who is refused and hears why, and that no failed handshake is evidence.

use bellwether_tls::make::{Authority, Pair};
use bellwether_tls::tokio_rustls::TlsConnector;
use bellwether_tls::{BrokerName, Files};
use tempfile::TempDir;

use super::*;
use crate::tls::Tls;

const LASTS: Duration = Duration::from_secs(3600);

/// An authority, and a folder that its certificates are put into.
pub(super) struct Ministry {
    authority: Authority,
    folder: TempDir,
}

impl Ministry {
    pub(super) fn new() -> Ministry {
        let authority = Authority::new("test authority", LASTS).unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.crt"), &authority.pair().certificate).unwrap();
        Ministry { authority, folder }
    }

    fn broker(&self, broker: u32, cluster: ClusterId) -> Pair {
        let name = BrokerName { cluster: cluster.0, broker };
        self.authority.broker(name, &["localhost".to_owned()], LASTS).unwrap()
    }

    fn put(&self, pair: &Pair) -> Files {
        let path = |name: &str| self.folder.path().join(name);
        let number = std::fs::read_dir(self.folder.path()).unwrap().count();
        let (certificate, key) = (path(&format!("{number}.crt")), path(&format!("{number}.key")));
        std::fs::write(&certificate, &pair.certificate).unwrap();
        std::fs::write(&key, &pair.key).unwrap();
        Files { certificate, key, ca: Some(path("ca.crt")), crl: None }
    }

    /// What broker `broker` of `cluster` uses.
    pub(super) fn tls(&self, broker: u32, cluster: ClusterId) -> Arc<PeerTls> {
        let files = self.put(&self.broker(broker, cluster));
        Tls::default().with_peer(files, BrokerId(broker)).unwrap().peer().unwrap()
    }

    async fn start(&self, broker: u32) -> Broker {
        self.start_with(broker, self.tls(broker, CLUSTER)).await
    }

    async fn start_with(&self, broker: u32, tls: Arc<PeerTls>) -> Broker {
        Broker::secured(broker, 1, CLUSTER, 8 * 1024 * 1024, Some(tls)).await
    }
}

/// A connection to the port of `broker` with a certificate of one's own, and what is said there to a hello.
pub(super) async fn answer_to(
    broker: &Broker,
    tls: &Arc<PeerTls>,
    hello: &PeerHello,
) -> Result<PeerFrame, String> {
    let socket = TcpStream::connect(broker.address).await.unwrap();
    let connector = TlsConnector::from(tls.current().client);
    let stream = connector.connect("x.invalid".try_into().unwrap(), socket).await;
    let mut framed = Framed::new(stream.map_err(|error| error.to_string())?);
    framed.write(&PeerFrame::Hello(hello.clone())).await.map_err(|error| error.to_string())?;
    let read = tokio::time::timeout(PATIENCE, framed.read()).await.expect("an answer or an end");
    read.map_err(|error| error.to_string())?.ok_or_else(|| "closed".to_owned())
}

async fn goodbye_to(broker: &Broker, tls: &Arc<PeerTls>, hello: &PeerHello) -> ErrorBody {
    match answer_to(broker, tls, hello).await {
        Ok(PeerFrame::Goodbye(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn two_brokers_with_certificates_of_one_cluster_connect_and_exchange_batches_of_every_size() {
    let ministry = Ministry::new();
    let (mut leader, mut follower) = (ministry.start(1).await, ministry.start(2).await);
    follower.dials(1, leader.address);
    let (up, _) = follower.hears_up(Side::Dialed).await;
    assert_eq!(up, life(1, 1));
    assert_eq!(leader.hears_up(Side::Accepted).await.0, life(2, 1));
    // Larger than a TLS record, so that one frame spans several, and the last bytes have to be flushed.
    for bytes in [1, 16 * 1024, 300_000] {
        let batch = batch_of(queue(1), 0, bytes);
        let run = run_of(queue(1), std::slice::from_ref(&batch));
        let sent = leader.peers.to_follower(life(2, 1), PeerFrame::Append(vec![run]));
        assert_eq!(sent, SendOutcome::Sent);
        let arrived = follower.hears_frame(|frame| match frame {
            PeerFrame::Append(runs) => Some(runs[0].batches.clone()),
            _ => None,
        });
        assert_eq!(decoded(arrived.await), vec![batch]);
    }
}

/// Reset and refused prove a death with TLS as without.
#[tokio::test]
async fn a_secure_connection_that_is_reset_and_then_refused_proves_a_broker_dead() {
    let ministry = Ministry::new();
    let mut broker = ministry.start(2).await;
    let tls = ministry.tls(1, CLUSTER);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    broker.dials(1, listener.local_addr().unwrap());
    let played = played_securely(&listener, &tls, &hello_of(1, 1, CLUSTER)).await;
    broker.hears_up(Side::Dialed).await;
    drop((listener, played));
    assert_eq!(broker.hears_dead().await, life(1, 1));
}

async fn played_securely(
    listener: &TcpListener,
    tls: &Arc<PeerTls>,
    hello: &PeerHello,
) -> Framed<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + use<>> {
    let (socket, _) = listener.accept().await.unwrap();
    let acceptor = bellwether_tls::tokio_rustls::TlsAcceptor::from(tls.current().server);
    let mut framed = Framed::new(acceptor.accept(socket).await.unwrap());
    hello::welcome(&mut framed, hello, None).await.unwrap();
    framed
}

/// The disaster: a leader is cut off and leads yet, and somebody else answers at its address with a new incarnation. Were that
/// taken for evidence, a second leader would be elected at once. Whoever cannot show the broker's certificate proves nothing.
#[tokio::test]
async fn an_answer_without_the_brokers_certificate_is_no_evidence_of_its_death() {
    let ministry = Ministry::new();
    let stranger = Ministry::new();
    let mut broker = ministry.start(2).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    broker.dials(1, listener.local_addr().unwrap());
    let good = ministry.tls(1, CLUSTER);
    drop(played_securely(&listener, &good, &hello_of(1, 1, CLUSTER)).await);
    broker.hears_up(Side::Dialed).await;
    broker.hears_down(Side::Dialed).await;

    // Another broker of the cluster, the right broker of another authority, and somebody who speaks no TLS.
    for tls in [ministry.tls(3, CLUSTER), stranger.tls(1, CLUSTER)] {
        let (socket, _) = listener.accept().await.unwrap();
        let acceptor = bellwether_tls::tokio_rustls::TlsAcceptor::from(tls.current().server);
        if let Ok(stream) = acceptor.accept(socket).await {
            let mut framed = Framed::new(stream);
            let welcomed = hello::welcome(&mut framed, &hello_of(1, 2, CLUSTER), None).await;
            assert!(welcomed.is_err(), "it said hello to the wrong broker");
        }
    }
    let (mut plain, _) = listener.accept().await.unwrap();
    let mut framed = Framed::new(&mut plain);
    framed.write(&PeerFrame::Hello(hello_of(1, 2, CLUSTER))).await.unwrap();
    drop(plain);

    // The broker itself comes back in the same life: had anything been taken for evidence, "dead" would have been heard first.
    let _played = played_securely(&listener, &good, &hello_of(1, 1, CLUSTER)).await;
    broker
        .hears(|_, input| match input {
            ShardInput::Peer(PeerNews::Dead { .. }) => panic!("a stranger's answer was evidence"),
            ShardInput::Peer(PeerNews::Up { .. }) => Some(()),
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn a_broker_has_to_say_the_id_and_the_cluster_of_its_certificate() {
    let ministry = Ministry::new();
    let broker = ministry.start(2).await;
    let third = ministry.tls(3, CLUSTER);
    let error = goodbye_to(&broker, &third, &hello_of(1, 1, CLUSTER)).await;
    assert_eq!(error.code, ErrorCode::WrongCertificate);
    assert!(error.message.contains("broker 1") && error.message.contains("broker/3"), "{error:?}");

    let elsewhere = ClusterId(Uuid::from_u128(8));
    let foreign = ministry.tls(3, elsewhere);
    let error = goodbye_to(&broker, &foreign, &hello_of(3, 1, CLUSTER)).await;
    assert_eq!(error.code, ErrorCode::WrongCertificate);
    assert!(error.message.contains(&elsewhere.to_string()), "{error:?}");

    let taken = answer_to(&broker, &third, &hello_of(3, 1, CLUSTER)).await;
    assert!(matches!(taken, Ok(PeerFrame::Hello(_))), "{taken:?}");
}

#[tokio::test]
async fn a_clients_certificate_is_not_taken_at_the_port_of_brokers_though_the_authority_is_the_same()
 {
    let ministry = Ministry::new();
    let broker = ministry.start(2).await;
    let files = ministry.put(&ministry.authority.client("billing", LASTS).unwrap());
    let as_peer = Tls::default().with_peer(files.clone(), BrokerId(1)).unwrap_err().to_string();
    assert!(as_peer.contains("names no broker"), "{as_peer}");

    let material = files.read().unwrap();
    let client = bellwether_tls::peer_client_config(&material).unwrap();
    let server =
        bellwether_tls::server_config(&material, bellwether_tls::ClientCertificates::Ignored)
            .unwrap();
    let configs = crate::tls::PeerConfigs { server, client };
    let as_client = Arc::new(PeerTls::open(files, move |_| Ok(configs.clone())).unwrap());
    let error = goodbye_to(&broker, &as_client, &hello_of(1, 1, CLUSTER)).await;
    assert_eq!(error.code, ErrorCode::WrongCertificate);
    assert!(error.message.contains("port for brokers"), "{error:?}");
}

#[tokio::test]
async fn another_authority_is_refused_by_both_ends() {
    let (ministry, stranger) = (Ministry::new(), Ministry::new());
    let broker = ministry.start(2).await;
    let error =
        answer_to(&broker, &stranger.tls(1, CLUSTER), &hello_of(1, 1, CLUSTER)).await.unwrap_err();
    // The authorities have the same name: it is the signature that does not fit.
    assert!(error.contains("BadSignature"), "{error}");

    // The dialer trusts the broker here, and the broker does not trust the dialer.
    let files = stranger.put(&stranger.broker(1, CLUSTER));
    let trusting = Files { ca: Some(ministry.folder.path().join("ca.crt")), ..files };
    let trusting = Tls::default().with_peer(trusting, BrokerId(1)).unwrap().peer().unwrap();
    let error = answer_to(&broker, &trusting, &hello_of(1, 1, CLUSTER)).await.unwrap_err();
    assert!(error.contains("UnknownCA") || error.contains("DecryptError"), "{error}");
}

#[tokio::test]
async fn a_broker_without_tls_hears_that_this_one_speaks_tls_and_the_other_way_round() {
    let ministry = Ministry::new();
    let secured = ministry.start(2).await;
    let mut framed = Framed::new(TcpStream::connect(secured.address).await.unwrap());
    framed.write(&PeerFrame::Hello(hello_of(1, 1, CLUSTER))).await.unwrap();
    match (Played { framed }).next().await {
        PeerFrame::Goodbye(error) => {
            assert_eq!(error.code, ErrorCode::TlsExpected);
            assert!(error.message.contains("--peer-tls-cert"), "{error:?}");
        }
        other => panic!("{other:?}"),
    }

    let plain = Broker::start(1).await;
    let config =
        PeersConfig { tls: Some(ministry.tls(2, CLUSTER)), ..secured.peers.shared.config.clone() };
    let socket = TcpStream::connect(plain.address).await.unwrap();
    let target = dial::Target { life: life(1, 1), address: String::new(), tls: true };
    let Err(error) = secure::dialed(&config, &target, socket).await else { panic!("secured") };
    assert!(error.to_string().contains("does not answer in TLS"), "{error}");
}

#[tokio::test]
async fn a_certificate_for_another_broker_or_an_expired_one_is_refused_when_it_is_read() {
    let ministry = Ministry::new();
    let files = ministry.put(&ministry.broker(3, CLUSTER));
    let error = Tls::default().with_peer(files, BrokerId(1)).unwrap_err().to_string();
    assert!(error.contains("for broker 3, and this is broker 1"), "{error}");

    let name = BrokerName { cluster: CLUSTER.0, broker: 1 };
    let expired = ministry.authority.broker(name, &[], Duration::ZERO).unwrap();
    let files = ministry.put(&expired);
    // Certificates count in whole seconds.
    eventually("it to expire", || {
        let opened = Tls::default().with_peer(files.clone(), BrokerId(1));
        opened.is_err_and(|error| error.to_string().contains("has expired"))
    })
    .await;
}
