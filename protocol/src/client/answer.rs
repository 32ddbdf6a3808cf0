//! What a broker answers, and the exchanges, queues and brokers that it tells of.

use super::{
    Attention, Browsed, Drain, ElectionReport, Number, QueueCondition, ReplicaStatus, Troubled,
    UserSummary,
};
use crate::error::BrokerAddress;
use crate::ids::{BrokerId, ClusterId, Epoch, Offset, OffsetRange, QueueId};
use crate::names::{ExchangeName, QueueName, RoutingKey, UserName, VirtualHost};
use crate::scram::Credentials;

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
    /// What passwords are checked against, in order of name.
    Credentials(Vec<(UserName, Credentials)>),
    /// Messages of a queue.
    Browsed(Browsed),
    /// How many there are of what is limited in number.
    Counted(Vec<Number>),
    /// The producer may publish; credit follows.
    ProducerAttached,
    /// What is about to be moved, in order.
    Plan {
        /// The first moves.
        moves: Vec<PlannedMove>,
        /// There are more.
        more: bool,
    },
    /// Queues with something that nobody can take.
    Stuck(Stuck),
    /// The consumer is attached; deliveries follow.
    ConsumerAttached(ConsumerAttached),
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

/// Copies and leaderships that should be elsewhere, or should be, and that nobody can take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stuck {
    /// Brokers that take copies: live, and drained of nothing.
    pub takers: Vec<BrokerId>,
    /// The queues, by what is stuck.
    pub queues: Vec<StuckQueues>,
}

/// Queues with the same trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckQueues {
    /// What nobody can take.
    pub what: Moved,
    /// A copy was asked for that there never was; else it is with a broker that is to give it up.
    pub missing: bool,
    /// Copies that each of the queues was declared with.
    pub copies: u8,
    /// How many queues, and the first of them.
    pub queues: Troubled,
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
    /// How much it matters when a disk runs full.
    pub class: QueueClass,
}

/// How much a queue matters when the disk of its leader runs full: the less, the sooner its publishes are refused. Settles and deletes
/// go on in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QueueClass {
    /// Refused as soon as producers are slowed, below `disk-free-warn`.
    Bulk,
    /// Refused below `disk-free-min`.
    #[default]
    Standard,
    /// Refused below half of `disk-free-min`.
    Vital,
}

impl std::fmt::Display for QueueClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            QueueClass::Bulk => "bulk",
            QueueClass::Standard => "standard",
            QueueClass::Vital => "vital",
        })
    }
}

impl Default for QueueOptions {
    fn default() -> Self {
        QueueOptions { replicas: 3, min_isr: None, strict: false, class: QueueClass::Standard }
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
    /// How much it matters when a disk runs full.
    pub class: QueueClass,
    /// A leader was forced on it, and nobody has said yet that what was lost is dealt with.
    pub tainted: bool,
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
    /// Of how many deleted queues each broker has still to say that its disk holds nothing.
    pub tombstones: Vec<(BrokerId, u64)>,
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
