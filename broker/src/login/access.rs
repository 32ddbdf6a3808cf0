//! What one connection may do. Decided before anything is looked up, so that a refusal says nothing about what exists; for
//! publishes once for each address, and again when the user's document has changed.

use std::collections::HashMap;
use std::sync::Arc;

use bellwether_coordinator::users::Pattern;
use bellwether_protocol::client::{Browse, Request, UserTag};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::names::{ExchangeName, QueueName, RoutingKey, VirtualHost};

use super::User;
use super::users::Permitted;

/// Addresses whose permission a connection remembers; beyond it all are decided anew.
const DECISIONS_MAX: usize = 4_096;

/// What can be done with a queue or an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Configure,
    Write,
    Read,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Configure => "configure",
            Operation::Write => "write",
            Operation::Read => "read",
        }
    }

    fn of(self, permitted: &Permitted) -> Option<&Pattern> {
        match self {
            Operation::Configure => permitted.configure.as_ref(),
            Operation::Write => permitted.write.as_ref(),
            Operation::Read => permitted.read.as_ref(),
        }
    }
}

/// What it is done with.
#[derive(Clone, Copy, Debug)]
enum Thing<'a> {
    Queue(&'a str),
    Exchange(&'a str),
}

impl<'a> Thing<'a> {
    fn name(self) -> &'a str {
        match self {
            Thing::Queue(name) | Thing::Exchange(name) => name,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Thing::Queue(_) => "queue",
            Thing::Exchange(_) => "exchange",
        }
    }
}

/// What somebody may do in a virtual host.
#[derive(Debug)]
pub struct Rights {
    /// None: nobody logged in, and nobody has to. They may do everything.
    user: Option<Arc<User>>,
    host: VirtualHost,
}

impl Rights {
    /// Whether it may do what a request asks for.
    ///
    /// # Errors
    /// [`ErrorCode::AccessRefused`], saying what is missing.
    pub fn check(&self, request: &Request) -> Result<(), ErrorBody> {
        use Operation::{Configure, Read, Write};
        match request {
            Request::DeclareExchange { exchange, .. }
            | Request::DeleteExchange { exchange, .. } => {
                self.may(Configure, Thing::Exchange(exchange.as_str()))
            }
            Request::DeclareQueue { queue, .. } | Request::DeleteQueue { queue, .. } => {
                self.may(Configure, Thing::Queue(queue.as_str()))
            }
            Request::PurgeQueue { queue } | Request::Browse(Browse { queue, .. }) => {
                self.may_read(queue)
            }
            Request::AttachConsumer { queue, .. } => self.may_read(queue),
            Request::DescribeQueue { queue } if self.shows(queue.as_str()) => Ok(()),
            Request::DescribeQueue { queue } => self.may_read(queue),
            Request::Bind { exchange, queue, .. } | Request::Unbind { exchange, queue, .. } => {
                self.may(Write, Thing::Queue(queue.as_str()))?;
                self.may(Read, Thing::Exchange(exchange.as_str()))
            }
            // What an operator asks of one queue; of the whole cluster it is for those who look after that.
            Request::QueueCondition { queue }
            | Request::ReplicaStatus { queue, .. }
            | Request::Elections { queue: Some(queue), .. } => match self.shows(queue.as_str()) {
                true => Ok(()),
                false => self.may_read(queue),
            },
            Request::Recover(_) => {
                self.must_be(&[UserTag::Administrator], "recover queues with a loss")
            }
            Request::ChangeSetting { .. } => {
                self.must_be(&[UserTag::Administrator], "change settings of the cluster")
            }
            Request::ClusterStatus
            | Request::Plan
            | Request::Elections { queue: None, .. }
            | Request::Attention { .. }
            | Request::ListDefinitions { .. }
            | Request::ListSettings => {
                self.must_be(&[UserTag::Administrator, UserTag::Monitoring], "look at the cluster")
            }
            Request::Drain { .. } => self.must_be(&[UserTag::Administrator], "drain brokers"),
            Request::AddUser { .. }
            | Request::SetPassword { .. }
            | Request::DeleteUser { .. }
            | Request::ListUsers
            | Request::SetTags { .. }
            | Request::ListCredentials
            | Request::SetPermissions { .. } => {
                self.must_be(&[UserTag::Administrator], "look at users or change them")
            }
            // Lists show what the user may do something with; producers are looked at when they publish, and who detaches has
            // attached before.
            Request::ListExchanges
            | Request::ListQueues { .. }
            | Request::ListBindings { .. }
            | Request::AttachProducer { .. }
            | Request::DetachProducer { .. }
            | Request::DetachConsumer { .. } => Ok(()),
        }
    }

