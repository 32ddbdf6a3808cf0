//! Frames between brokers. One connection for each ordered pair carries all their queues: the *dialer*
//! follows queues that the *acceptor* leads, and forwards publishes to them. Snapshots have a connection of their own.

mod wire;

use bytes::Bytes;

use crate::error::ErrorBody;
use crate::ids::{BrokerLife, ClusterId, Epoch, Member, Offset, QueueId, Seq, StoreId};
use crate::message::MessageBlock;
use crate::names::{ExchangeName, ProducerName, RoutingKey};

/// The versions of the peer protocol that this build speaks.
pub const VERSIONS: std::ops::RangeInclusive<u16> = 1..=1;

/// Largest piece of a log that one frame carries, in bytes, so that promises never wait long behind bodies.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// What the connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Replication, promises, positions, forwards.
    Stream,
    /// One snapshot of one queue.
    Snapshot,
}

/// The first frame, both ways: who is speaking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHello {
    /// Lowest version spoken.
    pub version_min: u16,
    /// Highest version spoken.
    pub version_max: u16,
    /// The cluster; another is refused.
    pub cluster: ClusterId,
    /// Who, and in which life.
    pub life: BrokerLife,
    /// Its data directory.
    pub store: StoreId,
    /// What the connection is for.
    pub purpose: Purpose,
    /// Whether it is past the check of its leftovers, so that it answers more than this hello.
    pub ready: bool,
    /// T, in milliseconds: how long after its last promise it waits before it delivers as a successor.
    pub promise_ms: u32,
}

/// Everything that crosses a peer connection after the hellos. `D→A`: sent by the dialer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerFrame {
    /// The first frame, both ways.
    Hello(PeerHello),
    /// The last frame: why the connection is refused or closed.
    Goodbye(ErrorBody),
    /// Nothing to say, still here. Both ways.
    Heartbeat,

    /// D→A: follow these queues from here.
    Subscribe(Vec<Subscription>),
    /// D→A: no longer follows these in this epoch: standing for them, or not a replica any more.
    Unsubscribe(Vec<(QueueId, Epoch)>),
    /// A→D: not led here in that epoch.
    NotLeading {
        /// The queue.
        queue: QueueId,
        /// The epoch that was asked for.
        epoch: Epoch,
        /// The highest epoch this broker has seen for the queue.
        seen: Epoch,
    },
    /// A→D: where the leader's log ends in the largest of its epochs not above the subscriber's last.
    EpochEnd {
        /// The queue.
        queue: QueueId,
        /// The leader's epoch.
        epoch: Epoch,
        /// The largest epoch in the leader's log not above the subscriber's last one; none: it has no such epoch.
        last_epoch: Option<Epoch>,
        /// The end of that epoch in the leader's log.
        end: Offset,
        /// [`Subscription::number`] of the one it answers: the follower's log may be another by now.
        number: u64,
    },
    /// A→D: the subscriber is so far behind that it needs a snapshot first.
    SnapshotNeeded {
        /// The queue.
        queue: QueueId,
        /// The leader's epoch.
        epoch: Epoch,
    },
    /// A→D: pieces of logs, each a run of whole batches.
    Append(Vec<AppendRun>),
    /// A→D: a piece of one batch that is larger than a frame. The last piece completes it.
    AppendPart {
        /// The queue.
        queue: QueueId,
        /// The leader's epoch.
        epoch: Epoch,
        /// The leader's high watermark.
        high_watermark: Offset,
        /// Whether this is the last piece.
        last: bool,
        /// The piece.
        bytes: Bytes,
    },
    /// A→D: high watermarks that moved without new records.
    Committed(Vec<(QueueId, Epoch, Offset)>),
    /// D→A: durable here under these epochs up to these ends.
    Durable(Vec<(QueueId, Epoch, Offset)>),

    /// A→D: promise again. One exchange for all the queues of the pair.
    PromiseAsk {
        /// Echoed in the promise.
        number: u64,
    },
    /// D→A: for every queue subscribed on this connection: will not deliver as a successor before T has passed.
    Promise {
        /// The ask's.
        number: u64,
    },

    /// Both ways: where do the logs of these queues end?
    PositionAsk(Vec<QueueId>),
    /// Both ways: they end here; and, of the queues whose log here says nothing (yet), why. Versions that know the first list only leave
    /// these out: from their silence nothing follows.
    Positions(Vec<Position>, Vec<NoPosition>),
    /// Both ways: the coordinator's state of these queues has changed; read it. A hint, never proof.
    StateChanged(Vec<QueueId>),

    /// D→A: messages for a queue that the acceptor leads.
    Forward(Forward),
    /// D→A: a piece of a forward that is larger than a frame: a `Forward` frame's bytes in pieces.
    ForwardPart {
        /// Whether this is the last piece.
        last: bool,
        /// The piece.
        bytes: Bytes,
    },
    /// A→D: what became of forwards.
    Forwarded(Vec<(u64, ForwardResult)>),

    /// On a snapshot connection, D→A: send this queue, led by the acceptor in this epoch.
    SnapshotAsk {
        /// The queue.
        queue: QueueId,
        /// The epoch.
        epoch: Epoch,
    },
    /// A→D: the state, as of this offset; live batches below it follow.
    SnapshotStart {
        /// The state is that of the log up to here; the tail is streamed from here.
        at: Offset,
        /// Every offset below it was committed when the snapshot was taken.
        high_watermark: Offset,
        /// Length of the state in bytes; it follows in `SnapshotPart`s.
        state_bytes: u64,
        /// The epochs of the log up to `at`: each with its first offset.
        epochs: Vec<(Epoch, Offset)>,
    },
    /// A→D: a piece of the state, or of live batches (whole batches when the state is complete).
    SnapshotPart(Bytes),
    /// A→D: that was all.
    SnapshotEnd,
}

