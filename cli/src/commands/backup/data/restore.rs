//! Restoring a backup of data: the file is found sound first, to its last byte; then its messages are published in their order, and
//! then what is in the queues is compared with what is in the file.

use std::collections::BTreeMap;
use std::time::Duration;

use bellwether_client::{Client, Described, Message, Producer, QueryError};
use serde_json::{Value, json};

use super::format::{Begin, Kept, QueueEnd};
use super::now_ms;
use super::progress::{Progress, QueueProgress};
use super::read::{Part, Reader};
use super::verify::{Verdict, verify};
use crate::commands::backup::{RestoreArgs, is_meant};
use crate::commands::table::{counted, print_json, print_line};
use crate::outcome::Failure;
use crate::progress;
use crate::signals::Signals;

/// How far a restore has got is written down after so many messages,
const NOTED_MESSAGES: u64 = 50_000;
/// or so many bytes of them.
const NOTED_BYTES: u64 = 64 * 1024 * 1024;
/// Messages sent and not confirmed.
const WINDOW_MESSAGES: usize = 10_000;

/// A message that has waited is not given up by itself: behind one that was, later ones could be stored, and the restore could not
/// be gone on with in order. How long nothing may be confirmed is `--timeout`.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Carries `restore --data` out.
pub async fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    let found = tokio::task::block_in_place(|| inspect(args))?;
    tokio::select! {
        restored = run(args, found) => restored,
        () = signals.next() => {
            eprintln!("The same command goes on where this one has stopped.");
            Err(Failure::Interrupted)
        }
    }
}

/// What a sound file holds of the queues that are meant.
struct Found {
    begin: Begin,
    queues: BTreeMap<String, QueueEnd>,
}

/// Reads the whole file before anything is published.
fn inspect(args: &RestoreArgs) -> Result<Found, Failure> {
    let in_file = |why: String| Failure::Usage(format!("{}: {why}", args.file.display()));
    let reader = Reader::open(&args.file).map_err(Failure::Usage)?;
    let begin = reader.begin().clone();
    let host = args.client.vhost.as_str();
    if begin.virtual_host != host {
        return Err(in_file(format!(
            "it holds virtual host {}, and this is {host}: give --vhost {}",
            begin.virtual_host, begin.virtual_host
        )));
    }
    let (mut queues, mut name) = (BTreeMap::new(), String::new());
    reader
        .check(|part| match part {
            Part::Queue(queue) => name.clone_from(&queue.name),
            Part::Messages(_) => {}
            Part::QueueEnd(end) if is_meant(&args.queues, &name) => {
                queues.insert(name.clone(), end.clone());
            }
            Part::QueueEnd(_) => {}
        })
        .map_err(|why| in_file(format!("{why}. Nothing was published.")))?;
    if queues.is_empty() {
        return Err(in_file("no queue in it is meant".to_owned()));
    }
    Ok(Found { begin, queues })
}

async fn run(args: &RestoreArgs, found: Found) -> Result<(), Failure> {
    let client = args.client.client().await?;
    let cluster = client.cluster_id().await?.to_string();
    let (mut progress, goes_on) = Progress::of(
        &args.file,
        found.begin.backup,
        &cluster,
        args.client.vhost.as_str(),
        now_ms(),
    )?;
    let there = look(&client, &found).await?;
    judge(args, &there, &progress)?;
    if args.dry_run {
        return tell(args, &found, &BTreeMap::new(), goes_on, &[]);
    }
    for (name, Described { queue, counts }) in &there {
        let fresh = || QueueProgress {
            id: queue.id.to_string(),
            from: counts.high_watermark.0,
            enqueued_before: counts.enqueued,
            gone_before: counts.settled + counts.purged,
            confirmed: 0,
            finished: false,
        };
        progress.queues.entry(name.clone()).or_insert_with(fresh);
    }
    // The producers' names are on the disk before the first of them publishes: a name that was lost could not be used again.
    progress.save()?;
    publish(args, &client, &found, &mut progress).await?;
    let verdicts = verify(args, &client, &found.queues, &progress).await?;
    let unfinished = progress.finish(found.queues.keys())?;
    tell(args, &found, &verdicts, goes_on, &unfinished)
}

