//! The running embedded coordinator: the machine behind a lock, with a clock, random numbers, a folder and connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::core::{ConnectionId, Core, Moment, Notice, Over, Secret, Watches};
use super::store::Store;
use super::tree::{Change, SessionId, Tree};
use crate::coordinator::{Document, Path, Version, Write, WriteError};
use crate::session::CHANGES_MAX;

/// How often overdue sessions are looked for: how late an expiry may come.
const LOOK_EVERY: Duration = Duration::from_millis(25);

#[derive(Debug)]
pub(crate) struct Hub {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    core: Core,
    store: Option<Store>,
    lines: BTreeMap<ConnectionId, Line>,
    next_connection: u64,
    /// Takes nobody in.
    away: bool,
    /// Writes whose reply, and with it the connection, is lost: after, or before, they were carried out.
    replies_to_lose: u32,
    requests_to_lose: u32,
}

/// One connection.
#[derive(Debug)]
struct Line {
    session: SessionId,
    changes: mpsc::Sender<Path>,
    cut: CancellationToken,
    /// In this process: alive for as long as it is there, no pings needed.
    local: bool,
}

/// A connection as its holder sees it. Dropped, it is closed.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) hub: Arc<Hub>,
    pub(crate) id: ConnectionId,
    pub(crate) session: SessionId,
    pub(crate) secret: Secret,
    pub(crate) timeout: Duration,
    /// Cancelled when the hub has cut it.
    pub(crate) cut: CancellationToken,
}

/// Why a connection was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Away,
    Over,
}

impl Hub {
    pub(crate) fn start(
        tree: Tree,
        store: Option<Store>,
        shortest: Duration,
        longest: Duration,
    ) -> Arc<Hub> {
        let state = State {
            core: Core::new(tree, shortest, longest),
            store,
            lines: BTreeMap::new(),
            next_connection: 0,
            away: false,
            replies_to_lose: 0,
            requests_to_lose: 0,
        };
        let hub = Arc::new(Hub { started: Instant::now(), state: Mutex::new(state) });
        tokio::spawn(look_for_overdue(Arc::downgrade(&hub)));
        hub
    }

    /// Opens a session, or moves one to a new connection; changes that it watches arrive on the receiver.
    pub(crate) fn connect(
        self: &Arc<Self>,
        session: Option<(SessionId, Secret)>,
        asked: Duration,
        local: bool,
    ) -> Result<(Connection, mpsc::Receiver<Path>), Refusal> {
        let now = self.now();
        let mut state = self.lock();
        if state.away {
            return Err(Refusal::Away);
        }
        state.next_connection += 1;
        let id = ConnectionId(state.next_connection);
        let (session, secret, timeout) = match session {
            Some((session, secret)) => {
                let (timeout, lost) =
                    state.core.attach(now, session, secret, id).map_err(|Over| Refusal::Over)?;
                state.cut(lost);
                (session, secret, timeout)
            }
            None => {
                // Positive and not zero, as ZooKeeper's are.
                let session = SessionId(rand::random_range(1..i64::MAX));
                let secret = Secret(rand::random());
                (session, secret, state.core.open(now, session, secret, asked, id))
            }
        };
        let (sender, changes) = mpsc::channel(CHANGES_MAX);
        let cut = CancellationToken::new();
        state.lines.insert(id, Line { session, changes: sender, cut: cut.clone(), local });
        drop(state);
        Ok((Connection { hub: Arc::clone(self), id, session, secret, timeout, cut }, changes))
    }

    pub(crate) fn go_away(&self) {
        let mut state = self.lock();
        state.away = true;
        state.cut_all();
    }

    /// As with an ensemble that restarts, every session has its whole time-out again.
    pub(crate) fn come_back(&self) {
        let now = self.now();
        let mut state = self.lock();
        state.away = false;
        state.core.heard_of_all(now);
    }

    /// Ends a session as if its time-out had passed; `false` when there is none such.
    pub(crate) fn expire(&self, session: i64) -> bool {
        let mut state = self.lock();
        let known = state.core.knows(SessionId(session));
        state.end(SessionId(session));
        known
    }

    pub(crate) fn lose_replies(&self, writes: u32) {
        self.lock().replies_to_lose = writes;
    }

    pub(crate) fn lose_requests(&self, writes: u32) {
        self.lock().requests_to_lose = writes;
    }

    pub(crate) fn set_watches(&self, watches: Watches) {
        let mut state = self.lock();
        let notices = state.core.set_watches(watches);
        state.send(notices);
    }

    pub(crate) fn serve_stale(&self) {
        self.lock().core.serve_stale();
    }

