//! `bellwether consume`: bodies to standard output, each acknowledged after it was written.

use std::io::Write as _;
use std::time::Duration;

use bellwether_client::{
    Client, Consumer, Delivery, HeaderValue, Outcome, QueueName, SettleError, Settled,
};
use clap::Args;
use futures::FutureExt as _;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::ClientArgs;
use crate::outcome::Failure;
use crate::progress;
use crate::signals::Signals;

/// Messages written and acknowledged together.
const BATCH_MAX: usize = 500;
/// Batches whose acknowledgement is waited for.
const SETTLES_MAX: usize = 64;
/// Without --follow and --count: nothing has come for so long, so ask whether the queue is empty.
const QUIET: Duration = Duration::from_millis(500);

/// Flags of `consume`.
#[derive(Args, Debug)]
#[command(
    after_help = "Without --count and --follow, it ends when no message waits in the queue.\n\
    A message is acknowledged once its body is written; what could not be written goes back to its queue."
)]
pub struct ConsumeArgs {
    /// From this queue
    queue: QueueName,
    /// End after so many messages; wait for them when there are fewer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Go on waiting for more
    #[arg(long, conflicts_with = "count")]
    follow: bool,
    /// At most so many messages taken and not acknowledged
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    prefetch: u32,
    #[command(flatten)]
    client: ClientArgs,
}

/// Consumes until there is no more, or enough.
pub async fn run(args: ConsumeArgs) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    let client = args.client.client().await?;
    // Not more than asked for, lest messages beyond are taken from other consumers only to be given back.
    let wanted = args
        .count
        .map_or(args.prefetch, |count| args.prefetch.min(u32::try_from(count).unwrap_or(u32::MAX)));
    let mut consumer = client.consumer(args.queue.as_str()).prefetch(wanted).start().await?;
    let bar = progress::bar(&progress::board(), "received", args.count);
    let settles = Settles::start();
    let mut writer = Writer { args: &args, taken: 0, bar };
    let consumed = tokio::select! {
        consumed = writer.consume(&client, &mut consumer, &settles) => consumed,
        // For --follow, a signal is the usual end. What was taken and not written goes back.
        () = signals.next() => if args.follow { Ok(()) } else { Err(Failure::Interrupted) },
    };
    writer.bar.finish_and_clear();
    consumer.close().await;
    consumed.and(settles.verdict().await)
}

struct Writer<'a> {
    args: &'a ConsumeArgs,
    taken: u64,
    bar: ProgressBar,
}

impl Writer<'_> {
    async fn consume(
        &mut self,
        client: &Client,
        consumer: &mut Consumer,
        settles: &Settles,
    ) -> Result<(), Failure> {
        while self.left() > 0 {
            let Some(batch) = self.batch(client, consumer).await? else { return Ok(()) };
            self.taken += batch.len() as u64;
            self.write(&batch)?;
            self.bar.inc(batch.len() as u64);
            settles.expect(consumer.ack_all(batch)).await;
        }
        Ok(())
    }

    fn left(&self) -> u64 {
        self.args.count.map_or(u64::MAX, |count| count.saturating_sub(self.taken))
    }

    /// What is there now, at least one; `None` when there is no more.
    async fn batch(
        &self,
        client: &Client,
        consumer: &mut Consumer,
    ) -> Result<Option<Vec<Delivery>>, Failure> {
        let Some(first) = self.first(client, consumer).await? else { return Ok(None) };
        let most = usize::try_from(self.left()).unwrap_or(usize::MAX).min(BATCH_MAX);
        let mut batch = vec![first];
        while batch.len() < most {
            match consumer.next().now_or_never() {
                Some(Some(next)) => batch.push(next?),
                Some(None) | None => break,
            }
        }
        Ok(Some(batch))
    }

    async fn first(
        &self,
        client: &Client,
        consumer: &mut Consumer,
    ) -> Result<Option<Delivery>, Failure> {
        let patient = self.args.follow || self.args.count.is_some();
        loop {
            let next = consumer.next();
            if patient {
                return Ok(next.await.transpose()?);
            }
            match tokio::time::timeout(QUIET, next).await {
                Ok(next) => return Ok(next.transpose()?),
                Err(_) if client.describe(&self.args.queue).await?.counts.ready == 0 => {
                    return Ok(None);
                }
                // More is on its way, perhaps from a new leader.
                Err(_) => (),
            }
        }
    }

    /// Written and flushed, so that nothing is acknowledged that the reader cannot have.
    fn write(&self, batch: &[Delivery]) -> Result<(), Failure> {
        self.bar.suspend(|| {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            for delivery in batch {
                if self.args.client.json {
                    serde_json::to_writer(&mut out, &as_json(&self.args.queue, delivery))
                        .map_err(std::io::Error::from)?;
                } else {
                    out.write_all(delivery.body())?;
                }
                out.write_all(b"\n")?;
            }
            Ok(out.flush()?)
        })
    }
}

