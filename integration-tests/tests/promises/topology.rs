//! Exchanges, bindings, and queues that come and go.

use std::collections::BTreeSet;

use bellwether_integration_tests::eventually::eventually;

use super::story::{PATIENCE, Story, body};

const COPIES: [&str; 3] = ["invoices", "letters", "parcels"];

#[tokio::test(flavor = "multi_thread")]
async fn a_fanout_reaches_queues_on_three_leaders_while_one_of_them_dies() {
    let mut story = Story::begins().await;
    story.driver.declare_fanout("orders").await.unwrap();
    for queue in COPIES {
        story.queue(queue).await;
        story.driver.bind("orders", queue, "").await.unwrap();
    }
    let mut leaders = BTreeSet::new();
    for queue in COPIES {
        leaders.insert(story.cluster.leader_of(queue).await.unwrap());
    }
    assert_eq!(leaders.len(), 3, "new queues are placed evenly over the brokers");

    let sender = story.driver.producer("fanout", "orders", "", 10).await.unwrap();
    let mut pending = Vec::new();
    for number in 0..10 {
        if number == 5 {
            story.cluster.kill_leader_of(COPIES[1]).await.unwrap();
        }
        pending.push(sender.send(body(number)).await.unwrap());
    }
    for receipt in pending {
        receipt.outcome().await.unwrap();
    }
    for queue in COPIES {
        assert_eq!(story.drain(queue).await, (0..10).collect::<Vec<_>>(), "{queue}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_messages_of_a_deleted_queue_never_come_back_not_even_with_a_broker_that_was_away() {
    let mut story = Story::begins().await;
    story.queue("orders").await;
    story.publish("orders", 100).await;
    let seen = story.driver.describe("orders").await.unwrap();
    let away = seen.replicas.iter().copied().find(|id| Some(*id) != seen.leader).unwrap();
    story.cluster.broker(away).kill().unwrap();
    story
        .cluster
        .until("orders", "without the one that is away", |queue| !queue.in_sync.contains(&away))
        .await
        .unwrap();
    story.driver.client().delete("orders").await.unwrap();
    story.cluster.start_brokers().await.unwrap();

    story.queue("orders").await;
    assert_eq!(story.left_in("orders").await, 0);
    for broker in [1, 2, 3] {
        story.cluster.broker(broker).kill().unwrap();
        story.cluster.start_brokers().await.unwrap();
        story.cluster.whole(&["orders"]).await.unwrap();
        assert_eq!(story.left_in("orders").await, 0, "after a restart of broker {broker}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_fewer_brokers_than_replicas_a_queue_is_declared_with_what_there_is_and_too_few_for_min_isr_refuse()
 {
    let mut story = Story::begins().await;
    story.cluster.broker(3).kill().unwrap();
    let gone = eventually("broker 3 to be gone", PATIENCE, async || {
        let live = story.driver.client().cluster_status().await?.brokers.len();
        anyhow::ensure!(live == 2, "{live} are live");
        Ok(())
    });
    gone.await.unwrap();
    let declared = story.driver.client().declare("orders").await.unwrap();
    assert_eq!(declared.queue.replicas.len(), 2, "{declared:?}");
    assert!(declared.warning.is_some(), "it says so: {declared:?}");
    let confirmed = story.publish("orders", 10).await;
    assert_eq!(story.drain("orders").await, confirmed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_delivered_in_order_and_gone_when_acknowledged() {
    let story = Story::begins().await;
    story.queue("orders").await;
    let confirmed = story.publish("orders", 1_000).await;
    assert_eq!(story.drain("orders").await, confirmed);
    let counts = story.driver.describe("orders").await.unwrap().counts;
    assert_eq!((counts.enqueued, counts.settled), (1_000, 1_000), "{counts:?}");
    assert!(story.drain("orders").await.is_empty());
}
