//! A promise that was broken, with what is needed to find the place in the history.

use std::fmt;

/// A message: its producer and the number that the producer gave it, from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId {
    pub producer: u32,
    pub number: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}#{}", self.producer, self.number)
    }
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Confirmed, and neither settled nor there any more (G1).
    Lost { queue: String, message: MessageId, delivered_at: Option<u64> },
    /// Delivered, but nobody published it to this queue, or not with this body (G4).
    Invented { queue: String, offset: u64, what: String },
    /// Refused with a definite error, and delivered all the same (G4, G11).
    RefusedButDelivered { queue: String, message: MessageId },
    /// Its settle was confirmed, and it was delivered again (G3).
    Resurrected {
        queue: String,
        message: MessageId,
        settled_in_epoch: u64,
        delivered_in_epoch: u64,
    },
    /// Stored at two offsets (G7); of one settled long ago, the first is no longer known.
    Duplicated { queue: String, message: MessageId, offsets: (Option<u64>, u64) },
    /// Two messages at one offset: two leaders in one epoch, or a log that was cut below its high watermark (G2).
    OffsetTakenTwice { queue: String, message: MessageId, offset: u64 },
    /// Stored in another order than it was published in.
    Reordered { queue: String, earlier: MessageId, later: MessageId, offsets: (u64, u64) },
    /// A first delivery that came behind a first delivery of a higher offset (G5).
    DeliveredOutOfOrder { queue: String, message: MessageId, offset: u64, after: u64 },
    /// Delivered again without the mark (G5).
    NotMarkedRedelivered { queue: String, message: MessageId, offset: u64 },
    /// The queue's counts do not add up (G9).
    CountsDiffer { queue: String, what: String },
    /// When the faults had ended the queue did not come back, or did not drain (G10).
    Stuck { queue: String, what: String },
    /// A broker that could not keep something did not say so (G12).
    Unsaid { what: String },
    /// A sync was tried again after it had failed (G1): its second answer says nothing of what the first one lost.
    SyncRetried { what: String },
    /// A deposed leader went on: found by a test that watches one on the wire (G2, G3).
    DeposedLeaderWentOn { what: String },
}

impl Violation {
    /// A short name, to count by.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Violation::Lost { .. } => "lost",
            Violation::Invented { .. } => "invented",
            Violation::RefusedButDelivered { .. } => "refused_but_delivered",
            Violation::Resurrected { .. } => "resurrected",
            Violation::Duplicated { .. } => "duplicated",
            Violation::OffsetTakenTwice { .. } => "offset_taken_twice",
            Violation::Reordered { .. } => "reordered",
            Violation::DeliveredOutOfOrder { .. } => "delivered_out_of_order",
            Violation::NotMarkedRedelivered { .. } => "not_marked_redelivered",
            Violation::CountsDiffer { .. } => "counts_differ",
            Violation::Stuck { .. } => "stuck",
            Violation::Unsaid { .. } => "unsaid",
            Violation::SyncRetried { .. } => "sync_retried",
            Violation::DeposedLeaderWentOn { .. } => "deposed_leader_went_on",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Lost { queue, message, delivered_at: None } => {
                write!(f, "{queue}: {message} was confirmed and never delivered")
            }
            Violation::Lost { queue, message, delivered_at: Some(offset) } => {
                write!(
                    f,
                    "{queue}: {message} was confirmed, delivered from offset {offset}, never settled, and is gone"
                )
            }
            Violation::Invented { queue, offset, what } => {
                write!(f, "{queue}: offset {offset} holds {what}")
            }
            Violation::RefusedButDelivered { queue, message } => {
                write!(f, "{queue}: {message} was refused for good and delivered all the same")
            }
            Violation::Resurrected { queue, message, settled_in_epoch, delivered_in_epoch } => {
                write!(
                    f,
                    "{queue}: the settle of {message} was confirmed in epoch {settled_in_epoch}, \
                 and it was delivered again in epoch {delivered_in_epoch}"
                )
            }
            Violation::Duplicated { queue, message, offsets: (None, second) } => {
                write!(f, "{queue}: {message}, settled long ago, is stored at offset {second}, too")
            }
            Violation::Duplicated { queue, message, offsets: (Some(first), second) } => {
                write!(f, "{queue}: {message} is stored at offset {first} and at offset {second}")
            }
            Violation::OffsetTakenTwice { queue, message, offset } => {
                write!(
                    f,
                    "{queue}: {message} came from offset {offset}, from which another message had come"
                )
            }
            Violation::Reordered { queue, earlier, later, offsets: (first, second) } => {
                write!(
                    f,
                    "{queue}: {earlier} is stored at offset {first}, behind {later} at offset {second}"
                )
            }
            Violation::DeliveredOutOfOrder { queue, message, offset, after } => {
                write!(
                    f,
                    "{queue}: {message} at offset {offset} was first delivered after offset {after}"
                )
            }
            Violation::NotMarkedRedelivered { queue, message, offset } => {
                write!(
                    f,
                    "{queue}: {message} at offset {offset} was delivered a second time without the mark"
                )
            }
            Violation::CountsDiffer { queue, what } | Violation::Stuck { queue, what } => {
                write!(f, "{queue}: {what}")
            }
            Violation::Unsaid { what }
            | Violation::SyncRetried { what }
            | Violation::DeposedLeaderWentOn { what } => f.write_str(what),
        }
    }
}