/// Where a follower stands in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The queue.
    pub queue: QueueId,
    /// The leader's epoch, as read from the coordinator.
    pub epoch: Epoch,
    /// The follower's own copy.
    pub member: Member,
    /// The last epoch in its log; none: its log is empty.
    pub last_epoch: Option<Epoch>,
    /// The end of its log.
    pub log_end: Offset,
    /// Rises with each subscription of this copy's process; the answer repeats it.
    pub number: u64,
}

/// A run of whole batches of one queue's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendRun {
    /// The queue.
    pub queue: QueueId,
    /// The leader's epoch (the batches may be of older ones).
    pub epoch: Epoch,
    /// The leader's high watermark.
    pub high_watermark: Offset,
    /// Encoded batches, one behind the other.
    pub batches: Bytes,
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The queue.
    pub queue: QueueId,
    /// The copy.
    pub member: Member,
    /// The highest epoch the broker has seen in the coordinator's state or its log.
    pub seen: Epoch,
    /// The last epoch in its log.
    pub last_epoch: Epoch,
    /// The end of its log.
    pub log_end: Offset,
}

/// A copy, or the want of one, of which it cannot be said where its log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPosition {
    /// The queue.
    pub queue: QueueId,
    /// The copy here; without one, that which would begin here.
    pub member: Member,
    /// It takes no part any more: nothing will come of it in this life of the process. If not, it is starting.
    pub stopped: bool,
}

/// Messages on their way from the broker they entered at to their queue's leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Unique on this connection; the result carries it.
    pub token: u64,
    /// To which queue.
    pub queue: QueueId,
    /// By whom; none: no retry is recognised.
    pub producer: Option<ProducerName>,
    /// The number before which this producer has nothing unconfirmed, or the last number it sent
    /// to this queue: the leader refuses the batch when it has not got that far ([`crate::error::ErrorCode::OutOfSequence`]).
    pub previous: Seq,
    /// Whether `previous` was sent on this way and may still be unconfirmed; if not, everything up to it is confirmed.
    pub chained: bool,
    /// Number of the first message.
    pub first: Seq,
    /// Whether any of them may have been sent before.
    pub resent: bool,
    /// Where they were published to.
    pub exchange: ExchangeName,
    /// By which key.
    pub routing_key: RoutingKey,
    /// The messages.
    pub messages: MessageBlock,
}

/// What became of a forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardResult {
    /// Committed.
    Committed,
    /// Not stored, or nobody knows.
    Failed(ErrorBody),
}