fn as_json(queue: &QueueName, delivery: &Delivery) -> Value {
    let mut value = json!({
        "queue": queue.as_str(),
        "offset": delivery.offset(),
        "epoch": delivery.epoch(),
        "redelivered": delivery.redelivered(),
        "returns": delivery.returns(),
        "time_ms": delivery.time_ms(),
        "exchange": delivery.exchange(),
        "routing_key": delivery.routing_key(),
    });
    if let Ok(headers) = delivery.headers()
        && !headers.0.is_empty()
    {
        value["headers"] =
            headers.0.iter().map(|(name, header)| (name.clone(), header_json(header))).collect();
    }
    // A body that is no text would come out changed.
    match std::str::from_utf8(delivery.body()) {
        Ok(text) => value["body"] = json!(text),
        Err(_) => value["body_hex"] = json!(hex(delivery.body())),
    }
    value
}

pub(super) fn header_json(header: &HeaderValue) -> Value {
    match header {
        HeaderValue::Nil => Value::Null,
        HeaderValue::Bool(truth) => json!(truth),
        HeaderValue::UInt(number) => json!(number),
        HeaderValue::Int(number) => json!(number),
        HeaderValue::Float(number) => json!(number),
        HeaderValue::Text(text) => json!(text),
        HeaderValue::Binary(bytes) => json!({ "hex": hex(bytes) }),
        HeaderValue::List(values) => values.iter().map(header_json).collect(),
        HeaderValue::Map(values) => {
            values.iter().map(|(name, value)| (name.clone(), header_json(value))).collect()
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits for the outcomes of acknowledgements while further messages are written.
struct Settles {
    open: mpsc::Sender<Settled>,
    counting: JoinHandle<Result<(), SettleError>>,
}

impl Settles {
    fn start() -> Settles {
        let (open, mut coming) = mpsc::channel::<Settled>(SETTLES_MAX);
        let counting = tokio::spawn(async move {
            let mut unknown = Ok(());
            while let Some(settled) = coming.recv().await {
                match settled.await {
                    Ok(()) => (),
                    // They come again, to this consumer or another: said, and no failure.
                    Err(error) if error.outcome() == Outcome::NotDone => {
                        eprintln!("warning: {error}")
                    }
                    Err(error) => unknown = unknown.and(Err(error)),
                }
            }
            unknown
        });
        Settles { open, counting }
    }

    async fn expect(&self, settled: Settled) {
        // The task ends only when this sender is gone.
        let _taken = self.open.send(settled).await;
    }

    async fn verdict(self) -> Result<(), Failure> {
        drop(self.open);
        let counted = self.counting.await.map_err(|error| Failure::NotDone(error.to_string()))?;
        counted.map_err(|error| {
            Failure::Unknown(format!(
                "some messages were written, but perhaps not acknowledged: {error}"
            ))
        })
    }
}
