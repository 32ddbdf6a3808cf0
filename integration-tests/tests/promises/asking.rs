//! A cluster that explains itself, and a queue whose in-sync set is gone for good. The commands are those that an operator types.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use bellwether_client::{BrokerAddress, BrokerId, Recover, RecoverError};
use bellwether_integration_tests::binary::bellwether;
use bellwether_integration_tests::eventually::eventually;
use serde_json::Value;

use super::story::{PATIENCE, Story};

/// What a command answered: its exit code, its JSON (or null), and what it said on standard error.
pub(super) struct Answer {
    pub code: Option<i32>,
    pub json: Value,
    pub errors: String,
}

impl Story {
    /// A command of the binary, answered in JSON. It has no terminal.
    pub(super) async fn asks(&self, arguments: &[&str]) -> Answer {
        let mut command = Command::new(bellwether().unwrap());
        command.args(arguments).args(["--json", "--timeout", "30s"]);
        command.args(["--connect", &self.cluster.addresses().join(",")]).stdin(Stdio::null());
        let ran = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        Answer {
            code: ran.status.code(),
            json: serde_json::from_slice(&ran.stdout).unwrap_or_default(),
            errors: String::from_utf8_lossy(&ran.stderr).into_owned(),
        }
    }

    async fn explained(&self, verdict: &str) -> Value {
        let fact = format!("the verdict {verdict:?}");
        let seen = eventually(&fact, PATIENCE, async || {
            let answer = self.asks(&["queue", "explain", "orders"]).await;
            ensure!(answer.json["verdict"] == verdict, "{:#} {}", answer.json, answer.errors);
            Ok(answer.json)
        });
        seen.await.unwrap()
    }

    /// 300 messages on all three brokers, and then up to 700 on two of them. Says which one lacks those, and the other two.
    async fn with_one_that_lags(&mut self) -> (u32, [u32; 2]) {
        self.queue("orders").await;
        self.publish("orders", 300).await;
        let seen = self.driver.describe("orders").await.unwrap();
        let lags = seen.replicas.iter().copied().find(|id| Some(*id) != seen.leader).unwrap();
        self.cluster.broker(lags).kill().unwrap();
        let without = self.cluster.until("orders", "one lags", |now| !now.in_sync.contains(&lags));
        without.await.unwrap();
        self.publish("orders", 700).await;
        let noted = eventually("the leader to write down how far it is", PATIENCE, async || {
            let seen = self.driver.client().queue_condition("orders").await?.committed;
            let noted = seen.context("nothing is noted")?.enqueued;
            ensure!(noted == 700, "{noted}");
            Ok(())
        });
        noted.await.unwrap();
        let others: Vec<u32> = seen.replicas.into_iter().filter(|id| *id != lags).collect();
        (lags, others.try_into().unwrap())
    }

    /// The two that were in sync are killed, and the one that lags comes back alone.
    async fn loses_the_in_sync(&mut self, lags: u32, others: [u32; 2]) {
        // At once: else the one that is left would take the other out of the in-sync set.
        self.cluster.kill_all().unwrap();
        for broker in others {
            assert!(!self.cluster.broker(broker).is_running());
        }
        self.cluster.broker(lags).start().unwrap();
        self.cluster.broker(lags).ready().await.unwrap();
        self.explained("no leader").await;
    }