    /// Whether it may consume a queue.
    ///
    /// # Errors
    /// [`ErrorCode::AccessRefused`], saying what is missing.
    pub fn may_read(&self, queue: &QueueName) -> Result<(), ErrorBody> {
        self.may(Operation::Read, Thing::Queue(queue.as_str()))
    }

    /// Whether the queue or exchange of this name is shown to the user: it may do anything with it, or looks after the cluster.
    #[must_use]
    pub fn shows(&self, name: &str) -> bool {
        let Some(user) = &self.user else { return true };
        if !user.record.tags.is_empty() {
            return true;
        }
        let Some(permitted) = user.permitted(&self.host) else { return false };
        let patterns = [&permitted.configure, &permitted.write, &permitted.read];
        patterns.into_iter().flatten().any(|pattern| pattern.permits(name))
    }

    /// The default exchange names its queue, so that writing to it is writing to that queue.
    fn may_publish(&self, exchange: &ExchangeName, key: &RoutingKey) -> Result<(), ErrorBody> {
        let thing = match exchange.is_default() {
            true => Thing::Queue(key.as_str()),
            false => Thing::Exchange(exchange.as_str()),
        };
        self.may(Operation::Write, thing)
    }

    fn may(&self, operation: Operation, thing: Thing<'_>) -> Result<(), ErrorBody> {
        let Some(user) = &self.user else { return Ok(()) };
        let pattern = user.permitted(&self.host).and_then(|permitted| operation.of(permitted));
        if pattern.is_some_and(|pattern| pattern.permits(thing.name())) {
            return Ok(());
        }
        let why = match pattern {
            Some(pattern) => format!("its {} pattern is {:?}", operation.name(), pattern.as_str()),
            None => "it has no permission there".to_owned(),
        };
        let words = format!(
            "user {} may not {} {} {} in virtual host {}: {why}; an administrator can change that with `bellwether user permit`",
            user.name,
            operation.name(),
            thing.kind(),
            thing.name(),
            self.host,
        );
        Err(ErrorBody::not_done(ErrorCode::AccessRefused, words))
    }

    fn must_be(&self, tags: &[UserTag], to: &str) -> Result<(), ErrorBody> {
        let Some(user) = &self.user else { return Ok(()) };
        if tags.iter().any(|tag| user.has(*tag)) {
            return Ok(());
        }
        let tags: Vec<&str> = tags.iter().map(|tag| tag.name()).collect();
        let words = format!(
            "user {} may not {to}: it needs the tag {}, which is given when a user is added",
            user.name,
            tags.join(" or "),
        );
        Err(ErrorBody::not_done(ErrorCode::AccessRefused, words))
    }
}

/// The rights of one connection, and what was decided for its publishes.
#[derive(Debug)]
pub struct Access {
    rights: Arc<Rights>,
    decided: HashMap<(ExchangeName, RoutingKey), Result<(), ErrorBody>>,
    /// Stands for all keys of an exchange; kept, so that none is made for each frame.
    any_key: RoutingKey,
}

impl Access {
    #[must_use]
    pub fn new(user: Option<Arc<User>>, host: VirtualHost) -> Access {
        let any_key = RoutingKey::new("").expect("a routing key may be empty");
        Access { rights: Arc::new(Rights { user, host }), decided: HashMap::new(), any_key }
    }

    #[must_use]
    pub fn rights(&self) -> &Arc<Rights> {
        &self.rights
    }

    #[must_use]
    pub fn user(&self) -> Option<&Arc<User>> {
        self.rights.user.as_ref()
    }

