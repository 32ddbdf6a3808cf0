//! Looking at unsettled messages without taking them.

use bellwether_protocol::ids::{Offset, OffsetRange};

use crate::Queue;

/// Runs in one look: 1,024. In a queue of which every other message is settled a run is one message, and each comes with the
/// names of its address.
pub const BROWSE_RUNS_MAX: usize = 1024;

/// Unsettled messages with consecutive offsets and the same marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub run: OffsetRange,
    /// Whether they may have been delivered before.
    pub redelivered: bool,
    /// How often they were returned.
    pub returns: u32,
}

impl Queue {
    /// The first messages of `within` that are neither settled nor purged, whoever holds them, at most `most` of them; and up to
    /// where these are all. Nothing changes by it.
    #[must_use]
    pub fn browse(&self, within: OffsetRange, most: u64) -> (Vec<Shown>, Offset) {
        let end = within.end.min(self.state.applied);
        let (mut shown, mut left, mut at) = (Vec::new(), most, within.first);
        let maybe_delivered_below = self
            .serving
            .as_ref()
            .map_or(self.state.applied, |serving| serving.maybe_delivered_below());
        while at < end && left > 0 && shown.len() < BROWSE_RUNS_MAX {
            let Some(mut run) = self.state.unsettled.next_run(OffsetRange::new(at, end), left)
            else {
                return (shown, end);
            };
            let (returns, same_until) = self.state.returns.at(run.first);
            run.end = run.end.min(same_until);
            let maybe_delivered = run.first < maybe_delivered_below;
            if maybe_delivered {
                run.end = run.end.min(maybe_delivered_below);
            }
            (left, at) = (left - run.count(), run.end);
            shown.push(Shown { run, redelivered: maybe_delivered || returns > 0, returns });
        }
        (shown, at.max(within.first))
    }
}