/// The queues as they are. All must be there: a restore of definitions makes them.
async fn look(client: &Client, found: &Found) -> Result<BTreeMap<String, Described>, Failure> {
    let (mut there, mut missing) = (BTreeMap::new(), Vec::new());
    for name in found.queues.keys() {
        match client.describe(name).await {
            Ok(described) => {
                there.insert(name.clone(), described);
            }
            Err(QueryError::NoSuchQueue { .. }) => missing.push(name.as_str()),
            Err(error) => return Err(Failure::NotDone(format!("queue {name}: {error}"))),
        }
    }
    if missing.is_empty() {
        return Ok(there);
    }
    Err(Failure::NotDone(format!(
        "nothing was published, because these queues are not there: {}. Declare them, restore a backup of the definitions first, or leave them out with --queue",
        missing.join(", ")
    )))
}

/// Whether what is there may be published to.
fn judge(
    args: &RestoreArgs,
    there: &BTreeMap<String, Described>,
    progress: &Progress,
) -> Result<(), Failure> {
    for (name, Described { queue, counts }) in there {
        match progress.queues.get(name) {
            Some(begun) if begun.id != queue.id.to_string() => {
                return Err(Failure::NotDone(format!(
                    "nothing was published: queue {name} was deleted and declared anew since this restore was begun. To restore anew, purge what it has restored so far and delete {}.restoring",
                    args.file.display()
                )));
            }
            Some(_) => {}
            None if args.append || counts.ready + counts.delivered == 0 => {}
            None => {
                return Err(Failure::NotDone(format!(
                    "nothing was published: queue {name} holds {}. Purge it, leave it out with --queue, or give --append to put those of the backup behind",
                    counted(counts.ready + counts.delivered, "message", "messages")
                )));
            }
        }
    }
    Ok(())
}