    /// The user's document has changed: everything is decided anew.
    pub fn replace(&mut self, user: Arc<User>) {
        *self = Access::new(Some(user), self.rights.host.clone());
    }

    /// Whether messages may be published to an address.
    ///
    /// # Errors
    /// [`ErrorCode::AccessRefused`], saying what is missing.
    pub fn may_publish(
        &mut self,
        exchange: &ExchangeName,
        key: &RoutingKey,
    ) -> Result<(), ErrorBody> {
        if self.rights.user.is_none() {
            return Ok(());
        }
        // An exchange other than the default one is decided for all its keys.
        let key = if exchange.is_default() { key } else { &self.any_key };
        let address = (exchange.clone(), key.clone());
        if let Some(decided) = self.decided.get(&address) {
            return decided.clone();
        }
        if self.decided.len() >= DECISIONS_MAX {
            self.decided.clear();
        }
        let decision = self.rights.may_publish(exchange, &address.1);
        self.decided.insert(address, decision.clone());
        decision
    }
}

#[cfg(test)]
mod tests {
    use bellwether_coordinator::users::UserRecord;
    use bellwether_protocol::client::{Drain, ExchangeKind, Permissions, QueueOptions};
    use bellwether_protocol::ids::{BrokerId, Offset};
    use bellwether_protocol::names::UserName;
    use bellwether_protocol::scram::Credentials;

    use super::*;

    fn user(tags: &[UserTag], permissions: Option<[&str; 3]>) -> Arc<User> {
        let permissions = permissions.map(|[configure, write, read]| {
            let of = |pattern: &str| pattern.to_owned();
            let all = Permissions { configure: of(configure), write: of(write), read: of(read) };
            (VirtualHost::default(), all)
        });
        let record = UserRecord {
            credentials: Credentials::decoy(b"", "u"),
            tags: tags.iter().copied().collect(),
            permissions: permissions.into_iter().collect(),
            unknown: Default::default(),
        };
        Arc::new(User::new(UserName::new("u").unwrap(), record))
    }

    fn access(user: Arc<User>) -> Access {
        Access::new(Some(user), VirtualHost::default())
    }

    fn queue(name: &str) -> QueueName {
        QueueName::new(name).unwrap()
    }

    fn exchange(name: &str) -> ExchangeName {
        ExchangeName::new(name).unwrap()
    }

    fn key(name: &str) -> RoutingKey {
        RoutingKey::new(name).unwrap()
    }

