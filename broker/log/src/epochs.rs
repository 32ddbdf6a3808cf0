//! Which epochs a log holds and where each begins. What the reconciliation of a follower's log with its leader's rests on.

use bellwether_protocol::ids::{Epoch, Offset};

/// The epochs of one log, ascending, each with the offset of its first record.
///
/// *Invariant:* epochs and offsets strictly ascend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochHistory {
    starts: Vec<(Epoch, Offset)>,
}
