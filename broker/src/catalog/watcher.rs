//! Keeps the copy up to date: reads everything when a session begins or anything may have been missed, and what has
//! changed otherwise. A watch is a hint, the read is the truth. All reads of one session are made here, one after the
//! other, so that what is entered never goes back.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bellwether_coordinator::coordinator::{Coordinator, Path, ReadError, SessionEvent};
use bellwether_coordinator::paths::{self, Place};
use bellwether_protocol::ids::QueueId;
use futures::future::try_join_all;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use super::feed::{Feed, publish};
use super::tree::Changes;
use super::users::publish_users;
use super::{Command, Shared};
use crate::session::Life;

/// Documents read in one pipelined go: enough to hide the round trips, few enough that changes get their turn between.
const READS_MAX: usize = 1_024;

/// Child lists read in one pipelined go.
const LISTS_MAX: usize = 64;

/// How long to wait before another attempt when the coordinator did not answer.
const RETRY: Duration = Duration::from_millis(200);

type Events = mpsc::Receiver<SessionEvent>;

/// See the module.
pub(super) struct Watcher {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    feed: Feed,
    /// Changed, not read yet; in order of the changes, each once. Bounded by the number of documents.
    pending: Vec<Path>,
    pending_set: HashSet<Path>,
    /// Anything may have changed.
    full: bool,
    /// Somebody wants everything that is committed by now.
    catch_up: bool,
    over: bool,
    /// Told when all that is pending is entered.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Watcher {
    pub fn new(shared: Arc<Shared>, commands: mpsc::Receiver<Command>) -> Watcher {
        let feed = Feed::new(shared.config.local_queues.iter().copied());
        Watcher {
            shared,
            commands,
            feed,
            pending: Vec::new(),
            pending_set: HashSet::new(),
            full: true,
            catch_up: false,
            over: false,
            waiting: Vec::new(),
        }
    }

    /// One session after the other, until nobody begins any more.
    pub async fn run(mut self) {
        let mut lives = self.shared.lives.clone();
        loop {
            let session =
                lives.borrow_and_update().as_ref().map(|life| Arc::clone(&life.coordinator));
            if let Some(session) = session {
                self.watch_session(&session, &mut lives).await;
                if self.shared.session().is_none_or(|now| !Arc::ptr_eq(&now, &session)) {
                    continue;
                }
            }
            self.waiting.clear();
            if lives.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns when the session is over or another has begun.
    async fn watch_session(
        &mut self,
        session: &Arc<dyn Coordinator>,
        lives: &mut watch::Receiver<Option<Life>>,
    ) {
        let Some(mut events) = watch(session, lives).await else { return };
        self.full = true;
        self.over = false;
        loop {
            let mut retry = None;
            match self.catch_up(session, &mut events).await {
                Ok(()) => {}
                Err(ReadError::SessionOver) => return,
                Err(error) => {
                    debug!(%error, "the coordinator could not be read; trying again");
                    // What was entered and not told to the shards is told by reading everything again.
                    self.full = true;
                    retry = Some(tokio::time::Instant::now() + RETRY);
                }
            }
            let reread = Arc::clone(&self.shared);
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.note(event),
                    None => return,
                },
                Some(command) = self.commands.recv() => self.take(command),
                () = reread.reread.notified() => {}
                changed = lives.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = sleep_until(retry) => {}
            }
            self.note_waiting(&mut events);
            let same = self.shared.session().is_some_and(|now| Arc::ptr_eq(&now, session));
            if self.over || !same {
                return;
            }
        }
    }

