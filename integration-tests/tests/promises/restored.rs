//! Ensembles that come back with less than the logs know.

use bellwether_integration_tests::eventually::eventually;

use super::story::{PATIENCE, Story};

#[tokio::test(flavor = "multi_thread")]
async fn an_ensemble_restored_empty_stops_the_queues_and_deletes_nothing() {
    let mut story = Story::begins().await;
    story.queue("orders").await;
    story.publish("orders", 100).await;
    story.cluster.kill_all().unwrap();
    story.cluster.ensemble().kill_all().unwrap();
    for server in 0..3 {
        story.cluster.ensemble().wipe(server).unwrap();
    }
    story.cluster.ensemble().start_all().await.unwrap();
    for broker in story.cluster.brokers() {
        broker.start().unwrap();
    }
    for broker in story.cluster.brokers() {
        let said = eventually("it to say so", PATIENCE, async || {
            anyhow::ensure!(broker.logged()?.contains("restored empty"), "{}", broker.tail());
            Ok(())
        });
        said.await.unwrap();
    }
    // Nothing was deleted: every broker finds its log once more.
    story.cluster.kill_all().unwrap();
    for broker in story.cluster.brokers() {
        broker.start().unwrap();
        let found = eventually("it to find its log again", PATIENCE, async || {
            let found = broker.logged()?.matches("journal recovered logs=1").count();
            anyhow::ensure!(found == 2, "{}", broker.tail());
            Ok(())
        });
        found.await.unwrap();
    }
    let found = story.driver.describe("orders").await;
    assert!(found.is_err(), "nothing is recreated: {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ensemble_restored_to_an_older_state_stops_the_queues_until_it_is_mended() {
    let mut story = Story::begins().await;
    story.queue("orders").await;
    let confirmed = story.publish("orders", 100).await;
    story.cluster.kill_all().unwrap();
    story.cluster.ensemble().kill_all().unwrap();
    story.cluster.ensemble().save("older").unwrap();
    story.cluster.ensemble().start_all().await.unwrap();
    story.cluster.start_brokers().await.unwrap();
    story.cluster.whole(&["orders"]).await.unwrap();
    // The logs are ahead of what was saved by an epoch now.
    story.cluster.kill_all().unwrap();
    story.cluster.ensemble().kill_all().unwrap();
    story.cluster.ensemble().save("newer").unwrap();
    story.cluster.ensemble().restore("older").unwrap();
    story.cluster.ensemble().start_all().await.unwrap();
    for broker in story.cluster.brokers() {
        broker.start().unwrap();
    }
    for broker in story.cluster.brokers() {
        let said = eventually("it to say so", PATIENCE, async || {
            let logged = broker.logged()?;
            anyhow::ensure!(logged.contains("restored to an older state"), "{}", broker.tail());
            Ok(())
        });
        said.await.unwrap();
    }
    assert!(story.driver.describe("orders").await.is_err(), "nobody serves it");
    // Mended: nothing was deleted.
    story.cluster.kill_all().unwrap();
    story.cluster.ensemble().kill_all().unwrap();
    story.cluster.ensemble().restore("newer").unwrap();
    story.cluster.ensemble().start_all().await.unwrap();
    story.cluster.start_brokers().await.unwrap();
    story.cluster.whole(&["orders"]).await.unwrap();
    assert_eq!(story.drain("orders").await, confirmed);
}
