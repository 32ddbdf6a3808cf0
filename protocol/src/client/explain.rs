//! What operators ask when something is wrong: how a queue is and why, what each copy holds, who led before, what needs a person;
//! and the order to lead without the in-sync set.

use super::{Drain, QueueSummary};
use crate::ids::{BrokerId, BrokerLife, Epoch, Member, Offset};
use crate::names::{QueueName, VirtualHost};
use crate::wire::{wire_enum, wire_struct};

/// A queue as the coordinator holds it, with all that is needed to see why it is as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueCondition {
    /// How it is kept and who leads.
    pub queue: QueueSummary,
    /// Version of the state: an order to lead names it.
    pub version: u32,
    /// Read from the coordinator for this answer; otherwise as the broker last heard of it.
    pub fresh: bool,
    /// Which life of the leader's broker leads.
    pub leader: Option<BrokerLife>,
    /// The in-sync copies.
    pub isr: Vec<Member>,
    /// Copies asked for at the declaration.
    pub replicas_wanted: u8,
    /// Fewest in-sync copies, as asked for at the declaration.
    pub min_isr_wanted: u8,
    /// All live brokers.
    pub live: Vec<LiveBroker>,
    /// Who gave the leadership up, while nobody leads.
    pub resigned: Option<Resigned>,
    /// What was known to be committed while a copy was missing.
    pub committed: Option<CommittedNote>,
    /// A leader was forced on the queue.
    pub taint: Option<TaintNote>,
    /// What is to be moved away from brokers.
    pub drained: Vec<(BrokerId, Drain)>,
}

/// A live broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveBroker {
    /// The life it is in.
    pub life: BrokerLife,
    /// Where clients reach it.
    pub address: String,
}

/// A leadership that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resigned {
    /// By whom.
    pub by: BrokerLife,
    /// Its words.
    pub why: String,
}

/// What a leader wrote down while a copy was missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedNote {
    /// Every offset below was committed.
    pub end: Offset,
    /// Messages below it.
    pub enqueued: u64,
    /// Of these settled or purged.
    pub settled: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The epoch of that leader, and where its first record lies; none: a broker of an older version wrote it down.
    pub term: Option<(Epoch, Offset)>,
}

/// A leader was forced on the queue: confirmed messages may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaintNote {
    /// The first epoch of the forced leader.
    pub epoch: Epoch,
    /// Who it was.
    pub by: BrokerLife,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Where its log ended.
    pub end: Offset,
    /// Confirmed messages known to be lost.
    pub lost: u64,
    /// Whether there may be more of them.
    pub more: bool,
    /// Whether somebody has dealt with it.
    pub cleared: Option<TaintCleared>,
}

/// An operator has dealt with what was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaintCleared {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who, in the words of the broker that was asked.
    pub by: String,
}

/// What one broker says of its own copy of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// The broker.
    pub broker: BrokerId,
    /// Its copy, if it has one.
    pub copy: Option<CopyStatus>,
}

/// One copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyStatus {
    /// Which copy it is.
    pub member: Member,
    /// What it does.
    pub role: CopyRole,
    /// What is wrong with it, if something is.
    pub why: Option<String>,
    /// It leads, and too few in-sync copies are there to confirm anything.
    pub starved: bool,
    /// The last epoch in its log.
    pub last_epoch: Option<Epoch>,
    /// Batches below are dropped but for live messages.
    pub log_start: Offset,
    /// The end of its log.
    pub log_end: Offset,
    /// The log is on the disk up to here.
    pub durable: Offset,
    /// Every offset below is committed, and here.
    pub high_watermark: Offset,
    /// Every offset below is committed, as a leader said; perhaps not here.
    pub heard_committed: Offset,
    /// Messages in its log since the queue was made: up to the log's end when `counted`, else up to what it has applied.
    pub enqueued: u64,
    /// Whether all of the log was counted.
    pub counted: bool,
    /// When its last message came, in milliseconds since 1970, as far as is known.
    pub last_message_ms: Option<u64>,
    /// Of a leader: how the other copies do.
    pub others: Vec<CopyHealth>,
    /// Where the last epoch in its log begins; none also from a broker of an older version.
    pub epoch_start: Option<Offset>,
    /// Of `enqueued` those below the offset that was asked for; none when none was asked for, when they could not be counted apart,
    /// and from a broker of an older version.
    pub enqueued_below: Option<u64>,
}

/// What a copy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CopyRole {
    /// Nothing: nobody leads, or it has not heard who does.
    Waits,
    /// It follows a leader.
    Follows,
    /// It has asked to lead.
    Stands,
    /// It leads, and cannot serve yet.
    Leads,
    /// It leads and serves.
    Serves,
    /// It is being fetched anew.
    Fetches,
    /// It takes no part any more.
    Stopped,
}

