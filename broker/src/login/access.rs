//! What one connection may do. Decided before anything is looked up, so that a refusal says nothing about what exists; for
//! publishes once for each address, and again when the user's document has changed.

use std::collections::HashSet;
use std::sync::Arc;

use bellwether_coordinator::users::Pattern;
use bellwether_protocol::client::{Browse, Request, UserTag};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::names::{ExchangeName, QueueName, RoutingKey, UserName, VirtualHost};

use super::User;
use super::users::Permitted;
use crate::words::in_shell;

/// Addresses that a connection remembers to be permitted; beyond it all are decided anew.
const PERMITTED_MAX: usize = 4_096;

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
    /// Who logged in.
    #[must_use]
    pub fn user_name(&self) -> Option<&UserName> {
        self.user.as_ref().map(|user| &user.name)
    }

    /// The virtual host of the connection.
    #[must_use]
    pub fn host_name(&self) -> &str {
        self.host.as_str()
    }

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
            // It reads the whole log of the copy.
            Request::ReplicaStatus { count: true, .. } => self.must_be(
                &[UserTag::Administrator, UserTag::Monitoring],
                "count the messages of a copy",
            ),
            // What an operator asks of one queue; of the whole cluster it is for those who look after that.
            Request::QueueCondition { queue }
            | Request::ReplicaStatus { queue, count: false, .. }
            | Request::Elections { queue: Some(queue), .. } => match self.shows(queue.as_str()) {
                true => Ok(()),
                false => self.may_read(queue),
            },
            Request::Recover(_) | Request::ClearTaint { .. } => {
                self.must_be(&[UserTag::Administrator], "recover queues with a loss")
            }
            Request::ChangeSetting { .. } => {
                self.must_be(&[UserTag::Administrator], "change settings of the cluster")
            }
            Request::ClusterStatus
            | Request::Plan
            | Request::Stuck { .. }
            | Request::Elections { queue: None, .. }
            | Request::CountObjects
            | Request::Attention { .. } => {
                self.must_be(&[UserTag::Administrator, UserTag::Monitoring], "look at the cluster")
            }
            Request::ListDefinitions { .. } => self.must_be(
                &[UserTag::Administrator, UserTag::Monitoring],
                "read all definitions of a virtual host, as a backup does",
            ),
            Request::ListSettings => self.must_be(
                &[UserTag::Administrator, UserTag::Monitoring],
                "look at the settings of the cluster",
            ),
            Request::Drain { .. } | Request::Retire { .. } => {
                self.must_be(&[UserTag::Administrator], "drain brokers")
            }
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
        let name = &user.name;
        let tags: Vec<&str> = tags.iter().map(|tag| tag.name()).collect();
        let words = format!(
            "user {name} may not {to}: that needs the tag {}; an administrator gives it with `bellwether user tags {} {}`",
            tags.join(" or "),
            in_shell(name.as_str()),
            tags.last().copied().unwrap_or_default(),
        );
        Err(ErrorBody::not_done(ErrorCode::AccessRefused, words))
    }
}

/// The rights of one connection, and what was decided for its publishes.
#[derive(Debug)]
pub struct Access {
    rights: Arc<Rights>,
    /// Where it may publish. Refusals are found again each time: kept, with their words, thousands of them would be a megabyte for each connection.
    permitted: HashSet<(ExchangeName, RoutingKey)>,
    /// Stands for all keys of an exchange; kept, so that none is made for each frame.
    any_key: RoutingKey,
}

