//! What is written down of changes that outlast a connection: who, from where, what, and what came of it. One line each in the log, of
//! the target `audit`.

use std::net::IpAddr;

use bellwether_protocol::client::{Drain, Request, Response, UserTag};
use bellwether_protocol::error::{ErrorBody, Outcome};

use super::Rights;

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
        Request::SetTags { user, tags } => {
            let tags: Vec<&str> = tags.iter().copied().map(UserTag::name).collect();
            deed("change the tags of", format!("{user} to {tags:?}"))
        }
        // What it shows is as good as users' keys.
        Request::ListCredentials => deed("read the credentials of all users", String::new()),
        Request::DeleteUser { user } => deed("delete user", user.to_string()),
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
        | Request::Plan => None,
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

#[cfg(test)]
mod tests {
    use bellwether_protocol::names::{QueueName, UserName};
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
}
