//! What waiting messages cost: memory, the time of a restart, and disk while another queue turns over.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bellwether_integration_tests::cluster::Cluster;
use bellwether_integration_tests::driver::{Driver, Pending};
use bytes::Bytes;
use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;

const WINDOW: usize = 2_000;

#[derive(Debug, Args)]
pub struct Options {
    /// Messages that wait
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Bytes of a message
    #[arg(long, default_value_t = 1_024)]
    size: usize,
}

#[derive(Debug, Args)]
pub struct ChurnOptions {
    /// Messages that stay in the idle queue
    #[arg(long, default_value_t = 100_000)]
    idle: u64,
    /// Messages that pass through the other
    #[arg(long, default_value_t = 10_000_000)]
    messages: u64,
    /// Bytes of a message
    #[arg(long, default_value_t = 1_024)]
    size: usize,
}

pub async fn run(mut cluster: Cluster, options: &Options) -> Result<bool> {
    let driver = cluster.driver().await?;
    driver.declare_queue("trial", 3, None).await?;
    let begun = Instant::now();
    publish(&driver, "trial", options.messages, options.size).await?;
    let published_per_second = options.messages as f64 / begun.elapsed().as_secs_f64();
    println!("{} messages published, {published_per_second:.0} a second", options.messages);
    let resident = resident(&mut cluster)?;

    let mut restarts_ms = Vec::new();
    for id in [1, 2, 3] {
        cluster.whole(&["trial"]).await?;
        cluster.broker(id).kill()?;
        let begun = Instant::now();
        cluster.broker(id).start()?;
        cluster.broker(id).ready().await?;
        restarts_ms.push(begun.elapsed().as_millis() as u64);
        println!("broker {id} was ready again after {} ms", restarts_ms[restarts_ms.len() - 1]);
    }
    cluster.whole(&["trial"]).await?;
    let waiting = cluster.driver().await?.describe("trial").await?.counts.ready;
    let resident_after = self::resident(&mut cluster)?;
    let report = json!({
        "trial": "backlog",
        "messages": options.messages,
        "size": options.size,
        "published_per_second": published_per_second.round(),
        "resident_mib": resident,
        "resident_mib_after_restart": resident_after,
        "restart_ms": restarts_ms,
        "waiting_after_restarts": waiting,
        "ok": waiting == options.messages,
    });
    println!("{report}");
    Ok(waiting == options.messages)
}

pub async fn churn(mut cluster: Cluster, options: &ChurnOptions) -> Result<bool> {
    let driver = cluster.driver().await?;
    driver.declare_queue("idle", 3, None).await?;
    driver.declare_queue("busy", 3, None).await?;
    publish(&driver, "idle", options.idle, options.size).await?;
    let consumer = tokio::spawn(drain(cluster.driver().await?, options.messages));
    let producer = cluster.driver().await?;
    let (messages, size) = (options.messages, options.size);
    let publishing = tokio::spawn(async move { publish(&producer, "busy", messages, size).await });
    let mut disk_most = vec![0; cluster.brokers().len()];
    while !consumer.is_finished() {
        for (most, broker) in disk_most.iter_mut().zip(cluster.brokers()) {
            *most = broker.disk_bytes()?.max(*most);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    publishing.await??;
    consumer.await??;
    let live = options.idle * options.size as u64;
    let limit = 2 * live + (1 << 30);
    let idle = driver.describe("idle").await?.counts.ready;
    let ok = idle == options.idle && disk_most.iter().all(|&most| most <= limit);
    let mib = |bytes: u64| bytes >> 20;
    let report = json!({
        "trial": "churn",
        "idle": options.idle,
        "messages": options.messages,
        "size": options.size,
        "disk_most_mib": disk_most.iter().map(|&most| mib(most)).collect::<Vec<_>>(),
        "disk_limit_mib": mib(limit),
        "idle_after": idle,
        "ok": ok,
    });
    println!("{report}");
    Ok(ok)
}

/// Publishes so many messages and waits for their confirms.
async fn publish(driver: &Driver, queue: &str, messages: u64, size: usize) -> Result<()> {
    let sender = driver.producer(&format!("trial-{queue}"), "", queue, WINDOW).await?;
    let (pending, mut receipts) = mpsc::channel::<Pending>(WINDOW);
    let waiting = tokio::spawn(async move {
        while let Some(receipt) = receipts.recv().await {
            receipt.outcome().await.map_err(|failure| anyhow::anyhow!(failure.why))?;
        }
        anyhow::Ok(())
    });
    let body = Bytes::from(vec![b'x'; size]);
    for _ in 0..messages {
        let receipt =
            sender.send(body.clone()).await.map_err(|failure| anyhow::anyhow!(failure.why))?;
        if pending.send(receipt).await.is_err() {
            break;
        }
    }
    drop(pending);
    waiting.await??;
    sender.close().await;
    Ok(())
}

/// Takes and acknowledges so many messages.
async fn drain(driver: Driver, messages: u64) -> Result<()> {
    let mut inbox =
        driver.consumer("busy", 2_000).await.map_err(|failure| anyhow::anyhow!(failure.why))?;
    let mut last = None;
    for _ in 0..messages {
        last = Some(inbox.next().await.context("the consumer was detached")?.ack());
    }
    if let Some(last) = last {
        last.await.map_err(|failure| anyhow::anyhow!(failure.why))?;
    }
    inbox.close().await;
    Ok(())
}

/// Resident memory of each broker in MiB.
fn resident(cluster: &mut Cluster) -> Result<Vec<u64>> {
    cluster.brokers().iter().map(|broker| Ok(broker.resident_bytes()? >> 20)).collect()
}