/// Publishes what is not confirmed yet.
async fn publish(
    args: &RestoreArgs,
    client: &Client,
    found: &Found,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let total = found.queues.values().map(|end| end.messages).sum();
    let bar = progress::bar(&progress::board(), "published", Some(total));
    let mut reader = Reader::open(&args.file).map_err(Failure::NotDone)?;
    let mut queue: Option<Publishing> = None;
    let changed = |why: String| {
        Failure::NotDone(format!("{}: it has changed meanwhile: {why}", args.file.display()))
    };
    while let Some(part) = tokio::task::block_in_place(|| reader.next()).map_err(changed)? {
        match part {
            Part::Queue(begin) => {
                if let Some(known) = progress.queues.get(&begin.name)
                    && found.queues.contains_key(&begin.name)
                {
                    let (producer, confirmed) = (progress.producer(known), known.confirmed);
                    queue = Some(
                        Publishing::start(args, client, begin.name, producer, confirmed).await?,
                    );
                    bar.inc(confirmed);
                }
            }
            Part::Messages(messages) => {
                let Some(queue) = &mut queue else { continue };
                for message in messages {
                    bar.inc(u64::from(queue.send(message).await?));
                    if queue.is_to_be_noted() {
                        queue.note(progress).await?;
                    }
                }
            }
            Part::QueueEnd(_) => {
                if let Some(mut queue) = queue.take() {
                    queue.note(progress).await?;
                    queue.producer.close().await?;
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// A queue that is being published to.
struct Publishing {
    name: String,
    producer: Producer,
    patience: Duration,
    /// Known to be confirmed when this began: they are not sent again.
    skipped: u64,
    /// Of the backup, those skipped included.
    read: u64,
    unnoted: u64,
    unnoted_bytes: u64,
}

impl Publishing {
    async fn start(
        args: &RestoreArgs,
        client: &Client,
        name: String,
        producer: String,
        confirmed: u64,
    ) -> Result<Publishing, Failure> {
        // The number of a message is its place in the backup: whoever sends it again, and when, it is the same number.
        let producer = client
            .producer()
            .to_queue(name.as_str())
            .named(producer, confirmed + 1)
            .window(WINDOW_MESSAGES)
            .deadline(NEVER)
            .start()
            .await?;
        let patience = args.client.timeout.0;
        let (read, unnoted, unnoted_bytes) = (0, 0, 0);
        Ok(Publishing {
            name,
            producer,
            patience,
            skipped: confirmed,
            read,
            unnoted,
            unnoted_bytes,
        })
    }

    /// Sends a message, unless it is known to be there. Waits while the window is full.
    async fn send(&mut self, kept: Kept) -> Result<bool, Failure> {
        self.read += 1;
        if self.read <= self.skipped {
            return Ok(false);
        }
        self.unnoted += 1;
        self.unnoted_bytes += kept.size();
        let offset = kept.offset;
        let mut message = Message::new(kept.body);
        if let Some(headers) = kept.headers {
            message = message.with_encoded_headers(headers).map_err(|error| {
                Failure::NotDone(format!("queue {}, offset {offset}: {error}", self.name))
            })?;
        }
        let sent = tokio::time::timeout(self.patience, self.producer.send(message)).await;
        // Whether it was confirmed is asked for all of them together.
        drop(sent.map_err(|_| self.stands_still())??);
        Ok(true)
    }

    fn is_to_be_noted(&self) -> bool {
        self.unnoted >= NOTED_MESSAGES || self.unnoted_bytes >= NOTED_BYTES
    }

    /// Waits until all that was sent is confirmed, and writes that down.
    async fn note(&mut self, progress: &mut Progress) -> Result<(), Failure> {
        let flushed = tokio::time::timeout(self.patience, self.producer.flush()).await;
        flushed.map_err(|_| self.stands_still())??;
        (self.unnoted, self.unnoted_bytes) = (0, 0);
        if let Some(queue) = progress.queues.get_mut(&self.name) {
            queue.confirmed = queue.confirmed.max(self.read);
        }
        tokio::task::block_in_place(|| progress.save())
    }

    fn stands_still(&self) -> Failure {
        Failure::Unknown(format!(
            "queue {} has confirmed nothing for {:?} (see `bellwether queue explain {}`); the same command goes on where this one has stopped",
            self.name, self.patience, self.name
        ))
    }
}

fn tell(
    args: &RestoreArgs,
    found: &Found,
    verdicts: &BTreeMap<String, Verdict>,
    goes_on: bool,
    unfinished: &[String],
) -> Result<(), Failure> {
    let messages: u64 = found.queues.values().map(|end| end.messages).sum();
    if args.client.json {
        let queue = |(name, end): (&String, &QueueEnd)| -> Value {
            json!({
                "queue": name, "messages": end.messages, "bytes": end.bytes, "sha256": end.sha256,
                "verified": verdicts.get(name).map(Verdict::name),
            })
        };
        return print_json(&json!({
            "dry_run": args.dry_run, "resumed": goes_on, "messages": messages, "unfinished": unfinished,
            "queues": found.queues.iter().map(queue).collect::<Vec<_>>(),
        }));
    }
    for (name, end) in &found.queues {
        let verdict = match verdicts.get(name) {
            Some(verdict) => format!(", {}", verdict.words()),
            None => String::new(),
        };
        print_line(&format!(
            "queue {name}: {}{verdict}",
            counted(end.messages, "message", "messages")
        ))?;
    }
    let verb = match (args.dry_run, goes_on) {
        (true, false) => "would be published",
        (true, true) => {
            "would be published, but for those that an interrupted restore has published"
        }
        (false, false) => "are published and confirmed",
        (false, true) => "are published and confirmed, those of the interrupted restore included",
    };
    print_line(&format!(
        "{} of {} {verb}",
        counted(messages, "message", "messages"),
        counted(found.queues.len() as u64, "queue", "queues")
    ))?;
    if unfinished.is_empty() {
        return Ok(());
    }
    print_line(&format!(
        "A restore of this backup that was interrupted is not finished in these queues: {}. Restore them as well; {}.restoring is kept until then",
        unfinished.join(", "),
        args.file.display()
    ))
}
