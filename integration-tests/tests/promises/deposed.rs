//! A leader that was frozen, deposed meanwhile, and goes on: what it writes is watched on a bare connection.

use std::time::Duration;

use bellwether_integration_tests::wire::{Wire, delivered};
use bellwether_protocol::client::{BrokerFrame, ClientFrame, Request, Settle, Settlement};
use bellwether_protocol::ids::ConsumerHandle;
use bellwether_protocol::names::QueueName;

use super::story::Story;

const CONSUMER: ConsumerHandle = ConsumerHandle(1);
/// Longer than a loaded broker needs from a settle to its answer.
const QUIET: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_delivers_nothing_and_confirms_no_settle_when_it_goes_on() {
    let mut story = Story::begins().await;
    story.queue("orders").await;
    let confirmed = story.publish("orders", 50).await;
    let leader = story.cluster.leader_of("orders").await.unwrap();

    let mut wire = Wire::connect(&story.cluster.broker(leader).address()).await.unwrap();
    let queue = QueueName::new("orders").unwrap();
    let attach = Request::AttachConsumer {
        consumer: CONSUMER,
        queue,
        prefetch: 10,
        prefetch_bytes: 0,
        claim: None,
    };
    let mut frames = wire.ask(attach).await.unwrap();
    frames.extend(wire.until_quiet(Duration::from_millis(500)).await);
    let held = delivered(&frames);
    assert_eq!(held.iter().map(|range| range.count()).sum::<u64>(), 10, "{frames:?}");
    let epoch = frames.iter().find_map(|frame| match frame {
        BrokerFrame::Deliver(deliver) => Some(deliver.epoch),
        _ => None,
    });

    story.cluster.broker(leader).pause().unwrap();
    story.led_by_another("orders", leader).await;
    // It reads this when it goes on. Were it still leader, it would settle the ten and deliver ten more.
    let settle = Settle {
        consumer: CONSUMER,
        number: 1,
        epoch: epoch.unwrap(),
        settlement: Settlement::Ack,
        ranges: held,
    };
    wire.send(ClientFrame::Settle(settle)).await.unwrap();
    story.cluster.broker(leader).resume().unwrap();
    let frames = wire.until_quiet(QUIET).await;
    assert_eq!(delivered(&frames), [], "it delivered: {frames:?}");
    let settled = frames.iter().any(|frame| matches!(frame, BrokerFrame::Settled { .. }));
    assert!(!settled, "it confirmed a settle: {frames:?}");
    assert_eq!(story.drain("orders").await, confirmed, "all of them are with its successor");
}
