//! Bringing TLS to a running cluster, a broker at a time: whoever is where in that, they reach each other.

use super::secured::Ministry;
use super::*;

/// How far a broker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    /// Without certificates, as all are before.
    Plain,
    /// With certificates, and `--peer-tls accept`.
    Accepting,
    /// With certificates, as all are in the end.
    Requiring,
}

impl Is {
    async fn start(self, ministry: &Ministry, broker: u32) -> Broker {
        let tls = (self != Is::Plain).then(|| ministry.tls(broker, CLUSTER));
        let plain_too = self == Is::Accepting;
        Broker::in_change_over(broker, 1, CLUSTER, 8 * 1024 * 1024, tls, plain_too).await
    }
}

fn dials(dialer: &Broker, broker: u32, address: SocketAddr, is: Is) {
    match is {
        Is::Plain => dialer.dials(broker, address),
        Is::Accepting | Is::Requiring => dialer.dials_who_speaks_tls(broker, address),
    }
}

/// Everything that meets in one of the two rolls, in both directions.
#[tokio::test]
async fn in_a_roll_every_broker_reaches_every_other() {
    let ministry = Ministry::new();
    for (one, other) in [
        (Is::Plain, Is::Plain),
        (Is::Plain, Is::Accepting),
        (Is::Accepting, Is::Plain),
        (Is::Accepting, Is::Accepting),
        (Is::Accepting, Is::Requiring),
        (Is::Requiring, Is::Accepting),
        (Is::Requiring, Is::Requiring),
    ] {
        let (mut leader, mut follower) =
            (one.start(&ministry, 1).await, other.start(&ministry, 2).await);
        dials(&follower, 1, leader.address, one);
        assert_eq!(follower.hears_up(Side::Dialed).await.0, life(1, 1), "{other:?} dials {one:?}");
        assert_eq!(leader.hears_up(Side::Accepted).await.0, life(2, 1));
        let batch = batch_of(queue(1), 0, 100_000);
        let run = run_of(queue(1), std::slice::from_ref(&batch));
        leader.peers.to_follower(life(2, 1), PeerFrame::Append(vec![run]));
        let arrived = follower.hears_frame(|frame| match frame {
            PeerFrame::Append(runs) => Some(runs[0].batches.clone()),
            _ => None,
        });
        assert_eq!(decoded(arrived.await), vec![batch]);
    }
}

/// Somebody in between who answers plainly in the name of a broker with a certificate is not talked to.
#[tokio::test]
async fn who_has_said_that_it_speaks_tls_is_never_spoken_to_without() {
    let ministry = Ministry::new();
    let dialer = Is::Accepting.start(&ministry, 2).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    dials(&dialer, 1, listener.local_addr().unwrap(), Is::Accepting);
    let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let (mut socket, mut first) = (accepted.0, [0]);
    tokio::io::AsyncReadExt::read_exact(&mut socket, &mut first).await.unwrap();
    assert_eq!(first[0], bellwether_tls::TLS_FIRST_BYTE);
}

/// A certificate that is shown is judged, also where none is asked for.
#[tokio::test]
async fn while_plain_brokers_are_taken_a_certificate_of_somebody_else_is_not() {
    let (ministry, stranger) = (Ministry::new(), Ministry::new());
    let taking = Is::Accepting.start(&ministry, 1).await;
    let with = stranger.tls(2, CLUSTER);
    let answer = super::secured::answer_to(&taking, &with, &hello_of(2, 1, CLUSTER)).await;
    assert!(answer.is_err(), "{answer:?}");
    let other = ClusterId(uuid::Uuid::from_u128(99));
    let with = ministry.tls(2, other);
    let answer = super::secured::answer_to(&taking, &with, &hello_of(2, 1, other)).await;
    assert!(matches!(answer, Ok(PeerFrame::Goodbye(_))), "{answer:?}");
}