    async fn is_well_with_the_first_300(&mut self) {
        self.cluster.start_brokers().await.unwrap();
        self.cluster.whole(&["orders"]).await.unwrap();
        assert_eq!(self.drain("orders").await, (0..300).collect::<Vec<_>>());
        let raised = eventually("min-isr to be raised again", PATIENCE, async || {
            let seen = self.driver.client().queue_condition("orders").await?;
            ensure!(seen.queue.min_isr == 2, "{seen:?}");
            Ok(seen)
        });
        let taint = raised.await.unwrap().taint.expect("that a leader was forced is not forgotten");
        assert_eq!((taint.lost, taint.more), (400, true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_queue_says_who_leads_why_and_what_is_missing_and_remembers_it() {
    let mut story = Story::begins().await;
    story.queue("orders").await;
    assert!(story.explained("healthy").await["missing"].as_array().unwrap().is_empty());
    let killed = story.cluster.kill_leader_of("orders").await.unwrap();
    story.led_by_another("orders", killed).await;
    let now = story.cluster.leader_of("orders").await.unwrap();
    let gone = format!("Broker {killed} (not in sync) is not live");
    // As long as its session is not over it is said not to answer.
    let missed = eventually("it to be said who is missing", PATIENCE, async || {
        let said = story.explained("copy missing").await;
        ensure!(said["missing"].to_string().contains(&gone), "{said:#}");
        Ok(())
    });
    missed.await.unwrap();

    let elected = async |story: &Story| {
        let answer = story.asks(&["elections", "orders"]).await;
        let elections = answer.json.as_array().cloned().unwrap_or_default();
        elections.into_iter().find(|election| election["epoch"] == 2).expect("it is remembered")
    };
    let election = elected(&story).await;
    assert_eq!(election["trigger"], "process gone", "{election:#}");
    assert_eq!(election["from"]["broker"], killed);
    assert_eq!(election["to"]["broker"], now);
    story.cluster.kill_all().unwrap();
    story.cluster.start_brokers().await.unwrap();
    story.cluster.whole(&["orders"]).await.unwrap();
    assert_eq!(elected(&story).await, election, "and outlives the brokers");
    let all = story.asks(&["elections", "--limit", "1"]).await.json;
    assert_eq!(all.as_array().map(Vec::len), Some(1));
    let absent = story.asks(&["queue", "explain", "nowhere"]).await;
    assert_eq!(absent.code, Some(1));
    assert!(absent.errors.contains("there is no queue nowhere"), "{}", absent.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_of_three_disks_gone_the_loss_is_shown_to_the_message_before_it_is_accepted() {
    let mut story = Story::begins().await;
    let (lags, others) = story.with_one_that_lags().await;
    story.loses_the_in_sync(lags, others).await;
    for broker in others {
        story.cluster.broker(broker).wipe().unwrap();
    }
    let preview = story.asks(&["recover", "orders"]).await.json;
    let best = &preview["prospects"][0];
    assert_eq!(preview["obstacle"], Value::Null, "{preview:#}");
    assert_eq!((&best["broker"], &best["lost"]), (&lags.into(), &400.into()), "{preview:#}");
    assert_eq!(best["messages"], 300);

    let unasked = story.asks(&["recover", "orders", "--force"]).await;
    assert_eq!(unasked.code, Some(2), "{}", unasked.errors);
    assert!(unasked.errors.contains("--yes"), "{}", unasked.errors);
    story.explained("no leader").await;
    let forced = story.asks(&["recover", "orders", "--force", "--yes"]).await;
    assert_eq!(forced.code, Some(0), "{}", forced.errors);
    assert_eq!(forced.json["leader"], lags);
    let again = story.asks(&["recover", "orders", "--force", "--yes"]).await;
    assert_eq!(again.code, Some(1));
    assert!(again.errors.contains("nothing to recover"), "{}", again.errors);
    story.is_well_with_the_first_300().await;
}

/// Promises G2 and G8: what it confirmed was given up, and must not come back with it.
#[tokio::test(flavor = "multi_thread")]
async fn those_that_were_given_up_and_come_back_follow_and_what_was_lost_stays_lost() {
    let mut story = Story::begins().await;
    let (lags, others) = story.with_one_that_lags().await;
    story.loses_the_in_sync(lags, others).await;
    let forced = story.asks(&["recover", "orders", "--force", "--yes"]).await;
    assert_eq!(forced.code, Some(0), "{}", forced.errors);
    story.is_well_with_the_first_300().await;
    for broker in others {
        let stopped = story.cluster.broker(broker).metric("bellwether_queues_stopped").await;
        assert_eq!(stopped.unwrap(), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_in_sync_copy_that_comes_back_after_the_look_leads_and_nothing_is_lost() {
    let mut story = Story::begins().await;
    let (lags, others) = story.with_one_that_lags().await;
    story.loses_the_in_sync(lags, others).await;
    let client = story.driver.client();
    let shown = client.queue_condition("orders").await.unwrap();
    let live = shown.live.iter().find(|live| live.life.broker.0 == lags).unwrap();
    let address = BrokerAddress { broker: BrokerId(lags), address: live.address.clone() };
    let status = client.replica_status(&address, "orders", true, None, PATIENCE).await.unwrap();
    let copy = status.copy.expect("it has a copy");
    let order = Recover {
        queue: shown.queue.name.clone(),
        version: shown.version,
        last_epoch: copy.last_epoch,
        log_end: copy.log_end,
        given_up: shown.isr.clone(),
        lost: 400,
        more: true,
    };
    story.cluster.start_brokers().await.unwrap();
    let led = story.cluster.leader_of("orders").await.unwrap();
    assert!(others.contains(&led), "broker {led} lacks messages");
    let refused = story.driver.client().recover(&address, order).await;
    assert!(matches!(refused, Err(RecoverError::Changed { .. })), "{refused:?}");
    story.cluster.whole(&["orders"]).await.unwrap();
    assert_eq!(story.drain("orders").await, (0..700).collect::<Vec<_>>());
}