    /// Cuts every connection; all may come back at once.
    pub(crate) fn cut_all(&self) {
        self.lock().cut_all();
    }

    fn expire_overdue(&self) {
        let now = self.now();
        let mut state = self.lock();
        // An ensemble that is down expires nobody.
        if state.away {
            return;
        }
        let State { core, lines, .. } = &mut *state;
        for (id, line) in lines.iter().filter(|(_, line)| line.local) {
            // Moved or ended meanwhile: its own next request finds out.
            if let Err(Over) = core.heard(now, line.session, *id) {
                continue;
            }
        }
        for session in state.core.due(now) {
            debug!(
                session.id = format!("{:#x}", session.0),
                "embedded coordinator session expired"
            );
            state.end(session);
        }
    }

    fn now(&self) -> Moment {
        self.started.elapsed()
    }

    /// No panic leaves a write half done: the tree rolls back before it returns.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cut(&mut self, connection: Option<ConnectionId>) {
        let Some(id) = connection else { return };
        if let Some(line) = self.lines.remove(&id) {
            line.cut.cancel();
            self.core.detach(line.session, id);
        }
    }

    fn cut_all(&mut self) {
        for id in self.lines.keys().copied().collect::<Vec<_>>() {
            self.cut(Some(id));
        }
    }

    fn end(&mut self, session: SessionId) {
        let (changes, connection) = self.core.end(session);
        self.cut(connection);
        let notices = self.core.tell(&changes);
        self.send(notices);
    }

    fn send(&mut self, notices: Vec<Notice>) {
        for (id, path) in notices {
            // One that does not keep up is cut, and re-reads everything when it is back: a gap that it knows of.
            let full = self.lines.get(&id).is_some_and(|line| line.changes.try_send(path).is_err());
            if full {
                self.cut(Some(id));
            }
        }
    }

    /// Makes a write durable before anyone hears of it.
    fn keep(&mut self, changes: &[Change]) -> Result<(), WriteError> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let Err(failure) = store.append(changes, self.core.tree()) else { return Ok(()) };
        // What follows could build on a write that is lost at the next start: serve nobody any more.
        error!(%failure, "the embedded coordinator cannot store a write and stops");
        self.away = true;
        self.cut_all();
        Err(WriteError::Undecided(failure.to_string()))
    }
}

impl Connection {
    /// A sign of life.
    pub(crate) fn heard(&self) -> Result<(), Over> {
        let now = self.hub.now();
        self.hub.lock().core.heard(now, self.session, self.id)
    }

    pub(crate) fn read_many(&self, paths: &[Path]) -> Result<Vec<Option<Document>>, Over> {
        let mut state = self.hub.lock();
        paths.iter().map(|path| state.core.read(self.session, self.id, path)).collect()
    }

    pub(crate) fn children(&self, path: &Path) -> Result<Vec<String>, Over> {
        self.hub.lock().core.children(self.session, self.id, path)
    }

    pub(crate) fn sync(&self) -> Result<(), Over> {
        self.hub.lock().core.sync(self.session, self.id)
    }

    pub(crate) fn watch(&self, prefix: Path) -> Result<(), Over> {
        self.hub.lock().core.watch(self.session, self.id, prefix)
    }

    pub(crate) fn write(&self, writes: &[Write]) -> Result<Vec<Option<Version>>, WriteError> {
        let lost = || WriteError::Undecided("the connection was lost".to_owned());
        let mut state = self.hub.lock();
        if state.requests_to_lose > 0 {
            state.requests_to_lose -= 1;
            state.cut(Some(self.id));
            return Err(lost());
        }
        let written = state
            .core
            .write(self.session, self.id, writes)
            .map_err(|Over| WriteError::SessionOver)?;
        let (versions, changes) = written.map_err(|refused| WriteError::Refused {
            index: refused.index,
            conflict: refused.conflict,
        })?;
        state.keep(&changes)?;
        let notices = state.core.tell(&changes);
        if state.replies_to_lose > 0 {
            state.replies_to_lose -= 1;
            state.cut(Some(self.id));
            state.send(notices);
            return Err(lost());
        }
        state.send(notices);
        Ok(versions)
    }

    /// Ends the session.
    pub(crate) fn close(&self) -> Result<(), Over> {
        let mut state = self.hub.lock();
        state.core.heard(self.hub.now(), self.session, self.id)?;
        state.end(self.session);
        Ok(())
    }

    /// Gives the connection up; the session stays.
    pub(crate) fn leave(&self) {
        self.hub.lock().cut(Some(self.id));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.leave();
    }
}

async fn look_for_overdue(hub: std::sync::Weak<Hub>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(hub) = hub.upgrade() else { return };
        hub.expire_overdue();
    }
}
