//! A rolling upgrade under load, and its way back. `BELLWETHER_OLD_BIN` names the binary of the version before (integration-tests/upgrade.sh
//! builds one from a revision and sets it). Without it both are the binary under test: brokers are then exchanged just so, and
//! that versions mix is not tried.

use std::path::PathBuf;

use bellwether_client::Client;
use bellwether_integration_tests::binary;
use bellwether_integration_tests::broker::{Broker, READY_WITHIN};
use bellwether_integration_tests::certificates::Certificates;
use bellwether_integration_tests::cluster::Setup;

use super::login::{Locked, locked_whole, permissions, take};
use super::story::{Story, body, no_client_saw_an_error};
use super::{login, secured};

const QUEUE: &str = "orders";

/// Hands over, ends, and is started again from another binary.
async fn exchange(broker: &mut Broker, binary: Option<&PathBuf>) {
    broker.terminate().unwrap();
    let status = broker.end(READY_WITHIN).await.unwrap();
    assert!(status.success(), "broker {} ended with {status}", broker.id());
    broker.options().binary = binary.cloned();
    broker.start().unwrap();
    broker.ready().await.unwrap();
}

impl Story {
    /// One broker after the other; each is whole before the next one goes.
    async fn exchanges_every_binary(&mut self, binary: Option<&PathBuf>) {
        for id in 1..=3 {
            exchange(self.cluster.broker(id), binary).await;
            self.cluster.whole(&[QUEUE]).await.unwrap();
        }
    }
}

impl Locked {
    /// The same, seen by somebody who may.
    async fn exchanges_every_binary(&mut self, binary: Option<&PathBuf>, who: &Client) {
        for id in 1..=3 {
            exchange(self.cluster.broker(id), binary).await;
            locked_whole(who, QUEUE).await;
        }
    }

    /// Whether this user, as the brokers know it now, may log in anew, and take the next message that there is.
    async fn takes(&self, user: &str) -> u64 {
        let client = login::connect(&self.cluster, user, user).await.unwrap();
        let mut consumer = client.consumer(QUEUE).prefetch(1).start().await.unwrap();
        let taken = take(&mut consumer).await;
        consumer.close().await;
        taken
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

/// Certificates are shown and checked between brokers of both versions, and what says so in the coordinator is read by both.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_and_its_way_back_with_tls_on_every_port_show_no_error_to_any_client() {
    let old = binary::older().unwrap();
    let certificates = Certificates::for_brokers(3).unwrap();
    let mut setup: Setup = secured::setup(&certificates, &[]);
    setup.options.binary = old.clone();
    let mut story = Story::set_up(setup).await;
    let load = story.under_load(QUEUE, 300).await;
    story.exchanges_every_binary(None).await;
    load.goes_on(300).await;
    story.exchanges_every_binary(old.as_ref()).await;
    load.goes_on(300).await;
    no_client_saw_an_error(&load.ends_well().await);
}

/// Users, their keys and their permissions lie in the coordinator: who was made by the one version logs in at the other.
#[tokio::test(flavor = "multi_thread")]
async fn users_of_either_version_log_in_at_the_other() {
    let old = binary::older().unwrap();
    let mut locked = Locked::with_binary(old.clone()).await;
    let first = locked.has("first", permissions(".*", ".*", ".*")).await;
    first.declare(QUEUE).await.unwrap();
    locked_whole(&first, QUEUE).await;
    let producer = first.producer().to_queue(QUEUE).start().await.unwrap();
    for number in 0..4 {
        producer.send_and_confirm(body(number)).await.unwrap();
    }

    locked.exchanges_every_binary(None, &first).await;
    assert_eq!(locked.takes("first").await, 0);
    locked.has("second", permissions("", "", QUEUE)).await;
    assert_eq!(locked.takes("second").await, 1);

    locked.exchanges_every_binary(old.as_ref(), &first).await;
    assert_eq!(locked.takes("first").await, 2);
    assert_eq!(locked.takes("second").await, 3);
}
