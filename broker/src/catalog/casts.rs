//! Changes of queue states on their way to the coordinator. When a broker dies, thousands of queues change theirs at once: one
//! request for each keeps every server of the ensemble busy for seconds, so those that wait go together, as many steps of one
//! atomic write. With few under way each still goes at once and alone.
//!
//! *Invariant:* what is said of a change is true of it alone. One that is refused takes the others of its write down with it,
//! which says nothing of them: they are sent again, each naming the same version as before.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bellwether_coordinator::coordinator::{Coordinator, Path, Version, Write, WriteError};
use bellwether_replication::CasOutcome;
use futures::future::join_all;
use tokio::sync::oneshot;

/// Changes in one atomic write. A write is carried out as a whole by every server, and watchers hear of it in one go: beyond some
/// dozens nothing is gained.
const TOGETHER_MAX: usize = 64;

/// Bytes of the states in one write, far below what the coordinator takes (1 MB): one with a long past has some kilobytes.
const BYTES_MAX: usize = 256 * 1024;

/// Writes under way. Few, so that what comes meanwhile gathers; more than one, so that the ensemble syncs one while it takes the next.
const UNDER_WAY_MAX: usize = 4;

/// Attempts before each that is left goes alone.
const TOGETHER_ROUNDS: usize = 3;

/// A change that waits, and who waits for what comes of it. Not more than the queues that have a copy here ask for, each for one
/// at a time.
struct Waiting {
    session: Arc<dyn Coordinator>,
    set: Set,
    reply: oneshot::Sender<CasOutcome>,
}

struct Set {
    path: Path,
    bytes: bytes::Bytes,
    version: Version,
}

/// See the module.
#[derive(Default)]
pub(super) struct Casts {
    waiting: Mutex<Lane>,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    under_way: usize,
}

impl Casts {
    /// Compares and sets.
    pub async fn set(
        self: &Arc<Self>,
        session: Arc<dyn Coordinator>,
        path: Path,
        bytes: bytes::Bytes,
        version: Version,
    ) -> CasOutcome {
        let (reply, outcome) = oneshot::channel();
        {
            let mut lane = self.lane();
            lane.waiting.push_back(Waiting { session, set: Set { path, bytes, version }, reply });
            if lane.under_way < UNDER_WAY_MAX {
                lane.under_way += 1;
                tokio::spawn(Arc::clone(self).carry_out());
            }
        }
        // Without an answer nobody knows what became of it.
        outcome.await.unwrap_or(CasOutcome::Undecided)
    }

    fn lane(&self) -> MutexGuard<'_, Lane> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One write after the other, until nothing waits.
    async fn carry_out(self: Arc<Self>) {
        // Those that were asked for in the same turn come first, and go together.
        tokio::task::yield_now().await;
        while let Some(together) = self.take() {
            write(together).await;
        }
    }

    /// The next that go together: of one session, no two of the same queue.
    fn take(&self) -> Option<Vec<Waiting>> {
        let mut lane = self.lane();
        let Some(first) = lane.waiting.pop_front() else {
            lane.under_way -= 1;
            return None;
        };
        let mut bytes = first.set.bytes.len();
        // Two of one queue name versions that cannot both hold: the second would be refused for the sake of the first, although
        // neither was carried out, and whoever asked would go by a version that has not moved.
        let mut paths = HashSet::from([first.set.path.clone()]);
        let mut together = vec![first];
        while together.len() < TOGETHER_MAX
            && let Some(next) = lane.waiting.front()
        {
            bytes += next.set.bytes.len();
            let fits = bytes <= BYTES_MAX && Arc::ptr_eq(&next.session, &together[0].session);
            if !fits || !paths.insert(next.set.path.clone()) {
                break;
            }
            together.extend(lane.waiting.pop_front());
        }
        Some(together)
    }
}

/// Writes these: all together, and when one of them is refused, those whose versions still stand; after a few such rounds each alone. So
/// neither one that is out of date among many nor many of them cost more than a few requests.
async fn write(mut together: Vec<Waiting>) {
    let (begun, changes, mut requests) = (Instant::now(), together.len(), 0);
    for _ in 0..TOGETHER_ROUNDS {
        requests += 1;
        together = attempt(together).await;
        if together.is_empty() {
            break;
        }
        together = sift(together).await;
    }
    let alone = together.into_iter().map(|one| attempt(vec![one]));
    // Nothing is left of one that went alone.
    requests += join_all(alone).await.len();
    tracing::debug!(changes, requests, took = ?begun.elapsed(), "states of queues were changed");
}

/// Answers those whose version has moved on: a version is never gone back to, so a read that shows a later one decides, however old.
async fn sift(together: Vec<Waiting>) -> Vec<Waiting> {
    let Some(session) = together.first().map(|first| Arc::clone(&first.session)) else {
        return together;
    };
    let paths: Vec<Path> = together.iter().map(|one| one.set.path.clone()).collect();
    let Ok(documents) = session.read_many(&paths).await else { return together };
    let mut left = Vec::with_capacity(together.len());
    for (one, document) in together.into_iter().zip(documents) {
        match document {
            Some(document) if document.version > one.set.version => one.answer(CasOutcome::Refused),
            _ => left.push(one),
        }
    }
    left
}

