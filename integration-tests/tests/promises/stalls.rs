//! Disks that stall under running brokers: no sync returns, and nothing says why.

use std::time::Duration;

use bellwether_integration_tests::broker::BrokerOptions;
use bellwether_integration_tests::driver::QueueView;
use bellwether_integration_tests::eventually::eventually;
use bellwether_integration_tests::wire::{Wire, delivered};
use bellwether_protocol::client::{BrokerFrame, ClientFrame, Publish, Request, Settle, Settlement};
use bellwether_protocol::error::Outcome;
use bellwether_protocol::ids::{ConsumerHandle, ProducerHandle, Seq};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::{ExchangeName, ProducerName, QueueName, RoutingKey};

use super::story::{PATIENCE, Story, number};

const QUEUE: &str = "orders";
/// A third of it is the shortest stall that costs a leadership.
const SESSION: Duration = Duration::from_secs(6);
/// What operators are told of it.
const STALLS: &str = "its disk stalls: no write or sync returns";
const CONSUMER: ConsumerHandle = ConsumerHandle(1);
const PRODUCER: ProducerHandle = ProducerHandle(1);
/// Longer than a loaded broker needs from a sync to what follows from it.
const QUIET: Duration = Duration::from_secs(3);

impl Story {
    /// With brokers whose disks can stall.
    async fn with_disks_that_stall() -> Story {
        let arguments = ["--leader-settle", "1s"].map(str::to_owned).to_vec();
        let options = BrokerOptions {
            slow_disk: true,
            session_timeout: SESSION,
            arguments,
            ..BrokerOptions::default()
        };
        Story::with(options).await
    }

    /// Waits until one metric of a broker is this.
    async fn metric_is(&mut self, broker: u32, name: &str, value: f64) {
        let broker = self.cluster.broker(broker);
        eventually(name, PATIENCE, async || {
            let seen = broker.metric(name).await?;
            anyhow::ensure!(seen == value, "it is {seen}");
            Ok(())
        })
        .await
        .unwrap();
    }

