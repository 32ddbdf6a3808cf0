//! What a client can ask for.

use super::{Browse, ExchangeKind, Permissions, QueueOptions, Recover, UserTag};
use crate::ids::{
    BrokerId, ConsumerHandle, Epoch, Offset, OffsetRange, ProducerHandle, QueueId, Seq,
};
use crate::names::{ExchangeName, ProducerName, QueueName, RoutingKey, UserName, VirtualHost};
use crate::scram::Credentials;

/// What a client can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Makes an exchange. Done also when it exists with the same kind.
    DeclareExchange {
        /// Its name.
        exchange: ExchangeName,
        /// How it routes.
        kind: ExchangeKind,
    },
    /// Deletes an exchange and the bindings that start at it.
    DeleteExchange {
        /// Its name.
        exchange: ExchangeName,
        /// Refuse when anything is bound to it.
        if_unused: bool,
    },
    /// All exchanges of the virtual host.
    ListExchanges,
    /// Makes a queue. Done also when it exists with the same options.
    DeclareQueue {
        /// Its name.
        queue: QueueName,
        /// How it is kept.
        options: QueueOptions,
    },
    /// Deletes a queue, its messages and its bindings. Only the leader does.
    DeleteQueue {
        /// Its name.
        queue: QueueName,
        /// Refuse when it has consumers.
        if_unused: bool,
        /// Refuse when it has messages.
        if_empty: bool,
    },
    /// Removes the ready messages. Only the leader does.
    PurgeQueue {
        /// Its name.
        queue: QueueName,
    },
    /// Messages of a queue, without taking them. Only the leader shows them.
    Browse(Browse),
    /// How many queues, exchanges and bindings there are in the cluster, and how many are allowed.
    CountObjects,
    /// Queues of the virtual host in order of name, a page at a time.
    ListQueues {
        /// Start behind this name.
        after: Option<QueueName>,
        /// At most so many; the broker may send fewer.
        limit: u32,
    },
    /// A queue with its counts. Only the leader knows them.
    DescribeQueue {
        /// Its name.
        queue: QueueName,
    },
    /// Binds a queue to an exchange. Done also when it is bound.
    Bind {
        /// From where.
        exchange: ExchangeName,
        /// To where.
        queue: QueueName,
        /// By which key.
        routing_key: RoutingKey,
    },
    /// Removes a binding. Done also when there is none.
    Unbind {
        /// From where.
        exchange: ExchangeName,
        /// To where.
        queue: QueueName,
        /// By which key.
        routing_key: RoutingKey,
    },
    /// Bindings of the virtual host, of one queue when named.
    ListBindings {
        /// Only those that end here.
        queue: Option<QueueName>,
    },
    /// The brokers, and how the queues are.
    ClusterStatus,
    /// Says what is to be moved away from a broker; nil: nothing any more. Done when it is written down; the moving comes after.
    Drain {
        /// Which broker, live or not.
        broker: BrokerId,
        /// What it is to be rid of.
        drain: Option<Drain>,
    },
    /// How the queues were asked for, in order of name: what it takes to make them again.
    ListDefinitions {
        /// Start behind this name.
        after: Option<QueueName>,
        /// At most so many; the broker may send fewer.
        limit: u32,
    },
    /// The settings that hold for the whole cluster.
    ListSettings,
    /// Changes a setting for the whole cluster, or takes it back. Done when it is written down; every broker then takes it in.
    ChangeSetting {
        /// Its key, as in a configuration file.
        key: String,
        /// Its value as it would be written there; none: nothing is set for the cluster any more.
        value: Option<String>,
    },
    /// How a queue is and why, as the coordinator holds it. Any broker answers.
    QueueCondition {
        /// Its name.
        queue: QueueName,
    },
    /// What the asked broker's own copy of a queue holds.
    ReplicaStatus {
        /// Its name.
        queue: QueueName,
        /// Count the messages up to the end of the log, which may have to be read for that.
        count: bool,
        /// And apart from the rest those below this offset.
        below: Option<Offset>,
    },
    /// The last changes of leaders, the newest first.
    Elections {
        /// Only those of this queue; else of all in the virtual host.
        queue: Option<QueueName>,
        /// At most so many; the broker may send fewer.
        limit: u32,
    },
    /// The copy of the asked broker is to lead without the in-sync set. What was confirmed and is not in it is lost.
    Recover(Recover),
    /// What needs a person, as the asked broker knows it.
    Attention {
        /// Queues to name of each kind, at most.
        limit: u32,
    },
    /// A broker goes for good, live or not: its copies and leaderships are to be moved away, and once it is not live, nothing that its
    /// disk may hold is waited for. [`Request::Drain`] with `None` takes it back.
    Retire {
        /// The broker's number.
        broker: BrokerId,
    },
    /// An operator has dealt with what was lost when a leader was forced on the queue: it needs nobody any more. That it was
    /// forced, what was lost, and who cleared that stays in its history.
    ClearTaint {
        /// Which queue.
        queue: QueueName,
        /// The forced leader's first epoch, as it was shown.
        epoch: Epoch,
    },
    /// Makes a user, without any permission. For administrators, as are all requests about users.
    AddUser {
        /// The name.
        user: UserName,
        /// Of the password, which is not sent.
        credentials: Credentials,
        /// What the user may do besides.
        tags: Vec<UserTag>,
    },
    /// Gives a user another password. Connections by the old one end.
    SetPassword {
        /// Whose.
        user: UserName,
        /// Of the password, which is not sent.
        credentials: Credentials,
    },
    /// Gives a user other tags. Holds for open connections, too.
    SetTags {
        /// Whose.
        user: UserName,
        /// In place of those it had.
        tags: Vec<UserTag>,
        /// Also when no administrator is left then.
        force: bool,
    },
    /// What passwords are checked against, of all users: for a backup.
    ListCredentials,
    /// Deletes a user. Its connections end.
    DeleteUser {
        /// Which.
        user: UserName,
        /// Also when no administrator is left then.
        force: bool,
    },
    /// All users.
    ListUsers,
    /// Says what a user may do in a virtual host; nil: nothing. Holds for open connections, too.
    SetPermissions {
        /// Which.
        user: UserName,
        /// Where.
        virtual_host: VirtualHost,
        /// What.
        permissions: Option<Permissions>,
    },
    /// Starts a producer on this connection.
    AttachProducer {
        /// Chosen by the client.
        producer: ProducerHandle,
        /// Its name; none: retries of its messages may be stored twice.
        name: Option<ProducerName>,
        /// The lowest sequence number that is not confirmed: what it will send first.
        next: Seq,
    },
    /// Ends a producer. Open confirms still come.
    DetachProducer {
        /// Which.
        producer: ProducerHandle,
    },
    /// Starts a consumer on this connection. Only the queue's leader does.
    AttachConsumer {
        /// Chosen by the client.
        consumer: ConsumerHandle,
        /// From which queue.
        queue: QueueName,
        /// Most unsettled messages; at least one.
        prefetch: u32,
        /// Most unsettled bytes, 0 for no limit; one message is always let through.
        prefetch_bytes: u64,
        /// What it was delivered by an earlier leader and would like to keep.
        claim: Option<Claim>,
    },
    /// What the controller is about to move, as far as can be foreseen now. Any broker can tell.
    Plan,
    /// Queues with copies or leaderships that nobody can take. Any broker can tell.
    Stuck {
        /// As it would be if this were to be moved away from this broker; else as things stand.
        suppose: Option<(BrokerId, Drain)>,
        /// Queues to name of each kind, at most.
        limit: u32,
    },
    /// Ends a consumer: what it holds goes back to the queue.
    DetachConsumer {
        /// Which.
        consumer: ConsumerHandle,
    },
}

/// Messages that a consumer was delivered on an earlier attachment and has not settled, or not heard that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The queue that they were delivered from: one declared anew under its name is another.
    pub queue: QueueId,
    /// The epoch in which they were delivered, or kept the last time.
    pub epoch: Epoch,
    /// Which; at least one, at most [`SETTLE_RANGES_MAX`](super::SETTLE_RANGES_MAX) and [`CLAIM_MESSAGES_MAX`](super::CLAIM_MESSAGES_MAX) messages,
    /// ascending, no overlap.
    pub ranges: Vec<OffsetRange>,
}

/// What is to be moved away from a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Drain {
    /// It leads nothing, and keeps its copies: for work on it that does not take long.
    Leaderships,
    /// It holds nothing: before it goes for good.
    Copies,
}
