//! How a client logs in, told against brokers that the test plays.

mod support;

use bellwether_client::{Client, ConnectError, ErrorCode, TlsOptions, UserName};
use bellwether_protocol::client::{BrokerFrame, ClientFrame, LoginData, Welcome};
use bellwether_protocol::error::ErrorBody;
use bellwether_protocol::scram::{self, Asked, Credentials, Password, Pending};
use support::{FakeBroker, Session, brokers, patient};

const SALT: [u8; 16] = *b"0123456789abcdef";

fn credentials(password: &str) -> Credentials {
    let salted = Password::new(password).unwrap().salted(&SALT, scram::ITERATIONS_MIN).unwrap();
    Credentials::of(&salted, SALT.to_vec(), scram::ITERATIONS_MIN)
}

/// The broker's part up to the client's last message.
async fn challenge(session: &mut Session, credentials: Credentials) -> (Pending, LoginData) {
    let login = session.hello().await.login.expect("the client logs in");
    assert_eq!(login.mechanism, scram::MECHANISM);
    let asked = Asked::read(&login.initial_response.0).unwrap();
    assert_eq!(asked.user, UserName::new("alice").unwrap());
    let (challenge, pending) = asked.challenge(credentials, [3; scram::RANDOM_BYTES]);
    session.send(BrokerFrame::Challenge(challenge.into())).await;
    match session.next().await {
        ClientFrame::Authenticate(answer) => (pending, answer),
        other => panic!("{other:?}"),
    }
}

async fn connecting(broker: &FakeBroker) -> Result<Client, ConnectError> {
    let builder = patient().login("alice", "pencil");
    builder.connect([broker.socket().to_string()]).await
}

#[tokio::test]
async fn a_client_proves_its_password_and_believes_the_brokers_proof() {
    let [broker] = brokers().await;
    let serving = async {
        let mut session = broker.accept_unwelcomed().await;
        let (pending, answer) = challenge(&mut session, credentials("pencil")).await;
        let proof = Some(pending.finish(&answer.0).unwrap().into());
        session.send(BrokerFrame::Welcome(Welcome { proof, ..broker.welcome() })).await;
        session
    };
    let (client, _session) = tokio::join!(connecting(&broker), serving);
    client.unwrap();
}

#[tokio::test]
async fn a_broker_that_does_not_prove_that_it_knows_the_user_is_not_talked_to() {
    for with_proof in [false, true] {
        let [broker] = brokers().await;
        let serving = async {
            let mut session = broker.accept_unwelcomed().await;
            // It holds another password's credentials, so what it signs is worth nothing.
            let (_, _) = challenge(&mut session, credentials("other")).await;
            let proof =
                LoginData::from("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_owned());
            let proof = with_proof.then_some(proof);
            session.send(BrokerFrame::Welcome(Welcome { proof, ..broker.welcome() })).await;
            assert_eq!(session.next_or_end().await, None, "the client leaves without a word");
        };
        tokio::select! {
            client = connecting(&broker) => panic!("{client:?}"),
            () = serving => {}
        }
    }
}

#[tokio::test]
async fn a_broker_that_welcomes_without_a_challenge_is_not_talked_to() {
    let [broker] = brokers().await;
    let serving = async {
        let mut session = broker.accept_unwelcomed().await;
        session.hello().await;
        session.send(BrokerFrame::Welcome(broker.welcome())).await;
        assert_eq!(session.next_or_end().await, None);
    };
    tokio::select! {
        client = connecting(&broker) => panic!("{client:?}"),
        () = serving => {}
    }
}

#[tokio::test]
async fn a_refused_login_is_said_at_once() {
    let [broker] = brokers().await;
    let serving = async {
        let mut session = broker.accept_unwelcomed().await;
        challenge(&mut session, credentials("other")).await;
        let error = ErrorBody::not_done(ErrorCode::LoginRefused, "no");
        session.send(BrokerFrame::Goodbye(error)).await;
    };
    let (client, ()) = tokio::join!(connecting(&broker), serving);
    assert!(
        matches!(client, Err(ConnectError::Refused { code: ErrorCode::LoginRefused, .. })),
        "{client:?}"
    );
}

#[test]
fn a_builder_does_not_show_the_password() {
    let shown = format!("{:?}", Client::builder().login("alice", "pencil"));
    assert!(shown.contains("alice") && !shown.contains("pencil"), "{shown}");
}

#[tokio::test]
async fn a_login_by_certificate_without_one_is_a_mistake_and_nothing_is_dialed() {
    for tls in [None, Some(TlsOptions::new().server_name("broker"))] {
        let mut builder = Client::builder().login_by_certificate();
        if let Some(tls) = tls {
            builder = builder.tls(tls);
        }
        let connected = builder.connect(["127.0.0.1:1"]).await;
        let Err(ConnectError::InvalidTls { message }) = connected else { panic!("{connected:?}") };
        assert!(message.contains("certificate"), "{message}");
    }
}