    async fn led_by(&self, broker: u32) {
        let so = |seen: &QueueView| seen.leader == Some(broker) && seen.is_whole();
        self.cluster.until(QUEUE, "led by the one preferred", so).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_stalls_hands_its_queue_on_while_its_session_lives_and_leads_again_when_it_is_well()
 {
    let mut story = Story::with_disks_that_stall().await;
    let load = story.under_load(QUEUE, 300).await;
    let leader = story.driver.describe(QUEUE).await.unwrap().replicas[0];
    story.led_by(leader).await;

    story.cluster.broker(leader).disk_stalls().unwrap();
    story.led_by_another(QUEUE, leader).await;
    let elections = story.driver.client().elections(Some(QUEUE), 1).await.unwrap();
    assert_eq!(elections[0].trigger, "resigned", "{elections:?}");
    assert_eq!(elections[0].from.map(|life| life.broker.0), Some(leader), "{elections:?}");
    // Whoever is called for it is told what to look at.
    let told = story.asks(&["elections", QUEUE, "--limit", "1"]).await;
    assert_eq!(told.json[0]["why"], STALLS, "{:#} {}", told.json, told.errors);
    // The disk has not moved since.
    load.goes_on(1_000).await;
    story.metric_is(leader, "bellwether_disk_stalled", 1.0).await;
    story.metric_is(leader, "bellwether_coordinator_sessions_total", 1.0).await;
    let left = |seen: &QueueView| !seen.in_sync.contains(&leader);
    story.cluster.until(QUEUE, "without the one that stalls", left).await.unwrap();
    let explained = story.asks(&["queue", "explain", QUEUE]).await;
    let missing = explained.json["missing"].to_string();
    let begins = format!("The copy on broker {leader} is not in sync");
    assert!(missing.contains(&begins) && missing.contains(STALLS), "{:#}", explained.json);

    story.cluster.broker(leader).disk_is_well().unwrap();
    story.cluster.whole(&[QUEUE]).await.unwrap();
    story.metric_is(leader, "bellwether_disk_stalled", 0.0).await;
    story.led_by(leader).await;
    load.goes_on(1_000).await;
    story.metric_is(leader, "bellwether_coordinator_sessions_total", 1.0).await;
    load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_disk_stalls_is_left_behind_without_a_refusal_and_comes_back() {
    let mut story = Story::with_disks_that_stall().await;
    let load = story.under_load(QUEUE, 300).await;
    let seen = story.driver.describe(QUEUE).await.unwrap();
    let follower = seen.replicas.iter().copied().rfind(|id| Some(*id) != seen.leader).unwrap();

    story.cluster.broker(follower).disk_stalls().unwrap();
    let left = |seen: &QueueView| !seen.in_sync.contains(&follower);
    story.cluster.until(QUEUE, "without the one that stalls", left).await.unwrap();
    load.goes_on(1_000).await;
    let now = story.driver.describe(QUEUE).await.unwrap();
    assert_eq!((now.leader, now.epoch), (seen.leader, seen.epoch), "nobody else had to lead");

    story.cluster.broker(follower).disk_is_well().unwrap();
    story.cluster.whole(&[QUEUE]).await.unwrap();
    let verdict = load.ends_well().await;
    assert_eq!(verdict.refused, 0, "{verdict:#?}");
}

/// What the old leader had taken is with nobody but itself and its followers: were it to act on it when its sync returns, it would
/// confirm what its successor need not have (G2), and settle or deliver beside it (G3, G4).
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_resigned_for_its_disk_settles_and_delivers_nothing_when_the_sync_returns() {
    let mut story = Story::with_disks_that_stall().await;
    story.queue(QUEUE).await;
    let confirmed = story.publish(QUEUE, 50).await;
    let leader = story.cluster.leader_of(QUEUE).await.unwrap();
    let mut wire = Wire::connect(&story.cluster.broker(leader).address()).await.unwrap();
    let settle = holds_ten(&mut wire).await;

    story.cluster.broker(leader).disk_stalls().unwrap();
    wire.send(ClientFrame::Publish(the_fiftieth())).await.unwrap();
    wire.send(ClientFrame::Settle(settle)).await.unwrap();
    story.led_by_another(QUEUE, leader).await;
    let settle_failed = |frame: &BrokerFrame| match frame {
        BrokerFrame::SettleFailed { error, .. } => Some(error.outcome),
        _ => None,
    };
    // The message it gives to the leader there is now, under the name and number it has: that one confirms it.
    let confirms = |frame: &BrokerFrame| matches!(frame, BrokerFrame::Confirmed { .. });
    let both = |frames: &[BrokerFrame]| {
        frames.iter().any(confirms) && frames.iter().any(|frame| settle_failed(frame).is_some())
    };
    let mut frames = wire.until(PATIENCE, both).await.unwrap();
    frames.extend(wire.until_quiet(QUIET).await);
    let outcomes: Vec<Outcome> = frames.iter().filter_map(settle_failed).collect();
    assert_eq!(outcomes, [Outcome::Unknown], "{frames:?}");
    let settles = |frame: &BrokerFrame| matches!(frame, BrokerFrame::Settled { .. });
    assert!(!frames.iter().any(settles), "{frames:?}");

    story.cluster.broker(leader).disk_is_well().unwrap();
    story.cluster.whole(&[QUEUE]).await.unwrap();
    story.metric_is(leader, "bellwether_disk_stalled", 0.0).await;
    let frames = wire.until_quiet(QUIET).await;
    assert_eq!(delivered(&frames), [], "it delivered: {frames:?}");
    assert!(!frames.iter().any(|frame| settles(frame) || confirms(frame)), "{frames:?}");

    // Of the ten nobody was told anything: they may be settled or not.
    let mut rest = story.drain(QUEUE).await;
    rest.retain(|number| *number >= 10);
    assert_eq!(rest[..40], confirmed[10..]);
    assert_eq!(rest[40..], [50], "stored once, and not lost");
}

/// A consumer takes ten messages: the settle of them.
async fn holds_ten(wire: &mut Wire) -> Settle {
    let queue = QueueName::new(QUEUE).unwrap();
    let (prefetch, prefetch_bytes, claim) = (10, 0, None);
    let attach =
        Request::AttachConsumer { consumer: CONSUMER, queue, prefetch, prefetch_bytes, claim };
    let mut frames = wire.ask(attach).await.unwrap();
    let held = |frames: &[BrokerFrame]| -> u64 {
        delivered(frames).iter().map(|range| range.count()).sum()
    };
    let left = 10 - held(&frames);
    frames.extend(wire.until(PATIENCE, |more| held(more) >= left).await.unwrap());
    let deliver = |frame: &BrokerFrame| match frame {
        BrokerFrame::Deliver(deliver) => Some(deliver.epoch),
        _ => None,
    };
    let epoch = frames.iter().find_map(deliver).expect("it delivers");
    let ranges = delivered(&frames);
    assert_eq!(held(&frames), 10, "{frames:?}");
    let name = Some(ProducerName::new("wire").unwrap());
    let attach = Request::AttachProducer { producer: PRODUCER, name, next: Seq(1) };
    wire.ask(attach).await.unwrap();
    let settlement = Settlement::Ack;
    Settle { consumer: CONSUMER, number: 1, epoch, settlement, ranges }
}

fn the_fiftieth() -> Publish {
    let mut block = MessageBlock::builder();
    block.push(None, b"50");
    assert_eq!(number(b"50"), 50);
    Publish {
        producer: PRODUCER,
        first: Seq(1),
        resent: false,
        exchange: ExchangeName::default(),
        routing_key: RoutingKey::new(QUEUE).unwrap(),
        messages: block.finish(),
    }
}
