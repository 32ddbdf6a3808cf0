//! What a test says: a cluster, messages by number, and a load that is judged at its end.

use std::sync::Arc;
use std::time::Duration;

use bellwether_integration_tests::broker::BrokerOptions;
use bellwether_integration_tests::checker::Verdict;
use bellwether_integration_tests::cluster::{Cluster, Setup};
use bellwether_integration_tests::driver::{Driver, QueueView};
use bellwether_integration_tests::eventually::eventually;
use bellwether_integration_tests::load::{ConsumerSpec, Load, ProducerSpec, QueueSpec};
use bellwether_integration_tests::preload::Syncs;
use bellwether_integration_tests::recorder::{Gaps, Recorder};
use bytes::Bytes;

/// Longest that anything in a story is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of three brokers on an ensemble of three, and a client.
pub struct Story {
    pub cluster: Cluster,
    pub driver: Driver,
}

impl Story {
    pub async fn begins() -> Story {
        Story::with(BrokerOptions::default()).await
    }

    /// With brokers that lose what they have not synced when they are killed.
    pub async fn with_power_loss(syncs: Syncs) -> Story {
        Story::with(BrokerOptions { power_loss: Some(syncs), ..BrokerOptions::default() }).await
    }

    /// With brokers of this binary.
    pub async fn with_binary(binary: Option<std::path::PathBuf>) -> Story {
        Story::with(BrokerOptions { binary, ..BrokerOptions::default() }).await
    }

    /// With brokers that are started with these flags.
    pub async fn with_flags(flags: &[&str]) -> Story {
        let arguments = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Story::with(BrokerOptions { arguments, ..BrokerOptions::default() }).await
    }

    /// With so many brokers, started with these flags.
    pub async fn of_brokers(brokers: u32, flags: &[&str]) -> Story {
        let arguments = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let options = BrokerOptions { arguments, ..BrokerOptions::default() };
        Story::set_up(Setup { brokers, options, ..Setup::default() }).await
    }

    pub async fn with(options: BrokerOptions) -> Story {
        Story::set_up(Setup { options, ..Setup::default() }).await
    }

    /// As this says.
    pub async fn set_up(setup: Setup) -> Story {
        let cluster = Cluster::start_with(setup).await.unwrap();
        let driver = cluster.driver().await.unwrap();
        Story { cluster, driver }
    }

    /// Declares a queue with three replicas, and waits until it is whole.
    pub async fn queue(&self, name: &str) {
        self.driver.declare_queue(name, 3, None).await.unwrap();
        self.cluster.whole(&[name]).await.unwrap();
    }

    /// Publishes the numbers up to and without `count`; all must be confirmed. Says which they were.
    pub async fn publish(&self, queue: &str, count: u64) -> Vec<u64> {
        let sender = self.driver.producer(&format!("story-{queue}"), "", queue, 100).await.unwrap();
        let mut pending = Vec::new();
        for number in 0..count {
            pending.push(sender.send(body(number)).await.unwrap());
        }
        for receipt in pending {
            receipt.outcome().await.unwrap();
        }
        sender.close().await;
        (0..count).collect()
    }

    /// Takes and acknowledges everything there is, in the order in which it came.
    pub async fn drain(&self, queue: &str) -> Vec<u64> {
        let mut taken = self.take(queue, u64::MAX).await;
        taken.dedup();
        taken
    }

    /// Takes and acknowledges at most so many messages, until none are left.
    pub async fn take(&self, queue: &str, most: u64) -> Vec<u64> {
        let mut inbox = self.driver.consumer(queue, 100).await.unwrap();
        let mut taken = Vec::new();
        while (taken.len() as u64) < most {
            match tokio::time::timeout(Duration::from_millis(500), inbox.next()).await {
                Ok(parcel) => {
                    let parcel = parcel.expect("the consumer stays attached");
                    taken.push(number(parcel.body()));
                    parcel.ack().await.unwrap();
                }
                Err(_) if self.left_in(queue).await == 0 => break,
                Err(_) => {}
            }
        }
        inbox.close().await;
        taken
    }