    fn note(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Connected => self.full = true,
            SessionEvent::Overrun => {
                debug!("changes were dropped by the watch: reading everything anew");
                self.full = true;
            }
            SessionEvent::Disconnected => {}
            SessionEvent::Expired => self.over = true,
            SessionEvent::Changed(path) => self.expect(path),
        }
    }

    /// Takes in what has arrived, so that changes of the same document are read once.
    fn note_waiting(&mut self, events: &mut Events) {
        while let Ok(event) = events.try_recv() {
            self.note(event);
        }
        while let Ok(command) = self.commands.try_recv() {
            self.take(command);
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Enter(paths, reply) => {
                paths.into_iter().for_each(|path| self.expect(path));
                self.waiting.push(reply);
            }
            Command::CatchUp(reply) => {
                self.catch_up = true;
                self.waiting.push(reply);
            }
        }
    }

    fn expect(&mut self, path: Path) {
        if paths::parse(&path).is_some() && self.pending_set.insert(path.clone()) {
            self.pending.push(path);
        }
    }

    /// Reads whatever is to be read.
    async fn catch_up(
        &mut self,
        session: &Arc<dyn Coordinator>,
        events: &mut Events,
    ) -> Result<(), ReadError> {
        if self.full {
            self.read_all(session, events).await?;
            self.full = false;
        }
        if self.catch_up {
            session.sync().await?;
            // The events of what was committed before came before the answer, but may be on their way from another task.
            tokio::task::yield_now().await;
            self.note_waiting(events);
            self.catch_up = false;
        }
        self.read_urgent(session, events).await?;
        for reply in self.waiting.drain(..) {
            // Who asked may have given up.
            let _gone = reply.send(());
        }
        Ok(())
    }

    /// What shards asked for, and what has changed, by turns: with thousands of elections under way there is always something of
    /// both, and a shard that does not hear how they went asks for more.
    async fn read_urgent(
        &mut self,
        session: &Arc<dyn Coordinator>,
        events: &mut Events,
    ) -> Result<(), ReadError> {
        loop {
            self.note_waiting(events);
            let rereads = std::mem::take(
                &mut *self.shared.rereads.lock().unwrap_or_else(PoisonError::into_inner),
            );
            if rereads.is_empty() && self.pending.is_empty() {
                return Ok(());
            }
            if !rereads.is_empty() {
                self.reread(session, rereads.into_iter().collect()).await?;
            }
            if !self.pending.is_empty() {
                self.read_pending(session).await?;
            }
        }
    }

    async fn read_pending(&mut self, session: &Arc<dyn Coordinator>) -> Result<(), ReadError> {
        let mut batch: Vec<Path> =
            self.pending.drain(..self.pending.len().min(READS_MAX)).collect();
        for path in &batch {
            self.pending_set.remove(path);
        }
        // States first, brokers second: a broker's absence says something only about states read before.
        batch.sort_by_key(|path| matches!(paths::parse(path), Some(Place::LiveBroker(_))));
        self.read(session, &batch, false).await
    }

    /// Reads `paths`, enters them and tells everybody.
    async fn read(
        &mut self,
        session: &Arc<dyn Coordinator>,
        paths: &[Path],
        synced: bool,
    ) -> Result<(), ReadError> {
        let begun = std::time::Instant::now();
        let documents = session.read_many(paths).await?;
        debug!(documents = documents.len(), synced, took = ?begun.elapsed(), "documents were read");
        let mut changes = Changes::default();
        {
            let mut tree = self.shared.tree_mut();
            for (path, document) in paths.iter().zip(&documents) {
                tree.enter(path, document.as_ref(), synced, &mut changes);
            }
        }
        // Before anything that can fail or take time: what was revoked must not go on.
        publish_users(&self.shared);
        self.tell(session, changes, synced).await
    }

    async fn tell(
        &mut self,
        session: &Arc<dyn Coordinator>,
        mut changes: Changes,
        synced: bool,
    ) -> Result<(), ReadError> {
        self.look_for_tombstones(session, &mut changes).await?;
        publish(&self.shared, &changes);
        if self.feed.names_unknown_life(&self.shared, &changes) {
            self.read_brokers(session).await?;
            self.feed.brokers(&self.shared).await;
            changes.brokers = true;
        }
        self.feed.queues(&self.shared, &changes, synced).await;
        if !changes.deleted.is_empty() {
            // Not before the shards were told.
            self.shared.tombstones.told(&changes.deleted);
        }
        if changes.brokers {
            self.feed.brokers(&self.shared).await;
        }
        Ok(())
    }

    /// Of queues whose state is not there: whether they were deleted, or are missing.
    async fn look_for_tombstones(
        &mut self,
        session: &Arc<dyn Coordinator>,
        changes: &mut Changes,
    ) -> Result<(), ReadError> {
        let missing: Vec<QueueId> = changes.missing.iter().copied().collect();
        for ids in missing.chunks(READS_MAX) {
            let paths: Vec<Path> = ids.iter().map(|id| paths::deleted(*id)).collect();
            let tombstones = session.read_many(&paths).await?;
            let mut tree = self.shared.tree_mut();
            for ((id, path), tombstone) in ids.iter().zip(&paths).zip(&tombstones) {
                tree.enter(path, tombstone.as_ref(), true, changes);
                if tombstone.is_none() {
                    tree.vanish(*id, changes);
                    if self.feed.local().contains(id) {
                        warn!(queue.id = %id, "a log of this queue lies here, and the coordinator has neither its state nor a tombstone: it was restored from an older state, or the queue was deleted after this data folder had been given up (its broker was retired, or ran for ten minutes with another folder). The log is kept and served to nobody. Restore the newer state of the coordinator; or, if queues were deleted meanwhile, stop this broker, move its data folder aside, and start it with an empty one");
                    }
                }
            }
        }
        Ok(())
    }

    /// Which brokers are live, all of them.
    async fn read_brokers(&mut self, session: &Arc<dyn Coordinator>) -> Result<(), ReadError> {
        let folder = paths::live_brokers();
        let mut listed: HashSet<Path> =
            session.children(&folder).await?.iter().map(|life| folder.child(life)).collect();
        listed.extend(self.shared.tree().brokers.keys().map(|life| paths::live_broker(*life)));
        let listed: Vec<Path> = listed.into_iter().collect();
        let documents = session.read_many(&listed).await?;
        let mut changes = Changes::default();
        {
            let mut tree = self.shared.tree_mut();
            for (path, document) in listed.iter().zip(&documents) {
                tree.enter(path, document.as_ref(), true, &mut changes);
            }
        }
        publish(&self.shared, &changes);
        Ok(())
    }

    /// The proof of absence: sync, the states first, the brokers' paths second, all on one session.
    async fn reread(
        &mut self,
        session: &Arc<dyn Coordinator>,
        queues: Vec<QueueId>,
    ) -> Result<(), ReadError> {
        let done = self.reread_now(session, &queues).await;
        if done.is_err() {
            self.shared.rereads.lock().unwrap_or_else(PoisonError::into_inner).extend(queues);
        }
        done
    }

    async fn reread_now(
        &mut self,
        session: &Arc<dyn Coordinator>,
        queues: &[QueueId],
    ) -> Result<(), ReadError> {
        session.sync().await?;
        for queues in queues.chunks(READS_MAX / 2) {
            let paths: Vec<Path> =
                queues.iter().flat_map(|id| [paths::queue(*id), paths::queue_state(*id)]).collect();
            self.read(session, &paths, true).await?;
        }
        self.read_brokers(session).await?;
        self.feed.brokers(&self.shared).await;
        Ok(())
    }

    /// Everything, after a sync; changes that come meanwhile get their turn between the pieces.
    async fn read_all(
        &mut self,
        session: &Arc<dyn Coordinator>,
        events: &mut Events,
    ) -> Result<(), ReadError> {
        session.sync().await?;
        let queues = grandchildren(session, paths::queues()).await?;
        let mut listed = HashSet::new();
        // Those with a copy here first: they may be waiting for somebody to stand.
        let (here, elsewhere): (Vec<&Path>, Vec<&Path>) =
            queues.iter().partition(|path| match paths::parse(path) {
                Some(Place::Queue(id)) => self.feed.local().contains(&id),
                _ => false,
            });
        let states = here
            .into_iter()
            .chain(elsewhere)
            .flat_map(|path| [path.clone(), path.child("state")])
            .collect();
        self.read_listed(session, events, states, &mut listed).await?;
        for folder in [paths::exchanges(), paths::names()] {
            for host in session.children(&folder).await? {
                let named = grandchildren(session, folder.child(&host)).await?;
                self.read_listed(session, events, named, &mut listed).await?;
            }
        }
        let bindings = grandchildren(session, paths::all_bindings()).await?;
        self.read_listed(session, events, bindings, &mut listed).await?;
        let tombstones = grandchildren(session, paths::all_deleted()).await?;
        self.read_listed(session, events, tombstones, &mut listed).await?;
        for folder in [paths::all_drained(), paths::all_stores()] {
            let of_brokers = session.children(&folder).await?;
            let of_brokers = of_brokers.iter().map(|id| folder.child(id)).collect();
            self.read_listed(session, events, of_brokers, &mut listed).await?;
        }
        let folder = paths::users();
        let users =
            session.children(&folder).await?.iter().map(|user| folder.child(user)).collect();
        self.read_listed(session, events, users, &mut listed).await?;
        self.read_listed(session, events, vec![paths::controller(), paths::login()], &mut listed)
            .await?;
        self.read_brokers(session).await?;
        listed.extend(self.shared.tree().brokers.keys().map(|life| paths::live_broker(*life)));
        self.read_unlisted(session, events, &listed).await?;
        self.feed.brokers(&self.shared).await;
        self.shared.complete.store(true, Ordering::Release);
        // Whoever waits for a first picture has it now, also of an empty cluster.
        self.shared.tell_changed();
        debug!(queues = queues.len(), "the catalog was read");
        Ok(())
    }

    async fn read_listed(
        &mut self,
        session: &Arc<dyn Coordinator>,
        events: &mut Events,
        paths: Vec<Path>,
        listed: &mut HashSet<Path>,
    ) -> Result<(), ReadError> {
        for piece in paths.chunks(READS_MAX) {
            self.read(session, piece, true).await?;
            self.read_urgent(session, events).await?;
        }
        listed.extend(paths);
        Ok(())
    }

    /// What is known, or has a log here, and was not listed: gone, or just made.
    async fn read_unlisted(
        &mut self,
        session: &Arc<dyn Coordinator>,
        events: &mut Events,
        listed: &HashSet<Path>,
    ) -> Result<(), ReadError> {
        let mut unlisted = self.shared.tree().known_but_not(listed);
        let local = self.feed.local().iter().map(|id| paths::queue_state(*id));
        let known: HashSet<Path> = unlisted.iter().cloned().collect();
        unlisted.extend(local.filter(|path| !listed.contains(path) && !known.contains(path)));
        self.read_listed(session, events, unlisted, &mut HashSet::new()).await
    }
}

