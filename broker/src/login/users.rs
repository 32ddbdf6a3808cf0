//! The users of the cluster as this broker knows them: a snapshot that is looked up by hash, and replaced as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use bellwether_coordinator::users::{Pattern, UserRecord};
use bellwether_protocol::client::{Permissions, UserSummary, UserTag};
use bellwether_protocol::names::{UserName, VirtualHost};
use bellwether_protocol::scram::Credentials;
use tracing::warn;

/// One user. The same `Arc` for as long as nothing of it changes.
#[derive(Debug)]
pub struct User {
    pub name: UserName,
    pub record: UserRecord,
    permitted: HashMap<VirtualHost, Permitted>,
}

/// A pattern that cannot be read is none, and permits nothing.
#[derive(Debug)]
pub(super) struct Permitted {
    pub configure: Option<Pattern>,
    pub write: Option<Pattern>,
    pub read: Option<Pattern>,
}

impl User {
    #[must_use]
    pub fn new(name: UserName, record: UserRecord) -> User {
        let compile = |what: &str, host: &VirtualHost, pattern: &str| match Pattern::new(pattern) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                warn!(user = %name, virtual_host = %host, permission = what, %error, "a permission cannot be read and permits nothing");
                None
            }
        };
        let permitted = record.permissions.iter().map(|(host, permissions)| {
            let Permissions { configure, write, read } = permissions;
            let permitted = Permitted {
                configure: compile("configure", host, configure),
                write: compile("write", host, write),
                read: compile("read", host, read),
            };
            (host.clone(), permitted)
        });
        let permitted = permitted.collect();
        User { name, record, permitted }
    }

    pub(super) fn permitted(&self, host: &VirtualHost) -> Option<&Permitted> {
        self.permitted.get(host)
    }

    pub(super) fn has(&self, tag: UserTag) -> bool {
        self.record.tags.contains(&tag)
    }

    /// Whether it may connect to a virtual host: to use it, or to look after the cluster.
    #[must_use]
    pub fn may_enter(&self, host: &VirtualHost) -> bool {
        self.permitted.contains_key(host) || !self.record.tags.is_empty()
    }

    /// Whether who logged in as `other` is this user, by this password. Salts are random: also a user that was deleted and
    /// made again with the same password is another.
    #[must_use]
    pub fn is_same_login(&self, other: &User) -> bool {
        self.name == other.name && self.record.credentials == other.record.credentials
    }

    #[must_use]
    pub fn summary(&self) -> UserSummary {
        UserSummary {
            user: self.name.clone(),
            tags: self.record.tags.iter().copied().collect(),
            permissions: self.record.permissions.clone().into_iter().collect(),
        }
    }
}

/// All users, as of one moment.
#[derive(Debug)]
pub struct Users {
    /// Moves with every change.
    pub version: u64,
    by_name: HashMap<UserName, Arc<User>>,
    decoys: [u8; 32],
}

impl Users {
    #[must_use]
    pub fn new(version: u64, by_name: HashMap<UserName, Arc<User>>, decoys: [u8; 32]) -> Users {
        Users { version, by_name, decoys }
    }

    /// The user of that name.
    #[must_use]
    pub fn get(&self, name: &UserName) -> Option<&Arc<User>> {
        self.by_name.get(name)
    }

    /// The user with its credentials, or credentials that no password fits: the exchange with the client is the same.
    #[must_use]
    pub fn credentials(&self, name: &UserName) -> (Option<Arc<User>>, Credentials) {
        // Made in either case, so that both take as long.
        let decoy = Credentials::decoy(&self.decoys, name.as_str());
        match self.get(name) {
            Some(user) => (Some(Arc::clone(user)), user.record.credentials.clone()),
            None => (None, decoy),
        }
    }

    /// What the passwords of all are checked against, in order of name. For backups.
    #[must_use]
    pub fn all_credentials(&self) -> Vec<(UserName, Credentials)> {
        let of = |user: &Arc<User>| (user.name.clone(), user.record.credentials.clone());
        let mut all: Vec<_> = self.by_name.values().map(of).collect();
        all.sort_by(|one, two| one.0.cmp(&two.0));
        all
    }

    /// The names of all, in no order.
    pub fn names(&self) -> impl Iterator<Item = &UserName> {
        self.by_name.keys()
    }

    /// Those with the tag, in no order.
    pub fn administrators(&self) -> impl Iterator<Item = &UserName> {
        let users = self.by_name.values().filter(|user| user.has(UserTag::Administrator));
        users.map(|user| &user.name)
    }

    /// All, in order of name.
    #[must_use]
    pub fn list(&self) -> Vec<UserSummary> {
        let mut all: Vec<UserSummary> = self.by_name.values().map(|user| user.summary()).collect();
        all.sort_by(|one, two| one.user.cmp(&two.user));
        all
    }
}
