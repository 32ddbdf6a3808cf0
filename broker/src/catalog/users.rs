//! Users: entered document by document, handed out as a snapshot, and changed for administrators.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bellwether_coordinator::coordinator::{Coordinator, Path, Write};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::RecordError;
use bellwether_coordinator::users::{LoginRecord, UserChange, UserError, UserRecord};
use bellwether_protocol::client::UserTag;
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::names::UserName;
use bellwether_protocol::scram::{ITERATIONS, RANDOM_BYTES};
use rand::Rng;
use tokio::time::Instant;

use super::queues::raced;
use super::writes::{Decision, REQUEST_FOR};
use super::{Catalog, Shared};
use crate::login::{User, Users, write_down_changes};

/// What was read of `/users` and `/login`.
#[derive(Debug)]
pub(super) struct UserEntries {
    /// Moves with every change.
    version: u64,
    by_name: HashMap<UserName, Arc<User>>,
    /// Documents that cannot be read: their users are not let in.
    unreadable: BTreeSet<UserName>,
    /// Drawn for this process until the cluster's is read.
    decoys: [u8; 32],
}

impl Default for UserEntries {
    fn default() -> UserEntries {
        let (by_name, unreadable) = (HashMap::new(), BTreeSet::new());
        UserEntries { version: 0, by_name, unreadable, decoys: rand::rng().random() }
    }
}

impl UserEntries {
    /// Enters a user's document, or that there is none.
    ///
    /// # Errors
    /// It cannot be read. The user is taken out: left as it was, it would keep what may just have been revoked.
    pub fn user(&mut self, name: UserName, bytes: Option<&[u8]>) -> Result<(), RecordError> {
        let record = bytes.map(UserRecord::parse).transpose();
        self.unreadable.remove(&name);
        match record {
            Ok(Some(record)) => {
                let same = self.by_name.get(&name).is_some_and(|before| before.record == record);
                if !same {
                    self.by_name.insert(name.clone(), Arc::new(User::new(name, record)));
                    self.version += 1;
                }
                Ok(())
            }
            Ok(None) => {
                self.version += u64::from(self.by_name.remove(&name).is_some());
                Ok(())
            }
            Err(error) => {
                self.version += u64::from(self.by_name.remove(&name).is_some());
                self.unreadable.insert(name);
                Err(error)
            }
        }
    }

    /// Enters what all brokers have in common for logins.
    ///
    /// # Errors
    /// It cannot be read, and stays as it was.
    pub fn login(&mut self, bytes: Option<&[u8]>) -> Result<(), RecordError> {
        if let Some(record) = bytes.map(LoginRecord::parse).transpose()?
            && record.decoys != self.decoys
        {
            self.decoys = record.decoys;
            self.version += 1;
        }
        Ok(())
    }

    /// Paths of all users that are known.
    pub fn paths(&self) -> impl Iterator<Item = Path> {
        self.by_name.keys().chain(&self.unreadable).map(paths::user)
    }
}

/// Before anything was read.
pub(super) fn nobody() -> Users {
    Users::new(0, HashMap::new(), rand::rng().random())
}

/// Hands out what was entered, and tells the connections.
pub(super) fn publish_users(shared: &Shared) {
    let entered = {
        let tree = shared.tree();
        let UserEntries { version, by_name, decoys, .. } = &tree.users;
        if *version == shared.users.load().version {
            return;
        }
        Users::new(*version, by_name.clone(), *decoys)
    };
    // What is read at the start is no change.
    if shared.complete.load(Ordering::Acquire) {
        write_down_changes(&shared.users.load(), &entered);
    }
    shared.users.store(Arc::new(entered));
    shared.tell_changed();
}

impl Catalog {
    /// The users of the cluster, as far as this broker has heard.
    ///
    /// # Errors
    /// Not all of them were read yet: nobody can be let in, and nobody turned away for good.
    // An empty list before the first read would refuse everybody for good; a broker that let people in because it knows
    // nobody would be open whenever it starts.
    pub fn users(&self) -> Result<Arc<Users>, ErrorBody> {
        if self.is_complete() {
            return Ok(self.shared.users.load_full());
        }
        let words = "this broker has just started and does not know the users yet; try again, or another broker";
        Err(ErrorBody::not_done(ErrorCode::LoginUnavailable, words))
    }

