//! What is written down of changes that outlast a connection: who, from where, what, and what came of it. One line each in the log, of
//! the target `audit`.

use std::net::IpAddr;
use std::sync::Arc;

use bellwether_protocol::client::{Drain, Request, Response, UserTag};
use bellwether_protocol::error::{ErrorBody, Outcome};
use bellwether_protocol::names::UserName;

use super::{Rights, Users};

/// Something worth a line: what is done, and with what. Never keys or passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deed {
    what: &'static str,
    with: String,
}

/// What a request does, if that is written down: users and their permissions, settings, drains, recoveries, and what is deleted.
pub(crate) fn deed_of(request: &Request) -> Option<Deed> {
    let deed = |what, with: String| Some(Deed { what, with });
    match request {
        Request::AddUser { user, tags, credentials: _ } => {
            let tags: Vec<&str> = tags.iter().copied().map(UserTag::name).collect();
            deed("add user", format!("{user}, tags {tags:?}"))
        }
        Request::SetPassword { user, credentials: _ } => {
            deed("change the password of", user.to_string())
        }
        Request::SetTags { user, tags, force: _ } => {
            let tags: Vec<&str> = tags.iter().copied().map(UserTag::name).collect();
            deed("change the tags of", format!("{user} to {tags:?}"))
        }
        // What it shows is as good as users' keys.
        Request::ListCredentials => deed("read the credentials of all users", String::new()),
        Request::DeleteUser { user, force: _ } => deed("delete user", user.to_string()),
        Request::SetPermissions { user, virtual_host, permissions: Some(permissions) } => deed(
            "permit",
            format!(
                "{user} in {virtual_host}: configure {:?}, write {:?}, read {:?}",
                permissions.configure, permissions.write, permissions.read
            ),
        ),
        Request::SetPermissions { user, virtual_host, permissions: None } => {
            deed("deny", format!("{user} in {virtual_host}"))
        }
        Request::ChangeSetting { key, value } => {
            deed("change setting", format!("{key:?} to {value:?}"))
        }
        Request::Drain { broker, drain } => {
            let what = match drain {
                Some(Drain::Leaderships) => "drain of leaderships",
                Some(Drain::Copies) => "drain of copies",
                None => "end the drain of",
            };
            deed(what, format!("broker {broker}"))
        }
        Request::Recover(recover) => deed(
            "recover",
            format!(
                "queue {}, giving up {:?}, lost {}",
                recover.queue, recover.given_up, recover.lost
            ),
        ),
        Request::Retire { broker } => deed("retire", format!("broker {broker}")),
        Request::ClearTaint { queue, epoch } => {
            deed("clear the taint of", format!("queue {queue}, epoch {epoch}"))
        }
        Request::DeleteQueue { queue, .. } => deed("delete queue", queue.to_string()),
        Request::PurgeQueue { queue } => deed("purge queue", queue.to_string()),
        Request::DeleteExchange { exchange, .. } => deed("delete exchange", exchange.to_string()),
        Request::DeclareExchange { .. }
        | Request::DeclareQueue { .. }
        | Request::Bind { .. }
        | Request::Unbind { .. }
        | Request::ListExchanges
        | Request::ListQueues { .. }
        | Request::DescribeQueue { .. }
        | Request::ListBindings { .. }
        | Request::ClusterStatus
        | Request::ListDefinitions { .. }
        | Request::ListSettings
        | Request::CountObjects
        | Request::QueueCondition { .. }
        | Request::ReplicaStatus { .. }
        | Request::Elections { .. }
        | Request::Attention { .. }
        | Request::ListUsers
        | Request::Browse(_)
        | Request::AttachProducer { .. }
        | Request::DetachProducer { .. }
        | Request::AttachConsumer { .. }
        | Request::DetachConsumer { .. }
        | Request::Plan
        | Request::Stuck { .. } => None,
    }
}

impl Deed {
    /// Writes it down.
    pub fn done(&self, rights: &Rights, from: Option<IpAddr>, done: &Result<Response, ErrorBody>) {
        let user = rights.user_name().map_or("nobody", |user| user.as_str());
        let (what, with) = (self.what, self.with.as_str());
        let outcome = match done {
            Ok(_) => "done".to_owned(),
            Err(error) => {
                let known = if error.outcome == Outcome::Unknown { "unknown" } else { "not done" };
                format!("{known}: {:?}", error.code)
            }
        };
        tracing::info!(target: "audit", user, virtual_host = rights.host_name(), ?from, what, with, outcome);
    }
}

