//! What a batch says: the records of a queue's log.

use bellwether_protocol::ids::{BrokerLife, Offset, OffsetRange, Seq};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::{ExchangeName, ProducerName, RoutingKey};

/// The kind of a record, as it stands in a batch's header. An enqueue takes as many offsets as it
/// has messages, every other record takes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    EpochStart = 1,
    Enqueue = 2,
    Settle = 3,
    Return = 4,
    Purge = 5,
}

impl RecordKind {
    /// The highest number that is known here.
    pub const NEWEST: u8 = RecordKind::Purge as u8;

    /// The kind of a number in a header.
    #[must_use]
    pub fn from_number(number: u8) -> Option<RecordKind> {
        match number {
            1 => Some(RecordKind::EpochStart),
            2 => Some(RecordKind::Enqueue),
            3 => Some(RecordKind::Settle),
            4 => Some(RecordKind::Return),
            5 => Some(RecordKind::Purge),
            _ => None,
        }
    }
}

/// What becomes of settled messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SettleKind {
    Ack = 1,
    Reject = 2,
}

/// Who sent the messages of an enqueue, for the recognition of retries (promise G7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerMark {
    pub name: ProducerName,
    /// Number of the first message; the others follow one by one.
    pub first: Seq,
}

/// Messages with one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueue {
    pub producer: Option<ProducerMark>,
    /// By the leader's clock, milliseconds since 1970; never goes back within a queue.
    pub time_ms: u64,
    pub exchange: ExchangeName,
    pub routing_key: RoutingKey,
    pub messages: MessageBlock,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The first record of an epoch.
    EpochStart {
        leader: BrokerLife,
        time_ms: u64,
    },
    Enqueue(Enqueue),
    /// These are gone for good. Ranges ascend and do not overlap; they may span offsets that are not
    /// messages or are settled already.
    Settle {
        kind: SettleKind,
        ranges: Vec<OffsetRange>,
    },
    /// Given back by their consumers: the delivery count of each goes up by one.
    Return {
        ranges: Vec<OffsetRange>,
    },
    /// Every unsettled message below is gone, except those in `held`, which were with consumers.
    Purge {
        below: Offset,
        held: Vec<OffsetRange>,
    },
}

impl Record {
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        match self {
            Record::EpochStart { .. } => RecordKind::EpochStart,
            Record::Enqueue(_) => RecordKind::Enqueue,
            Record::Settle { .. } => RecordKind::Settle,
            Record::Return { .. } => RecordKind::Return,
            Record::Purge { .. } => RecordKind::Purge,
        }
    }

    /// How many offsets it takes in the log.
    #[must_use]
    pub fn count(&self) -> u32 {
        match self {
            Record::Enqueue(enqueue) => enqueue.messages.count(),
            Record::EpochStart { .. }
            | Record::Settle { .. }
            | Record::Return { .. }
            | Record::Purge { .. } => 1,
        }
    }
}

/// A payload that does not say a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record of kind {kind}: {what}")]
pub struct RecordError {
    pub kind: u8,
    pub what: &'static str,
}
