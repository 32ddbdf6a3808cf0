//! A rolling upgrade under load, and its way back. `BELLWETHER_OLD_BIN` names the binary of the version before (integration-tests/upgrade.sh
//! builds one from a revision and sets it). Without it both are the binary under test: brokers are then exchanged just so, and
//! that versions mix is not tried.

use std::path::PathBuf;

use bellwether_integration_tests::binary;
use bellwether_integration_tests::broker::READY_WITHIN;

use super::story::Story;

const QUEUE: &str = "orders";

impl Story {
    /// One broker after the other hands over, ends, and is started again from another binary; each is whole before the next one goes.
    async fn exchanges_every_binary(&mut self, binary: Option<&PathBuf>) {
        for id in 1..=3 {
            let broker = self.cluster.broker(id);
            broker.terminate().unwrap();
            let status = broker.end(READY_WITHIN).await.unwrap();
            assert!(status.success(), "broker {id} ended with {status}");
            broker.options().binary = binary.cloned();
            broker.start().unwrap();
            broker.ready().await.unwrap();
            self.cluster.whole(&[QUEUE]).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_broker_by_broker_under_load_loses_nothing_and_neither_does_its_way_back() {
    let old = binary::older().unwrap();
    let mut story = Story::with_binary(old.clone()).await;
    let load = story.under_load(QUEUE, 500).await;
    // What was declared and written by the one is read by the other, waiting messages included.
    story.queue("waiting").await;
    let waiting = story.publish("waiting", 500).await;

    story.exchanges_every_binary(None).await;
    load.goes_on(500).await;
    story.queue("declared after the upgrade").await;
    let later = story.publish("declared after the upgrade", 100).await;

    story.exchanges_every_binary(old.as_ref()).await;
    load.goes_on(500).await;
    assert_eq!(story.drain("waiting").await, waiting);
    assert_eq!(story.drain("declared after the upgrade").await, later);
    load.ends_well().await;
}
