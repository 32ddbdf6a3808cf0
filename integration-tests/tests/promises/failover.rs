//! Leaders and followers that die, freeze, or leave in an orderly way. The bounds on gaps are far above what is promised for a
//! release build on an idle machine (see `trial.sh`), since here tests share two cores; they tell a failover from an outage.

use std::time::Duration;

use super::story::{Story, body, felt};

const A_FAILOVER: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_loses_nothing_that_was_confirmed() {
    let mut story = Story::begins().await;
    story.queue("orders").await;
    let confirmed = story.publish("orders", 1_000).await;
    story.cluster.kill_leader_of("orders").await.unwrap();
    assert_eq!(story.drain("orders").await, confirmed);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_a_killed_leader_is_replaced_at_once_and_comes_back_as_a_follower() {
    let mut story = Story::begins().await;
    let load = story.under_load("orders", 1_000).await;
    for _ in 0..2 {
        load.watch();
        let killed = story.cluster.kill_leader_of("orders").await.unwrap();
        load.goes_on(500).await;
        load.flows().await;
        felt("leader killed", load.gaps());
        assert!(load.gaps().confirms < A_FAILOVER, "{:?}", load.gaps());
        story.cluster.broker(killed).start().unwrap();
        story.cluster.broker(killed).ready().await.unwrap();
        story.cluster.whole(&["orders"]).await.unwrap();
    }
    load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_follower_leaves_the_in_sync_set_and_comes_back() {
    let mut story = Story::begins().await;
    let load = story.under_load("orders", 1_000).await;
    let seen = story.driver.describe("orders").await.unwrap();
    let follower = seen.replicas.iter().copied().find(|id| Some(*id) != seen.leader).unwrap();
    load.watch();
    story.cluster.broker(follower).kill().unwrap();
    load.goes_on(500).await;
    felt("follower killed", load.gaps());
    assert!(load.gaps().confirms < A_FAILOVER, "{:?}", load.gaps());
    story
        .cluster
        .until("orders", "without the follower", |queue| !queue.in_sync.contains(&follower))
        .await
        .unwrap();
    story.cluster.start_brokers().await.unwrap();
    story.cluster.whole(&["orders"]).await.unwrap();
    let after = story.driver.describe("orders").await.unwrap();
    assert_eq!(
        (after.leader, after.epoch),
        (seen.leader, seen.epoch),
        "its leader was never in doubt"
    );
    load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_leader_is_replaced_when_its_session_ends() {
    let mut story = Story::begins().await;
    let load = story.under_load("orders", 500).await;
    let leader = story.cluster.leader_of("orders").await.unwrap();
    load.watch();
    story.cluster.broker(leader).pause().unwrap();
    story.led_by_another("orders", leader).await;
    load.goes_on(200).await;
    load.flows().await;
    felt("leader frozen", load.gaps());
    story.cluster.broker(leader).resume().unwrap();
    story.cluster.whole(&["orders"]).await.unwrap();
    load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_told_to_stop_hands_over_and_no_client_sees_an_error() {
    let mut story = Story::begins().await;
    let load = story.under_load("orders", 500).await;
    for _ in 0..2 {
        let leader = story.cluster.leader_of("orders").await.unwrap();
        load.watch();
        story.cluster.broker(leader).terminate().unwrap();
        let status = story.cluster.broker(leader).end(Duration::from_secs(30)).await.unwrap();
        assert!(status.success(), "{status}");
        load.goes_on(200).await;
        load.flows().await;
        felt("leader stopped", load.gaps());
        story.cluster.start_brokers().await.unwrap();
        story.cluster.whole(&["orders"]).await.unwrap();
    }
    let verdict = load.ends_well().await;
    assert_eq!((verdict.unknown, verdict.refused), (0, 0), "{verdict:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_repeated_after_a_failover_is_stored_once() {
    let mut story = Story::begins().await;
    story.queue("orders").await;
    let confirmed = story.publish("orders", 100).await;
    story.cluster.kill_leader_of("orders").await.unwrap();
    // The same producer from the beginning, as an application does that lost its notes.
    let sender = story.driver.producer("story-orders", "", "orders", 100).await.unwrap();
    for number in 0..110 {
        sender.confirm(body(number)).await.unwrap();
    }
    let counts = story.driver.describe("orders").await.unwrap().counts;
    assert_eq!(counts.enqueued, 110, "{counts:?}");
    let all: Vec<u64> = confirmed.into_iter().chain(100..110).collect();
    assert_eq!(story.drain("orders").await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_settled_does_not_come_back_with_the_next_leader() {
    let mut story = Story::begins().await;
    story.queue("orders").await;
    story.publish("orders", 200).await;
    assert_eq!(story.take("orders", 120).await, (0..120).collect::<Vec<_>>());
    story.cluster.kill_leader_of("orders").await.unwrap();
    assert_eq!(story.drain("orders").await, (120..200).collect::<Vec<_>>());
}
