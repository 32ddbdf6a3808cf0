//! `bellwether demo`: the promise, shown. A leader is killed in the middle of the work, and everything is counted.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_client::{BrokerId, Client, Consumer, Described, ExchangeKind, Producer};
use clap::Args;
use futures::FutureExt as _;
use indicatif::{MultiProgress, ProgressBar};
use serde_json::json;
use tokio::task::JoinHandle;

use super::score::{STAMP_BYTES, Score};
use super::tally::Count;
use super::{LocalArgs, LocalCluster, with_cluster};
use crate::commands::confirms::{Confirms, Outcomes};
use crate::commands::table::{counted, grouped, listed, print_json};
use crate::outcome::Failure;
use crate::progress;
use crate::values::ByteSize;

/// Name of the exchange, the queue and the routing key.
const DEMO: &str = "demo";
/// Deliveries acknowledged together.
const ACKS_MAX: usize = 500;
/// When nothing more has arrived for so long, what is missing is lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Flags of `demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// How many brokers; with fewer than three, none could be spared
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=9))]
    brokers: u16,
    /// How many messages
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    count: u32,
    /// How large they are
    #[arg(long, value_name = "SIZE", default_value = "1KiB")]
    size: ByteSize,
    /// End with one JSON object: confirmed, received, lost, duplicates, failover_ms
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    local: LocalArgs,
}

/// Runs the demonstration. Done only if nothing was lost.
pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    let stage = Stage { board: progress::board(), json: args.json };
    stage.say(&format!(
        "Starting {}, each a process of its own …",
        counted(u64::from(args.brokers), "broker", "brokers")
    ))?;
    let began = Instant::now();
    with_cluster(args.brokers, &args.local, async |cluster| {
        stage.say(&format!("They are ready after {:.1} s.", began.elapsed().as_secs_f64()))?;
        perform(cluster, &args, &stage).await
    })
    .await
}

/// Where the demonstration is seen: standard output, or standard error when that is for JSON.
struct Stage {
    board: MultiProgress,
    json: bool,
}

impl Stage {
    fn say(&self, words: &str) -> Result<(), Failure> {
        self.board.suspend(|| match self.json {
            true => writeln!(std::io::stderr(), "{words}"),
            false => writeln!(std::io::stdout(), "{words}"),
        })?;
        Ok(())
    }
}

async fn perform(
    cluster: &mut LocalCluster,
    args: &DemoArgs,
    stage: &Stage,
) -> Result<(), Failure> {
    let addresses = cluster.addresses();
    let client = Client::connect(&addresses).await?;
    let first = set_up(&client).await?;
    stage.say(&format!(
        "Queue {DEMO}, bound to exchange {DEMO}: kept by brokers {}, led by broker {}.",
        listed(&first.queue.replicas),
        listed(first.queue.leader),
    ))?;

    let score = Score::new(args.count);
    let total = u64::from(args.count);
    let confirmed_bar = progress::bar(&stage.board, "confirmed", Some(total));
    let received_bar = progress::bar(&stage.board, "received", Some(total));
    stage.say(&format!(
        "Publishing and consuming {} of {} …",
        counted(total, "message", "messages"),
        args.size
    ))?;
    let consuming = start_consumer(&addresses, &score, received_bar.clone()).await?;
    let producing = start_producer(&addresses, &score, args.size, confirmed_bar.clone()).await?;

    score.half.notified().await;
    kill_the_leader(cluster, &client, &score, stage).await?;

    let produced = producing
        .await
        .map_err(|error| Failure::NotDone(format!("the producer has failed: {error}")))?;
    let outcomes = produced?;
    let consumed = until_all_arrived(&client, &score, &consuming).await;
    consuming.abort();
    confirmed_bar.finish_and_clear();
    received_bar.finish_and_clear();
    consumed?;
    conclude(&score, outcomes, stage)
}

async fn set_up(client: &Client) -> Result<Described, Failure> {
    client.declare_exchange(DEMO, ExchangeKind::Direct).await?;
    let declared = client.declare(DEMO).await?;
    if let Some(warning) = declared.warning {
        eprintln!("warning: {warning}");
    }
    client.bind(DEMO, DEMO, DEMO).await?;
    Ok(client.describe(DEMO).await?)
}

type Running<T> = JoinHandle<Result<T, Failure>>;

async fn start_consumer(
    addresses: &[String],
    score: &Arc<Score>,
    bar: ProgressBar,
) -> Result<Running<()>, Failure> {
    let client = Client::connect(addresses).await?;
    let consumer = client.consumer(DEMO).prefetch(2 * ACKS_MAX as u32).start().await?;
    Ok(tokio::spawn(consume(consumer, Arc::clone(score), bar)))
}

