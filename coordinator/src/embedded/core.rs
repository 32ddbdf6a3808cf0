//! The embedded coordinator as a machine: sessions that expire by the time they are told, watches, and the faults it can be
//! told to have. No clock, no io: time is an argument, what is to be told to whom comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use super::tree::{Change, Refused, SessionId, Tree};
use crate::coordinator::{Document, Path, Version, Write};

/// Time since the coordinator was started.
pub(crate) type Moment = Duration;

/// One connection of a client. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// Proves that a client is the one that opened the session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) u128);

#[derive(Debug)]
pub(crate) struct Core {
    tree: Tree,
    sessions: BTreeMap<SessionId, Session>,
    shortest: Duration,
    longest: Duration,
    watches: Watches,
    /// Changes that no watcher has been told of, while watches are delayed.
    untold: Vec<Path>,
}

struct Session {
    secret: Secret,
    timeout: Duration,
    heard: Moment,
    connection: Option<ConnectionId>,
    watched: Vec<Path>,
    /// What it reads instead of the truth, until it syncs.
    stale: Option<Tree>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("timeout", &self.timeout)
            .field("connection", &self.connection)
            .finish()
    }
}

/// What becomes of changes that someone watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watches {
    Told,
    Delayed,
    Dropped,
}

/// The session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Over;

/// A change to be told on a connection.
pub(crate) type Notice = (ConnectionId, Path);

impl Core {
    /// Time-outs asked for are brought between `shortest` and `longest`.
    pub(crate) fn new(tree: Tree, shortest: Duration, longest: Duration) -> Self {
        let (sessions, watches, untold) = (BTreeMap::new(), Watches::Told, Vec::new());
        Self { tree, sessions, shortest, longest, watches, untold }
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Opens a session under a number and secret that the caller drew; gives the time-out granted.
    pub(crate) fn open(
        &mut self,
        now: Moment,
        id: SessionId,
        secret: Secret,
        asked: Duration,
        on: ConnectionId,
    ) -> Duration {
        let timeout = asked.clamp(self.shortest, self.longest);
        let (connection, watched, stale) = (Some(on), Vec::new(), None);
        self.sessions
            .insert(id, Session { secret, timeout, heard: now, connection, watched, stale });
        timeout
    }

    /// Moves a session to another connection; gives its time-out and the connection that has lost it.
    pub(crate) fn attach(
        &mut self,
        now: Moment,
        id: SessionId,
        secret: Secret,
        on: ConnectionId,
    ) -> Result<(Duration, Option<ConnectionId>), Over> {
        let session =
            self.sessions.get_mut(&id).filter(|session| session.secret == secret).ok_or(Over)?;
        session.heard = now;
        session.watched.clear();
        Ok((session.timeout, session.connection.replace(on)))
    }

    /// The connection is gone; the session stays.
    pub(crate) fn detach(&mut self, id: SessionId, from: ConnectionId) {
        if let Some(session) =
            self.sessions.get_mut(&id).filter(|session| session.connection == Some(from))
        {
            session.connection = None;
        }
    }

    /// A sign of life.
    pub(crate) fn heard(
        &mut self,
        now: Moment,
        id: SessionId,
        from: ConnectionId,
    ) -> Result<(), Over> {
        self.session(id, from)?.heard = now;
        Ok(())
    }

    /// Whatever the time, everyone has just been heard of: after the coordinator itself was away.
    pub(crate) fn heard_of_all(&mut self, now: Moment) {
        for session in self.sessions.values_mut() {
            session.heard = now;
        }
    }

    pub(crate) fn read(
        &mut self,
        id: SessionId,
        from: ConnectionId,
        path: &Path,
    ) -> Result<Option<Document>, Over> {
        let session = self.session(id, from)?;
        let stale = session.stale.take();
        let document = stale.as_ref().unwrap_or(&self.tree).read(path, id);
        self.session(id, from)?.stale = stale;
        Ok(document)
    }

    pub(crate) fn children(
        &mut self,
        id: SessionId,
        from: ConnectionId,
        path: &Path,
    ) -> Result<Vec<String>, Over> {
        let session = self.session(id, from)?;
        let stale = session.stale.take();
        let children = stale.as_ref().unwrap_or(&self.tree).children(path);
        self.session(id, from)?.stale = stale;
        Ok(children)
    }

    pub(crate) fn sync(&mut self, id: SessionId, from: ConnectionId) -> Result<(), Over> {
        self.session(id, from)?.stale = None;
        Ok(())
    }

    pub(crate) fn watch(
        &mut self,
        id: SessionId,
        from: ConnectionId,
        prefix: Path,
    ) -> Result<(), Over> {
        let session = self.session(id, from)?;
        if !session.watched.contains(&prefix) {
            session.watched.push(prefix);
        }
        Ok(())
    }

    /// Carries out a write; the changes are told by [`Core::tell`] once they are safe.
    #[allow(clippy::type_complexity)] // Two layers that fail differently: the session, the write.
    pub(crate) fn write(
        &mut self,
        id: SessionId,
        from: ConnectionId,
        writes: &[Write],
    ) -> Result<Result<(Vec<Option<Version>>, Vec<Change>), Refused>, Over> {
        // As with ZooKeeper, a session sees its own writes, and with them everything before.
        self.session(id, from)?.stale = None;
        Ok(self.tree.write(id, writes))
    }

    /// Ends a session, at its own wish or as a fault; gives the changes and the connection that has lost it.
    pub(crate) fn end(&mut self, id: SessionId) -> (Vec<Change>, Option<ConnectionId>) {
        let Some(session) = self.sessions.remove(&id) else { return (Vec::new(), None) };
        (self.tree.delete_ephemerals(id), session.connection)
    }

    /// Whether a session is there.
    pub(crate) fn knows(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&id)
    }

