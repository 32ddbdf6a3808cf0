//! `bellwether bench`: how fast one producer and one consumer go, end to end, everything confirmed and acknowledged.

use std::time::{Duration, Instant};

use bellwether_client::{Client, Consumer, Producer, QueueOptions};
use bytes::{BufMut as _, Bytes, BytesMut};
use clap::Args;
use futures::FutureExt as _;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde_json::json;

use super::ClientArgs;
use super::confirms::{
    Confirms, Outcomes, histogram, micros, percentiles_json, percentiles_text, rate, rounded,
};
use super::table::{counted, grouped, print_json, print_line};
use crate::outcome::Failure;
use crate::progress;
use crate::values::ByteSize;

/// The stamp in front of each body: microseconds since the start.
const STAMP_BYTES: usize = 8;
/// Deliveries acknowledged together.
const ACKS_MAX: usize = 500;

/// Flags of `bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// How many messages
    #[arg(long, value_name = "N", default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// How large they are
    #[arg(long, value_name = "SIZE", default_value = "1KiB")]
    size: ByteSize,
    /// At most so many without a confirm
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    window: usize,
    /// At most so many with the consumer
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    prefetch: u32,
    /// Copies of the queue, which is made for this and deleted after
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    replicas: u8,
    #[command(flatten)]
    client: ClientArgs,
}

/// What was measured.
struct Measured {
    outcomes: Outcomes,
    end_to_end: Histogram<u64>,
    took: Duration,
}

/// Measures, and says what came of it.
pub async fn run(args: BenchArgs) -> Result<(), Failure> {
    let client = args.client.client().await?;
    let queue = format!("bench-{:08x}", rand::random::<u32>());
    let options = QueueOptions { replicas: args.replicas, ..QueueOptions::default() };
    let declared = client.declare_with(&queue, options).await?;
    if let Some(warning) = declared.warning {
        eprintln!("warning: {warning}");
    }
    let measured = measure(&client, &queue, &args).await;
    let deleted = client.delete(&queue).await;
    let measured = measured?;
    report(&measured, &args)?;
    measured.outcomes.verdict()?;
    Ok(deleted?)
}

async fn measure(client: &Client, queue: &str, args: &BenchArgs) -> Result<Measured, Failure> {
    // A client each, as two applications would have: their connections share nothing.
    let consuming = args.client.client().await?;
    let consumer = consuming.consumer(queue).prefetch(args.prefetch).start().await?;
    let producer = client.producer().to_queue(queue).window(args.window).start().await?;
    let bar = progress::bar(&progress::board(), "received", Some(args.count));
    let size = usize::try_from(args.size.0).unwrap_or(usize::MAX);
    let began = Instant::now();
    let producing = tokio::spawn(produce(producer, args.count, size, began));
    let consumed = tokio::spawn(consume(consumer, args.count, began, bar.clone()));
    let outcomes = joined(producing.await)?;
    let end_to_end = match outcomes.first_failure {
        // Not everything will arrive: do not wait for it.
        Some(_) => {
            consumed.abort();
            histogram()
        }
        None => joined(consumed.await)?,
    };
    bar.finish_and_clear();
    Ok(Measured { outcomes, end_to_end, took: began.elapsed() })
}

fn joined<T>(ended: Result<Result<T, Failure>, tokio::task::JoinError>) -> Result<T, Failure> {
    ended.unwrap_or_else(|error| {
        Err(Failure::NotDone(format!("a part of the benchmark has failed: {error}")))
    })
}

async fn produce(
    producer: Producer,
    count: u64,
    size: usize,
    began: Instant,
) -> Result<Outcomes, Failure> {
    let confirms = Confirms::collect(|_, _| ());
    let filler = Bytes::from(vec![b'x'; size.saturating_sub(STAMP_BYTES)]);
    for _ in 0..count {
        let sent = Instant::now();
        let mut body = BytesMut::with_capacity(STAMP_BYTES + filler.len());
        body.put_u64(micros(sent - began));
        body.put_slice(&filler);
        confirms.expect(producer.send(body.freeze()).await?, sent).await?;
    }
    confirms.finish().await
}

/// Takes `count` messages and acknowledges them; done when the last acknowledgement is confirmed.
async fn consume(
    mut consumer: Consumer,
    count: u64,
    began: Instant,
    bar: ProgressBar,
) -> Result<Histogram<u64>, Failure> {
    let mut latency = histogram();
    let mut taken = 0;
    while taken < count {
        let Some(first) = consumer.next().await else { break };
        let mut batch = vec![first?];
        while batch.len() < ACKS_MAX
            && let Some(Some(next)) = consumer.next().now_or_never()
        {
            batch.push(next?);
        }
        let now = micros(began.elapsed());
        for delivery in &batch {
            let stamp = delivery
                .body()
                .first_chunk()
                .map_or(now, |stamp: &[u8; STAMP_BYTES]| u64::from_be_bytes(*stamp));
            latency.saturating_record(now.saturating_sub(stamp).max(1));
        }
        taken += batch.len() as u64;
        bar.inc(batch.len() as u64);
        let settled = consumer.ack_all(batch);
        if taken >= count {
            settled.await?;
        }
    }
    Ok(latency)
}

fn report(measured: &Measured, args: &BenchArgs) -> Result<(), Failure> {
    let Measured { outcomes, end_to_end, took } = measured;
    let per_second = rate(outcomes.confirmed, *took);
    if args.client.json {
        return print_json(&json!({
            "messages": outcomes.confirmed,
            "size": args.size.0,
            "window": args.window,
            "replicas": args.replicas,
            "seconds": rounded(took.as_secs_f64()),
            "messages_per_second": rounded(per_second),
            "confirm_ms": percentiles_json(&outcomes.latency),
            "end_to_end_ms": percentiles_json(end_to_end),
            "longest_gap_ms": rounded(outcomes.longest_gap.as_secs_f64() * 1000.0),
        }));
    }
    print_line(&format!(
        "{} of {} confirmed, received and acknowledged in {:.2} s: {} a second",
        counted(outcomes.confirmed, "message", "messages"),
        args.size,
        took.as_secs_f64(),
        grouped(per_second.round() as u64),
    ))?;
    print_line(&format!("confirmed after {}", percentiles_text(&outcomes.latency)))?;
    print_line(&format!("received after  {}", percentiles_text(end_to_end)))
}
