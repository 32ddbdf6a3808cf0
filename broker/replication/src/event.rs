//! All that can happen to a replica, and all that it can want done.

use std::time::Instant;

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::{Committed, QueueState};
use bellwether_protocol::ids::{BrokerId, BrokerLife, Epoch, Offset, StoreId};
use bellwether_protocol::peer::{NoPosition, Position, Subscription};

use crate::force::{Force, NotForced};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This broker's life began (a session was opened and its leftovers are gone), or ended.
    Life(Option<BrokerLife>),
    /// Whether the coordinator session is connected. Being disconnected ends nothing.
    Connected(bool),
    /// The state was read; `synced`: after a sync on the present session.
    State { state: QueueState, version: Version, synced: bool },
    /// On one session and after a sync, a state naming this life was read first and the absence of its path second.
    Gone { life: BrokerLife },
    /// Positive evidence that the process of this life is dead. Wrong evidence costs no message.
    Dead { life: BrokerLife },
    /// A fate-sharing connection that this broker dialed is up (past both hellos).
    Dialed { peer: BrokerLife },
    /// The connection that this broker dialed is down.
    DialedDown { peer: BrokerLife },
    /// The connection that the peer dialed is down: it follows nothing here any more.
    AcceptedDown { peer: BrokerLife },

    /// A follower wants to follow.
    Subscribe { from: BrokerLife, subscription: Subscription },
    /// A follower stopped answering this epoch.
    Unsubscribe { from: BrokerLife, epoch: Epoch },
    /// A follower holds everything below `end` durably, under this epoch.
    Durable { from: BrokerLife, epoch: Epoch, end: Offset },

    /// The leader says, to the subscription of this number, where the largest of its epochs not above this log's last one ends.
    EpochEnd { from: BrokerLife, epoch: Epoch, last_epoch: Option<Epoch>, end: Offset, number: u64 },
    /// It does not lead in that epoch.
    NotLeading { from: BrokerLife, epoch: Epoch, seen: Epoch },
    /// This log is too far behind to be streamed to.
    SnapshotNeeded { from: BrokerLife, epoch: Epoch },
    /// A snapshot replaced this log: it now ends at `at`, and all below is durable.
    SnapshotInstalled { epoch: Epoch, at: Offset, epochs: Vec<(Epoch, Offset)> },
    /// The fetch of a snapshot failed: subscribe again.
    SnapshotFailed { epoch: Epoch },
    /// The leader's high watermark.
    Committed { from: BrokerLife, epoch: Epoch, high_watermark: Offset },

    /// Where another member's log ends.
    Position { from: BrokerLife, position: Position },
    /// Another broker has no copy that can say so, for good or because it is starting.
    NoPosition { from: BrokerLife, without: NoPosition },

    /// The batches given by the shell to the log are in it, up to here. Only for the leader's own appends.
    Appended { end: Offset },
    /// The local log is durable up to here.
    LocalDurable { end: Offset },

    /// What became of an [`Effect::Cas`].
    Cas { version: Version, state: QueueState, outcome: CasOutcome },
    /// The broker drains: hand the leadership over if it can be done without harm.
    HandOver,
    /// Let the leadership move to where [`crate::Replica::moves_to`] says, if it still can. It goes on here when that is not done soon.
    Move,
    /// An operator gives the rest of the in-sync set up and wants this copy to lead: see [`Force`].
    Force(Force),
    /// Write down how far the log is committed: see [`crate::Replica::wants_note`].
    Note(Committed),
    /// No sync returns here for a long time, or syncs have been fine for a while again.
    DiskStalls(bool),
    /// Syncs return again where the disk stalled, and not for long enough yet that it could be called fine. Said again and again.
    DiskReturns,
    /// The store failed: give the leadership up and take no part any more.
    StoreFailed { why: String },
    /// An invariant of this queue is broken: stop it, loudly.
    Broken { why: String },
    /// Synced data of the log here is damaged: give it up and take part again as the copy of this new store, with a
    /// snapshot to begin with. The shell keeps the damaged log until that is installed.
    LogLost { store: StoreId, why: String },
    /// The process did not run for a while.
    Paused,
    /// Time passed.
    Tick,
}