impl Access {
    #[must_use]
    pub fn new(user: Option<Arc<User>>, host: VirtualHost) -> Access {
        let any_key = RoutingKey::new("").expect("a routing key may be empty");
        Access { rights: Arc::new(Rights { user, host }), permitted: HashSet::new(), any_key }
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
        if self.permitted.contains(&address) {
            return Ok(());
        }
        self.rights.may_publish(exchange, &address.1)?;
        if self.permitted.len() >= PERMITTED_MAX {
            self.permitted.clear();
        }
        self.permitted.insert(address);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bellwether_coordinator::users::UserRecord;
    use bellwether_protocol::client::{
        Browse, Drain, ExchangeKind, Permissions, QueueOptions, Recover,
    };
    use bellwether_protocol::ids::{BrokerId, ConsumerHandle, Epoch, Offset, ProducerHandle, Seq};
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
            later: Default::default(),
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

    /// What a request needs.
    #[derive(Clone, Copy, Debug)]
    enum Needs {
        /// Patterns: configure, write, read.
        Patterns([&'static str; 3]),
        /// The same; and somebody with a tag is shown everything.
        PatternsOrTag([&'static str; 3]),
        Administrator,
        AnyTag,
        /// It shows, or does, only what is looked at elsewhere.
        Nothing,
    }

    /// One of each kind. The match names every request that there is: a new one has to say what it needs.
    fn needs(request: &Request) -> Needs {
        use Needs::{Administrator, AnyTag, Nothing, Patterns, PatternsOrTag};
        match request {
            Request::DeclareExchange { .. } | Request::DeleteExchange { .. } => {
                Patterns(["e", "", ""])
            }
            Request::DeclareQueue { .. } | Request::DeleteQueue { .. } => Patterns(["q", "", ""]),
            Request::PurgeQueue { .. } | Request::AttachConsumer { .. } | Request::Browse(_) => {
                Patterns(["", "", "q"])
            }
            Request::Bind { .. } | Request::Unbind { .. } => Patterns(["", "q", "e"]),
            Request::DescribeQueue { .. }
            | Request::QueueCondition { .. }
            | Request::ReplicaStatus { count: false, .. }
            | Request::Elections { queue: Some(_), .. } => PatternsOrTag(["", "", "q"]),
            Request::Drain { .. }
            | Request::Retire { .. }
            | Request::ClearTaint { .. }
            | Request::ChangeSetting { .. }
            | Request::Recover(_)
            | Request::AddUser { .. }
            | Request::SetPassword { .. }
            | Request::DeleteUser { .. }
            | Request::ListUsers
            | Request::ListCredentials
            | Request::SetTags { .. }
            | Request::SetPermissions { .. } => Administrator,
            Request::ClusterStatus
            | Request::Plan
            | Request::Stuck { .. }
            | Request::ListDefinitions { .. }
            | Request::ListSettings
            | Request::CountObjects
            | Request::ReplicaStatus { count: true, .. }
            | Request::Elections { queue: None, .. }
            | Request::Attention { .. } => AnyTag,
            Request::ListExchanges
            | Request::ListQueues { .. }
            | Request::ListBindings { .. }
            | Request::AttachProducer { .. }
            | Request::DetachProducer { .. }
            | Request::DetachConsumer { .. } => Nothing,
        }
    }

    fn requests() -> Vec<Request> {
        let (queue, exchange, routing_key) = (queue("q"), exchange("e"), key("k"));
        let user = UserName::new("u").unwrap();
        let credentials = Credentials::decoy(b"", "u");
        let (producer, consumer) = (ProducerHandle(1), ConsumerHandle(1));
        let recover = Recover {
            queue: queue.clone(),
            version: 1,
            last_epoch: None,
            log_end: Offset(0),
            given_up: Vec::new(),
            lost: 0,
            more: false,
        };
        let (q, e, u) = (|| queue.clone(), || exchange.clone(), || user.clone());
        vec![
            Request::DeclareExchange { exchange: e(), kind: ExchangeKind::Direct },
            Request::DeleteExchange { exchange: e(), if_unused: false },
            Request::ListExchanges,
            Request::DeclareQueue { queue: q(), options: QueueOptions::default() },
            Request::DeleteQueue { queue: q(), if_unused: false, if_empty: false },
            Request::PurgeQueue { queue: q() },
            Request::ListQueues { after: None, limit: 1 },
            Request::DescribeQueue { queue: q() },
            Request::Bind { exchange: e(), queue: q(), routing_key: routing_key.clone() },
            Request::Unbind { exchange: e(), queue: q(), routing_key },
            Request::ListBindings { queue: None },
            Request::ClusterStatus,
            Request::Drain { broker: BrokerId(1), drain: Some(Drain::Copies) },
            Request::Retire { broker: BrokerId(1) },
            Request::ClearTaint { queue: q(), epoch: Epoch(1) },
            Request::ListDefinitions { after: None, limit: 1 },
            Request::ListSettings,
            Request::CountObjects,
            Request::ChangeSetting { key: "k".to_owned(), value: None },
            Request::QueueCondition { queue: q() },
            Request::ReplicaStatus { queue: q(), count: false, below: None },
            Request::ReplicaStatus { queue: q(), count: true, below: None },
            Request::Elections { queue: Some(q()), limit: 1 },
            Request::Elections { queue: None, limit: 1 },
            Request::Recover(recover),
            Request::Attention { limit: 1 },
            Request::AddUser { user: u(), credentials: credentials.clone(), tags: Vec::new() },
            Request::SetPassword { user: u(), credentials },
            Request::DeleteUser { user: u(), force: false },
            Request::ListUsers,
            Request::SetPermissions {
                user: u(),
                virtual_host: VirtualHost::default(),
                permissions: None,
            },
            Request::AttachProducer { producer, name: None, next: Seq(1) },
            Request::DetachProducer { producer },
            Request::AttachConsumer {
                consumer,
                queue: q(),
                prefetch: 1,
                prefetch_bytes: 0,
                claim: None,
            },
            Request::DetachConsumer { consumer },
            Request::Plan,
            Request::Stuck { suppose: None, limit: 1 },
            Request::Browse(Browse {
                queue: q(),
                from: Offset(0),
                until: None,
                messages_max: 1,
                bytes_max: 1,
            }),
            Request::ListCredentials,
            Request::SetTags { user: u(), tags: Vec::new(), force: false },
        ]
    }

    #[test]
    fn nothing_is_permitted_by_default_and_each_request_by_what_it_needs() {
        let requests = requests();
        let kinds: HashSet<_> = requests.iter().map(std::mem::discriminant).collect();
        assert_eq!(kinds.len(), 38, "one of each: add what is missing, and count it");
        for request in requests {
            let by = |tags: &[UserTag], patterns| {
                access(user(tags, patterns)).rights().check(&request).is_ok()
            };
            let everything = Some([".*", ".*", ".*"]);
            let may = [
                by(&[], None),
                by(&[], Some(["x", "x", "x"])),
                by(&[], everything),
                by(&[UserTag::Monitoring], None),
                by(&[UserTag::Administrator], None),
            ];
            let expected = match needs(&request) {
                Needs::Patterns(_) => [false, false, true, false, false],
                Needs::PatternsOrTag(_) => [false, false, true, true, true],
                Needs::Administrator => [false, false, false, false, true],
                Needs::AnyTag => [false, false, false, true, true],
                Needs::Nothing => [true; 5],
            };
            assert_eq!(may, expected, "{request:?}");
            if let Needs::Patterns(just) | Needs::PatternsOrTag(just) = needs(&request) {
                assert!(by(&[], Some(just)), "{request:?}");
                // And by nothing less.
                for without in 0..3 {
                    let less = std::array::from_fn(|at| if at == without { "" } else { just[at] });
                    let same = less == just;
                    assert_eq!(by(&[], Some(less)), same, "{request:?} {less:?}");
                }
            }
            let refused = access(user(&[], None)).rights().check(&request);
            if let Err(refused) = refused {
                assert_eq!(refused.code, ErrorCode::AccessRefused, "{request:?}");
            }
        }
    }

    #[test]
    fn who_need_not_log_in_may_do_everything() {
        let mut access = Access::new(None, VirtualHost::default());
        requests().iter().for_each(|request| access.rights().check(request).unwrap());
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
        assert_eq!(access.permitted.len(), 2, "refusals are not kept");
        access.may_publish(&exchange("events"), &key("anything else")).unwrap();
        assert_eq!(access.permitted.len(), 2, "decided once for all keys of an exchange");
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
    fn a_refusal_for_want_of_a_tag_names_the_command_that_gives_it() {
        let refused = access(user(&[], None)).rights().check(&Request::ClusterStatus);
        let words = refused.unwrap_err().message;
        for part in ["user u", "administrator or monitoring", "`bellwether user tags u monitoring`"]
        {
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
        for n in 0..3 * PERMITTED_MAX {
            access.may_publish(&exchange(""), &key(&n.to_string())).unwrap();
        }
        assert!(access.permitted.len() <= PERMITTED_MAX);
    }

    #[test]
    fn a_pattern_that_cannot_be_read_permits_nothing() {
        assert!(
            access(user(&[], Some(["", "(", ""]))).may_publish(&exchange("("), &key("")).is_err()
        );
    }
}