    fn requests() -> Vec<(Request, Option<[&'static str; 3]>)> {
        let (queue, exchange, routing_key) = (queue("q"), exchange("e"), key("k"));
        let bind = (exchange.clone(), queue.clone(), routing_key);
        vec![
            (
                Request::DeclareExchange { exchange: exchange.clone(), kind: ExchangeKind::Direct },
                Some(["e", "", ""]),
            ),
            (Request::DeleteExchange { exchange, if_unused: false }, Some(["e", "", ""])),
            (
                Request::DeclareQueue { queue: queue.clone(), options: QueueOptions::default() },
                Some(["q", "", ""]),
            ),
            (
                Request::DeleteQueue { queue: queue.clone(), if_unused: false, if_empty: false },
                Some(["q", "", ""]),
            ),
            (Request::PurgeQueue { queue: queue.clone() }, Some(["", "", "q"])),
            (
                Request::Browse(Browse {
                    queue: queue.clone(),
                    from: Offset(0),
                    until: None,
                    messages_max: 1,
                    bytes_max: 1,
                }),
                Some(["", "", "q"]),
            ),
            (Request::DescribeQueue { queue }, Some(["", "", "q"])),
            (
                Request::Bind {
                    exchange: bind.0.clone(),
                    queue: bind.1.clone(),
                    routing_key: bind.2.clone(),
                },
                Some(["", "q", "e"]),
            ),
            (
                Request::Unbind { exchange: bind.0, queue: bind.1, routing_key: bind.2 },
                Some(["", "q", "e"]),
            ),
            (Request::ClusterStatus, None),
            (Request::Drain { broker: BrokerId(1), drain: Some(Drain::Copies) }, None),
            (Request::ListUsers, None),
            (Request::ListCredentials, None),
            (Request::SetTags { user: UserName::new("u").unwrap(), tags: Vec::new() }, None),
            (Request::DeleteUser { user: UserName::new("u").unwrap() }, None),
        ]
    }

    #[test]
    fn nothing_is_permitted_by_default_and_each_request_by_what_it_needs() {
        for (request, needs) in requests() {
            let refused = access(user(&[], None)).rights().check(&request).unwrap_err();
            assert_eq!(refused.code, ErrorCode::AccessRefused, "{request:?}");
            let others = access(user(&[], Some(["x", "x", "x"])));
            assert!(others.rights().check(&request).is_err(), "{request:?}");
            if let Some(patterns) = needs {
                access(user(&[], Some(patterns))).rights().check(&request).unwrap();
                let administrator = access(user(&[UserTag::Administrator], None));
                let shown = matches!(request, Request::DescribeQueue { .. });
                assert_eq!(administrator.rights().check(&request).is_ok(), shown, "{request:?}");
            } else {
                access(user(&[UserTag::Administrator], None)).rights().check(&request).unwrap();
                assert!(
                    access(user(&[], Some([".*", ".*", ".*"]))).rights().check(&request).is_err()
                );
            }
        }
    }

    #[test]
    fn who_need_not_log_in_may_do_everything() {
        let mut access = Access::new(None, VirtualHost::default());
        requests().iter().for_each(|(request, _)| access.rights().check(request).unwrap());
        access.may_publish(&exchange("e"), &key("k")).unwrap();
    }

    #[test]
    fn monitoring_may_look_and_not_touch() {
        let monitoring = access(user(&[UserTag::Monitoring], None));
        monitoring.rights().check(&Request::ClusterStatus).unwrap();
        assert!(monitoring.rights().check(&Request::ListUsers).is_err());
        assert!(monitoring.rights().shows("q"));
    }

    #[test]
    fn publishing_by_a_queues_name_is_writing_to_the_queue_and_not_to_all_queues() {
        let mut access = access(user(&[], Some(["", "orders|events", ""])));
        access.may_publish(&exchange(""), &key("orders")).unwrap();
        access.may_publish(&exchange("events"), &key("anything")).unwrap();
        assert!(access.may_publish(&exchange(""), &key("invoices")).is_err());
        assert!(access.may_publish(&exchange("invoices"), &key("orders")).is_err());
        assert_eq!(access.decided.len(), 4);
        access.may_publish(&exchange("events"), &key("anything else")).unwrap();
        assert_eq!(access.decided.len(), 4, "decided once for all keys of an exchange");
    }

    #[test]
    fn a_refusal_names_user_host_operation_and_pattern() {
        let refused =
            access(user(&[], Some(["", "a.*", ""]))).may_publish(&exchange(""), &key("b"));
        let words = refused.unwrap_err().message;
        for part in ["user u", "write", "queue b", "virtual host /", "\"a.*\"", "user permit"] {
            assert!(words.contains(part), "{part}: {words}");
        }
    }

    #[test]
    fn what_was_decided_is_forgotten_when_the_user_changes() {
        let mut access = access(user(&[], Some(["", ".*", ""])));
        access.may_publish(&exchange("e"), &key("")).unwrap();
        access.replace(user(&[], Some(["", "", ""])));
        assert!(access.may_publish(&exchange("e"), &key("")).is_err());
    }

    #[test]
    fn decisions_are_bounded() {
        let mut access = access(user(&[], Some(["", ".*", ""])));
        for n in 0..3 * DECISIONS_MAX {
            access.may_publish(&exchange(""), &key(&n.to_string())).unwrap();
        }
        assert!(access.decided.len() <= DECISIONS_MAX);
    }

    #[test]
    fn a_pattern_that_cannot_be_read_permits_nothing() {
        assert!(
            access(user(&[], Some(["", "(", ""]))).may_publish(&exchange("("), &key("")).is_err()
        );
    }
}