async fn consume(
    mut consumer: Consumer,
    score: Arc<Score>,
    bar: ProgressBar,
) -> Result<(), Failure> {
    while let Some(first) = consumer.next().await {
        let mut batch = vec![first?];
        while batch.len() < ACKS_MAX
            && let Some(Some(next)) = consumer.next().now_or_never()
        {
            batch.push(next?);
        }
        for delivery in &batch {
            score.received(delivery.body());
        }
        bar.set_position(score.count().received);
        // An acknowledgement that comes too late means that the messages come again, and are counted as duplicates.
        drop(consumer.ack_all(batch));
    }
    Err(Failure::not_done("the consumer's stream has ended"))
}

async fn start_producer(
    addresses: &[String],
    score: &Arc<Score>,
    size: ByteSize,
    bar: ProgressBar,
) -> Result<Running<Outcomes>, Failure> {
    let client = Client::connect(addresses).await?;
    let producer = client.producer().exchange(DEMO).routing_key(DEMO).start().await?;
    let size = usize::try_from(size.0).unwrap_or(usize::MAX);
    Ok(tokio::spawn(produce(producer, Arc::clone(score), size, bar)))
}

async fn produce(
    producer: Producer,
    score: Arc<Score>,
    size: usize,
    bar: ProgressBar,
) -> Result<Outcomes, Failure> {
    let filler = vec![b'x'; size.saturating_sub(STAMP_BYTES)];
    let told = Arc::clone(&score);
    let confirms = Confirms::collect(move |number, confirmed| {
        if confirmed {
            told.confirmed(number);
        }
        bar.inc(1);
    });
    for number in 0..u64::from(score.messages) {
        let sent = Instant::now();
        let receipt = producer.send(score.body(number, &filler)).await?;
        confirms.expect(receipt, sent).await?;
    }
    confirms.finish().await
}

async fn kill_the_leader(
    cluster: &mut LocalCluster,
    client: &Client,
    score: &Score,
    stage: &Stage,
) -> Result<(), Failure> {
    let before = client.describe(DEMO).await?.queue;
    let Some(leader) = before.leader else {
        return Err(Failure::not_done("the queue has no leader that could be killed"));
    };
    let pid = cluster.running().find(|(id, ..)| *id == leader.0).map_or(0, |(_, pid, ..)| pid);
    score.seen().killed_at = Some(Instant::now());
    cluster.kill(leader.0).await?;
    stage.say(&format!("Half of them are confirmed: broker {leader}, the leader, is killed (SIGKILL, process {pid})."))?;
    let successor = successor(client, leader).await?;
    // Confirms have begun to flow again by the time the new leader answers, or are about to.
    let silence = silence(score).await;
    let ms = silence.as_millis();
    stage.say(&format!("Broker {successor} leads now: confirms stood still for {ms} ms, and nobody noticed otherwise."))
}

/// Who leads after `killed`.
async fn successor(client: &Client, killed: BrokerId) -> Result<BrokerId, Failure> {
    loop {
        match client.describe(DEMO).await?.queue.leader {
            Some(leader) if leader != killed => return Ok(leader),
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// The longest time without a confirm since the kill, once there was one after it.
async fn silence(score: &Score) -> Duration {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let silence = score.seen().silence;
        let flowing = score
            .seen()
            .last_confirm
            .is_some_and(|last| last.elapsed() < Duration::from_millis(20));
        let all = score.count().confirmed == u64::from(score.messages);
        if (flowing && !silence.is_zero()) || all || Instant::now() > deadline {
            return silence;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until everything confirmed has arrived and the queue is empty, or nothing arrives any more.
async fn until_all_arrived(
    client: &Client,
    score: &Score,
    consuming: &Running<()>,
) -> Result<(), Failure> {
    // The wait may begin long after the last arrival.
    let began = Instant::now();
    loop {
        if consuming.is_finished() {
            return Err(Failure::not_done("the consumer has ended before everything had arrived"));
        }
        if score.count().lost == 0 {
            let counts = client.describe(DEMO).await?.counts;
            if counts.ready == 0 && counts.delivered == 0 {
                return Ok(());
            }
        }
        let quiet_since = score.seen().last_arrival.max(began);
        if quiet_since.elapsed() > PATIENCE {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn conclude(score: &Score, outcomes: Outcomes, stage: &Stage) -> Result<(), Failure> {
    let Count { confirmed, received, lost, duplicates } = score.count();
    let failover_ms = score.seen().silence.as_millis();
    let rows = [
        ("confirmed", confirmed),
        ("received", received),
        ("lost", lost),
        ("duplicates", duplicates),
    ];
    for (what, count) in rows {
        stage.say(&format!("{what:>12} {:>12}", grouped(count)))?;
    }
    if duplicates > 0 {
        stage.say("(Duplicates: delivered, but the acknowledgement died with the leader. They were marked as redelivered.)")?;
    }
    if stage.json {
        let failover_ms = u64::try_from(failover_ms).unwrap_or(u64::MAX);
        print_json(&json!({
            "confirmed": confirmed, "received": received, "lost": lost, "duplicates": duplicates, "failover_ms": failover_ms,
        }))?;
    }
    if lost > 0 {
        return Err(Failure::NotDone(format!("{lost} confirmed messages were lost")));
    }
    outcomes.verdict()?;
    stage.say("Nothing was lost.")
}
