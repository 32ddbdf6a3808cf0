//! Making a backup of data: queue by queue, page by page, each queue as it was when its first page was read.

use bellwether_client::{BrowsedMessage, Client, QueryError, QueueName};
use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::format::{Begin, Kept, QueueBegin, QueueEnd};
use super::now_ms;
use super::write::Part;
use crate::commands::backup::{BackupArgs, is_meant};
use crate::commands::table::{counted, grouped, print_json, print_line};
use crate::outcome::Failure;
use crate::progress;
use crate::signals::Signals;

/// Carries `backup --data` out.
pub async fn backup(args: &BackupArgs) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    tokio::select! {
        written = write(args) => written,
        // What was written goes with the part that it is in.
        () = signals.next() => Err(Failure::Interrupted),
    }
}

async fn write(args: &BackupArgs) -> Result<(), Failure> {
    let client = args.client.client().await?;
    let queues = client.queues().await?;
    let names: Vec<QueueName> = queues
        .into_iter()
        .map(|queue| queue.name)
        .filter(|name| is_meant(&args.queues, name.as_str()))
        .collect();
    if names.is_empty() {
        return Err(Failure::Usage(match args.queues.is_empty() {
            true => format!("there are no queues in virtual host {}", args.client.vhost),
            false => format!("no queue in virtual host {} matches --queue", args.client.vhost),
        }));
    }
    let begin = Begin {
        backup: Uuid::new_v4(),
        cluster: client.cluster_id().await?.to_string(),
        virtual_host: args.client.vhost.to_string(),
        made_at_ms: now_ms(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let bar = progress::bar(&progress::board(), "read", None);
    let mut part = Part::begin(&args.file, begin)?;
    let mut kept: Vec<(QueueName, QueueEnd)> = Vec::with_capacity(names.len());
    let mut left_out: Vec<QueueName> = Vec::new();
    for name in names {
        match save(&client, &name, &mut part, &bar).await {
            Ok(end) => kept.push((name, end)),
            // Whoever asked for this very queue wants to know.
            Err(NotSaved::Deleted(_)) if !args.queues.iter().any(|one| one == name.as_str()) => {
                left_out.push(name);
            }
            Err(NotSaved::Deleted(failure) | NotSaved::Failed(failure)) => return Err(failure),
        }
    }
    if kept.is_empty() {
        return Err(Failure::NotDone(format!(
            "nothing is written: every queue that was meant has been deleted meanwhile ({})",
            named(&left_out)
        )));
    }
    let end = part.finish()?;
    bar.finish_and_clear();
    if args.client.json {
        let queues: Vec<Value> = kept.iter().map(|(name, end)| as_json(name, end)).collect();
        return print_json(&json!({
            "file": args.file, "virtual_host": args.client.vhost.as_str(), "messages": end.messages, "queues": queues,
            "left_out": left_out.iter().map(QueueName::as_str).collect::<Vec<_>>(),
        }));
    }
    for (name, end) in &kept {
        print_line(&format!(
            "queue {name}: {}, {} bytes, sha256 {}",
            counted(end.messages, "message", "messages"),
            grouped(end.bytes),
            end.sha256
        ))?;
    }
    if !left_out.is_empty() {
        print_line(&format!("deleted meanwhile, and not in it: {}", named(&left_out)))?;
    }
    print_line(&format!(
        "{} of {} are written to {}. Definitions are not in it: back them up as well.",
        counted(end.messages, "message", "messages"),
        counted(end.queues, "queue", "queues"),
        args.file.display()
    ))
}

fn named(queues: &[QueueName]) -> String {
    queues.iter().map(QueueName::as_str).collect::<Vec<_>>().join(", ")
}

/// Why a queue is not in the backup.
enum NotSaved {
    /// It was deleted after it was listed and before its first page: nothing of it is written.
    Deleted(Failure),
    Failed(Failure),
}

impl From<Failure> for NotSaved {
    fn from(failure: Failure) -> NotSaved {
        NotSaved::Failed(failure)
    }
}

async fn save(
    client: &Client,
    name: &QueueName,
    part: &mut Part,
    bar: &indicatif::ProgressBar,
) -> Result<QueueEnd, NotSaved> {
    let within = |error: QueryError| Failure::NotDone(format!("queue {name}: {error}"));
    let mut browser = client.browse(name.as_str()).map_err(within)?;
    let mut page = match browser.next_page().await {
        Ok(page) => page,
        Err(gone @ QueryError::NoSuchQueue { .. }) => return Err(NotSaved::Deleted(within(gone))),
        Err(error) => return Err(within(error).into()),
    };
    let id = browser.queue_id().map(|id| id.to_string()).unwrap_or_default();
    let until = browser.until().unwrap_or_default();
    part.queue(QueueBegin { name: name.to_string(), id, until })?;
    while let Some(messages) = page {
        bar.inc(messages.len() as u64);
        // The next page is on its way while this one is written.
        let (next, written) = tokio::join!(browser.next_page(), async {
            tokio::task::block_in_place(|| {
                messages.into_iter().try_for_each(|message| part.message(&kept(&message)))
            })
        });
        written?;
        page = next.map_err(within)?;
    }
    Ok(part.end_queue()?)
}

fn kept(message: &BrowsedMessage) -> Kept {
    Kept {
        offset: message.offset(),
        time_ms: message.time_ms(),
        returns: message.returns(),
        redelivered: message.redelivered(),
        exchange: Bytes::copy_from_slice(message.exchange().as_bytes()),
        routing_key: Bytes::copy_from_slice(message.routing_key().as_bytes()),
        headers: message.encoded_headers().cloned(),
        body: message.body().clone(),
    }
}

fn as_json(name: &QueueName, end: &QueueEnd) -> Value {
    json!({ "queue": name.as_str(), "messages": end.messages, "bytes": end.bytes, "sha256": end.sha256 })
}
