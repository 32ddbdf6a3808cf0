//! One broker that leads thousands of queues is killed: how long until every one of them is led, and takes messages, again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bellwether_client::{BrokerId, ClusterStatus, Drain};
use bellwether_integration_tests::broker::Broker;
use bellwether_integration_tests::cluster::Cluster;
use bellwether_integration_tests::driver::Driver;
use bellwether_integration_tests::eventually::eventually;
use bytes::Bytes;
use clap::Args;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Declarations that are under way at once.
const AT_ONCE: usize = 64;
/// Pause between two looks at the cluster while it heals. A look walks over all queues.
const LOOK: Duration = Duration::from_millis(50);
/// Leaderships settle for 5 s before they move, and the cluster's queues are counted as often.
const SETTLES: Duration = Duration::from_secs(10);
/// Nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(300);
/// Who leads everything, and is killed.
const KILLED: BrokerId = BrokerId(1);

#[derive(Debug, Args)]
pub struct Options {
    /// Queues, with three copies each
    #[arg(long, default_value_t = 5_000)]
    queues: u32,
    /// Before that, nothing is done for so long, and it is measured what the queues cost the brokers meanwhile
    #[arg(long, default_value_t = 0)]
    idle_seconds: u64,
    /// Queues that a message is published to when all are led again
    #[arg(long, default_value_t = 100)]
    samples: u32,
}

pub async fn run(mut cluster: Cluster, options: &Options, folder: Option<&Path>) -> Result<bool> {
    let driver = cluster.driver().await?;
    let begun = Instant::now();
    declare(&driver, options.queues).await?;
    let declared = begun.elapsed();
    println!("{} queues were declared in {declared:?}", options.queues);

    let all = u64::from(options.queues);
    let idle = Duration::from_secs(options.idle_seconds);
    let mut idle_cpu_percent = Vec::new();
    if !idle.is_zero() {
        until(&driver, "every queue to be whole", |status| status.queues_under_replicated == 0)
            .await?;
        idle_cpu_percent = cpu_percent_of(&mut cluster, idle).await?;
        println!("of a core, doing nothing for {idle:?}, in percent: {idle_cpu_percent:.2?}");
    }
    let others: Vec<BrokerId> = cluster.brokers().iter().map(|one| BrokerId(one.id())).collect();
    for broker in others.into_iter().filter(|broker| *broker != KILLED) {
        driver.client().drain(broker, Some(Drain::Leaderships)).await?;
    }
    until(&driver, "one broker to lead every queue", |status| {
        leads(status, |broker| broker == KILLED) == all && status.queues_under_replicated == 0
    })
    .await?;
    println!("broker {KILLED} leads them all");

    cluster.broker(KILLED.0).kill()?;
    let begun = Instant::now();
    let mut led = 0;
    while led < all {
        ensure!(begun.elapsed() < PATIENCE, "only {led} of {all} queues are led again");
        tokio::time::sleep(LOOK).await;
        // A broker may go away while it is asked.
        if let Ok(status) = driver.client().cluster_status().await {
            led = leads(&status, |broker| broker != KILLED);
        }
    }
    let led_again = begun.elapsed();
    println!("every queue was led again after {led_again:?}");
    if let Some(folder) = folder {
        cluster.ensemble().keep_logs(folder)?;
    }
    let step = (options.queues / options.samples.max(1)).max(1);
    for queue in (0..options.queues).step_by(step as usize) {
        let name = name(queue);
        let sender = driver.producer(&format!("trial-{name}"), "", &name, 1).await?;
        let confirmed = sender.confirm(Bytes::from_static(b"still there")).await;
        confirmed.map_err(|failure| anyhow::anyhow!("{name}: {}", failure.why))?;
        sender.close().await;
    }
    let report = json!({
        "trial": "many-queues",
        "queues": options.queues,
        "declared_ms": declared.as_millis() as u64,
        "idle_cpu_percent": idle_cpu_percent,
        "led_again_ms": led_again.as_millis() as u64,
        "samples_confirmed_after_ms": begun.elapsed().as_millis() as u64,
        "ok": true,
    });
    println!("{report}");
    Ok(true)
}

/// Of one core, of each broker.
async fn cpu_percent_of(cluster: &mut Cluster, time: Duration) -> Result<Vec<f64>> {
    let used = |cluster: &mut Cluster| {
        cluster.brokers().iter().map(Broker::cpu_time).collect::<Result<Vec<Duration>>>()
    };
    // What the last declaration left behind comes to rest first.
    tokio::time::sleep(SETTLES).await;
    let before = used(cluster)?;
    tokio::time::sleep(time).await;
    let after = used(cluster)?;
    let spent = after.iter().zip(&before).map(|(after, before)| *after - *before);
    Ok(spent.map(|spent| 100.0 * spent.as_secs_f64() / time.as_secs_f64()).collect())
}

async fn declare(driver: &Driver, queues: u32) -> Result<()> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut declaring = JoinSet::new();
    for queue in 0..queues {
        let place = Arc::clone(&places).acquire_owned().await?;
        let driver = driver.clone();
        declaring.spawn(async move {
            let declared = driver.declare_queue(&name(queue), 3, None).await;
            drop(place);
            declared
        });
    }
    while let Some(declared) = declaring.join_next().await {
        declared.context("a declaration was cut off")??;
    }
    Ok(())
}

async fn until(driver: &Driver, fact: &str, holds: impl Fn(&ClusterStatus) -> bool) -> Result<()> {
    eventually(fact, PATIENCE, async || {
        let status = driver.client().cluster_status().await?;
        ensure!(holds(&status), "{status:?}");
        Ok(())
    })
    .await
}

fn leads(status: &ClusterStatus, whom: impl Fn(BrokerId) -> bool) -> u64 {
    let brokers = status.brokers.iter().filter(|broker| whom(broker.address.broker));
    brokers.map(|broker| broker.leads).sum()
}

fn name(queue: u32) -> String {
    format!("q{queue:05}")
}
