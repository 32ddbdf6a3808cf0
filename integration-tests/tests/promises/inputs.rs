//! Bad inputs get a clear error, and nothing is lost.

use bellwether_client::{DeclareError, Outcome, Producer, PublishError, QueueClass, QueueOptions};
use bellwether_integration_tests::broker::{Broker, BrokerOptions};
use bellwether_integration_tests::eventually::eventually;

use super::story::{PATIENCE, Story, body};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_broker_of_the_same_id_is_refused_and_both_hosts_are_named() {
    let mut story = Story::begins().await;
    let folder = tempfile::tempdir().unwrap();
    let mut second =
        Broker::new(1, folder.path(), &story.cluster.zookeeper(), BrokerOptions::default())
            .unwrap();
    second.start().unwrap();
    let status = second.end(PATIENCE).await.unwrap();
    assert!(!status.success(), "{}", second.tail());
    let said = second.logged().unwrap();
    assert!(said.contains("id 1") || said.contains("broker 1"), "{said}");
    story.queue("orders").await;
    assert!(story.cluster.broker(1).is_running());
    story.cluster.broker(1).ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_in_use_of_another_broker_or_of_a_newer_version_is_refused_and_left_alone() {
    let mut story = Story::begins().await;
    story.queue("orders").await;
    let confirmed = story.publish("orders", 100).await;
    let zookeeper = story.cluster.zookeeper();
    let used = story.cluster.broker(2).data().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let mut stranger = Broker::new(4, folder.path(), &zookeeper, BrokerOptions::default()).unwrap();
    stranger.use_data(&used);

    stranger.start().unwrap();
    assert!(!stranger.end(PATIENCE).await.unwrap().success());
    assert!(stranger.logged().unwrap().contains("in use"), "{}", stranger.tail());

    story.cluster.broker(2).kill().unwrap();
    stranger.start().unwrap();
    assert!(!stranger.end(PATIENCE).await.unwrap().success());
    assert!(stranger.logged().unwrap().contains("broker 2"), "{}", stranger.tail());

    let document = used.join("store.json");
    let ours = std::fs::read_to_string(&document).unwrap();
    std::fs::write(&document, ours.replacen("\"format\": ", "\"format\": 9", 1)).unwrap();
    story.cluster.broker(2).start().unwrap();
    assert!(!story.cluster.broker(2).end(PATIENCE).await.unwrap().success());
    assert!(
        story.cluster.broker(2).logged().unwrap().contains("knows formats up to"),
        "{}",
        story.cluster.broker(2).tail()
    );
    std::fs::write(&document, ours).unwrap();

    story.cluster.start_brokers().await.unwrap();
    story.cluster.whole(&["orders"]).await.unwrap();
    assert_eq!(story.drain("orders").await, confirmed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_of_another_cluster_is_refused() {
    let mut story = Story::begins().await;
    let elsewhere = format!("{}-other", story.cluster.zookeeper());
    let folder = tempfile::tempdir().unwrap();
    let mut other = Broker::new(1, folder.path(), &elsewhere, BrokerOptions::default()).unwrap();
    other.start().unwrap();
    other.ready().await.unwrap();
    other.kill().unwrap();

    story.cluster.broker(1).kill().unwrap();
    let own = story.cluster.broker(1).data().to_owned();
    story.cluster.broker(1).use_data(&folder.path().join("broker-1"));
    story.cluster.broker(1).start().unwrap();
    assert!(!story.cluster.broker(1).end(PATIENCE).await.unwrap().success());
    assert!(
        story.cluster.broker(1).logged().unwrap().contains("cluster"),
        "{}",
        story.cluster.broker(1).tail()
    );
    story.cluster.broker(1).use_data(&own);
    story.cluster.start_brokers().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_named_and_what_is_too_large_is_refused() {
    let story = Story::begins().await;
    let nowhere = story.driver.client().producer().to_queue("no-such-queue").start().await;
    let refused = match nowhere {
        Ok(producer) => producer.send_and_confirm(body(1)).await.unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(refused.contains("no-such-queue"), "{refused}");

    let missing = story.driver.client().producer().exchange("no-such-exchange").start().await;
    let refused = match missing {
        Ok(producer) => producer.send_and_confirm(body(1)).await.unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(refused.contains("no-such-exchange"), "{refused}");

    story.queue("orders").await;
    let differently = QueueOptions { replicas: 1, ..QueueOptions::default() };
    let differs = story.driver.client().declare_with("orders", differently).await.unwrap_err();
    assert!(matches!(differs, DeclareError::OptionsDiffer { .. }), "{differs:?}");
    assert!(differs.to_string().contains("replicas"), "{differs}");

    let producer = story.driver.client().producer().to_queue("orders").start().await.unwrap();
    let too_large = producer.send(vec![0; 17 * 1024 * 1024]).await;
    assert!(matches!(too_large, Err(PublishError::TooLarge { .. })), "{too_large:?}");
    let largest = 16 * 1024 * 1024 - 1_024;
    producer.send_and_confirm(vec![7; largest]).await.unwrap();
    let mut consumer = story.driver.client().consumer("orders").start().await.unwrap();
    let delivery = consumer.next().await.unwrap().unwrap();
    assert_eq!(delivery.body().len(), largest);
    delivery.ack().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nearly_full_disk_refuses_publishes_while_settles_go_on() {
    let mut story = Story::begins().await;
    story.queue("orders").await;
    let confirmed = story.publish("orders", 100).await;
    for id in [1, 2, 3] {
        story.cluster.broker(id).kill().unwrap();
        // More than most disks have free, and the most that can be set.
        let arguments = ["--disk-free-min".to_owned(), "1TiB".to_owned()];
        story.cluster.broker(id).options().arguments.extend(arguments);
        story.cluster.start_brokers().await.unwrap();
        story.cluster.whole(&["orders"]).await.unwrap();
    }
    let producer =
        story.driver.client().producer().to_queue("orders").fail_fast().start().await.unwrap();
    let refused = producer.send_and_confirm(body(100)).await.unwrap_err();
    assert!(refused.to_string().contains("disk"), "{refused}");
    assert_eq!(refused.outcome(), Outcome::NotDone);
    assert_eq!(story.drain("orders").await, confirmed);
}

/// Telemetry stops before orders do, and orders before the audit trail.
#[tokio::test(flavor = "multi_thread")]
async fn the_less_a_queue_matters_the_sooner_a_disk_that_fills_refuses_its_publishes() {
    // More than most disks have free.
    let mut story = Story::with_flags(&["--disk-free-warn", "1TiB"]).await;
    let client = story.driver.client().clone();
    let classes = [QueueClass::Bulk, QueueClass::Standard, QueueClass::Vital];
    let mut producers = Vec::new();
    for class in classes {
        let options = QueueOptions { class, ..QueueOptions::default() };
        let declared = client.declare_with(class.to_string(), options).await.unwrap();
        assert_eq!(declared.queue.class, class);
        let producer = client.producer().to_queue(class.to_string()).fail_fast();
        producers.push(producer.start().await.unwrap());
    }
    let refused = async |producer: &Producer| match producer.send_and_confirm(body(0)).await {
        Ok(_) => false,
        Err(error) => {
            assert!(error.to_string().contains("too full for a queue of class"), "{error}");
            true
        }
    };
    let who = async || {
        [refused(&producers[0]).await, refused(&producers[1]).await, refused(&producers[2]).await]
    };
    let expect = async |expected: [bool; 3]| {
        let seen = eventually("publishes to be refused by class", PATIENCE, async || {
            let seen = who().await;
            anyhow::ensure!(seen == expected, "{seen:?} instead of {expected:?}");
            Ok(())
        });
        seen.await.unwrap();
    };
    expect([true, false, false]).await;

    // Less than that is free, and more than half of it.
    let broker = story.cluster.broker(1);
    let free = eventually("the free bytes to be counted", PATIENCE, async || {
        let free = broker.metric("bellwether_disk_free_bytes").await?;
        anyhow::ensure!(free > 0.0, "not yet");
        Ok(free)
    });
    let free = free.await.unwrap();
    let more = format!("{}MiB", (free * 1.5) as u64 >> 20);
    client.change_setting("disk-free-min", Some(&more)).await.unwrap();
    expect([true, true, false]).await;
    client.change_setting("disk-free-min", None).await.unwrap();
    expect([true, false, false]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_fewer_than_min_isr_replicas_publishes_are_refused_with_the_reason_until_one_is_back()
{
    let mut story = Story::begins().await;
    story.queue("orders").await;
    let confirmed = story.publish("orders", 100).await;
    let seen = story.driver.describe("orders").await.unwrap();
    for follower in seen.replicas.iter().copied().filter(|id| Some(*id) != seen.leader) {
        story.cluster.broker(follower).kill().unwrap();
    }
    let producer =
        story.driver.client().producer().to_queue("orders").fail_fast().start().await.unwrap();
    let refused = eventually("a publish to be refused", PATIENCE, async || {
        match producer.send_and_confirm(body(100)).await {
            // The first may have been appended before the followers were missed: then nobody knows.
            Err(error) if error.outcome() == Outcome::NotDone => Ok(error),
            other => anyhow::bail!("{other:?}"),
        }
    });
    let refused = refused.await.unwrap();
    assert!(refused.to_string().contains("in-sync"), "{refused}");
    story.cluster.start_brokers().await.unwrap();
    story.cluster.whole(&["orders"]).await.unwrap();
    let taken = story.drain("orders").await;
    assert_eq!(taken[..100], confirmed);
    assert!(
        taken[100..].iter().all(|&number| number == 100),
        "only what nobody knew may have come: {taken:?}"
    );
}
