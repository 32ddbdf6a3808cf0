//! The whole ensemble is killed for a while: messages must go on as before. Then it comes back, and a declare and an election
//! must work at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bellwether_integration_tests::cluster::Cluster;
use bellwether_integration_tests::eventually::eventually;
use bellwether_integration_tests::load::{ConsumerSpec, Load, ProducerSpec, QueueSpec};
use bellwether_integration_tests::recorder::Recorder;
use clap::Args;
use serde_json::json;

const QUEUE: &str = "trial";
const SESSIONS: &str = "bellwether_coordinator_sessions_total";
const CONNECTIONS_OPENED: &str = "bellwether_client_connections_opened_total";

#[derive(Debug, Args)]
pub struct Options {
    /// How long the ensemble is away
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How long is measured before it
    #[arg(long, default_value_t = 20)]
    before: u64,
    /// Messages a second; 0: as fast as the cluster takes them
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Bytes of a message
    #[arg(long, default_value_t = 1_024)]
    size: usize,
}

pub async fn run(mut cluster: Cluster, recorder: Arc<Recorder>, options: &Options) -> Result<bool> {
    let driver = cluster.driver().await?;
    driver.declare_queue(QUEUE, 3, None).await?;
    let queue =
        QueueSpec::new(QUEUE, vec![ConsumerSpec { prefetch: 1_000, ..ConsumerSpec::default() }]);
    let producer = ProducerSpec {
        per_second: options.rate,
        bytes: options.size,
        window: 1_000,
        ..ProducerSpec::to_queue("trial", QUEUE)
    };
    let reach = cluster.reach();
    let load =
        Load::start(&reach, Arc::clone(&recorder), &[queue], vec![(producer, vec![0])]).await?;

    rates(&recorder, 5).await; // warming up
    let sums_before =
        (sum(&mut cluster, SESSIONS).await?, sum(&mut cluster, CONNECTIONS_OPENED).await?);
    let before = rates(&recorder, options.before).await;
    cluster.ensemble().kill_all()?;
    let during = rates(&recorder, options.seconds).await;
    let sums_after =
        (sum(&mut cluster, SESSIONS).await?, sum(&mut cluster, CONNECTIONS_OPENED).await?);

    cluster.ensemble().start_all().await?;
    let returned = Instant::now();
    driver.declare_queue("trial-after", 3, None).await?;
    let declare_ms = returned.elapsed().as_millis() as u64;
    recorder.watch();
    let leader = cluster.kill_leader_of(QUEUE).await?;
    let killed = Instant::now();
    eventually("another leader", Duration::from_secs(30), async || {
        let now = driver.describe(QUEUE).await?.leader;
        ensure!(now.is_some_and(|now| now != leader), "led by {now:?}");
        Ok(())
    })
    .await?;
    let election_ms = killed.elapsed().as_millis() as u64;
    let sessions_at_the_end = sum(&mut cluster, SESSIONS).await.ok();
    cluster.start_brokers().await?;
    let verdict = load.finish().await?;

    let (before, during) = (median(before), median(during));
    let report = json!({
        "trial": "ensemble-down",
        "seconds": options.seconds,
        "median_rate_before": before,
        "median_rate_during": during,
        "ratio": during as f64 / before.max(1) as f64,
        "new_sessions": sums_after.0 - sums_before.0,
        "new_client_connections": sums_after.1 - sums_before.1,
        "sessions_of_the_surviving_brokers_at_the_end": sessions_at_the_end,
        "declare_ms": declare_ms,
        "election_ms": election_ms,
        "ok": verdict.is_clean() && verdict.refused == 0,
        "verdict": verdict,
    });
    println!("{report}");
    Ok(verdict.is_clean() && verdict.refused == 0)
}

/// Settled messages of each second.
async fn rates(recorder: &Recorder, seconds: u64) -> Vec<u64> {
    let mut rates = Vec::new();
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.tick().await;
    let mut last = recorder.progress().settled;
    for _ in 0..seconds {
        every.tick().await;
        let settled = recorder.progress().settled;
        rates.push(settled - last);
        last = settled;
    }
    rates
}

fn median(mut rates: Vec<u64>) -> u64 {
    rates.sort_unstable();
    rates.get(rates.len() / 2).copied().unwrap_or(0)
}

/// A metric summed over the running brokers.
async fn sum(cluster: &mut Cluster, metric: &str) -> Result<f64> {
    let mut sum = 0.0;
    for broker in cluster.brokers().iter().filter(|broker| broker.is_running()) {
        sum += broker.metric(metric).await?;
    }
    Ok(sum)
}
