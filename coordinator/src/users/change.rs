//! What may be changed of users, step by step: the document as it was read, and the write that makes it what it should be.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_protocol::client::{Permissions, UserTag};
use bellwether_protocol::names::{UserName, VirtualHost};
use bellwether_protocol::scram::Credentials;

use super::{InvalidPattern, Pattern, UserRecord};
use crate::coordinator::{Conflict, Coordinator, Document, ReadError, Write, WriteError};
use crate::paths;
use crate::records::{Later, RecordError, UnknownFields};

/// Most virtual hosts that one user's permissions name: its document stays far below what the coordinator takes.
const HOSTS_MAX: usize = 100;

/// How often [`apply`] tries when others change the same user.
const RACES_MAX: usize = 20;

/// One change of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserChange {
    Add {
        credentials: Credentials,
        tags: BTreeSet<UserTag>,
    },
    SetPassword(Credentials),
    /// In place of those it had.
    SetTags(BTreeSet<UserTag>),
    Delete,
    /// None: nothing is permitted there any more.
    SetPermissions(VirtualHost, Option<Permissions>),
}

/// Why a user was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    #[error("there is no user {0}; `bellwether user list` shows those that there are")]
    NoSuchUser(UserName),
    /// Nobody could log in and make another.
    #[error(
        "user {0} is the last administrator: without it nobody can look after users, settings or brokers through a broker. Give the tag to another user first (`bellwether user tags NAME administrator`), or say --force: the next one is then made with `bellwether user add --zookeeper ENSEMBLE NAME --tag administrator`"
    )]
    LastAdministrator(UserName),
    #[error("there is a user {0} already; give it another password, or delete it first")]
    Exists(UserName),
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Unreadable(#[from] RecordError),
}

impl UserChange {
    /// Whether it could be carried out at all.
    ///
    /// # Errors
    /// A pattern is none, or the credentials are out of their bounds.
    pub fn check(&self) -> Result<(), UserError> {
        match self {
            UserChange::Add { credentials, .. } | UserChange::SetPassword(credentials) => {
                credentials.check().map_err(|error| UserError::Invalid(error.to_string()))
            }
            UserChange::SetPermissions(_, Some(Permissions { configure, write, read })) => {
                for pattern in [configure, write, read] {
                    Pattern::new(pattern)?;
                }
                Ok(())
            }
            UserChange::SetPermissions(_, None) | UserChange::SetTags(_) | UserChange::Delete => {
                Ok(())
            }
        }
    }

    /// Whether it makes an administrator none.
    #[must_use]
    pub fn ends_administrator(&self, present: Option<&Document>) -> bool {
        let record = present.and_then(|document| UserRecord::parse(&document.bytes).ok());
        let is_one = record.is_some_and(|record| record.tags.contains(&UserTag::Administrator));
        let stays = match self {
            UserChange::Delete => false,
            UserChange::SetTags(tags) => tags.contains(&UserTag::Administrator),
            UserChange::Add { .. }
            | UserChange::SetPassword(_)
            | UserChange::SetPermissions(..) => true,
        };
        is_one && !stays
    }

    /// The write that makes the document what it should be; none when it is.
    ///
    /// # Errors
    /// [`UserError`]: it cannot be made so.
    pub fn step(
        &self,
        user: &UserName,
        present: Option<&Document>,
    ) -> Result<Option<Write>, UserError> {
        let path = paths::user(user);
        let Some(document) = present else {
            return match self {
                UserChange::Add { credentials, tags } => {
                    let (credentials, tags) = (credentials.clone(), tags.clone());
                    let (permissions, unknown) = (BTreeMap::new(), UnknownFields::new());
                    let later = Later::default();
                    let record = UserRecord { credentials, tags, permissions, later, unknown };
                    let bytes = record.to_bytes();
                    Ok(Some(Write::Create { path, bytes, ephemeral: false }))
                }
                _ => Err(UserError::NoSuchUser(user.clone())),
            };
        };
        if *self == UserChange::Delete {
            // Also one that cannot be read.
            return Ok(Some(Write::Delete { path, version: Some(document.version) }));
        }
        let before = UserRecord::parse(&document.bytes)?;
        let mut record = before.clone();
        match self {
            // Salts are random: the same credentials are those of this very change, sent before.
            UserChange::Add { credentials, .. } if before.credentials == *credentials => {}
            UserChange::Add { .. } => return Err(UserError::Exists(user.clone())),
            UserChange::SetPassword(credentials) => record.credentials = credentials.clone(),
            UserChange::SetTags(tags) => record.tags = tags.clone(),
            UserChange::SetPermissions(host, Some(permissions)) => {
                record.permissions.insert(host.clone(), permissions.clone());
            }
            UserChange::SetPermissions(host, None) => {
                record.permissions.remove(host);
            }
            UserChange::Delete => {}
        }
        if record.permissions.len() > HOSTS_MAX {
            let words = format!("a user may have permissions in {HOSTS_MAX} virtual hosts at most");
            return Err(UserError::Invalid(words));
        }
        let set = Write::Set { path, bytes: record.to_bytes(), version: document.version };
        Ok((record != before).then_some(set))
    }
}

