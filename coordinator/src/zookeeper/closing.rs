//! Closes to others what lies below the chroot, for a login that is to protect something: documents keep the access list that
//! they were made with, and those made before there was a login are open to whoever reaches the ensemble.
//! *Invariant:* a session with a login stands on no fixed document that others may read or change.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use sha1::{Digest as _, Sha1};
use tokio::time::Instant;
use tracing::{info, warn};
use zookeeper_client as zk;

use super::config::Digest;
use crate::coordinator::Path;
use crate::paths;
use crate::session::DialError;

/// Requests in flight at once: a tree of a hundred thousand queues is walked in seconds, and no answer waits long.
const AT_ONCE: usize = 256;

/// Walks through the tree until one finds nothing open. Each closes all that it finds, and who made something open meanwhile can make
/// nothing more where the parents are closed: two do, and more mean that somebody else works against it.
const WALKS_MAX: usize = 8;

/// How long, in time-outs of the session, documents of live brokers without a login may be leftovers of brokers that are gone.
const LEFTOVERS_LAST: u32 = 2;

/// How often it is looked whether they are gone.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Users named in the log; there may be any number.
const USERS_NAMED_MAX: usize = 20;

/// One session's view of the tree below the chroot, and the login that is to own it.
pub(super) struct Closing<'a> {
    pub(super) client: &'a zk::Client,
    pub(super) chroot: &'a str,
    pub(super) digest: &'a Digest,
    /// With one answer; the whole takes as long as it takes.
    pub(super) patience: Duration,
}

/// What an access list permits to others.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Access {
    Closed,
    /// Others have access, or this login lacks it: the list in words.
    Open(String),
    /// Not even the list may be read.
    Hidden,
    /// Nothing is there.
    Absent,
}

