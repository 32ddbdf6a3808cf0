//! Frames between a client and a broker. What each looks like in bytes stands in docs/protocol.md.

mod explain;
mod login;
mod requests;
mod wire;

pub use explain::{
    Attention, CommittedNote, CopyHealth, CopyRole, CopyStatus, ElectionReport, LiveBroker,
    QueueCondition, Recover, ReplicaStatus, Resigned, StoppedCopy, TaintNote, Troubled,
};
pub use login::{EXTERNAL, LoginData, LoginStart, PLAIN, Permissions, UserSummary, UserTag};
pub use wire::SETTLE_RANGES_MAX;

use crate::error::{BrokerAddress, ErrorBody};
use crate::ids::{
    BrokerId, ClusterId, ConsumerHandle, Epoch, Offset, OffsetRange, ProducerHandle, QueueId,
    RequestId, Seq, SeqRange,
};
use crate::message::MessageBlock;
use crate::names::{ExchangeName, ProducerName, QueueName, RoutingKey, UserName, VirtualHost};
use crate::scram::Credentials;

/// The versions of this protocol that this build speaks, lowest and highest.
pub const VERSIONS: std::ops::RangeInclusive<u16> = 1..=1;

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFrame {
    /// First of all.
    Hello(Hello),
    /// Asks for something; answered by one [`BrokerFrame::Response`] or [`BrokerFrame::Failure`].
    Request {
        /// Chosen by the client, unique among its open requests.
        id: RequestId,
        /// What is asked for.
        request: Request,
    },
    /// A request of which only the id could be read: a name that is not allowed, say, or a request of
    /// a later version. Only the decoder makes it; the broker answers with a [`BrokerFrame::Failure`].
    UnreadableRequest {
        /// The request's.
        id: RequestId,
        /// What is wrong with it.
        error: ErrorBody,
    },
    /// Messages with one address and consecutive sequence numbers.
    Publish(Publish),
    /// Settles deliveries.
    Settle(Settle),
    /// Nothing to say, still here.
    Heartbeat,
    /// The client is leaving: the broker returns what it holds and closes.
    Goodbye,
    /// Answers [`BrokerFrame::Challenge`].
    Authenticate(LoginData),
}

/// What a broker sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerFrame {
    /// Answers [`Hello`].
    Welcome(Welcome),
    /// Answers the request of this id.
    Response {
        /// The request's.
        id: RequestId,
        /// What came of it.
        response: Response,
    },
    /// Refuses the request of this id.
    Failure {
        /// The request's.
        id: RequestId,
        /// Why.
        error: ErrorBody,
    },
    /// Every queue these were routed to has committed them.
    Confirmed {
        /// Whose.
        producer: ProducerHandle,
        /// Which; ascending.
        ranges: Vec<SeqRange>,
    },
    /// These were not stored, or nobody knows: `error.outcome` says which.
    PublishFailed {
        /// Whose.
        producer: ProducerHandle,
        /// Which.
        range: SeqRange,
        /// Why.
        error: ErrorBody,
    },
    /// The producer may have published this much in all since it was attached.
    PublishCredit {
        /// Whose.
        producer: ProducerHandle,
        /// Messages, counted from the attach.
        messages: u64,
        /// Bytes of their blocks, counted from the attach.
        bytes: u64,
        /// Why there will be no more for now; none: more comes as messages are answered.
        withheld: Option<Withheld>,
    },
    /// Messages for a consumer.
    Deliver(Deliver),
    /// Settles up to and with this number are committed.
    Settled {
        /// Whose.
        consumer: ConsumerHandle,
        /// The highest committed [`Settle::number`]; those below are committed or were refused before.
        up_to: u64,
    },
    /// One settle that was not done, or nobody knows.
    SettleFailed {
        /// Whose.
        consumer: ConsumerHandle,
        /// The [`Settle::number`].
        number: u64,
        /// Why.
        error: ErrorBody,
    },
    /// The consumer is gone: its queue was deleted, stopped, or is led elsewhere now.
    ConsumerClosed {
        /// Which.
        consumer: ConsumerHandle,
        /// Why, and where to go.
        error: ErrorBody,
    },
    /// Nothing to say, still here.
    Heartbeat,
    /// The last frame: why the broker closes the connection.
    Goodbye(ErrorBody),
    /// The next message of a login that takes more than one; in place of [`Welcome`], which comes later.
    Challenge(LoginData),
}

/// Why a producer gets no more credit for now, however much of what it sent is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Withheld {
    /// The broker holds as much in memory as it may: credit comes when consumers have drained.
    Memory,
    /// A reason of a later version.
    Other(u64),
}

/// The first frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest version the client speaks.
    pub version_min: u16,
    /// Highest version the client speaks.
    pub version_max: u16,
    /// Shown to operators.
    pub client_name: String,
    /// The client wants to hear something this often, in milliseconds; 0: never.
    pub heartbeat_ms: u32,
    /// The virtual host that all names on this connection lie in.
    pub virtual_host: VirtualHost,
    /// Who the client is; none: nobody in particular.
    pub login: Option<LoginStart>,
}