/// Writes down what became of users, whoever changed them: also who writes to the ensemble itself, and asks no broker, leaves a line
/// on each.
pub(crate) fn write_down_changes(before: &Users, now: &Users) {
    for (user, what) in changes(before, now) {
        tracing::info!(target: "audit", %user, what, "a user was changed in the coordinator");
    }
}

fn changes(before: &Users, now: &Users) -> Vec<(UserName, String)> {
    let mut names: Vec<&UserName> = before.names().chain(now.names()).collect();
    names.sort_unstable();
    names.dedup();
    let change = |name: &UserName| match (before.get(name), now.get(name)) {
        (Some(before), Some(now)) if Arc::ptr_eq(before, now) => None,
        (None, None) => None,
        (None, Some(_)) => Some("there is one of that name now".to_owned()),
        (Some(_), None) => Some("it is gone, or cannot be read".to_owned()),
        (Some(before), Some(now)) => {
            let (before, now) = (&before.record, &now.record);
            let parts = [
                (before.credentials != now.credentials, "password"),
                (before.tags != now.tags, "tags"),
                (before.permissions != now.permissions, "permissions"),
            ];
            let parts: Vec<&str> =
                parts.into_iter().filter(|(other, _)| *other).map(|(_, part)| part).collect();
            (!parts.is_empty()).then(|| format!("it has other {}", parts.join(", ")))
        }
    };
    let changed = names.into_iter().filter_map(|name| Some((name.clone(), change(name)?)));
    changed.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, HashMap};

    use bellwether_coordinator::users::UserRecord;
    use bellwether_protocol::names::QueueName;
    use bellwether_protocol::scram::Credentials;

    use super::*;

    #[test]
    fn what_outlasts_a_connection_is_written_down_and_no_key_with_it() {
        let user = UserName::new("bob").unwrap();
        let credentials =
            Credentials { stored_key: [0xAB; 32], ..Credentials::decoy(b"secret", "bob") };
        let add = Request::AddUser {
            user: user.clone(),
            credentials: credentials.clone(),
            tags: vec![UserTag::Administrator],
        };
        assert_eq!(
            deed_of(&add).unwrap(),
            Deed { what: "add user", with: "bob, tags [\"administrator\"]".to_owned() }
        );
        let password = Request::SetPassword { user, credentials };
        assert_eq!(deed_of(&password).unwrap().with, "bob");
        let queue = QueueName::new("q").unwrap();
        assert!(deed_of(&Request::PurgeQueue { queue: queue.clone() }).is_some());
        assert_eq!(deed_of(&Request::DescribeQueue { queue }), None);
    }

    #[test]
    fn what_became_of_users_is_told_whoever_did_it() {
        let user = |name: &str, tags: &[UserTag], password: &[u8]| {
            let record = UserRecord {
                credentials: Credentials::decoy(password, name),
                tags: tags.iter().copied().collect::<BTreeSet<_>>(),
                permissions: BTreeMap::new(),
                later: Default::default(),
                unknown: Default::default(),
            };
            let name = UserName::new(name).unwrap();
            Arc::new(crate::login::User::new(name, record))
        };
        let users = |all: &[&Arc<crate::login::User>]| {
            let by_name = all.iter().map(|user| (user.name.clone(), Arc::clone(user)));
            Users::new(1, by_name.collect::<HashMap<_, _>>(), [0; 32])
        };
        let (ann, bob) = (user("ann", &[], b"a"), user("bob", &[], b"b"));
        let cat = user("cat", &[], b"c");
        let bob_now = user("bob", &[UserTag::Administrator], b"other");
        let told = changes(&users(&[&ann, &bob]), &users(&[&bob_now, &cat]));
        let told: Vec<(&str, &str)> =
            told.iter().map(|(name, what)| (name.as_str(), what.as_str())).collect();
        assert_eq!(
            told,
            [
                ("ann", "it is gone, or cannot be read"),
                ("bob", "it has other password, tags"),
                ("cat", "there is one of that name now"),
            ]
        );
        assert_eq!(changes(&users(&[&ann, &bob]), &users(&[&ann, &bob])), []);
    }
}
