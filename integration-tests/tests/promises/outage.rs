//! An ensemble that is away: what needs no decision goes on.

use std::time::Duration;

use bellwether_integration_tests::eventually::eventually;

use super::story::{PATIENCE, Story, felt};

const SESSIONS: &str = "bellwether_coordinator_sessions_total";
/// Longer than the sessions last, and than the client library gives up by its own clock.
const AWAY: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_on_while_the_whole_ensemble_is_away() {
    let mut story = Story::begins().await;
    let load = story.under_load("orders", 500).await;
    let mut lives = Vec::new();
    for broker in story.cluster.brokers() {
        lives.push(broker.metric(SESSIONS).await.unwrap());
    }
    load.watch();
    story.cluster.ensemble().kill_all().unwrap();
    tokio::time::sleep(AWAY).await;
    load.goes_on(500).await;
    felt("ensemble away", load.gaps());
    assert!(load.gaps().confirms < Duration::from_secs(2), "{:?}", load.gaps());

    story.cluster.ensemble().start_all().await.unwrap();
    story.queue("declared-afterwards").await;
    for (broker, lives) in story.cluster.brokers().iter().zip(lives) {
        assert_eq!(
            broker.metric(SESSIONS).await.unwrap(),
            lives,
            "broker {} began a new life",
            broker.id()
        );
    }
    let leader = story.cluster.kill_leader_of("orders").await.unwrap();
    load.goes_on(200).await;
    assert_ne!(story.cluster.leader_of("orders").await.unwrap(), leader);
    story.cluster.start_brokers().await.unwrap();
    load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_started_before_the_ensemble_waits_for_it_and_says_so() {
    let mut story = Story::begins().await;
    story.cluster.ensemble().kill_all().unwrap();
    story.cluster.broker(3).kill().unwrap();
    story.cluster.broker(3).start().unwrap();
    let broker = story.cluster.broker(3);
    let said = eventually("it to say that it waits", PATIENCE, async || {
        anyhow::ensure!(
            broker.logged()?.to_lowercase().contains("cannot be reached"),
            "{}",
            broker.tail()
        );
        Ok(())
    });
    said.await.unwrap();
    story.cluster.ensemble().start_all().await.unwrap();
    story.cluster.broker(3).ready().await.unwrap();
}