    /// The same where the queue may be gone.
    pub async fn drain_if_it_can(&self, queue: &str) -> Vec<u64> {
        let mut taken = Vec::new();
        let Ok(mut inbox) = self.driver.consumer(queue, 100).await else { return taken };
        while let Ok(Some(parcel)) =
            tokio::time::timeout(Duration::from_secs(2), inbox.next()).await
        {
            taken.push(number(parcel.body()));
            parcel.ack().await.ok();
        }
        taken
    }

    /// Waits until another broker than this one leads the queue.
    pub async fn led_by_another(&self, queue: &str, than: u32) {
        let another = |seen: &QueueView| seen.leader.is_some_and(|now| now != than);
        self.cluster.until(queue, "led by another", another).await.unwrap();
    }

    /// Each of these brokers is killed, another leads, and it comes back before the next one goes.
    pub async fn loses_in_turn(&mut self, queue: &str, brokers: impl Iterator<Item = u32>) {
        for broker in brokers {
            self.cluster.broker(broker).kill().unwrap();
            self.led_by_another(queue, broker).await;
            self.cluster.start_brokers().await.unwrap();
            self.cluster.whole(&[queue]).await.unwrap();
        }
    }

    /// Messages ready or held.
    pub async fn left_in(&self, queue: &str) -> u64 {
        let counts = self.driver.describe(queue).await.unwrap().counts;
        counts.ready + counts.delivered
    }

    /// A producer and a consumer at work on `queue`, until [`UnderLoad::ends`].
    pub async fn under_load(&self, queue: &str, per_second: u32) -> UnderLoad {
        self.queue(queue).await;
        let recorder = Arc::new(Recorder::new(None).unwrap());
        let queues = [QueueSpec::new(queue, vec![ConsumerSpec::default()])];
        let producer = ProducerSpec { per_second, ..ProducerSpec::to_queue("load", queue) };
        let reach = self.cluster.reach();
        let load = Load::start(&reach, Arc::clone(&recorder), &queues, vec![(producer, vec![0])])
            .await
            .unwrap();
        let load = UnderLoad { load, recorder };
        load.flows().await;
        load
    }
}

/// A running load.
pub struct UnderLoad {
    load: Load,
    pub recorder: Arc<Recorder>,
}

impl UnderLoad {
    /// From now on gaps count.
    pub fn watch(&self) {
        self.recorder.watch();
    }

    /// Waits until messages have been confirmed and delivered since [`UnderLoad::watch`].
    pub async fn flows(&self) {
        let flowing = eventually("messages to flow", PATIENCE, async || {
            anyhow::ensure!(self.recorder.all_flow(), "they stand still");
            Ok(())
        });
        flowing.await.unwrap();
    }

    /// The longest gaps since [`UnderLoad::watch`].
    pub fn gaps(&self) -> Gaps {
        self.recorder.gaps()
    }

    /// Waits until so many more messages are confirmed.
    pub async fn goes_on(&self, messages: u64) {
        let until = self.recorder.progress().confirmed + messages;
        let going = eventually("messages to go on", PATIENCE, async || {
            let confirmed = self.recorder.progress().confirmed;
            anyhow::ensure!(confirmed >= until, "{confirmed} of {until} are confirmed");
            Ok(())
        });
        going.await.unwrap();
    }

    /// Ends it, drains, and judges.
    pub async fn ends(self) -> Verdict {
        self.load.finish().await.unwrap()
    }

    /// Ends it; nothing may have been violated.
    pub async fn ends_well(self) -> Verdict {
        let verdict = self.ends().await;
        assert!(verdict.is_clean(), "{verdict:#?}");
        assert!(verdict.confirmed > 0, "{verdict:#?}");
        verdict
    }
}

/// Says what a fault was felt like. Printed, for the reader of the test's output.
pub fn felt(fault: &str, gaps: Gaps) {
    println!(
        "{fault}: {:?} without a confirm, {:?} without a delivery",
        gaps.confirms, gaps.deliveries
    );
}

/// Nothing was refused or unknown, of publishes and settles. With a consumer that stays nothing came twice either.
pub fn no_client_saw_an_error(verdict: &Verdict) {
    let failed = (verdict.refused, verdict.unknown, verdict.settles_failed);
    assert_eq!(failed, (0, 0, 0), "{verdict:#?}");
}

pub fn body(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

pub fn number(body: &[u8]) -> u64 {
    std::str::from_utf8(body).unwrap().parse().unwrap()
}
