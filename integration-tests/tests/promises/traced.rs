//! A message whose producer samples its trace leaves spans of its whole way, on whichever brokers that lies.

use std::collections::BTreeMap;

use anyhow::ensure;
use bellwether_client::Message;
use bellwether_integration_tests::collector::{Collector, Span};
use bellwether_integration_tests::driver::{Driver, Reach};
use bellwether_integration_tests::eventually::eventually;

use super::story::{PATIENCE, Story, body};

const QUEUE: &str = "orders";
const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const UNSAMPLED: u128 = 0x1111_2222_3333_4444_5555_6666_7777_8888;
const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;

fn message(number: u64, trace: u128, sampled: bool) -> Message {
    let flags = u8::from(sampled);
    let parent = format!("00-{trace:032x}-{PARENT:016x}-{flags:02x}");
    Message::new(body(number)).with_header("traceparent", parent).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sampled_message_leaves_five_spans_of_one_trace_across_two_brokers() {
    let collector = Collector::start().await.unwrap();
    let mut story = Story::with_flags(&["--otlp-endpoint", &collector.endpoint()]).await;
    story.queue(QUEUE).await;
    let leader = story.cluster.leader_of(QUEUE).await.unwrap();
    let other = story.cluster.brokers().iter().find(|broker| broker.id() != leader).unwrap();
    let (other, address) = (other.id(), other.address());

    // Published on a broker that does not lead the queue: it forwards. (To an exchange: a producer to one queue goes to its leader.)
    story.driver.declare_fanout("all").await.unwrap();
    story.driver.bind("all", QUEUE, "").await.unwrap();
    let driver = Driver::connect(&Reach::plain(vec![address]), "traced").await.unwrap();
    let producer = driver.client().producer().exchange("all").start().await.unwrap();
    producer.send_and_confirm(body(0)).await.unwrap();
    producer.send_and_confirm(message(1, UNSAMPLED, false)).await.unwrap();
    producer.send_and_confirm(message(2, TRACE, true)).await.unwrap();
    assert_eq!(story.take(QUEUE, 3).await.len(), 3);

    let spans = eventually("five spans", PATIENCE, async || {
        let spans = collector.spans();
        ensure!(spans.len() >= 5, "{spans:?}");
        Ok(spans)
    })
    .await
    .unwrap();
    assert!(spans.iter().all(|span| span.trace == TRACE.to_be_bytes()), "{spans:?}");
    assert!(spans.iter().all(|span| span.parent == PARENT.to_be_bytes()), "{spans:?}");
    let by_name: BTreeMap<&str, &Span> =
        spans.iter().map(|span| (span.name.trim_start_matches("bellwether "), span)).collect();
    let found: Vec<(&str, &str)> =
        by_name.iter().map(|(name, span)| (*name, span.broker.as_str())).collect();
    let (leader, other) = (leader.to_string(), other.to_string());
    let (leader, other) = (leader.as_str(), other.as_str());
    let expected = [
        ("append", leader),
        ("commit", leader),
        ("deliver", leader),
        ("publish", other),
        ("settle", leader),
    ];
    assert_eq!((found.as_slice(), spans.len()), (expected.as_slice(), 5));
    let in_order = ["append", "commit", "deliver", "settle"].map(|name| by_name[name].ended);
    assert!(in_order.is_sorted(), "{spans:?}");
    assert!(spans.iter().all(|span| span.began <= span.ended), "{spans:?}");
}
