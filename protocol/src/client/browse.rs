//! Looking at the messages of a queue without taking them.

use crate::ids::{Epoch, Offset, QueueId};
use crate::names::QueueName;
use crate::wire::wire_struct;

use super::DeliveredRun;

/// Most messages that one answer holds. A client with more to see asks again.
pub const BROWSE_MESSAGES_MAX: u32 = 10_000;

/// Most bytes of messages in one answer, unless the first is larger: 1 MiB, so that whoever looks at a long queue takes no more
/// of the broker's memory than a consumer does.
pub const BROWSE_BYTES_MAX: u32 = 1024 * 1024;

/// Asks for committed messages that are neither settled nor purged, in order. Nothing is taken or counted as a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Browse {
    /// Of which queue. Only its leader answers.
    pub queue: QueueName,
    /// From this offset on.
    pub from: Offset,
    /// Below this offset; none: up to the high watermark. To see a queue as it was at one moment, all further asks name the high
    /// watermark of the first answer.
    pub until: Option<Offset>,
    /// At most so many; the broker may send fewer, see [`BROWSE_MESSAGES_MAX`].
    pub messages_max: u32,
    /// At most so many bytes, unless the first message alone is larger; see [`BROWSE_BYTES_MAX`].
    pub bytes_max: u32,
}

/// Answers [`Browse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Browsed {
    /// The queue: one declared anew under its name is another.
    pub queue: QueueId,
    /// The epoch of the leader that answers.
    pub epoch: Epoch,
    /// The messages. A message that is settled while the broker reads may be among them or not.
    pub runs: Vec<DeliveredRun>,
    /// Where to go on. Everything is seen when it is not below `until`, or, without it, the high watermark.
    pub next: Offset,
    /// Every offset below was committed when the broker looked.
    pub high_watermark: Offset,
}

wire_struct!(Browse { queue, from, until, messages_max, bytes_max });
wire_struct!(Browsed { queue, epoch, runs, next, high_watermark });
