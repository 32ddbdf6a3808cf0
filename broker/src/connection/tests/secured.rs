//! TLS in front of a connection: over real sockets, since what is looked at first is the first byte of a socket.

use bellwether_protocol::client::{EXTERNAL, LoginStart};
use bellwether_tls::make::{Authority, Pair};
use bellwether_tls::rustls::ClientConfig;
use bellwether_tls::tokio_rustls::TlsConnector;
use bellwether_tls::{
    BrokerName, ClientCertificates, Files, Looked, Reloadable as _, Revocations, client_config,
    roots,
};
use tempfile::TempDir;
use tokio::io::AsyncRead;
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::*;
use crate::tls::Tls;

const LASTS: Duration = Duration::from_secs(3600);

/// A listener that speaks TLS, and who may connect to it.
struct Port {
    address: std::net::SocketAddr,
    authority: Authority,
    folder: TempDir,
    service: Arc<Service>,
    tls: Option<Tls>,
    shutdown: CancellationToken,
    _around: Surroundings,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Port {
    async fn opens(certificates: Option<ClientCertificates>, timing: Timing) -> Port {
        Port::opens_within(certificates, timing, Limits::default(), false).await
    }

    async fn opens_within(
        certificates: Option<ClientCertificates>,
        timing: Timing,
        limits: Limits,
        plain_too: bool,
    ) -> Port {
        let authority = Authority::new("test authority", LASTS).unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.crt"), &authority.pair().certificate).unwrap();
        let name = BrokerName { cluster: Uuid::from_u128(7), broker: 1 };
        let broker = authority.broker(name, &["localhost".to_owned()], LASTS).unwrap();
        let crl = folder.path().join("ca.crl");
        std::fs::write(&crl, authority.revoke_more(None, &[], LASTS).unwrap().0).unwrap();
        let files = Files { crl: Some(crl), ..put(&folder, "broker", &broker) };
        let tls = certificates
            .map(|certificates| Tls::default().with_client(files, certificates).unwrap());
        let around = Surroundings::new().await;
        let service = Service::new(
            around.catalog.clone(),
            Arc::clone(&around.shard) as Arc<dyn ShardGate>,
            Arc::clone(&around.peers) as Arc<dyn PeerGate>,
            Arc::default(),
            limits,
            &timing,
        );
        let clients = tls.as_ref().map(|tls| tls.client().unwrap());
        let service = service.with_tls(clients, plain_too);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(listener, service.clone(), unchanging(), shutdown.clone()));
        let service = Arc::new(service);
        Port { address, authority, folder, service, tls, shutdown, _around: around }
    }

    /// Puts a client's certificate on the list, as `bellwether certs revoke` does, and has the running broker look at its files, as a
    /// hang-up does.
    fn revokes(&self, pair: &Pair) {
        let path = self.folder.path().join("ca.crl");
        let before = std::fs::read_to_string(&path).unwrap();
        let certificates = [pair.certificate.clone()];
        let (list, added) =
            self.authority.revoke_more(Some(&before), &certificates, LASTS).unwrap();
        assert_eq!(added.len(), 1);
        let beside = path.with_extension("new");
        std::fs::write(&beside, list).unwrap();
        std::fs::rename(&beside, &path).unwrap();
        let tls = self.tls.as_ref().expect("the port speaks TLS").client().unwrap();
        assert!(matches!(tls.look(true), Looked::Replaced(_)));
    }

    fn client(&self, identity: Option<&Pair>) -> Arc<ClientConfig> {
        let identity = identity.map(|pair| put(&self.folder, "client", pair).read().unwrap());
        client_config(
            roots(&self.folder.path().join("ca.crt")).unwrap(),
            &Revocations::default(),
            identity.as_ref(),
        )
        .unwrap()
    }

    /// What the broker says to a hello that comes over TLS.
    async fn greets(&self, config: Arc<ClientConfig>) -> Result<BrokerFrame, String> {
        self.answers(config, hello()).await
    }

    async fn answers(
        &self,
        config: Arc<ClientConfig>,
        hello: Hello,
    ) -> Result<BrokerFrame, String> {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let connecting =
            TlsConnector::from(config).connect("localhost".try_into().unwrap(), socket);
        let stream = connecting.await.map_err(|error| error.to_string())?;
        answers(stream, hello).await
    }
}

fn put(folder: &TempDir, name: &str, pair: &Pair) -> Files {
    let path = |end: &str| folder.path().join(format!("{name}.{end}"));
    std::fs::write(path("crt"), &pair.certificate).unwrap();
    std::fs::write(path("key"), &pair.key).unwrap();
    Files {
        certificate: path("crt"),
        key: path("key"),
        ca: Some(folder.path().join("ca.crt")),
        crl: None,
    }
}

async fn greets<S>(stream: S) -> Result<BrokerFrame, String>
where
    S: AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    answers(stream, hello()).await
}

