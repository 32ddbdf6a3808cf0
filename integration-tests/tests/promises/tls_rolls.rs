//! TLS between brokers is brought to a running cluster, and taken from it again, broker by broker under load.

use bellwether_integration_tests::broker::{BrokerOptions, READY_WITHIN};
use bellwether_integration_tests::certificates::{CLUSTER, Certificates};
use bellwether_integration_tests::eventually::eventually;

use super::story::{PATIENCE, Story, UnderLoad, no_client_saw_an_error};

const QUEUE: &str = "orders";

/// What brokers say to each other.
#[derive(Clone, Copy)]
enum Speak {
    Plain,
    /// TLS with those that speak it, and plain with the others.
    Either,
    Tls,
}

impl Speak {
    fn flags(self, certificates: &Certificates) -> Vec<String> {
        let more: &[&str] = match self {
            // The certificates name the cluster, so that it has to be this one before there are any.
            Speak::Plain => return vec![format!("--cluster-id={CLUSTER}")],
            Speak::Either => &["--peer-tls=accept"],
            Speak::Tls => &[],
        };
        let mut flags = certificates.peer_flags();
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        flags
    }
}

impl Story {
    /// With brokers that speak so.
    async fn that_speaks(speak: Speak, certificates: &Certificates) -> Story {
        let arguments = speak.flags(certificates);
        Story::with(BrokerOptions { arguments, ..BrokerOptions::default() }).await
    }

    /// One broker after the other is restarted to speak so; each is whole before the next one goes.
    async fn rolls(&mut self, speak: Speak, certificates: &Certificates, load: &UnderLoad) {
        for id in 1..=3 {
            let broker = self.cluster.broker(id);
            broker.terminate().unwrap();
            let status = broker.end(READY_WITHIN).await.unwrap();
            assert!(status.success(), "broker {id} ended with {status}");
            broker.options().arguments = speak.flags(certificates);
            broker.start().unwrap();
            broker.ready().await.unwrap();
            self.cluster.whole(&[QUEUE]).await.unwrap();
        }
        load.goes_on(200).await;
        let optional = f64::from(u8::from(matches!(speak, Speak::Either)));
        for broker in self.cluster.brokers() {
            assert_eq!(broker.metric("bellwether_peer_tls_optional").await.unwrap(), optional);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_between_brokers_comes_to_a_running_cluster_and_no_client_sees_an_error() {
    let certificates = Certificates::for_brokers(3).unwrap();
    let mut story = Story::that_speaks(Speak::Plain, &certificates).await;
    let load = story.under_load(QUEUE, 300).await;
    story.rolls(Speak::Either, &certificates, &load).await;
    story.rolls(Speak::Tls, &certificates, &load).await;

    // Now nobody is taken without a certificate: one that comes back as it was before is in no set, and the others go on.
    let seen = story.driver.describe(QUEUE).await.unwrap();
    let follower = seen.replicas.iter().copied().find(|id| Some(*id) != seen.leader).unwrap();
    let broker = story.cluster.broker(follower);
    broker.terminate().unwrap();
    broker.end(READY_WITHIN).await.unwrap();
    broker.options().arguments = Speak::Plain.flags(&certificates);
    broker.start().unwrap();
    let told = eventually("it to hear that brokers speak TLS here", PATIENCE, async || {
        let said = story.cluster.broker(follower).logged()?;
        anyhow::ensure!(said.contains("this broker speaks TLS with other brokers"), "not yet");
        Ok(())
    });
    told.await.unwrap();
    load.goes_on(200).await;
    let seen = story.driver.describe(QUEUE).await.unwrap();
    assert!(!seen.in_sync.contains(&follower), "{seen:?}");
    story.cluster.broker(follower).kill().unwrap();
    story.cluster.broker(follower).options().arguments = Speak::Tls.flags(&certificates);
    story.cluster.start_brokers().await.unwrap();
    story.cluster.whole(&[QUEUE]).await.unwrap();
    no_client_saw_an_error(&load.ends_well().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_between_brokers_goes_from_a_running_cluster_and_no_client_sees_an_error() {
    let certificates = Certificates::for_brokers(3).unwrap();
    let mut story = Story::that_speaks(Speak::Tls, &certificates).await;
    let load = story.under_load(QUEUE, 300).await;
    story.rolls(Speak::Either, &certificates, &load).await;
    story.rolls(Speak::Plain, &certificates, &load).await;
    no_client_saw_an_error(&load.ends_well().await);
}
