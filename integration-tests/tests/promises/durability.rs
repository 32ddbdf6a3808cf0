//! Power that fails, disks that are emptied.

use bellwether_integration_tests::preload::Syncs;

use super::story::Story;

#[tokio::test(flavor = "multi_thread")]
async fn when_all_brokers_lose_power_at_once_every_confirmed_message_is_there_and_every_settled_one_gone()
 {
    let mut story = Story::with_power_loss(Syncs::Kept).await;
    let load = story.under_load("orders", 500).await;
    for _ in 0..2 {
        load.goes_on(500).await;
        story.cluster.kill_all().unwrap();
        story.cluster.start_brokers().await.unwrap();
    }
    load.watch();
    load.flows().await;
    load.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_syncs_the_same_power_loss_is_noticed() {
    // Enough for a broker to start and to make its journal.
    let mut story = Story::with_power_loss(Syncs::IgnoredAfter(30)).await;
    let load = story.under_load("orders", 500).await;
    load.goes_on(1_000).await;
    story.cluster.kill_all().unwrap();
    story.cluster.start_brokers().await.unwrap();
    let verdict = load.ends().await;
    assert!(!verdict.is_clean(), "the test above would prove nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_replica_is_filled_and_then_carries_the_queue_through_the_loss_of_the_others() {
    let mut story = Story::begins().await;
    story.queue("orders").await;
    let confirmed = story.publish("orders", 2_000).await;
    assert_eq!(story.take("orders", 500).await.len(), 500);

    let seen = story.driver.describe("orders").await.unwrap();
    let emptied = seen.replicas.iter().copied().find(|id| Some(*id) != seen.leader).unwrap();
    story.cluster.broker(emptied).kill().unwrap();
    story.cluster.broker(emptied).wipe().unwrap();
    story.cluster.start_brokers().await.unwrap();
    story.cluster.whole(&["orders"]).await.unwrap();

    let others = seen.replicas.iter().copied().filter(|id| *id != emptied);
    story.loses_in_turn("orders", others).await;
    assert_eq!(story.drain("orders").await, confirmed[500..]);
}
