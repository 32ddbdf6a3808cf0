//! `bellwether publish`: messages from arguments, from lines of standard input, or made up.

use std::time::{Duration, Instant};

use bellwether_client::{
    Client, ExchangeName, HeaderValue, Headers, Message, Producer, QueueName, RoutingKey,
};
use bellwether_protocol::message::MESSAGE_BYTES_MAX;
use bytes::Bytes;
use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Stdin};

use super::ClientArgs;
use super::confirms::{Confirms, Outcomes, percentiles_json, percentiles_text, rate, rounded};
use super::table::{counted, grouped, print_json, print_line};
use crate::outcome::Failure;
use crate::progress;
use crate::signals::Signals;
use crate::values::{ByteSize, Span};

/// A line of so many bytes has no room in a message, with or without its end.
const LINE_BYTES_MAX: u64 = MESSAGE_BYTES_MAX as u64 + 2;

/// Flags of `publish`.
#[derive(Args, Debug)]
#[command(
    group = clap::ArgGroup::new("where to").args(["queue", "exchange"]).required(true),
    after_help = "Without messages and without --count, every line of standard input is a message."
)]
pub struct PublishArgs {
    /// The messages' bodies
    #[arg(value_name = "MESSAGE", conflicts_with = "count")]
    messages: Vec<String>,
    /// To this queue, through the default exchange
    #[arg(long, value_name = "NAME", conflicts_with = "key")]
    queue: Option<QueueName>,
    /// To this exchange
    #[arg(long, value_name = "NAME")]
    exchange: Option<ExchangeName>,
    /// With this routing key
    #[arg(long, value_name = "KEY", default_value = "")]
    key: RoutingKey,
    /// Make up so many messages, for trials
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// How large the made-up messages are
    #[arg(long, value_name = "SIZE", default_value = "1KiB", requires = "count")]
    size: ByteSize,
    /// At most so many messages a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// At most so many messages without a confirm
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    window: usize,
    /// A header of text, for each message
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Name of the producer: with --next, what was published under this name before is not stored again
    #[arg(long, value_name = "NAME", requires = "next")]
    producer: Option<String>,
    /// Number of the first message under the name of --producer; the first ever is 1
    #[arg(long, value_name = "N", requires = "producer")]
    next: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it like NAME=VALUE".to_owned()),
    }
}

/// Publishes and says what became of it.
pub async fn run(args: PublishArgs) -> Result<(), Failure> {
    let client = args.client.client().await?;
    let producer = producer(&client, &args).await?;
    let mut source = Source::of(&args);
    let headers = headers(&args);
    let bar = progress::bar(&progress::board(), "confirmed", source.length());
    let started = Instant::now();
    let outcomes = publish(&producer, &mut source, headers.as_ref(), args.rate, bar.clone()).await;
    bar.finish_and_clear();
    let (outcomes, ended) = outcomes?;
    // What was confirmed beside a failure is worth a line; that nothing was is in its words.
    let failed = ended.is_err() || outcomes.first_failure.is_some();
    if args.client.json || outcomes.confirmed > 0 || !failed {
        report(&outcomes, started.elapsed(), args.client.json)?;
    }
    outcomes.verdict()?;
    ended
}

async fn producer(client: &Client, args: &PublishArgs) -> Result<Producer, Failure> {
    let mut builder = client.producer().window(args.window);
    builder = match (&args.queue, &args.exchange) {
        (Some(queue), _) => builder.to_queue(queue.as_str()),
        (None, exchange) => {
            let exchange = exchange.as_ref().map_or("", ExchangeName::as_str);
            builder.exchange(exchange).routing_key(args.key.as_str())
        }
    };
    if let (Some(name), Some(next)) = (&args.producer, args.next) {
        builder = builder.named(name, next);
    }
    Ok(builder.start().await?)
}

/// The headers of every message, when there are any.
fn headers(args: &PublishArgs) -> Option<Headers> {
    let named =
        args.headers.iter().map(|(name, value)| (name.clone(), HeaderValue::Text(value.clone())));
    if args.headers.is_empty() { None } else { Some(Headers(named.collect())) }
}

fn message(body: Bytes, headers: Option<&Headers>) -> Result<Message, Failure> {
    match headers {
        Some(headers) => Message::new(body).with_headers(headers.clone()).map_err(Failure::usage),
        None => Ok(Message::new(body)),
    }
}

/// Publishes all there is, and how that ended. What was sent before a signal or an error is still waited for, and counted.
async fn publish(
    producer: &Producer,
    source: &mut Source,
    headers: Option<&Headers>,
    rate: Option<u64>,
    bar: ProgressBar,
) -> Result<(Outcomes, Result<(), Failure>), Failure> {
    let confirms = Confirms::collect(move |_, _| bar.inc(1));
    let mut signals = Signals::catch()?;
    let mut pace = rate.map(Pace::of);
    let ended = loop {
        let body = tokio::select! {
            biased;
            () = signals.next() => break Err(Failure::Interrupted),
            body = source.next(&mut pace) => body,
        };
        let message = match body {
            Ok(None) => break Ok(()),
            Ok(Some(body)) => message(body, headers),
            Err(failure) => Err(failure),
        };
        let sent = Instant::now();
        let receipt = match message {
            Ok(message) => producer.send(message).await.map_err(Failure::from),
            Err(failure) => Err(failure),
        };
        match receipt {
            Ok(receipt) => confirms.expect(receipt, sent).await?,
            Err(failure) => break Err(failure),
        }
    };
    Ok((confirms.finish().await?, ended))
}

