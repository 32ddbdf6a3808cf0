//! Messages a second from producers through replicated queues to consumers, and how long a confirm takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bellwether_integration_tests::cluster::Cluster;
use bellwether_integration_tests::driver::{Driver, Inbox, Pending, Sender};
use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

#[derive(Debug, Args)]
pub struct Options {
    /// How long is measured, after a warm-up of a fifth of it
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Bytes of a message
    #[arg(long, default_value_t = 1_024)]
    size: usize,
    /// Most unconfirmed messages of a producer; 1: one message at a time
    #[arg(long, default_value_t = 1_000)]
    window: usize,
    /// Queues, each with a consumer
    #[arg(long, default_value_t = 1)]
    queues: usize,
    /// Producers, spread over the queues
    #[arg(long, default_value_t = 1)]
    producers: usize,
    /// Unsettled messages of a consumer
    #[arg(long, default_value_t = 2_000)]
    prefetch: u32,
}

#[derive(Default)]
struct Flow {
    confirmed: AtomicU64,
    settled: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
}

pub async fn run(cluster: Cluster, options: &Options) -> Result<bool> {
    let (reach, flow) = (cluster.reach(), Arc::new(Flow::default()));
    let driver = cluster.driver().await?;
    let mut consumers = JoinSet::new();
    for queue in 0..options.queues {
        let name = format!("trial-{queue}");
        driver.declare_queue(&name, 3, None).await?;
        let inbox =
            Driver::connect(&reach, "consumer").await?.consumer(&name, options.prefetch).await;
        let inbox = inbox.map_err(|failure| anyhow::anyhow!(failure.why))?;
        consumers.spawn(consume(inbox, Arc::clone(&flow)));
    }
    let mut producers = JoinSet::new();
    for number in 0..options.producers.max(options.queues.min(options.producers)) {
        let queue = format!("trial-{}", number % options.queues);
        let driver = Driver::connect(&reach, "producer").await?;
        let sender =
            driver.producer(&format!("trial-{number}"), "", &queue, options.window).await?;
        producers.spawn(produce(sender, Arc::clone(&flow), options.size, options.window));
    }
    tokio::time::sleep(Duration::from_secs(options.seconds) / 5).await;
    let begun = Instant::now();
    let start = (flow.confirmed.load(Ordering::Relaxed), flow.settled.load(Ordering::Relaxed));
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let end = (flow.confirmed.load(Ordering::Relaxed), flow.settled.load(Ordering::Relaxed));
    let seconds = begun.elapsed().as_secs_f64();
    flow.stop.store(true, Ordering::Relaxed);
    let mut micros = Histogram::<u64>::new(3)?;
    while let Some(ended) = producers.join_next().await {
        micros.add(ended??)?;
    }
    consumers.shutdown().await;
    let failed = flow.failed.load(Ordering::Relaxed);
    let report = json!({
        "trial": "throughput",
        "size": options.size,
        "window": options.window,
        "queues": options.queues,
        "producers": options.producers,
        "confirmed_per_second": ((end.0 - start.0) as f64 / seconds).round(),
        "settled_per_second": ((end.1 - start.1) as f64 / seconds).round(),
        "confirm_p50_ms": micros.value_at_quantile(0.5) as f64 / 1e3,
        "confirm_p99_ms": micros.value_at_quantile(0.99) as f64 / 1e3,
        "failed": failed,
        "ok": failed == 0,
    });
    println!("{report}");
    Ok(failed == 0)
}

async fn produce(
    sender: Sender,
    flow: Arc<Flow>,
    size: usize,
    window: usize,
) -> Result<Histogram<u64>> {
    let body = Bytes::from(vec![b'x'; size]);
    let (pending, receipts) = mpsc::channel(window);
    let waiting = tokio::spawn(take_receipts(receipts, Arc::clone(&flow)));
    while !flow.stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        match sender.send(body.clone()).await {
            Ok(receipt) => pending.send((sent, receipt)).await?,
            Err(_) => {
                flow.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    drop(pending);
    let micros = waiting.await??;
    sender.close().await;
    Ok(micros)
}

async fn take_receipts(
    mut receipts: mpsc::Receiver<(Instant, Pending)>,
    flow: Arc<Flow>,
) -> Result<Histogram<u64>> {
    let mut micros = Histogram::new(3)?;
    while let Some((sent, receipt)) = receipts.recv().await {
        match receipt.outcome().await {
            Ok(()) => flow.confirmed.fetch_add(1, Ordering::Relaxed),
            Err(_) => flow.failed.fetch_add(1, Ordering::Relaxed),
        };
        micros.record(sent.elapsed().as_micros() as u64)?;
    }
    Ok(micros)
}

async fn consume(mut inbox: Inbox, flow: Arc<Flow>) {
    let (settles, mut settling) = mpsc::channel(10_000);
    tokio::spawn({
        let flow = Arc::clone(&flow);
        async move {
            while let Some(settled) = settling.recv().await {
                let settled: bellwether_integration_tests::driver::Settling = settled;
                if settled.await.is_ok() {
                    flow.settled.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    while let Some(parcel) = inbox.next().await {
        if settles.send(parcel.ack()).await.is_err() {
            return;
        }
    }
}
