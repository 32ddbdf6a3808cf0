//! How a client looks at a queue, told against brokers that the test plays.

mod support;

use bellwether_client::{Browser, Client, ExchangeName, Offset, QueryError, QueueId, RoutingKey};
use bellwether_protocol::client::{Browse, Browsed, DeliveredRun, Request, Response};
use bellwether_protocol::ids::{Epoch, RequestId};
use bellwether_protocol::message::MessageBlock;
use bytes::Bytes;
use support::{FakeBroker, Session, brokers, patient, soon};
use uuid::Uuid;

async fn connected(broker: &FakeBroker) -> (Client, Session) {
    let connecting = patient().connect([broker.socket().to_string()]);
    let (client, session) = tokio::join!(connecting, broker.accept());
    (client.unwrap(), session)
}

fn browsed(queue: u128, offsets: std::ops::Range<u64>, next: u64, high_watermark: u64) -> Browsed {
    let body = |offset: u64| (None, Bytes::from(offset.to_string()));
    let run = DeliveredRun {
        first: Offset(offsets.start),
        redelivered: false,
        returns: 0,
        time_ms: 0,
        exchange: ExchangeName::default(),
        routing_key: RoutingKey::new("orders").unwrap(),
        messages: MessageBlock::from_messages(offsets.clone().map(body)),
    };
    Browsed {
        queue: QueueId(Uuid::from_u128(queue)),
        epoch: Epoch(1),
        runs: if offsets.is_empty() { Vec::new() } else { vec![run] },
        next: Offset(next),
        high_watermark: Offset(high_watermark),
    }
}

async fn asked(session: &mut Session) -> (RequestId, Browse) {
    match session.request().await {
        (id, Request::Browse(browse)) => (id, browse),
        (_, other) => panic!("a browse was expected, not {other:?}"),
    }
}

async fn shows(session: &mut Session, browsed: Browsed) -> Browse {
    let (id, browse) = asked(session).await;
    session.respond(id, Response::Browsed(browsed)).await;
    browse
}

async fn page(browser: &mut Browser) -> Result<Option<Vec<u64>>, QueryError> {
    let page = soon("a page", browser.next_page()).await?;
    Ok(page.map(|page| page.iter().map(bellwether_client::BrowsedMessage::offset).collect()))
}

#[tokio::test]
async fn a_look_goes_on_at_the_next_leader_up_to_where_the_first_page_saw_the_end() {
    let [first, second] = brokers().await;
    let (client, mut session) = connected(&first).await;
    let mut browser = client.browse("orders").unwrap();
    let (seen, asked_for) =
        tokio::join!(page(&mut browser), shows(&mut session, browsed(1, 3..5, 5, 10)));
    assert_eq!(seen.unwrap(), Some(vec![3, 4]));
    assert_eq!((asked_for.from, asked_for.until), (Offset(0), None));
    let successor = async {
        let (id, browse) = asked(&mut session).await;
        assert_eq!((browse.from, browse.until), (Offset(5), Some(Offset(10))));
        session.redirect(id, Some(second.address())).await;
        let mut session = second.accept().await;
        let again = shows(&mut session, browsed(1, 7..9, 9, 20)).await;
        assert_eq!((again.from, again.until), (Offset(5), Some(Offset(10))));
        session
    };
    let (seen, mut session) = tokio::join!(page(&mut browser), successor);
    assert_eq!(seen.unwrap(), Some(vec![7, 8]));
    // Where nothing is left the page is empty, and that is the end: what came later is not part of it.
    let (seen, last) =
        tokio::join!(page(&mut browser), shows(&mut session, browsed(1, 0..0, 10, 20)));
    assert_eq!((seen.unwrap(), last.from), (None, Offset(9)));
    assert_eq!(page(&mut browser).await.unwrap(), None, "without another ask");
}

#[tokio::test]
async fn another_queue_of_the_same_name_and_one_that_lost_messages_are_not_gone_on_with() {
    for (other, why) in [(browsed(2, 5..6, 6, 30), "anew"), (browsed(1, 5..6, 6, 9), "forced")] {
        let [broker] = brokers().await;
        let (client, mut session) = connected(&broker).await;
        let mut browser = client.browse("orders").unwrap();
        let (seen, _) =
            tokio::join!(page(&mut browser), shows(&mut session, browsed(1, 3..5, 5, 10)));
        assert!(seen.unwrap().is_some());
        let (seen, _) = tokio::join!(page(&mut browser), shows(&mut session, other));
        let error = seen.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_broker_that_does_not_get_on_is_not_asked_for_ever() {
    let [broker] = brokers().await;
    let (client, mut session) = connected(&broker).await;
    let mut browser = client.browse("orders").unwrap().starting_at(3);
    let (seen, _) = tokio::join!(page(&mut browser), shows(&mut session, browsed(1, 0..0, 3, 10)));
    assert!(seen.is_err(), "{seen:?}");
}