/// The broker's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The highest version both speak.
    pub version: u16,
    /// The cluster.
    pub cluster: ClusterId,
    /// The broker.
    pub broker: BrokerId,
    /// The broker wants to hear something this often, in milliseconds; it closes after twice that.
    pub heartbeat_ms: u32,
    /// Longest frame, in bytes, that either side may send from now on.
    pub frame_bytes_max: u32,
    /// Largest message in bytes.
    pub message_bytes_max: u32,
    /// Addresses of the live brokers, this one included.
    pub brokers: Vec<BrokerAddress>,
    /// The last message of the login: the broker's proof that it knows the user's credentials.
    pub proof: Option<LoginData>,
}

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
    /// Deletes a user. Its connections end.
    DeleteUser {
        /// Which.
        user: UserName,
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
    /// Ends a consumer: what it holds goes back to the queue.
    DetachConsumer {
        /// Which.
        consumer: ConsumerHandle,
    },
}

/// Answers to requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Done; nothing more to say.
    Done,
    /// The queue that was declared.
    Declared {
        /// Whether it was made now.
        created: bool,
        /// How it is kept.
        queue: QueueSummary,
        /// Something the user should know, such as fewer replicas than asked for.
        warning: Option<String>,
    },
    /// So many messages were removed.
    Purged {
        /// How many.
        messages: u64,
    },
    /// Exchanges, in order of name.
    Exchanges(Vec<(ExchangeName, ExchangeKind)>),
    /// Queues, in order of name; ask again behind the last until none come.
    Queues(Vec<QueueSummary>),
    /// One queue.
    Queue {
        /// How it is kept and who leads.
        summary: QueueSummary,
        /// What it counts.
        counts: QueueCounts,
    },
    /// Bindings.
    Bindings(Vec<Binding>),
    /// The cluster.
    Cluster(ClusterStatus),
    /// Queues and how they were asked for, in order of name; ask again behind the last until none come.
    Definitions(Vec<(QueueName, QueueOptions)>),
    /// What is set for the whole cluster: key and value, in order of key.
    Settings(Vec<(String, String)>),
    /// How a queue is and why.
    Condition(Box<QueueCondition>),
    /// What a copy holds.
    Replica(Box<ReplicaStatus>),
    /// The last changes of leaders, the newest first.
    Elections(Vec<ElectionReport>),
    /// It was ordered, and the coordinator holds it: the queue as it is then.
    Recovered(QueueSummary),
    /// What needs a person.
    Attention(Box<Attention>),
    /// The users, in order of name.
    Users(Vec<UserSummary>),
    /// The producer may publish; credit follows.
    ProducerAttached,
    /// What is about to be moved, in order.
    Plan {
        /// The first moves.
        moves: Vec<PlannedMove>,
        /// There are more.
        more: bool,
    },
    /// The consumer is attached; deliveries follow.
    ConsumerAttached(ConsumerAttached),
}

/// Messages that a consumer was delivered on an earlier attachment and has not settled, or not heard that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The queue that they were delivered from: one declared anew under its name is another.
    pub queue: QueueId,
    /// The epoch in which they were delivered, or kept the last time.
    pub epoch: Epoch,
    /// Which; at least one, at most [`SETTLE_RANGES_MAX`], ascending, no overlap.
    pub ranges: Vec<OffsetRange>,
}

/// What an attached consumer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerAttached {
    /// The epoch its deliveries carry.
    pub epoch: Epoch,
    /// The queue.
    pub queue: QueueId,
    /// Of its claim, what it holds in this epoch, as if it had been delivered in it.
    pub held: Vec<OffsetRange>,
    /// Of its claim, what is settled or purged for good.
    pub settled: Vec<OffsetRange>,
}

/// Something that is to be elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedMove {
    /// Of the queue's virtual host,
    pub virtual_host: VirtualHost,
    /// the queue of this name.
    pub queue: QueueName,
    /// What moves.
    pub what: Moved,
    /// From where; none: a copy that is missing is made.
    pub from: Option<BrokerId>,
    /// To where.
    pub to: BrokerId,
}

/// What can be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moved {
    /// The leadership.
    Leadership,
    /// A copy.
    Copy,
}

/// How an exchange routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// To the queues bound by exactly the routing key.
    Direct,
    /// To every queue bound.
    Fanout,
}

/// How a queue is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueOptions {
    /// Copies wanted, 1 to 7.
    pub replicas: u8,
    /// Fewest in-sync copies for a confirm; none: a majority of the replicas.
    pub min_isr: Option<u8>,
    /// Refuse when there are fewer live brokers than replicas.
    pub strict: bool,
}

impl Default for QueueOptions {
    fn default() -> Self {
        QueueOptions { replicas: 3, min_isr: None, strict: false }
    }
}

