//! How a client finds brokers and gets answers, told against brokers that the test plays.

mod support;

use std::time::Duration;

use bellwether_client::{
    Client, ConnectError, DeclareError, DeleteError, ErrorCode, Outcome, QueueOptions,
};
use bellwether_protocol::client::{BrokerFrame, ClientFrame, Request, Response};
use bellwether_protocol::error::ErrorBody;
use support::{FakeBroker, Session, brokers, patient, soon, summary};

async fn connected(broker: &FakeBroker, deadline: Duration) -> (Client, Session) {
    let connecting = patient().deadline(deadline).connect([broker.socket().to_string()]);
    let (client, session) = tokio::join!(connecting, broker.accept());
    (client.unwrap(), session)
}

const LONG: Duration = Duration::from_secs(30);
/// Long enough to connect on a busy machine.
const SHORT: Duration = Duration::from_secs(1);

/// Declares what is asked to be declared.
async fn declare(session: &mut Session) {
    match session.request().await {
        (id, Request::DeclareQueue { queue, .. }) => {
            let queue = summary(&queue, 7, bellwether_client::BrokerId(1));
            let declared = Response::Declared { created: true, queue, warning: None };
            session.respond(id, declared).await;
        }
        (_, other) => panic!("a declare was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn a_lost_answer_to_a_declare_is_asked_for_again_at_another_broker() {
    let [first, second] = brokers().await;
    let (client, mut session) = connected(&first, LONG).await;
    let declaring = tokio::spawn(async move { client.declare("orders").await });
    session.request().await;
    drop((session, first));
    declare(&mut second.accept().await).await;
    assert!(soon("the declare", declaring).await.unwrap().unwrap().created);
}

#[tokio::test]
async fn a_lost_answer_to_a_delete_is_unknown_and_not_asked_again() {
    let [first, _second] = brokers().await;
    let (client, mut session) = connected(&first, LONG).await;
    let deleting = tokio::spawn(async move { client.delete("orders").await });
    session.request().await;
    drop(session);
    let error = soon("the delete", deleting).await.unwrap().unwrap_err();
    assert!(matches!(error, DeleteError::Unknown { .. }), "{error:?}");
    assert_eq!(error.outcome(), Outcome::Unknown);
}

#[tokio::test]
async fn a_delete_follows_redirects_to_the_leader() {
    let [entry, leader] = brokers().await;
    let (client, mut session) = connected(&entry, LONG).await;
    let deleting = tokio::spawn(async move { client.delete("orders").await });
    let (id, _) = session.request().await;
    session.redirect(id, Some(leader.address())).await;
    let mut at_leader = leader.accept().await;
    let (id, _) = at_leader.request().await;
    at_leader.respond(id, Response::Done).await;
    soon("the delete", deleting).await.unwrap().unwrap();
}

#[tokio::test]
async fn at_the_deadline_an_unanswered_request_is_unknown() {
    let [broker] = brokers().await;
    let (client, mut session) = connected(&broker, SHORT).await;
    let declaring = tokio::spawn(async move { client.declare("orders").await });
    session.request().await;
    let error = soon("the deadline", declaring).await.unwrap().unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
}

#[tokio::test]
async fn at_the_deadline_a_request_that_was_always_refused_is_not_done_and_says_why() {
    let [broker] = brokers().await;
    let (client, mut session) = connected(&broker, SHORT).await;
    let asking = client.clone();
    let declaring = tokio::spawn(async move { asking.declare("orders").await });
    let refusing = async {
        loop {
            let (id, _) = session.request().await;
            session.refuse(id, ErrorCode::CoordinatorUnavailable, "ZooKeeper is away").await;
        }
    };
    let error = tokio::select! {
        declared = soon("the deadline", declaring) => declared.unwrap().unwrap_err(),
        () = refusing => unreachable!("refuses for ever"),
    };
    // The deadline may fall between a request and its answer; then nobody knows.
    match error {
        DeclareError::Unavailable { last, .. } => assert_eq!(last, "ZooKeeper is away"),
        DeclareError::Unknown { message } => assert!(message.contains("ZooKeeper is away")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_definite_refusal_is_told_at_once_with_the_brokers_words() {
    let [broker] = brokers().await;
    let (client, mut session) = connected(&broker, LONG).await;
    let options = QueueOptions { replicas: 5, ..QueueOptions::default() };
    let declaring = tokio::spawn(async move { client.declare_with("orders", options).await });
    let (id, _) = session.request().await;
    session.refuse(id, ErrorCode::OptionsDiffer, "replicas: 3, not 5").await;
    let error = soon("the declare", declaring).await.unwrap().unwrap_err();
    assert_eq!(error, DeclareError::OptionsDiffer { message: "replicas: 3, not 5".to_owned() });
}

#[tokio::test]
async fn a_frozen_broker_does_not_keep_a_client_from_connecting() {
    let [frozen, healthy] = brokers().await;
    let addresses = [frozen.socket().to_string(), healthy.socket().to_string()];
    let connecting = patient().connect(addresses);
    let accepting = async {
        let _session = healthy.accept().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        client = soon("a connection", connecting) => drop(client.unwrap()),
        () = accepting => unreachable!("holds the connection"),
    }
}

#[tokio::test]
async fn a_silent_broker_is_given_up_and_another_asked() {
    let [silent, second] = brokers().await;
    let heartbeat = Duration::from_millis(100);
    let connecting = Client::builder().heartbeat(heartbeat).connect([silent.socket().to_string()]);
    let (client, mut session) = tokio::join!(connecting, silent.accept());
    let client = client.unwrap();
    let declaring = tokio::spawn(async move { client.declare("orders").await });
    session.request().await;
    // It says nothing more, but its connection stays open.
    declare(&mut second.accept().await).await;
    soon("the declare", declaring).await.unwrap().unwrap();
    assert_eq!(session.next_or_end().await, None);
}

#[tokio::test]
async fn the_client_tells_the_broker_that_it_is_there() {
    let [broker] = brokers().await;
    let connecting = patient().connect([broker.socket().to_string()]);
    let accepting = async {
        let mut session = broker.accept_unwelcomed().await;
        session.hello().await;
        let mut welcome = broker.welcome();
        welcome.heartbeat_ms = 20;
        session.send(BrokerFrame::Welcome(welcome)).await;
        session
    };
    let (client, mut session) = tokio::join!(connecting, accepting);
    assert_eq!(soon("a heartbeat", session.any_frame()).await, Some(ClientFrame::Heartbeat));
    drop(client);
    assert_eq!(session.next_or_end().await, Some(ClientFrame::Goodbye));
}

#[tokio::test]
async fn a_version_that_nobody_shares_is_refused_at_once_with_the_brokers_words() {
    let [broker] = brokers().await;
    let connecting = patient().connect([broker.socket().to_string()]);
    let refusing = async {
        let mut session = broker.accept_unwelcomed().await;
        session.hello().await;
        let error = ErrorBody::not_done(ErrorCode::UnsupportedVersion, "versions 9 to 9 only");
        session.send(BrokerFrame::Goodbye(error)).await;
    };
    let (connected, ()) = tokio::join!(soon("an answer", connecting), refusing);
    let error = connected.unwrap_err();
    assert!(
        matches!(error, ConnectError::Refused { code: ErrorCode::UnsupportedVersion, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("versions 9 to 9 only"));
}

#[tokio::test]
async fn nobody_there_is_not_done_at_the_deadline_and_names_the_address() {
    let [broker] = brokers().await;
    let address = broker.socket().to_string();
    drop(broker);
    let error = patient().deadline(SHORT).connect([&address]).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
    let none: [&str; 0] = [];
    assert_eq!(Client::connect(none).await.unwrap_err(), ConnectError::NoAddress);
}

#[tokio::test]
async fn one_connection_serves_everything_at_one_broker() {
    let [broker] = brokers().await;
    let (client, mut session) = connected(&broker, LONG).await;
    let starting = client.producer().to_queue("orders").start();
    let (producer, _) = tokio::join!(starting, session.attach_producer());
    let _producer = producer.unwrap();
    let consuming = tokio::spawn(client.consumer("orders").start());
    session.attach_consumer(1).await;
    let declaring = tokio::spawn(async move { client.declare("other").await });
    loop {
        match session.request().await {
            (id, Request::DescribeQueue { queue }) => session.describe(id, &queue, 7).await,
            (id, Request::DeclareQueue { queue, .. }) => {
                let queue = summary(&queue, 7, bellwether_client::BrokerId(1));
                let declared = Response::Declared { created: true, queue, warning: None };
                session.respond(id, declared).await;
                break;
            }
            (_, other) => panic!("{other:?}"),
        }
    }
    soon("the declare", declaring).await.unwrap().unwrap();
    consuming.abort();
}