impl Closing<'_> {
    /// Looks at what every cluster has, and when some of it is open closes the whole tree.
    pub(super) async fn close_to_others(&self) -> Result<(), DialError> {
        let sync = self.answer(self.client.sync("/")).await?;
        sync.map_err(|error| DialError::Unreachable(error.to_string()))?;
        let fixed = self.fixed().await?;
        if self.not_closed(&fixed).await?.is_empty() {
            return Ok(());
        }
        self.await_leftovers().await?;
        let mut users = self.open_below(&paths::users()).await?;
        users.retain(|(path, _)| *path != paths::users());
        let root = Path("/".to_owned());
        let mut closed = 0;
        for _ in 0..WALKS_MAX {
            let mut open = self.open_below(&root).await?;
            // The root last, and children before their parents: what is interrupted finds a fixed document open, and begins anew.
            open.sort_by_key(|(path, _)| std::cmp::Reverse(depth(path)));
            if open.is_empty() {
                self.tell(closed, &users);
                return Ok(());
            }
            closed += open.len();
            for open in open.chunks(AT_ONCE) {
                self.set(open).await?;
            }
        }
        Err(DialError::Invalid(format!(
            "documents below {} are opened to others as often as they are closed: stop whoever does that, and start again",
            self.chroot
        )))
    }

    fn tell(&self, closed: usize, users: &[(Path, Access)]) {
        warn!(
            chroot = self.chroot,
            documents = closed,
            "documents in ZooKeeper could be read or changed without this login; they are closed now"
        );
        if !users.is_empty() {
            let names: Vec<&str> =
                users.iter().take(USERS_NAMED_MAX).map(|(path, _)| path.0.as_str()).collect();
            warn!(
                documents = ?names,
                count = users.len(),
                "anybody who reached ZooKeeper may have made or changed these users: check them with `bellwether user list`, and change their passwords"
            );
        }
    }

    /// The chroot, and what lies in it in every cluster: a stranger who gets there first must not own it.
    async fn fixed(&self) -> Result<Vec<Path>, DialError> {
        let mut fixed = vec![
            Path("/".to_owned()),
            paths::brokers(),
            paths::cluster(),
            paths::login(),
            paths::settings(),
            paths::controller(),
        ];
        fixed.extend(paths::folders());
        let users = self.children(&paths::users()).await?;
        fixed.extend(users.iter().map(|user| paths::users().child(user)));
        Ok(fixed)
    }

    /// Brokers that live without the login would be shut out: that is no way to stop a cluster. Those that are gone leave their documents
    /// behind for a while.
    async fn await_leftovers(&self) -> Result<(), DialError> {
        let until = Instant::now() + self.client.session_timeout() * LEFTOVERS_LAST;
        let mut told = false;
        loop {
            let live = self.open_below(&paths::live_brokers()).await?;
            let live: Vec<&str> = live
                .iter()
                .filter(|(path, _)| *path != paths::live_brokers())
                .filter_map(|(path, _)| path.0.rsplit('/').next())
                .collect();
            if live.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(DialError::Invalid(format!(
                    "brokers live without --zookeeper-auth below {}: {}. They would be shut out if the documents were closed now: stop all brokers, \
                     then start them with it",
                    self.chroot,
                    live.join(", ")
                )));
            }
            if !told {
                info!(
                    ?live,
                    "brokers are registered without a login for ZooKeeper; waiting for their sessions to end"
                );
                told = true;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Whatever is not closed at `top` and below it.
    async fn open_below(&self, top: &Path) -> Result<Vec<(Path, Access)>, DialError> {
        let mut open = Vec::new();
        let mut level = vec![top.clone()];
        while !level.is_empty() {
            open.extend(self.not_closed(&level).await?);
            let mut next = Vec::new();
            for parents in level.chunks(AT_ONCE) {
                let children = join_all(parents.iter().map(|parent| self.children(parent))).await;
                for (parent, children) in parents.iter().zip(children) {
                    next.extend(children?.iter().map(|child| parent.child(child)));
                }
            }
            level = next;
        }
        Ok(open)
    }

    async fn not_closed(&self, paths: &[Path]) -> Result<Vec<(Path, Access)>, DialError> {
        let mut open = Vec::new();
        for paths in paths.chunks(AT_ONCE) {
            let found = join_all(paths.iter().map(|path| self.access(path))).await;
            for (path, access) in paths.iter().zip(found) {
                match access? {
                    Access::Closed | Access::Absent => {}
                    Access::Hidden => {
                        return Err(self.refuse(path, "an access list that it may not read"));
                    }
                    access @ Access::Open(_) => open.push((path.clone(), access)),
                }
            }
        }
        Ok(open)
    }

    async fn access(&self, path: &Path) -> Result<Access, DialError> {
        match self.answer(self.client.get_acl(&path.0)).await? {
            Ok((list, _)) => Ok(judge(&list, &identity(self.digest))),
            Err(zk::Error::NoNode) => Ok(Access::Absent),
            Err(zk::Error::NoAuth) => Ok(Access::Hidden),
            Err(error) => Err(DialError::Unreachable(error.to_string())),
        }
    }

    async fn children(&self, path: &Path) -> Result<Vec<String>, DialError> {
        match self.answer(self.client.list_children(&path.0)).await? {
            Ok(children) => Ok(children),
            Err(zk::Error::NoNode) => Ok(Vec::new()),
            Err(zk::Error::NoAuth) => {
                Err(self.refuse(path, "an access list that keeps it from reading"))
            }
            Err(error) => Err(DialError::Unreachable(error.to_string())),
        }
    }

    async fn set(&self, open: &[(Path, Access)]) -> Result<(), DialError> {
        let list = zk::Acls::creator_all();
        let set = open.iter().map(|(path, _)| self.client.set_acl(&path.0, &list, None));
        for ((path, access), set) in open.iter().zip(self.answer(join_all(set)).await?) {
            match (set, access) {
                (Ok(_) | Err(zk::Error::NoNode), _) => {}
                (Err(zk::Error::NoAuth), Access::Open(list)) => {
                    return Err(self.refuse(path, &format!("the access list {list}")));
                }
                (Err(error), _) => return Err(DialError::Unreachable(error.to_string())),
            }
        }
        Ok(())
    }

    async fn answer<T>(&self, answer: impl Future<Output = T>) -> Result<T, DialError> {
        let unanswered =
            |_| DialError::Unreachable("no answer while access lists were looked at".to_owned());
        tokio::time::timeout(self.patience, answer).await.map_err(unanswered)
    }

    /// What a person has to do whose login this is not. The hash of the password, which ZooKeeper's lists hold, is not shown.
    fn refuse(&self, path: &Path, has: &str) -> DialError {
        let (chroot, user) = (self.chroot, &self.digest.user);
        let node = if path.0 == "/" { chroot.to_owned() } else { format!("{chroot}{path}") };
        DialError::Invalid(format!(
            "{node} in ZooKeeper has {has}, and the login {user:?} of --zookeeper-auth may not change that: it would protect nothing. \
             If the documents are this cluster's, give them to the login: in zkCli.sh `addauth digest` with the login that made them (or ZooKeeper's \
             super user), then `addauth digest {user}:PASSWORD`, then `setAcl -R {chroot} auth::cdrwa`. Otherwise choose another chroot"
        ))
    }
}

/// Closed is what this login may do everything with, and not everybody something. Further logins in a list are their owners' will: nobody
/// puts this one's identity into a list without knowing its password.
fn judge(list: &[zk::Acl], identity: &str) -> Access {
    let own = list.iter().any(|acl| {
        acl.scheme() == "digest"
            && acl.id() == identity
            && acl.permission().has(zk::Permission::ALL)
    });
    if own && list.iter().all(|acl| acl.scheme() != "world") {
        return Access::Closed;
    }
    let shown = list.iter().map(|acl| {
        // Hashes of passwords are left out.
        let id = acl.id().split_once(':').map_or(acl.id(), |(user, _)| user);
        format!("{}:{id}:{}", acl.scheme(), acl.permission())
    });
    Access::Open(shown.collect::<Vec<_>>().join(","))
}

/// How ZooKeeper writes a digest login into access lists.
fn identity(digest: &Digest) -> String {
    let Digest { user, password } = digest;
    let hash = Sha1::digest(format!("{user}:{password}"));
    format!("{user}:{}", STANDARD.encode(hash))
}

fn depth(path: &Path) -> usize {
    if path.0 == "/" { 0 } else { path.0.matches('/').count() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> Digest {
        Digest { user: "super".to_owned(), password: "admin".to_owned() }
    }

    fn acl(permission: zk::Permission, scheme: &str, id: &str) -> zk::Acl {
        zk::Acl::new(permission, zk::AuthId::new(scheme, id))
    }

    /// The example that ZooKeeper's own documents print.
    #[test]
    fn the_identity_is_what_zookeeper_makes_of_a_login() {
        assert_eq!(identity(&digest()), "super:xQJmxLMiHGwaqBvst5y6rkB6HQs=");
    }

    #[test]
    fn a_list_is_closed_when_this_login_may_everything_and_everybody_nothing() {
        let identity = identity(&digest());
        let own = acl(zk::Permission::ALL, "digest", &identity);
        let backup = acl(zk::Permission::READ, "digest", "backup:x");
        assert_eq!(judge(std::slice::from_ref(&own), &identity), Access::Closed);
        assert_eq!(judge(&[backup.clone(), own.clone()], &identity), Access::Closed);
        for (list, shown) in [
            (vec![], ""),
            (vec![acl(zk::Permission::ALL, "world", "anyone")], "world:anyone:ALL"),
            (
                vec![own, acl(zk::Permission::READ, "world", "anyone")],
                "digest:super:ALL,world:anyone:READ",
            ),
            (vec![acl(zk::Permission::READ, "digest", &identity)], "digest:super:READ"),
            // The same name with another password.
            (vec![acl(zk::Permission::ALL, "digest", "super:other")], "digest:super:ALL"),
            (vec![backup], "digest:backup:READ"),
        ] {
            assert_eq!(judge(&list, &identity), Access::Open(shown.to_owned()));
        }
    }
}
