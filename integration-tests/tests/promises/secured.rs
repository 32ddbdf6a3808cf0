//! A cluster that speaks TLS everywhere: with clients, between brokers, and with ZooKeeper.

use std::time::Duration;

use bellwether_client::{Client, ConnectError, Password, TlsOptions, UserName, UserTag};
use bellwether_integration_tests::broker::BrokerOptions;
use bellwether_integration_tests::certificates::{A_DAY, Certificates};
use bellwether_integration_tests::cluster::{Cluster, Setup};
use bellwether_integration_tests::eventually::eventually;
use bellwether_integration_tests::users::user;

use super::story::{PATIENCE, Story, no_client_saw_an_error};

pub(super) fn setup(certificates: &Certificates, more: &[&str]) -> Setup {
    let mut arguments = certificates.flags();
    arguments.extend(more.iter().map(|flag| (*flag).to_owned()));
    Setup {
        options: BrokerOptions { arguments, ..BrokerOptions::default() },
        tls: Some(certificates.client()),
        zookeeper_tls: Some((certificates.path("zookeeper.pem"), certificates.path("ca.crt"))),
        servers: 1,
        ..Setup::default()
    }
}

async fn secured(certificates: &Certificates) -> Story {
    Story::set_up(setup(certificates, &[])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_on_every_port_a_killed_leader_loses_nothing_that_was_confirmed() {
    let certificates = Certificates::for_brokers(3).unwrap();
    let mut story = secured(&certificates).await;
    story.queue("orders").await;
    let confirmed = story.publish("orders", 2_000).await;
    let killed = story.cluster.kill_leader_of("orders").await.unwrap();
    story.led_by_another("orders", killed).await;
    assert_eq!(story.drain("orders").await, confirmed);
    story.cluster.start_brokers().await.unwrap();
    story.cluster.whole(&["orders"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_replaced_under_load_drop_no_connection_and_bad_ones_are_kept_out() {
    let certificates = Certificates::for_brokers(3).unwrap();
    let mut story = secured(&certificates).await;
    let load = story.under_load("orders", 500).await;
    let opened = async |story: &mut Story| {
        let mut sum = 0.0;
        for broker in story.cluster.brokers() {
            sum += broker.metric("bellwether_client_connections_opened_total").await.unwrap();
        }
        sum
    };
    let addresses = story.cluster.addresses();
    let mut before = Vec::new();
    for address in &addresses {
        before.push(certificates.serial_at(address).await.unwrap());
    }
    let links = opened(&mut story).await;

    for broker in 1..=3 {
        certificates.renew_broker(broker, A_DAY).unwrap();
    }
    for (address, before) in addresses.iter().zip(&before) {
        let renewed = eventually("the new certificate", PATIENCE, async || {
            anyhow::ensure!(certificates.serial_at(address).await? != *before, "still the old one");
            Ok(())
        });
        renewed.await.unwrap();
    }
    load.goes_on(500).await;
    assert_eq!(opened(&mut story).await, links, "a client had to connect again");

    std::fs::write(certificates.path("broker-1.crt"), "no certificate").unwrap();
    let kept = certificates.serial_at(&addresses[0]).await.unwrap();
    let refused = eventually("the bad file to be noticed", PATIENCE, async || {
        let failed = story.cluster.broker(1).metric("bellwether_tls_reload_failed").await?;
        anyhow::ensure!(failed == 1.0, "not yet");
        Ok(())
    });
    refused.await.unwrap();
    assert!(story.cluster.broker(1).logged().unwrap().contains("BEGIN CERTIFICATE"));
    assert_eq!(certificates.serial_at(&addresses[0]).await.unwrap(), kept);
    load.goes_on(500).await;
    assert_eq!(opened(&mut story).await, links, "a client had to connect again");
    no_client_saw_an_error(&load.ends_well().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_hears_what_is_wrong_with_its_connection() {
    let certificates = Certificates::for_brokers(3).unwrap();
    let stranger = Certificates::for_brokers(1).unwrap();
    let mut story = secured(&certificates).await;
    let address = story.cluster.broker(1).address();

    let plain = refused(&address, None).await;
    assert!(plain.contains("speaks TLS") && plain.contains("610"), "{plain}");
    let untrusting = refused(&address, Some(stranger.client())).await;
    assert!(untrusting.contains("--tls-ca FILE"), "{untrusting}");
    let anonymous = refused(&address, Some(certificates.anonymous())).await;
    assert!(anonymous.contains("asks for a certificate"), "{anonymous}");
    let untrusted =
        certificates.anonymous().certificate(stranger.path("test.crt"), stranger.path("test.key"));
    let untrusted = refused(&address, Some(untrusted)).await;
    assert!(
        untrusted.contains("does not trust") || untrusted.contains("does not accept"),
        "{untrusted}"
    );
    let misnamed = certificates.client().server_name("elsewhere.example");
    let misnamed = refused(&address, Some(misnamed)).await;
    assert!(
        misnamed.contains("--tls-server-name") && misnamed.contains("elsewhere.example"),
        "{misnamed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_login_is_required_a_certificate_is_not_enough_and_the_first_user_is_made_over_tls()
{
    let certificates = Certificates::for_brokers(3).unwrap();
    let setup = setup(&certificates, &["--login", "required"]);
    let cluster = Cluster::start_with(setup).await.unwrap();
    let address = cluster.addresses()[0].clone();
    let anybody = refused(&address, Some(certificates.client())).await;
    assert!(anybody.contains("log in with") && anybody.contains("108"), "{anybody}");

    let path = |name| certificates.path(name).display().to_string();
    let (ca, certificate, key) = (path("ca.crt"), path("test.crt"), path("test.key"));
    let add = ["add", "root", "--tag", "administrator", "--zookeeper", &cluster.zookeeper()];
    let tls = ["--zookeeper-tls-ca", &ca, "--zookeeper-tls-cert", &certificate];
    let add = [&add[..], &tls[..], &["--zookeeper-tls-key", &key][..]].concat();
    user(&add, Some("the first")).await.unwrap();

    let root = eventually("root to be known", PATIENCE, async || {
        let builder = Client::builder().tls(certificates.client()).login("root", "the first");
        Ok(builder.deadline(PATIENCE).connect(cluster.addresses()).await?)
    });
    let root = root.await.unwrap();
    let users = root.users().await.unwrap();
    assert!(users.iter().any(|user| user.user.as_str() == "root"), "{users:?}");

    // The certificate is the login, once there is a user of its name.
    let by_certificate =
        || Client::builder().tls(certificates.client()).login_by_certificate().deadline(PATIENCE);
    let unknown = by_certificate().connect(cluster.addresses()).await.unwrap_err();
    assert!(unknown.to_string().contains("107"), "{unknown}");
    let test = UserName::new("test").unwrap();
    let password = Password::new("not used").unwrap();
    root.add_user(&test, &password, vec![UserTag::Administrator]).await.unwrap();
    let known = eventually("the user to be known everywhere", PATIENCE, async || {
        Ok(by_certificate().connect(cluster.addresses()).await?)
    });
    let users = known.await.unwrap().users().await.unwrap();
    assert_eq!(users.len(), 2, "{users:?}");
    let connect = cluster.addresses().join(",");
    let with = ["--connect", &connect, "--tls-ca", &ca, "--tls-cert", &certificate];
    let list = [&["list", "--external", "--tls-key", &key][..], &with[..]].concat();
    let listed = user(&list, None).await.unwrap();
    assert!(listed.contains("root") && listed.contains("test"), "{listed}");
}

/// Nothing is secured here, and TLS is expected.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_speaks_tls_hears_that_a_plain_port_does_not() {
    let certificates = Certificates::for_brokers(1).unwrap();
    let mut story = Story::begins().await;
    let address = story.cluster.broker(1).address();
    let words = refused(&address, Some(certificates.client())).await;
    assert!(words.contains("does not answer in TLS"), "{words}");
    // What single clients do wrong is not for the log; that somebody does is to be seen.
    let counted = eventually("the broker to count it", PATIENCE, async || {
        let failed = story.cluster.broker(1).metric("bellwether_handshakes_failed_total").await?;
        anyhow::ensure!(failed >= 1.0, "{failed}");
        Ok(())
    });
    counted.await.unwrap();
}

async fn refused(address: &str, tls: Option<TlsOptions>) -> String {
    let mut builder = Client::builder().deadline(Duration::from_secs(20));
    if let Some(tls) = tls {
        builder = builder.tls(tls);
    }
    match builder.connect([address]).await {
        Err(error @ (ConnectError::Insecure { .. } | ConnectError::Refused { .. })) => {
            error.to_string()
        }
        other => panic!("{other:?}"),
    }
}