async fn answers<S>(stream: S, hello: Hello) -> Result<BrokerFrame, String>
where
    S: AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut client = Framed::new(stream, FrameCodec::<BrokerFrame>::new(FrameLimits::CLIENT));
    client.send(ClientFrame::Hello(hello)).await.map_err(|error| error.to_string())?;
    let said = timeout(PATIENCE, client.next()).await.expect("the broker answers in time");
    said.ok_or_else(|| "closed".to_owned())?.map_err(|error| error.to_string())
}

fn goodbye(said: Result<BrokerFrame, String>) -> ErrorBody {
    match said {
        Ok(BrokerFrame::Goodbye(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_whose_certificate_is_revoked_is_refused_by_a_running_broker_and_others_are_not() {
    let port = Port::opens(Some(ClientCertificates::Required), timing()).await;
    let lost = port.authority.client("lost", LASTS).unwrap();
    let kept = port.authority.client("kept", LASTS).unwrap();
    let is_welcome = async |pair| {
        matches!(port.greets(port.client(Some(pair))).await, Ok(BrokerFrame::Welcome(_)))
    };
    assert!(is_welcome(&lost).await && is_welcome(&kept).await);
    port.revokes(&lost);
    assert!(!is_welcome(&lost).await);
    assert!(is_welcome(&kept).await);
    port.revokes(&kept);
    assert!(!is_welcome(&lost).await && !is_welcome(&kept).await, "what was on it stays on it");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_taken_where_none_is_asked_for_or_it_is_optional() {
    for certificates in [ClientCertificates::Ignored, ClientCertificates::Optional] {
        let port = Port::opens(Some(certificates), timing()).await;
        let said = port.greets(port.client(None)).await;
        assert!(matches!(said, Ok(BrokerFrame::Welcome(_))), "{said:?}");
    }
}

#[tokio::test]
async fn where_a_certificate_is_required_nobody_is_taken_without() {
    let port = Port::opens(Some(ClientCertificates::Required), timing()).await;
    let error = port.greets(port.client(None)).await.unwrap_err();
    assert!(error.contains("CertificateRequired"), "{error}");
    let known = port.authority.client("billing", LASTS).unwrap();
    let said = port.greets(port.client(Some(&known))).await;
    assert!(matches!(said, Ok(BrokerFrame::Welcome(_))), "{said:?}");
    // One of another authority is refused also where none would be required.
    let port = Port::opens(Some(ClientCertificates::Optional), timing()).await;
    let stranger = Authority::new("another authority", LASTS).unwrap();
    let stranger = stranger.client("billing", LASTS).unwrap();
    let error = port.greets(port.client(Some(&stranger))).await.unwrap_err();
    assert!(error.contains("alert"), "{error}");
}

#[tokio::test]
async fn a_login_by_certificate_takes_the_name_that_tls_has_verified() {
    let port = Port::opens(Some(ClientCertificates::Optional), timing()).await;
    let external =
        LoginStart { mechanism: EXTERNAL.to_owned(), initial_response: String::new().into() };
    let by = || Hello { login: Some(external.clone()), ..hello() };
    let error = goodbye(port.answers(port.client(None), by()).await);
    assert_eq!(error.code, ErrorCode::LoginRequired, "there is no certificate");
    let known = port.authority.client("nobody", LASTS).unwrap();
    let error = goodbye(port.answers(port.client(Some(&known)), by()).await);
    assert_eq!(error.code, ErrorCode::LoginRefused, "there is one, and no such user");
}

/// A TLS handshake costs more than any frame before the hello: nobody gets one who was not admitted.
#[tokio::test]
async fn who_waits_in_the_tls_handshake_counts_and_who_is_one_too_many_hears_an_alert() {
    let bounds = crate::config::Bounds { handshakes_max: 1, ..Default::default() };
    let limits = Limits { bounds, ..Limits::default() };
    let certificates = Some(ClientCertificates::Ignored);
    let port = Port::opens_within(certificates, timing(), limits, false).await;
    let silent = TcpStream::connect(port.address).await.unwrap();
    let error = port.greets(port.client(None)).await.unwrap_err();
    assert!(error.contains("InternalError"), "{error}");
    assert_eq!(port.service.metrics.client_connections_refused.get(), 1);
    drop(silent);
    let again = async {
        while !matches!(port.greets(port.client(None)).await, Ok(BrokerFrame::Welcome(_))) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, again).await.expect("there is room again");
}

#[tokio::test]
async fn who_speaks_no_tls_at_a_secure_port_is_told_and_likewise_the_other_way_round() {
    let secure = Port::opens(Some(ClientCertificates::Ignored), timing()).await;
    let socket = TcpStream::connect(secure.address).await.unwrap();
    let error = goodbye(greets(socket).await);
    assert_eq!(error.code, ErrorCode::TlsExpected);
    assert!(error.message.contains("--tls"), "{error:?}");

    let plain = Port::opens(None, timing()).await;
    let error = plain.greets(plain.client(None)).await.unwrap_err();
    assert!(error.contains("corrupt message") || error.contains("InvalidContentType"), "{error}");
    // What was said to it cannot be read by TLS; a socket shows it.
    let mut socket = TcpStream::connect(plain.address).await.unwrap();
    socket.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
    let mut client = Framed::new(socket, FrameCodec::<BrokerFrame>::new(FrameLimits::CLIENT));
    let said = timeout(PATIENCE, client.next()).await.unwrap().unwrap();
    assert_eq!(goodbye(said.map_err(|error| error.to_string())).code, ErrorCode::TlsUnexpected);
}

/// Without a time-out of its own, a client that sends half a TLS hello would hold a connection for ever.
/// While clients are moved to TLS, those that were and those that were not yet are served on one port.
#[tokio::test]
async fn while_tls_is_accepted_clients_with_it_and_without_are_taken_and_the_latter_counted() {
    let certificates = Some(ClientCertificates::Optional);
    let port = Port::opens_within(certificates, timing(), Limits::default(), true).await;
    let said = port.greets(port.client(None)).await;
    assert!(matches!(said, Ok(BrokerFrame::Welcome(_))), "{said:?}");
    let counted = || port.service.metrics.client_connections_plain.get();
    assert_eq!(counted(), 0);
    let said = greets(TcpStream::connect(port.address).await.unwrap()).await;
    assert!(matches!(said, Ok(BrokerFrame::Welcome(_))), "{said:?}");
    assert_eq!(counted(), 1);
    // Without TLS nobody is known by a certificate.
    let login =
        Some(LoginStart { mechanism: EXTERNAL.to_owned(), initial_response: String::new().into() });
    let socket = TcpStream::connect(port.address).await.unwrap();
    let refused = goodbye(answers(socket, Hello { login, ..hello() }).await);
    assert_eq!(refused.outcome, Outcome::NotDone);
}

#[tokio::test]
async fn the_time_of_the_handshake_counts_from_the_first_byte_of_tls() {
    let hurried = Timing { handshake_timeout: Duration::from_millis(100), ..timing() };
    let port = Port::opens(Some(ClientCertificates::Ignored), hurried).await;
    for sent in [&[][..], &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01][..]] {
        let mut socket = TcpStream::connect(port.address).await.unwrap();
        socket.write_all(sent).await.unwrap();
        let mut rest = Vec::new();
        // Closed or reset: either is an end.
        let ended = timeout(PATIENCE, socket.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "it is still open");
    }
    assert_eq!(port.service.metrics.handshakes_failed.get(), 2);
}

/// A replica's frames at the port of clients, by somebody whom TLS has let in: refused like any other frame before the hello.
#[tokio::test]
async fn frames_of_replication_are_not_known_at_the_port_of_clients() {
    use bellwether_protocol::peer::PeerFrame;
    let port = Port::opens(Some(ClientCertificates::Ignored), timing()).await;
    for frame in [PeerFrame::Heartbeat, PeerFrame::PromiseAsk { number: 1 }] {
        let socket = TcpStream::connect(port.address).await.unwrap();
        let connector = TlsConnector::from(port.client(None));
        let mut stream = connector.connect("localhost".try_into().unwrap(), socket).await.unwrap();
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        let mut client = Framed::new(stream, FrameCodec::<BrokerFrame>::new(FrameLimits::CLIENT));
        let said = timeout(PATIENCE, client.next()).await.unwrap().unwrap();
        let error = goodbye(said.map_err(|error| error.to_string()));
        assert!(
            matches!(error.code, ErrorCode::MalformedFrame | ErrorCode::UnexpectedFrame),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_large_window_of_small_frames_arrives_whole_over_tls() {
    let port = Port::opens(Some(ClientCertificates::Ignored), timing()).await;
    let socket = TcpStream::connect(port.address).await.unwrap();
    let connector = TlsConnector::from(port.client(None));
    let stream = connector.connect("localhost".try_into().unwrap(), socket).await.unwrap();
    let mut client = Framed::new(stream, FrameCodec::<BrokerFrame>::new(FrameLimits::CLIENT));
    client.send(ClientFrame::Hello(hello())).await.unwrap();
    // Heartbeats beyond what one TLS record holds, and then a question.
    for _ in 0..20_000 {
        client.feed(ClientFrame::Heartbeat).await.unwrap();
    }
    let request = Request::ListExchanges;
    client.send(ClientFrame::Request { id: RequestId(1), request }).await.unwrap();
    let answered = async {
        while let Some(frame) = client.next().await {
            if matches!(frame.unwrap(), BrokerFrame::Response { id: RequestId(1), .. }) {
                return;
            }
        }
        panic!("the connection ended");
    };
    timeout(PATIENCE, answered).await.expect("the answer");
}