/// How another copy does, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyHealth {
    /// Which.
    pub member: Member,
    /// In the in-sync set.
    pub in_sync: bool,
    /// Dead, or not caught up within the lag limit.
    pub gone: bool,
    /// What it reported to be on its disk.
    pub durable: Option<Offset>,
}

/// One change of a queue's leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectionReport {
    /// The queue's virtual host.
    pub virtual_host: VirtualHost,
    /// The queue.
    pub queue: QueueName,
    /// The epoch that began.
    pub epoch: Epoch,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who led before.
    pub from: Option<BrokerLife>,
    /// Who leads.
    pub to: BrokerLife,
    /// What made it necessary: `declared`, `process gone`, `session expired`, `resigned`, `drained`, `moved`, `forced`, `taint cleared`
    /// (no election), or a word of a later version.
    pub trigger: String,
    /// The words of who resigned.
    pub why: Option<String>,
    /// Milliseconds from when it was known to be necessary until the coordinator was asked.
    pub took_ms: u64,
}

/// The order to lead without the in-sync set, with what the operator was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recover {
    /// Which queue.
    pub queue: QueueName,
    /// The version of its state.
    pub version: u32,
    /// The last epoch in the log of the copy that is to lead.
    pub last_epoch: Option<Epoch>,
    /// The end of that log.
    pub log_end: Offset,
    /// The in-sync copies that are given up.
    pub given_up: Vec<Member>,
    /// Confirmed messages that are known to be lost by it.
    pub lost: u64,
    /// Whether there may be more of them.
    pub more: bool,
}

/// What needs a person, as the answering broker knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attention {
    /// The broker.
    pub broker: BrokerId,
    /// Its disk has failed: it holds nothing that counts until it is replaced.
    pub store_failed: bool,
    /// Its disk is nearly full: publishes are refused, those to queues of class vital last.
    pub disk_full: bool,
    /// Copies that have stopped on this broker, and why.
    pub stopped: Vec<StoppedCopy>,
    /// How many there are.
    pub stopped_count: u64,
    /// Queues that nobody leads who is live.
    pub without_leader: Troubled,
    /// Queues on which a leader was forced.
    pub tainted: Troubled,
    /// Queues of which fewer in-sync copies are live than a confirm needs.
    pub below_min_isr: Troubled,
    /// Queues with fewer in-sync copies than asked for.
    pub under_replicated: Troubled,
    /// Its disk fills: producers are slowed, and publishes to queues of class bulk refused.
    pub disk_low: bool,
}

impl Attention {
    /// Of a broker that knows of nothing that needs anybody.
    #[must_use]
    pub fn calm(broker: BrokerId) -> Attention {
        Attention {
            broker,
            store_failed: false,
            disk_full: false,
            stopped: Vec::new(),
            stopped_count: 0,
            without_leader: Troubled::default(),
            tainted: Troubled::default(),
            below_min_isr: Troubled::default(),
            under_replicated: Troubled::default(),
            disk_low: false,
        }
    }
}

/// A copy that takes no part any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoppedCopy {
    /// The queue's virtual host.
    pub virtual_host: VirtualHost,
    /// The queue.
    pub queue: QueueName,
    /// Its words.
    pub why: String,
}

/// Queues with one kind of trouble.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Troubled {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<(VirtualHost, QueueName)>,
}

wire_struct!(QueueCondition {
    queue,
    version,
    fresh,
    leader,
    isr,
    replicas_wanted,
    min_isr_wanted,
    live,
    resigned,
    committed,
    taint,
    drained,
});
wire_struct!(LiveBroker { life, address });
wire_struct!(Resigned { by, why });
wire_struct!(CommittedNote { end, enqueued, settled, at_ms; term });
wire_struct!(TaintNote { epoch, by, at_ms, end, lost, more; cleared });
wire_struct!(TaintCleared { at_ms, by });
wire_struct!(ReplicaStatus { broker, copy });
wire_struct!(CopyStatus {
    member,
    role,
    why,
    starved,
    last_epoch,
    log_start,
    log_end,
    durable,
    high_watermark,
    heard_committed,
    enqueued,
    counted,
    last_message_ms,
    others;
    epoch_start,
    enqueued_below,
});
wire_struct!(CopyHealth { member, in_sync, gone, durable });
wire_struct!(ElectionReport { virtual_host, queue, epoch, at_ms, from, to, trigger, why, took_ms });
wire_struct!(Recover { queue, version, last_epoch, log_end, given_up, lost, more });
wire_struct!(Attention {
    broker,
    store_failed,
    disk_full,
    stopped,
    stopped_count,
    without_leader,
    tainted,
    below_min_isr,
    under_replicated;
    disk_low,
});
wire_struct!(StoppedCopy { virtual_host, queue, why });
wire_struct!(Troubled { count, first });

wire_enum!(CopyRole "role of a copy" { Waits = 1, Follows = 2, Stands = 3, Leads = 4, Serves = 5, Fetches = 6, Stopped = 7 });
