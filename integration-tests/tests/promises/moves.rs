//! Brokers that come and go: copies and leaderships find their places by themselves.

use bellwether_client::{BrokerId, ClusterStatus, Drain};
use bellwether_integration_tests::eventually::eventually;

use super::story::{PATIENCE, Story, felt, no_client_saw_an_error};

/// Leaderships move soon, so that a test need not wait for it.
const SOON: [&str; 2] = ["--leader-settle", "300ms"];
const QUEUES: u32 = 12;

impl Story {
    async fn twelve_queues(&self) {
        for n in 1..QUEUES {
            self.driver.declare_queue(&format!("q{n}"), 3, None).await.unwrap();
        }
    }

    async fn status_until(&self, fact: &str, holds: impl Fn(&ClusterStatus) -> bool) {
        let seen = eventually(fact, PATIENCE, async || {
            let status = self.driver.client().cluster_status().await?;
            anyhow::ensure!(holds(&status), "{status:?}");
            Ok(())
        });
        seen.await.unwrap();
    }

    async fn drains(&self, broker: u32, drain: Option<Drain>) {
        self.driver.client().drain(BrokerId(broker), drain).await.unwrap();
    }
}

/// Every copy and leadership is there, and no broker has two more than another. Brokers that are drained do not count.
fn is_even(status: &ClusterStatus, copies: u64) -> bool {
    let serving = || status.brokers.iter().filter(|broker| broker.drain.is_none());
    let even = |counts: Vec<u64>, total: u64| {
        let (most, least) = (counts.iter().max(), counts.iter().min());
        counts.iter().sum::<u64>() == total && most.zip(least).is_some_and(|(m, l)| m - l <= 1)
    };
    even(serving().map(|broker| broker.leads).collect(), status.queues)
        && even(serving().map(|broker| broker.copies).collect(), copies)
        && status.queues_under_replicated == 0
        && status.queues_without_leader == 0
}

fn holds_nothing(status: &ClusterStatus, broker: u32) -> bool {
    let mut brokers = status.brokers.iter();
    brokers.any(|one| one.address.broker.0 == broker && one.leads + one.copies == 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_takes_its_share_and_one_that_is_retired_gives_it_all_away_under_load()
{
    let mut story = Story::with_flags(&SOON).await;
    let load = story.under_load("orders", 500).await;
    story.twelve_queues().await;
    let four = story.cluster.add_broker().await.unwrap();
    let copies = u64::from(QUEUES) * 3;
    story.status_until("four brokers hold and lead evenly", |status| is_even(status, copies)).await;
    story.drains(1, Some(Drain::Copies)).await;
    story
        .status_until("broker 1 holds nothing", |status| {
            holds_nothing(status, 1) && is_even(status, copies)
        })
        .await;
    story.cluster.broker(1).kill().unwrap();
    for broker in [2, 3, four] {
        // What it was given carries the queue.
        story.cluster.broker(broker).kill().unwrap();
        load.goes_on(200).await;
        story.cluster.broker(broker).start().unwrap();
        story.cluster.broker(broker).ready().await.unwrap();
        story.cluster.whole(&["orders"]).await.unwrap();
    }
    load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stays_away_is_replaced_and_finds_that_it_holds_nothing_when_it_comes_back() {
    let mut story = Story::with_flags(&[&SOON[..], &["--replace-after", "3s"]].concat()).await;
    let load = story.under_load("orders", 200).await;
    story.twelve_queues().await;
    story.cluster.add_broker().await.unwrap();
    let copies = u64::from(QUEUES) * 3;
    story.status_until("four brokers hold and lead evenly", |status| is_even(status, copies)).await;
    story.cluster.broker(2).kill().unwrap();
    story
        .status_until("the others hold everything", |status| {
            status.absent.is_empty() && is_even(status, copies)
        })
        .await;
    story.cluster.broker(2).start().unwrap();
    story.cluster.broker(2).ready().await.unwrap();
    story.status_until("it has its share again", |status| is_even(status, copies)).await;
    load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_third_of_five_brokers_loses_its_disk_and_has_its_share_again_under_load() {
    let mut story = Story::of_brokers(5, &SOON).await;
    let load = story.under_load("orders", 500).await;
    story.twelve_queues().await;
    let copies = u64::from(QUEUES) * 3;
    story.status_until("five brokers hold and lead evenly", |status| is_even(status, copies)).await;
    story.cluster.broker(3).kill().unwrap();
    story.cluster.broker(3).wipe().unwrap();
    load.goes_on(500).await;
    story.cluster.broker(3).start().unwrap();
    story.cluster.broker(3).ready().await.unwrap();
    story.status_until("five brokers hold and lead evenly", |status| is_even(status, copies)).await;
    // What it was given anew carries the queues that the others lose: two others at once would be a majority of some.
    for broker in [1, 2, 4, 5] {
        story.cluster.broker(broker).kill().unwrap();
        load.goes_on(200).await;
        comes_back(&mut story, broker).await;
    }
    load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaderships_leave_a_drained_broker_and_come_back_and_no_client_sees_an_error() {
    let story = Story::with_flags(&SOON).await;
    let load = story.under_load("orders", 500).await;
    story.twelve_queues().await;
    let copies = u64::from(QUEUES) * 3;
    story.status_until("three brokers lead evenly", |status| is_even(status, copies)).await;
    for broker in 1..=3 {
        story.drains(broker, Some(Drain::Leaderships)).await;
        story
            .status_until("it leads nothing", |status| {
                let mut brokers = status.brokers.iter();
                brokers.any(|one| one.address.broker.0 == broker && one.leads == 0)
            })
            .await;
        story.drains(broker, None).await;
    }
    story.status_until("three brokers lead evenly", |status| is_even(status, copies)).await;
    no_client_saw_an_error(&load.ends_well().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broker_is_restarted_in_turn_under_load_and_no_client_sees_an_error() {
    let mut story = Story::with_flags(&SOON).await;
    let load = story.under_load("orders", 500).await;
    story.twelve_queues().await;
    load.watch();
    for broker in 1..=3 {
        let stopping = story.cluster.broker(broker);
        stopping.terminate().unwrap();
        stopping.end(PATIENCE).await.unwrap();
        load.goes_on(200).await;
        comes_back(&mut story, broker).await;
        load.goes_on(200).await;
    }
    load.flows().await;
    felt("a rolling restart", load.gaps());
    no_client_saw_an_error(&load.ends_well().await);
}

async fn comes_back(story: &mut Story, broker: u32) {
    story.cluster.broker(broker).start().unwrap();
    story.cluster.broker(broker).ready().await.unwrap();
    story.cluster.whole(&["orders"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_there_is_not_cannot_be_drained() {
    let story = Story::begins().await;
    let error = story.driver.client().drain(BrokerId(9), Some(Drain::Copies)).await.unwrap_err();
    assert!(error.to_string().contains("no broker 9"), "{error}");
}
