//! Comparing what was restored with the backup: every message of the file, byte for byte and in its order, is to be found in its queue
//! behind where the restore began.

use std::collections::BTreeMap;

use bellwether_client::{BrowsedMessage, Browser, Client};

use super::format::{Kept, QueueEnd};
use super::progress::{Progress, QueueProgress};
use super::read::{Part, Reader};
use crate::commands::backup::RestoreArgs;
use crate::commands::table::grouped;
use crate::outcome::Failure;

/// What was found in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it, in order; also when others have published in between.
    Content,
    /// As many were enqueued at least, and some were taken by consumers since, so that they cannot be compared any more.
    Count,
}

impl Verdict {
    /// For programs.
    pub fn name(&self) -> &'static str {
        match self {
            Verdict::Content => "content",
            Verdict::Count => "count",
        }
    }

    /// For people.
    pub fn words(&self) -> &'static str {
        match self {
            Verdict::Content => "found in the queue as they are in the backup",
            Verdict::Count => {
                "as many were stored; some were consumed meanwhile and could not be compared"
            }
        }
    }
}

/// Looks at every queue that was restored.
///
/// # Errors
/// Something is missing.
pub async fn verify(
    args: &RestoreArgs,
    client: &Client,
    queues: &BTreeMap<String, QueueEnd>,
    progress: &Progress,
) -> Result<BTreeMap<String, Verdict>, Failure> {
    let mut reader = Reader::open(&args.file).map_err(Failure::NotDone)?;
    let (mut verdicts, mut comparing) = (BTreeMap::new(), None);
    while let Some(part) =
        tokio::task::block_in_place(|| reader.next()).map_err(Failure::NotDone)?
    {
        match part {
            Part::Queue(begin) => {
                if let Some(known) =
                    progress.queues.get(&begin.name).filter(|_| queues.contains_key(&begin.name))
                {
                    let browser = client.browse(&begin.name)?.starting_at(known.from);
                    comparing = Some((begin.name, known, Comparing::new(browser)));
                }
            }
            Part::Messages(messages) => {
                if let Some((_, _, comparing)) = &mut comparing {
                    for message in &messages {
                        comparing.find(message).await?;
                    }
                }
            }
            Part::QueueEnd(end) => {
                if let Some((name, known, comparing)) = comparing.take() {
                    let verdict = match comparing.missing {
                        0 => Verdict::Content,
                        missing => count(client, &name, known, &end, missing).await?,
                    };
                    verdicts.insert(name, verdict);
                }
            }
        }
    }
    Ok(verdicts)
}

/// A queue beside what the backup holds of it.
struct Comparing {
    browser: Browser,
    page: std::vec::IntoIter<BrowsedMessage>,
    /// Messages of the backup that did not come any more.
    missing: u64,
}

impl Comparing {
    fn new(browser: Browser) -> Comparing {
        Comparing { browser, page: Vec::new().into_iter(), missing: 0 }
    }

    /// Goes on in the queue until this message comes. What comes before it is others'.
    async fn find(&mut self, wanted: &Kept) -> Result<(), Failure> {
        while self.missing == 0 {
            if self.page.any(|message| is_same(&message, wanted)) {
                return Ok(());
            }
            match self.browser.next_page().await? {
                Some(page) => self.page = page.into_iter(),
                None => break,
            }
        }
        self.missing += 1;
        Ok(())
    }
}

fn is_same(message: &BrowsedMessage, wanted: &Kept) -> bool {
    message.body() == &wanted.body && message.encoded_headers() == wanted.headers.as_ref()
}

/// Whether consumers explain what is missing.
async fn count(
    client: &Client,
    name: &str,
    known: &QueueProgress,
    end: &QueueEnd,
    missing: u64,
) -> Result<Verdict, Failure> {
    let counts = client.describe(name).await?.counts;
    let stored = counts.enqueued.saturating_sub(known.enqueued_before);
    let gone = (counts.settled + counts.purged).saturating_sub(known.gone_before);
    if stored >= end.messages && gone > 0 {
        return Ok(Verdict::Count);
    }
    Err(Failure::NotDone(format!(
        "queue {name}: of {} messages of the backup {} are not found in the queue in their order, {} were enqueued since the restore began, and {} were consumed or purged",
        grouped(end.messages),
        grouped(missing),
        grouped(stored),
        grouped(gone)
    )))
}
