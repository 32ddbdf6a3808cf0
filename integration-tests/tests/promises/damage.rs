//! Disks that go bad: what was synced is not what is read.

use bellwether_integration_tests::eventually::eventually;
use bytes::Bytes;

use super::story::{PATIENCE, Story};

/// A message of which a bit will be turned: nothing else in a journal looks like it.
const MARKED: u64 = 1_234_567_890_987_654_321;

/// A queue that is whole, with messages 0 to 999 and then the marked one.
async fn marked(story: &mut Story) -> Vec<u64> {
    story.queue("orders").await;
    let mut confirmed = story.publish("orders", 1_000).await;
    let sender = story.driver.producer("marks", "", "orders", 1).await.unwrap();
    let receipt = sender.send(Bytes::from(MARKED.to_string())).await.unwrap();
    receipt.outcome().await.unwrap();
    sender.close().await;
    confirmed.push(MARKED);
    story.cluster.whole(&["orders"]).await.unwrap();
    confirmed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_replica_is_fetched_anew_and_then_carries_the_queue_through_the_loss_of_the_others()
 {
    let mut story = Story::begins().await;
    let confirmed = marked(&mut story).await;
    let seen = story.driver.describe("orders").await.unwrap();
    let damaged = seen.replicas.iter().copied().find(|id| Some(*id) != seen.leader).unwrap();
    story.cluster.broker(damaged).kill().unwrap();
    story.cluster.broker(damaged).turn_a_bit_of(MARKED.to_string().as_bytes()).unwrap();
    story.cluster.broker(damaged).start().unwrap();
    fetched_anew(&mut story, damaged).await;

    let others = seen.replicas.iter().copied().filter(|id| *id != damaged);
    story.loses_in_turn("orders", others).await;
    let taken = story.drain("orders").await;
    assert!(taken == confirmed, "{} of {}, up to {:?}", taken.len(), confirmed.len(), taken.last());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_reads_damage_gives_way_and_nothing_is_missing() {
    // It has to be the leader that reads: the leadership stays where it is.
    let mut story = Story::with_flags(&["--leader-settle", "10m"]).await;
    let confirmed = marked(&mut story).await;
    // So that nobody has the messages in memory any more.
    story.cluster.kill_all().unwrap();
    story.cluster.start_brokers().await.unwrap();
    story.cluster.whole(&["orders"]).await.unwrap();
    let leader = story.driver.describe("orders").await.unwrap().leader.unwrap();
    story.cluster.broker(leader).turn_a_bit_of(MARKED.to_string().as_bytes()).unwrap();
    // Settles that were under way may come to nothing: those messages come again.
    let mut taken = story.drain_if_it_can("orders").await;
    taken.sort_unstable();
    taken.dedup();
    assert!(taken == confirmed, "{} of {}, up to {:?}", taken.len(), confirmed.len(), taken.last());
    fetched_anew(&mut story, leader).await;
    story.cluster.whole(&["orders"]).await.unwrap();
}

async fn fetched_anew(story: &mut Story, id: u32) {
    let broker = story.cluster.broker(id);
    let fetched = eventually("it to be fetched anew", PATIENCE, async || {
        let snapshots = broker.metric("bellwether_snapshots_received_total").await?;
        anyhow::ensure!(snapshots >= 1.0, "{}", broker.tail());
        Ok(())
    });
    fetched.await.unwrap();
    assert!(broker.logged().unwrap().contains("is damaged"), "{}", broker.tail());
    assert_eq!(broker.metric("bellwether_queues_stopped").await.unwrap(), 0.0);
}