    /// Sessions that nothing was heard of for as long as their time-out.
    pub(crate) fn due(&self, now: Moment) -> Vec<SessionId> {
        let due =
            self.sessions.iter().filter(|(_, session)| session.heard + session.timeout <= now);
        due.map(|(id, _)| *id).collect()
    }

    /// Whom to tell of `changes` now.
    pub(crate) fn tell(&mut self, changes: &[Change]) -> Vec<Notice> {
        let paths = changes.iter().map(|change| change.path().clone());
        match self.watches {
            Watches::Told => self.notices(&paths.collect::<Vec<_>>()),
            Watches::Delayed => {
                self.untold.extend(paths);
                Vec::new()
            }
            Watches::Dropped => Vec::new(),
        }
    }

    /// From now on watches fire at once, late or not at all. What was delayed is told when they fire again.
    pub(crate) fn set_watches(&mut self, watches: Watches) -> Vec<Notice> {
        self.watches = watches;
        if watches != Watches::Told {
            return Vec::new();
        }
        let untold = std::mem::take(&mut self.untold);
        self.notices(&untold)
    }

    /// Every session goes on reading what is true now, until it syncs.
    pub(crate) fn serve_stale(&mut self) {
        for session in self.sessions.values_mut() {
            session.stale = Some(self.tree.clone());
        }
    }

    fn notices(&self, paths: &[Path]) -> Vec<Notice> {
        let mut notices = Vec::new();
        for session in self.sessions.values() {
            let Some(connection) = session.connection else { continue };
            let watched =
                |path: &&Path| session.watched.iter().any(|prefix| path.is_within(prefix));
            notices.extend(paths.iter().filter(watched).map(|path| (connection, path.clone())));
        }
        notices
    }