/// The documents two levels below `folder`, whose children are buckets.
async fn grandchildren(
    session: &Arc<dyn Coordinator>,
    folder: Path,
) -> Result<Vec<Path>, ReadError> {
    let buckets: Vec<Path> =
        session.children(&folder).await?.iter().map(|bucket| folder.child(bucket)).collect();
    let mut found = Vec::new();
    for buckets in buckets.chunks(LISTS_MAX) {
        let lists = try_join_all(buckets.iter().map(|bucket| session.children(bucket))).await?;
        for (bucket, children) in buckets.iter().zip(lists) {
            found.extend(children.iter().map(|child| bucket.child(child)));
        }
    }
    Ok(found)
}

/// One recursive watch for each folder; none for a single queue.
async fn watch(
    session: &Arc<dyn Coordinator>,
    lives: &mut watch::Receiver<Option<Life>>,
) -> Option<Events> {
    let folders = [
        paths::live_brokers(),
        paths::all_drained(),
        paths::all_stores(),
        paths::controller(),
        paths::names(),
        paths::queues(),
        paths::exchanges(),
        paths::all_bindings(),
        paths::all_deleted(),
        paths::users(),
        paths::login(),
    ];
    loop {
        match session.watch(&folders).await {
            Ok(events) => return Some(events),
            Err(ReadError::SessionOver) => return None,
            Err(error) => debug!(%error, "the coordinator cannot be watched yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            changed = lives.changed() => {
                let same = lives.borrow().as_ref().is_some_and(|life| Arc::ptr_eq(&life.coordinator, session));
                if changed.is_err() || !same {
                    return None;
                }
            }
        }
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