/// Where bodies come from.
enum Source {
    Arguments(std::vec::IntoIter<String>),
    Lines(BufReader<Stdin>),
    MadeUp { left: u64, body: Bytes },
}

impl Source {
    fn of(args: &PublishArgs) -> Source {
        match args.count {
            Some(left) => {
                let bytes = usize::try_from(args.size.0).unwrap_or(usize::MAX);
                // Letters, so that a terminal shows them well.
                Source::MadeUp { left, body: (b'a'..=b'z').cycle().take(bytes).collect() }
            }
            None if !args.messages.is_empty() => {
                Source::Arguments(args.messages.clone().into_iter())
            }
            None => Source::Lines(BufReader::new(tokio::io::stdin())),
        }
    }

    fn length(&self) -> Option<u64> {
        match self {
            Source::Arguments(messages) => Some(messages.len() as u64),
            Source::Lines(_) => None,
            Source::MadeUp { left, .. } => Some(*left),
        }
    }

    /// The next body, not before its time. Dropping the future loses nothing but a part of a line.
    async fn next(&mut self, pace: &mut Option<Pace>) -> Result<Option<Bytes>, Failure> {
        if let Some(pace) = pace {
            pace.wait().await;
        }
        match self {
            Source::Arguments(messages) => Ok(messages.next().map(Bytes::from)),
            Source::MadeUp { left: 0, .. } => Ok(None),
            Source::MadeUp { left, body } => {
                *left -= 1;
                Ok(Some(body.clone()))
            }
            Source::Lines(input) => Ok(line(input).await?.map(Bytes::from)),
        }
    }
}

/// The next line, without its end.
async fn line(input: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    let read = input.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
    read.map_err(|error| Failure::NotDone(format!("cannot read standard input: {error}")))?;
    if line.len() as u64 == LINE_BYTES_MAX {
        return Err(Failure::NotDone(format!(
            "a line of more than {MESSAGE_BYTES_MAX} bytes cannot be a message; neither it nor what follows it was sent"
        )));
    }
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(Some(line))
}

/// At most so many a second, evenly.
struct Pace {
    began: Instant,
    released: u64,
    per_second: u64,
}

impl Pace {
    fn of(per_second: u64) -> Pace {
        Pace { began: Instant::now(), released: 0, per_second }
    }

    async fn wait(&mut self) {
        let early = self.next_due().saturating_sub(self.began.elapsed());
        // Timers are no finer than that; a few messages go together then.
        if early >= Duration::from_millis(1) {
            tokio::time::sleep(early).await;
        }
    }

    /// When the next message is due, from the beginning on.
    fn next_due(&mut self) -> Duration {
        let due = Duration::from_secs(1).mul_f64(self.released as f64 / self.per_second as f64);
        self.released += 1;
        due
    }
}

fn report(outcomes: &Outcomes, took: Duration, json: bool) -> Result<(), Failure> {
    let per_second = rate(outcomes.confirmed, took);
    if json {
        return print_json(&json!({
            "confirmed": outcomes.confirmed,
            "not_done": outcomes.not_done,
            "unknown": outcomes.unknown,
            "seconds": rounded(took.as_secs_f64()),
            "messages_per_second": rounded(per_second),
            "confirm_ms": percentiles_json(&outcomes.latency),
            "longest_gap_ms": rounded(outcomes.longest_gap.as_secs_f64() * 1000.0),
        }));
    }
    print_line(&format!(
        "{} confirmed in {}: {} a second",
        counted(outcomes.confirmed, "message", "messages"),
        Span(Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))),
        grouped(per_second.round() as u64),
    ))?;
    if outcomes.confirmed > 0 {
        print_line(&format!("confirmed after {}", percentiles_text(&outcomes.latency)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_needs_a_name() {
        assert_eq!(header("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(header("=b").is_err() && header("a").is_err());
    }

    #[test]
    fn messages_keep_to_their_rate() {
        let mut pace = Pace::of(200);
        let due: Vec<u128> = (0..4).map(|_| pace.next_due().as_millis()).collect();
        assert_eq!(due, [0, 5, 10, 15]);
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let mut endless = BufReader::new(tokio::io::repeat(b'a'));
        let Err(Failure::NotDone(why)) = line(&mut endless).await else { panic!("it has no end") };
        assert!(why.contains("16777216"), "{why}");
    }

    #[tokio::test]
    async fn every_line_is_a_message_an_empty_one_too_and_the_last_needs_no_end() {
        let mut input: &[u8] = b"one\n\ntwo";
        let mut lines = Vec::new();
        while let Ok(Some(line)) = line(&mut input).await {
            lines.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(lines, ["one", "", "two"]);
    }
}
