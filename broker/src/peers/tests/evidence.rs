//! Who is up, who is dead, who is only silent, and who is refused.

use tokio::io::AsyncReadExt;

use super::*;

#[tokio::test]
async fn a_reset_and_then_a_refused_connection_prove_a_broker_dead() {
    let mut broker = Broker::start(2).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    broker.dials(1, listener.local_addr().unwrap());
    let played = Played::accepts(&listener, &hello_of(1, 1, CLUSTER)).await;
    broker.hears_up(Side::Dialed).await;
    drop(listener);
    drop(played);
    assert_eq!(broker.hears_dead().await, life(1, 1));
}

#[tokio::test]
async fn a_new_life_of_the_same_store_proves_the_old_one_dead() {
    let mut broker = Broker::start(2).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    broker.dials(1, listener.local_addr().unwrap());
    drop(Played::accepts(&listener, &hello_of(1, 1, CLUSTER)).await);
    broker.hears_up(Side::Dialed).await;
    let _again = Played::accepts(&listener, &hello_of(1, 2, CLUSTER)).await;
    assert_eq!(broker.hears_dead().await, life(1, 1));
    assert_eq!(broker.hears_up(Side::Dialed).await.0, life(1, 2));
}

/// A frozen broker holds its listener: connections are made and nobody says hello. It may lead yet.
#[tokio::test]
async fn a_broker_that_does_not_answer_is_not_dead() {
    let mut broker = Broker::start(2).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    broker.dials(1, listener.local_addr().unwrap());
    drop(Played::accepts(&listener, &hello_of(1, 1, CLUSTER)).await);
    broker.hears_down(Side::Dialed).await;
    // The next connection gets no hello, until the dialer gives it up.
    let (silent, _) = listener.accept().await.unwrap();
    let (_other, _) = listener.accept().await.unwrap();
    drop(silent);
    while let Ok((_, input)) = broker.heard.try_recv() {
        assert!(
            !matches!(input, ShardInput::Peer(PeerNews::Dead { .. })),
            "silence was taken for death"
        );
    }
}

#[tokio::test]
async fn a_refused_connection_alone_proves_nothing() {
    let mut broker = Broker::start(2).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    broker.dials(1, address);
    let refused = || broker.peers.shared.metrics.peer_dials_refused.get();
    eventually("it to be refused more than once", || refused() > 1).await;
    let listener = TcpListener::bind(address).await.unwrap();
    let _played = Played::accepts(&listener, &hello_of(1, 1, CLUSTER)).await;
    broker
        .hears(|_, input| match input {
            ShardInput::Peer(PeerNews::Dead { .. }) => {
                panic!("refused before it was ever connected")
            }
            ShardInput::Peer(PeerNews::Up { .. }) => Some(()),
            _ => None,
        })
        .await;
}

#[tokio::test]
async fn a_broker_that_is_not_ready_answers_its_hello_and_no_more() {
    let mut broker = Broker::start(2).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    broker.dials(1, listener.local_addr().unwrap());
    let unready = PeerHello { ready: false, ..hello_of(1, 1, CLUSTER) };
    let _played = Played::accepts(&listener, &unready).await;
    let not_ready = broker.hears(|_, input| match input {
        ShardInput::Peer(PeerNews::NotReady { broker }) => Some(broker),
        ShardInput::Peer(PeerNews::Up { .. }) => panic!("up before it was ready"),
        _ => None,
    });
    assert_eq!(not_ready.await, BrokerId(1));
}

async fn refusal(broker: &Broker, hello: &PeerHello) -> ErrorBody {
    let mut framed = Framed::new(TcpStream::connect(broker.address).await.unwrap());
    framed.write(&PeerFrame::Hello(hello.clone())).await.unwrap();
    match (Played { framed }).next().await {
        PeerFrame::Goodbye(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn strangers_are_refused_with_a_reason() {
    let broker = Broker::start(2).await;
    let other_cluster = ClusterId(Uuid::from_u128(8));
    let error = refusal(&broker, &hello_of(1, 1, other_cluster)).await;
    assert_eq!(error.code, ErrorCode::NotAllowed);
    assert!(error.message.contains(&other_cluster.to_string()), "{}", error.message);
    // Without TLS the cluster's id is all that a broker has to know: a stranger was told it by the refusal.
    assert!(!error.message.contains(&CLUSTER.to_string()), "{}", error.message);

    let from_the_future = PeerHello { version_min: 7, version_max: 9, ..hello_of(1, 1, CLUSTER) };
    assert_eq!(refusal(&broker, &from_the_future).await.code, ErrorCode::UnsupportedVersion);
    assert_eq!(
        refusal(&broker, &hello_of(2, 5, CLUSTER)).await.code,
        ErrorCode::NotAllowed,
        "the same id"
    );
}

#[tokio::test]
async fn a_new_life_ends_the_connections_of_the_old_one() {
    let (mut follower, mut leader, _) = follower_and_leader().await;
    follower.me.send_replace(None);
    assert_eq!(leader.hears_down(Side::Accepted).await, life(2, 1));
    assert_eq!(follower.hears_down(Side::Dialed).await, life(1, 1));
    follower.me.send_replace(Some(Me { life: life(2, 2), ready: true }));
    assert_eq!(leader.hears_up(Side::Accepted).await.0, life(2, 2));
}

/// They had all the places there were, and two brokers that lost each other did not find each other again.
#[tokio::test]
async fn sockets_that_say_nothing_keep_no_broker_out() {
    let mut broker = Broker::start(2).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(broker.address).await.unwrap());
    }
    let mut framed = Framed::new(TcpStream::connect(broker.address).await.unwrap());
    hello::greet(&mut framed, &hello_of(1, 1, CLUSTER), None).await.unwrap();
    assert_eq!(broker.hears_up(Side::Accepted).await.0, life(1, 1));
    // And the first of them had to go.
    let mut byte = [0];
    let ended = tokio::time::timeout(PATIENCE, silent[0].read(&mut byte)).await.expect("it ends");
    assert!(!matches!(ended, Ok(1..)));
}