/// A queue as the coordinator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSummary {
    /// Its name.
    pub name: QueueName,
    /// Its identity.
    pub id: QueueId,
    /// Brokers that keep a copy; the first is preferred.
    pub replicas: Vec<BrokerId>,
    /// In-sync copies.
    pub in_sync: Vec<BrokerId>,
    /// Fewest in-sync copies for a confirm.
    pub min_isr: u8,
    /// Who leads, if anyone.
    pub leader: Option<BrokerId>,
    /// The term of leadership.
    pub epoch: Epoch,
}

/// What a queue's leader counts (promise G9): `enqueued` is the sum of all that follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Committed enqueues since the queue was made.
    pub enqueued: u64,
    /// Waiting for a consumer.
    pub ready: u64,
    /// Held by consumers.
    pub delivered: u64,
    /// Acknowledged or rejected.
    pub settled: u64,
    /// Removed by purges.
    pub purged: u64,
    /// Consumers attached.
    pub consumers: u32,
    /// Bytes of the messages ready and delivered.
    pub bytes: u64,
    /// Every offset below is committed.
    pub high_watermark: Offset,
    /// The end of the leader's log.
    pub log_end: Offset,
}

/// A binding of a queue to an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Binding {
    /// From where.
    pub exchange: ExchangeName,
    /// To where.
    pub queue: QueueName,
    /// By which key.
    pub routing_key: RoutingKey,
}

/// The cluster as the answering broker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The cluster.
    pub cluster: ClusterId,
    /// Live brokers.
    pub brokers: Vec<BrokerStatus>,
    /// Whether the answering broker's coordinator session is connected.
    pub coordinator_connected: bool,
    /// The session time-out that the coordinator granted, in milliseconds.
    pub session_timeout_ms: u32,
    /// Queues in all virtual hosts.
    pub queues: u64,
    /// Queues that nobody leads.
    pub queues_without_leader: u64,
    /// Queues with fewer in-sync copies than replicas.
    pub queues_under_replicated: u64,
    /// Brokers that are missed.
    pub absent: Vec<AbsentBroker>,
    /// Who sees to it that copies and leaderships are where they should be, if anybody does.
    pub controller: Option<BrokerId>,
}

/// A live broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerStatus {
    /// Where clients reach it.
    pub address: BrokerAddress,
    /// The life it is in, as 16 hex digits.
    pub incarnation: String,
    /// Its software version.
    pub version: String,
    /// Queues it leads.
    pub leads: u64,
    /// Queues it is to hold a copy of, or whose confirms count on the one that it has.
    pub copies: u64,
    /// What is to be moved away from it.
    pub drain: Option<Drain>,
}

/// A broker that queues count on, or that is being drained, and that is not live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbsentBroker {
    /// Its number.
    pub broker: BrokerId,
    /// Queues it is to hold a copy of, or whose confirms count on the one that it has.
    pub copies: u64,
    /// What is to be moved away from it.
    pub drain: Option<Drain>,
}

/// What is to be moved away from a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Drain {
    /// It leads nothing, and keeps its copies: for work on it that does not take long.
    Leaderships,
    /// It holds nothing: before it goes for good.
    Copies,
}

/// Messages with one address and consecutive sequence numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// By whom.
    pub producer: ProducerHandle,
    /// Number of the first message.
    pub first: Seq,
    /// Whether any of them may have been sent before.
    pub resent: bool,
    /// To which exchange.
    pub exchange: ExchangeName,
    /// By which key.
    pub routing_key: RoutingKey,
    /// The messages.
    pub messages: MessageBlock,
}

/// What becomes of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settlement {
    /// Dealt with: gone for good.
    Ack,
    /// Not wanted: gone for good.
    Reject,
    /// Back to its place in the queue, its delivery count one higher.
    Return,
}

/// Settles deliveries of one consumer. All or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// Whose deliveries.
    pub consumer: ConsumerHandle,
    /// Chosen by the client: each one higher than the last, from one.
    pub number: u64,
    /// The epoch that the deliveries carried.
    pub epoch: Epoch,
    /// What becomes of them.
    pub settlement: Settlement,
    /// Which; ascending, no overlap. Offsets in a range that this consumer does not hold are an error.
    pub ranges: Vec<OffsetRange>,
}

/// Messages for a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deliver {
    /// For whom.
    pub consumer: ConsumerHandle,
    /// The term of leadership they are delivered in; drop what is older than what was seen.
    pub epoch: Epoch,
    /// The messages, in runs.
    pub runs: Vec<DeliveredRun>,
}

/// Messages with consecutive offsets and one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveredRun {
    /// Offset of the first message.
    pub first: Offset,
    /// Whether they may have been delivered before.
    pub redelivered: bool,
    /// How often they were returned before.
    pub returns: u32,
    /// When the queue's leader took them, in milliseconds since 1970.
    pub time_ms: u64,
    /// Where they were published to.
    pub exchange: ExchangeName,
    /// By which key.
    pub routing_key: RoutingKey,
    /// The messages.
    pub messages: MessageBlock,
}