    /// A session that was moved to another connection is over for the one before: what that one still asks is not carried out.
    fn session(&mut self, id: SessionId, from: ConnectionId) -> Result<&mut Session, Over> {
        self.sessions.get_mut(&id).filter(|session| session.connection == Some(from)).ok_or(Over)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const ID: SessionId = SessionId(7);
    const SECRET: Secret = Secret(42);
    const FIRST: ConnectionId = ConnectionId(1);
    const SECOND: ConnectionId = ConnectionId(2);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn path(text: &str) -> Path {
        Path(text.to_owned())
    }

    fn with_session() -> Core {
        let mut core = Core::new(Tree::default(), ms(100), ms(10_000));
        assert_eq!(core.open(ms(0), ID, SECRET, ms(1_000), FIRST), ms(1_000));
        core
    }

    fn create(core: &mut Core, at: &str, ephemeral: bool) -> Vec<Notice> {
        let write = Write::Create { path: path(at), bytes: Bytes::new(), ephemeral };
        let (_, changes) = core.write(ID, FIRST, &[write]).unwrap().unwrap();
        core.tell(&changes)
    }

    #[test]
    fn a_session_ends_when_nothing_was_heard_of_it_for_its_time_out() {
        let mut core = with_session();
        create(&mut core, "/me", true);
        core.heard(ms(500), ID, FIRST).unwrap();
        assert!(core.due(ms(1_499)).is_empty());
        assert_eq!(core.due(ms(1_500)), [ID]);
        let (changes, connection) = core.end(ID);
        assert_eq!(changes, [Change::Deleted { path: path("/me"), ephemeral: true }]);
        assert_eq!(connection, Some(FIRST));
        assert_eq!(core.attach(ms(1_500), ID, SECRET, SECOND), Err(Over));
    }

    #[test]
    fn a_session_moves_to_a_new_connection_and_is_over_for_the_old_one() {
        let mut core = with_session();
        assert_eq!(
            core.attach(ms(900), ID, Secret(1), SECOND),
            Err(Over),
            "not without its secret"
        );
        assert_eq!(core.attach(ms(900), ID, SECRET, SECOND), Ok((ms(1_000), Some(FIRST))));
        let late = [Write::Create { path: path("/late"), bytes: Bytes::new(), ephemeral: false }];
        assert_eq!(core.write(ID, FIRST, &late), Err(Over));
        core.detach(ID, FIRST);
        assert_eq!(
            core.read(ID, SECOND, &path("/late")),
            Ok(None),
            "the old one's end does not detach the new one"
        );
    }

    #[test]
    fn the_time_out_granted_stays_within_bounds() {
        let mut core = with_session();
        assert_eq!(core.open(ms(0), SessionId(8), SECRET, ms(1), SECOND), ms(100));
        assert_eq!(core.open(ms(0), SessionId(9), SECRET, ms(99_999), SECOND), ms(10_000));
    }

    #[test]
    fn watches_are_told_delayed_or_dropped_as_ordered_and_not_set_again_on_a_new_connection() {
        let mut core = with_session();
        core.watch(ID, FIRST, path("/queues")).unwrap();
        assert_eq!(create(&mut core, "/queues", false), [(FIRST, path("/queues"))]);
        assert_eq!(create(&mut core, "/names", false), []);
        core.set_watches(Watches::Delayed);
        assert_eq!(create(&mut core, "/queues/a", false), []);
        assert_eq!(core.set_watches(Watches::Told), [(FIRST, path("/queues/a"))]);
        core.set_watches(Watches::Dropped);
        assert_eq!(create(&mut core, "/queues/b", false), []);
        assert_eq!(core.set_watches(Watches::Told), []);
        core.attach(ms(1), ID, SECRET, FIRST).unwrap();
        assert_eq!(create(&mut core, "/queues/c", false), []);
    }

    #[test]
    fn stale_reads_end_with_a_sync() {
        let mut core = with_session();
        let reader = SessionId(8);
        core.open(ms(0), reader, SECRET, ms(1_000), SECOND);
        core.serve_stale();
        create(&mut core, "/new", false);
        assert_eq!(core.read(reader, SECOND, &path("/new")), Ok(None));
        assert_eq!(core.children(reader, SECOND, &path("/")), Ok(vec![]));
        assert!(core.read(ID, FIRST, &path("/new")).unwrap().is_some(), "its own write it sees");
        core.sync(reader, SECOND).unwrap();
        assert!(core.read(reader, SECOND, &path("/new")).unwrap().is_some());
    }
}
