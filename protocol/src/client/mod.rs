//! What a client and a broker say to each other. What each frame looks like in bytes stands in docs/protocol.md.

mod answer;
mod ask;
mod browse;
mod explain;
mod frames;
mod login;
mod numbers;
mod requests;
mod wire;

pub use answer::{
    AbsentBroker, Binding, BrokerStatus, ClusterStatus, ConsumerAttached, ExchangeKind, Moved,
    PlannedMove, QueueClass, QueueCounts, QueueOptions, QueueSummary, Response, Stuck, StuckQueues,
};
pub use ask::{Claim, Drain, Request};
pub use browse::{BROWSE_BYTES_MAX, BROWSE_MESSAGES_MAX, Browse, Browsed};
pub use explain::{
    Attention, CommittedNote, CopyHealth, CopyRole, CopyStatus, ElectionReport, LiveBroker,
    QueueCondition, Recover, ReplicaStatus, Resigned, StoppedCopy, TaintCleared, TaintNote,
    Troubled,
};
pub use frames::{
    BrokerFrame, ClientFrame, Deliver, DeliveredRun, Hello, Publish, Settle, Settlement, Welcome,
    Withheld,
};
pub use login::{EXTERNAL, LoginData, LoginStart, PLAIN, Permissions, UserSummary, UserTag};
pub use numbers::{Number, NumberOf};
pub use wire::{CLAIM_MESSAGES_MAX, SETTLE_RANGES_MAX};

/// The versions of this protocol that this build speaks, lowest and highest.
pub const VERSIONS: std::ops::RangeInclusive<u16> = 1..=1;