    /// The version of the users: moves with every change.
    #[must_use]
    pub fn users_version(&self) -> u64 {
        self.shared.users.load().version
    }

    /// Changes a user, for an administrator. `keep_administrator`: not when no administrator is left then.
    ///
    /// # Errors
    /// The change is not possible, or the coordinator is away.
    pub async fn change_user(
        &self,
        user: &UserName,
        change: &UserChange,
        keep_administrator: bool,
    ) -> Result<(), ErrorBody> {
        change.check().map_err(refused)?;
        if let UserChange::Add { credentials, .. } | UserChange::SetPassword(credentials) = change
            && !credentials.are_like_all()
        {
            let words = format!(
                "a user's key is derived in {ITERATIONS} iterations with a salt of {RANDOM_BYTES} bytes, as those of all users are: others would show that the user exists"
            );
            return Err(ErrorBody::not_done(ErrorCode::InvalidOption, words));
        }
        let deadline = Instant::now() + REQUEST_FOR;
        let path = paths::user(user);
        let next = |session: Arc<dyn Coordinator>| {
            let path = path.clone();
            async move {
                session.sync().await?;
                let present = session.read(&path).await?;
                let ends = keep_administrator && change.ends_administrator(present.as_ref());
                Ok(change.step(user, present.as_ref()).map(|write| (write, ends)))
            }
        };
        let mut sent = false;
        loop {
            let (write, ends_administrator) = match self.reading(deadline, next).await? {
                Ok((Some(write), ends)) => (write, ends),
                Ok((None, _)) => break,
                // A delete that went through leaves nothing to delete.
                Err(UserError::NoSuchUser(_)) if sent && *change == UserChange::Delete => break,
                Err(error) => return Err(refused(error)),
            };
            let done = |session: Arc<dyn Coordinator>| {
                let next = next(session);
                async move {
                    let gone = |error: &UserError| {
                        *change == UserChange::Delete && matches!(error, UserError::NoSuchUser(_))
                    };
                    Ok(match next.await? {
                        Ok((step, _)) => step.is_none(),
                        Err(error) => gone(&error),
                    })
                }
            };
            let mut writes = vec![write];
            if ends_administrator {
                // In the same write, so that two of them do not make each other the last.
                writes.push(self.another_administrator(user, deadline).await?);
            }
            match self.decide(writes, deadline, done).await? {
                Decision::Done => break,
                Decision::Refused { .. } => self.make_folders(std::slice::from_ref(&path)).await?,
            }
            sent = true;
            if Instant::now() >= deadline {
                return Err(raced());
            }
        }
        tracing::info!(%user, "an administrator changed a user");
        self.enter(vec![path], deadline).await;
        Ok(())
    }

    /// A condition on there being an administrator besides `user`: of those that this broker knows, the first that still is one.
    async fn another_administrator(
        &self,
        user: &UserName,
        deadline: Instant,
    ) -> Result<Write, ErrorBody> {
        let mut known: Vec<UserName> = self.users()?.administrators().cloned().collect();
        known.sort_unstable();
        for other in known.iter().filter(|other| *other != user) {
            let path = paths::user(other);
            let read = |session: Arc<dyn Coordinator>| {
                let path = path.clone();
                async move { session.read(&path).await }
            };
            let Some(document) = self.reading(deadline, read).await? else { continue };
            let record = UserRecord::parse(&document.bytes).ok();
            if record.is_some_and(|record| record.tags.contains(&UserTag::Administrator)) {
                return Ok(Write::Check { path, version: document.version });
            }
        }
        Err(refused(UserError::LastAdministrator(user.clone())))
    }
}

fn refused(error: UserError) -> ErrorBody {
    let code = match error {
        UserError::NoSuchUser(_) => ErrorCode::NoSuchUser,
        UserError::Exists(_) => ErrorCode::UserExists,
        UserError::Pattern(_) | UserError::Invalid(_) => ErrorCode::InvalidOption,
        UserError::LastAdministrator(_) => ErrorCode::NotAllowed,
        UserError::Unreadable(_) => ErrorCode::Internal,
    };
    ErrorBody::not_done(code, error.to_string())
}