/// Writes these; gives back those of which nothing is known because of another.
async fn attempt(mut piece: Vec<Waiting>) -> Vec<Waiting> {
    let Some(session) = piece.first().map(|first| Arc::clone(&first.session)) else {
        return piece;
    };
    match session.write(piece.iter().map(|one| one.set.step()).collect()).await {
        Ok(versions) => {
            for (index, one) in piece.into_iter().enumerate() {
                // A version of a set that did not come back is known all the same.
                let version = versions.get(index).copied().flatten();
                let version = version.unwrap_or(Version(one.set.version.0 + 1));
                one.answer(CasOutcome::Done { version });
            }
        }
        Err(WriteError::Refused { index, .. }) if index < piece.len() => {
            piece.remove(index).answer(CasOutcome::Refused);
            return piece;
        }
        // Of several it may be about one: alone each hears what is true of it.
        Err(WriteError::Invalid(_)) if piece.len() > 1 => return piece,
        Err(WriteError::Invalid(why)) => {
            for one in piece {
                tracing::error!(path = %one.set.path, %why, "a change of a queue's state was not sent");
                one.answer(CasOutcome::NotSent);
            }
        }
        // (A refusal of a step that there is not tells nothing.)
        Err(WriteError::Refused { .. } | WriteError::Undecided(_) | WriteError::SessionOver) => {
            for one in piece {
                one.answer(CasOutcome::Undecided);
            }
        }
    }
    Vec::new()
}

impl Set {
    fn step(&self) -> Write {
        Write::Set { path: self.path.clone(), bytes: self.bytes.clone(), version: self.version }
    }
}

impl Waiting {
    fn answer(self, outcome: CasOutcome) {
        // Who asked may have gone.
        let _gone = self.reply.send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bellwether_coordinator::coordinator::Connector as _;
    use bellwether_coordinator::embedded::{Embedded, EmbeddedConfig};
    use bytes::Bytes;

    use super::*;

    struct World {
        embedded: Embedded,
        session: Arc<dyn Coordinator>,
        /// Another one, to look.
        reader: Arc<dyn Coordinator>,
        casts: Arc<Casts>,
    }

    /// One who asked, and what it was told.
    type Asked = tokio::task::JoinHandle<CasOutcome>;

    impl World {
        /// With so many documents of version 0.
        async fn with(documents: usize) -> World {
            let embedded = Embedded::start(EmbeddedConfig::default()).unwrap();
            let session = embedded.connector(Duration::from_secs(10)).connect().await.unwrap();
            for number in 0..documents {
                let bytes = Bytes::from_static(b"before");
                let create = Write::Create { path: path(number), bytes, ephemeral: false };
                session.write(vec![create]).await.unwrap();
            }
            let reader = embedded.connector(Duration::from_secs(10)).connect().await.unwrap();
            World { embedded, session, reader, casts: Arc::default() }
        }

        fn ask(&self, number: usize, version: i32, words: &'static str) -> Asked {
            let (casts, session) = (Arc::clone(&self.casts), Arc::clone(&self.session));
            let bytes = Bytes::from_static(words.as_bytes());
            tokio::spawn(
                async move { casts.set(session, path(number), bytes, Version(version)).await },
            )
        }

        async fn words(&self, number: usize) -> Bytes {
            self.reader.read(&path(number)).await.unwrap().expect("it is there").bytes
        }
    }

    fn path(number: usize) -> Path {
        Path(format!("/q{number}"))
    }

    const DONE: CasOutcome = CasOutcome::Done { version: Version(1) };

    #[tokio::test]
    async fn each_of_many_that_go_together_hears_what_became_of_its_own() {
        let world = World::with(500).await;
        // Single ones whose version never was, and more than a crowd of those whose version has moved.
        let (never, moved) = (|number: usize| number % 97 == 5, 200..300);
        for number in moved.clone() {
            assert_eq!(world.ask(number, 0, "before").await.unwrap(), DONE);
        }
        let stale = |number: usize| never(number) || moved.contains(&number);
        let asked: Vec<Asked> = (0..500)
            .map(|number| world.ask(number, if never(number) { 7 } else { 0 }, "after"))
            .collect();
        for (number, asked) in asked.into_iter().enumerate() {
            let refused = stale(number);
            let outcome = asked.await.unwrap();
            assert_eq!(outcome, if refused { CasOutcome::Refused } else { DONE }, "{number}");
            let words: &[u8] = if refused { b"before" } else { b"after" };
            assert_eq!(world.words(number).await, words, "{number}");
        }
        while world.casts.lane().under_way > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// A refusal says that the version has moved. Said of a change that merely stood beside another of the same queue, in a write of
    /// which nothing was carried out, it would have its author wait for ever for a version that never comes.
    #[tokio::test]
    async fn of_two_changes_of_one_queue_one_is_refused_and_the_other_done() {
        let world = World::with(3).await;
        let (first, stale) = (world.ask(0, 0, "first"), world.ask(1, 9, "stale"));
        let (second, other) = (world.ask(0, 0, "second"), world.ask(2, 0, "other"));
        assert_eq!(stale.await.unwrap(), CasOutcome::Refused);
        assert_eq!(other.await.unwrap(), DONE);
        let done = match (first.await.unwrap(), second.await.unwrap()) {
            (DONE, CasOutcome::Refused) => "first",
            (CasOutcome::Refused, DONE) => "second",
            both => panic!("{both:?}"),
        };
        assert_eq!(world.words(0).await, done);
    }

    /// An answer that is lost is no answer, to none of those that went together.
    #[tokio::test]
    async fn of_a_write_whose_answer_is_lost_every_change_is_undecided() {
        let world = World::with(20).await;
        world.embedded.faults().lose_replies(1);
        let asked: Vec<Asked> = (0..20).map(|number| world.ask(number, 0, "after")).collect();
        for (number, asked) in asked.into_iter().enumerate() {
            assert_eq!(asked.await.unwrap(), CasOutcome::Undecided, "{number}");
            assert_eq!(world.words(number).await, "after", "it was carried out, whoever knows");
        }
    }
}