impl Event {
    /// The life that said it or answered: one that is heard from is not dead.
    pub(crate) fn speaker(&self) -> Option<BrokerLife> {
        match self {
            Event::Dialed { peer } => Some(*peer),
            Event::Subscribe { from, .. }
            | Event::Unsubscribe { from, .. }
            | Event::Durable { from, .. }
            | Event::EpochEnd { from, .. }
            | Event::NotLeading { from, .. }
            | Event::SnapshotNeeded { from, .. }
            | Event::Committed { from, .. } => Some(*from),
            Event::Life(_)
            | Event::Connected(_)
            | Event::State { .. }
            | Event::Gone { .. }
            | Event::Dead { .. }
            | Event::DialedDown { .. }
            | Event::AcceptedDown { .. }
            | Event::SnapshotInstalled { .. }
            | Event::SnapshotFailed { .. }
            | Event::Position { .. }
            | Event::NoPosition { .. }
            | Event::Appended { .. }
            | Event::LocalDurable { .. }
            | Event::Cas { .. }
            | Event::HandOver
            | Event::Move
            | Event::Force(_)
            | Event::Note(_)
            | Event::DiskStalls(_)
            | Event::DiskReturns
            | Event::StoreFailed { .. }
            | Event::Broken { .. }
            | Event::LogLost { .. }
            | Event::Paused
            | Event::Tick => None,
        }
    }
}

/// What became of a compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CasOutcome {
    /// Applied; the state now has this version.
    Done { version: Version },
    /// Not applied by this attempt: the version had moved. An earlier attempt may have moved it.
    Refused,
    /// Nobody knows: it may have been applied, or be applied yet.
    Undecided,
    /// It was not sent at all.
    NotSent,
}

/// Something to be done, in the order in which it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read the state after a sync, and then the path of the life it names.
    ReadState,
    /// Compare and set. The same one may be asked for again while it is undecided.
    Cas { version: Version, state: QueueState },

    /// Ask this leader to stream to this log.
    Subscribe { leader: BrokerLife, subscription: Subscription },
    /// Tell it that this broker no longer answers in that epoch. On the same connection, before any later promise.
    Unsubscribe { leader: BrokerLife, epoch: Epoch },
    /// Tell the leader what is durable here.
    ReportDurable { leader: BrokerLife, epoch: Epoch, end: Offset },
    /// Fetch a snapshot from the leader.
    FetchSnapshot { leader: BrokerLife, epoch: Epoch },

    /// Answer a follower: see [`Event::EpochEnd`].
    TellEpochEnd {
        to: BrokerLife,
        epoch: Epoch,
        last_epoch: Option<Epoch>,
        end: Offset,
        number: u64,
    },
    /// Answer a follower: not led here.
    TellNotLeading { to: BrokerLife, epoch: Epoch, seen: Epoch },
    /// Answer a follower: its log is behind what is kept.
    TellSnapshotNeeded { to: BrokerLife, epoch: Epoch },
    /// Stream the log to this follower, from here on.
    Stream { to: BrokerLife, from: Offset },
    /// Stream nothing more to this follower.
    StopStream { to: BrokerLife },
    /// Ask these brokers where their logs end.
    AskPositions { brokers: Vec<BrokerId> },

    /// Cut the log: everything at and behind `to` goes.
    Truncate { to: Offset },
    /// Append the first record of this epoch.
    AppendEpochStart { epoch: Epoch },
    /// Everything below is committed.
    HighWatermark { end: Offset },

    /// This broker leads: it has appended its epoch start, but serves nobody yet.
    Lead { epoch: Epoch },
    /// Everything the log held is committed: serve. Deliver only from then on.
    Serve { epoch: Epoch, deliver_from: Instant },
    /// Leads no more. What was appended and is not committed has an unknown fate.
    StopLeading { epoch: Epoch },
    /// The members whose promises a delivery needs have changed.
    LeaseChanged,
    /// The ISR this broker leads with was changed, for the log and the metrics.
    IsrChanged { from: Vec<BrokerId>, to: Vec<BrokerId> },
    /// The queue takes no further part; an operator has to look (promise G12).
    Stopped { why: String },
    /// A move of the leadership was given up: what was held back meanwhile is taken here, or refused, as if it came now.
    Stays,
    /// This copy is outside the replica set, and nobody counts on it any more: its log goes, and the replica with it.
    Parted,
    /// What came of [`Event::Force`]: the state that was asked for, of which the coordinator tells whether it came about.
    Forced(Result<Box<QueueState>, NotForced>),
    /// A leader was forced on the queue that lacks what is committed here: this log is not the queue's any more. It is to be
    /// kept aside, and [`Event::LogLost`] to be said.
    Superseded { why: String },
    /// One that had stopped because its log is damaged takes part again, as a new member: its log and its state are
    /// those of a snapshot to come.
    Renewed,
}