/// Why a change made directly at the ensemble came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Perhaps done.
    #[error("the connection to the ensemble was lost: {0}")]
    Undecided(String),
    #[error("not done: {0}")]
    Refused(String),
}

/// Carries out a change on a session of one's own.
///
/// # Errors
/// [`ApplyError`] says why not, or that nobody knows.
pub async fn apply(
    session: &dyn Coordinator,
    user: &UserName,
    change: &UserChange,
) -> Result<(), ApplyError> {
    change.check()?;
    for _ in 0..RACES_MAX {
        session.sync().await?;
        let present = session.read(&paths::user(user)).await?;
        let Some(write) = change.step(user, present.as_ref())? else { return Ok(()) };
        match session.write(vec![write]).await {
            Ok(_) => return Ok(()),
            Err(WriteError::Refused { conflict: Conflict::Missing, .. }) => {
                match session.make_parents(&paths::users()).await {
                    Ok(()) | Err(WriteError::Undecided(_)) => {}
                    Err(error) => return Err(ApplyError::Refused(error.to_string())),
                }
            }
            // Somebody else was first.
            Err(WriteError::Refused { .. }) => {}
            Err(WriteError::Invalid(why)) => return Err(ApplyError::Refused(why)),
            Err(error) => return Err(ApplyError::Undecided(error.to_string())),
        }
    }
    Err(ApplyError::Refused("others changed the same user again and again; try again".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bellwether_protocol::scram::Password;

    use super::*;
    use crate::coordinator::Connector;
    use crate::embedded::{Embedded, EmbeddedConfig};

    fn credentials(password: &str) -> Credentials {
        let salted = Password::new(password).unwrap().salted(b"salt", 4096).unwrap();
        Credentials::of(&salted, b"salt".to_vec(), 4096)
    }

    fn add(password: &str) -> UserChange {
        UserChange::Add { credentials: credentials(password), tags: BTreeSet::new() }
    }

    fn permit(write: &str) -> UserChange {
        let permissions =
            Permissions { configure: String::new(), write: write.to_owned(), read: String::new() };
        UserChange::SetPermissions(VirtualHost::default(), Some(permissions))
    }

    #[tokio::test]
    async fn a_user_is_added_changed_and_deleted_and_each_step_is_done_once() {
        let embedded = Embedded::start(EmbeddedConfig::default()).unwrap();
        let session = embedded.connector(Duration::from_secs(5)).connect().await.unwrap();
        let user = UserName::new("bill, =ing/").unwrap();
        let read = || async {
            let document = session.read(&paths::user(&user)).await.unwrap()?;
            Some((UserRecord::parse(&document.bytes).unwrap(), document.version.0))
        };
        let apply = |change: UserChange| {
            let (session, user) = (&session, &user);
            async move { apply(&**session, user, &change).await }
        };
        let unknown = ApplyError::User(UserError::NoSuchUser(user.clone()));
        assert_eq!(apply(permit(".*")).await, Err(unknown.clone()));
        assert_eq!(apply(UserChange::SetTags(BTreeSet::new())).await, Err(unknown.clone()));
        apply(add("one")).await.unwrap();
        apply(add("one")).await.expect("it is what was asked for");
        let exists = ApplyError::User(UserError::Exists(user.clone()));
        assert_eq!(apply(add("two")).await, Err(exists));
        apply(permit("orders")).await.unwrap();
        apply(permit("orders")).await.unwrap();
        assert_eq!(read().await.unwrap().1, 1, "written once for the permission");
        apply(UserChange::SetPassword(credentials("two"))).await.unwrap();
        let (record, _) = read().await.unwrap();
        assert_eq!(record.credentials, credentials("two"));
        assert_eq!(record.permissions.len(), 1, "a new password leaves the permissions");
        assert!(matches!(apply(permit("(")).await, Err(ApplyError::User(UserError::Pattern(_)))));
        let tags = UserChange::SetTags([UserTag::Monitoring].into());
        apply(tags).await.unwrap();
        let (record, _) = read().await.unwrap();
        assert_eq!(record.tags, [UserTag::Monitoring].into());
        assert_eq!((record.permissions.len(), record.credentials), (1, credentials("two")));
        apply(UserChange::SetTags(BTreeSet::new())).await.unwrap();
        assert!(read().await.unwrap().0.tags.is_empty());
        apply(UserChange::SetPermissions(VirtualHost::default(), None)).await.unwrap();
        assert!(read().await.unwrap().0.permissions.is_empty());
        apply(UserChange::Delete).await.unwrap();
        assert_eq!(apply(UserChange::Delete).await, Err(unknown));
    }
}
