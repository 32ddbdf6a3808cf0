//! Which epochs a log holds and where each begins. What the reconciliation of a follower's log with its leader's rests on.

use bellwether_protocol::ids::{Epoch, Offset};

/// The epochs of one log, ascending, each with the offset of its first record.
///
/// *Invariant:* epochs and offsets strictly ascend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochHistory {
    starts: Vec<(Epoch, Offset)>,
}

/// Epochs that do not ascend: not the history of any log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("epoch {} at {} follows epoch {} at {}", .next.0, .next.1, .previous.0, .previous.1)]
pub struct EpochOrderError {
    pub previous: (Epoch, Offset),
    pub next: (Epoch, Offset),
}

impl EpochHistory {
    /// The history with these epochs and their first offsets.
    ///
    /// # Errors
    /// [`EpochOrderError`] when epochs or offsets do not strictly ascend.
    pub fn new(starts: Vec<(Epoch, Offset)>) -> Result<Self, EpochOrderError> {
        for pair in starts.windows(2) {
            let (previous, next) = (pair[0], pair[1]);
            if next.0 <= previous.0 || next.1 <= previous.1 {
                return Err(EpochOrderError { previous, next });
            }
        }
        Ok(EpochHistory { starts })
    }

    /// Each epoch with its first offset, ascending.
    #[must_use]
    pub fn starts(&self) -> &[(Epoch, Offset)] {
        &self.starts
    }

    /// The last epoch; none in an empty log.
    #[must_use]
    pub fn last(&self) -> Option<Epoch> {
        self.starts.last().map(|(epoch, _)| *epoch)
    }

    /// Takes note of a batch of `epoch` at `base`, which is the epoch's first if the epoch is new.
    ///
    /// # Panics
    /// When it would go back: the log was about to hold an older epoch behind a newer one, or a record
    /// below an epoch's start. Going on would let a later reconciliation cut at the wrong place.
    pub fn append(&mut self, epoch: Epoch, base: Offset) {
        let Some(&(last, start)) = self.starts.last() else {
            return self.starts.push((epoch, base));
        };
        assert!(epoch >= last, "epoch {epoch} behind epoch {last} in one log");
        assert!(base >= start, "offset {base} behind the start {start} of epoch {last}");
        if epoch > last {
            assert!(base > start, "epochs {last} and {epoch} both begin at {base}");
            self.starts.push((epoch, base));
        }
    }

    /// The log was cut: drops the epochs that begin at or behind `end`.
    pub fn truncate(&mut self, end: Offset) {
        let kept = self.starts.partition_point(|(_, start)| *start < end);
        self.starts.truncate(kept);
    }

    /// The largest epoch not above `epoch`, with its end in a log that ends at `log_end`: what a leader
    /// answers a follower whose last epoch is `epoch`. `None`: there is no such epoch here.
    #[must_use]
    pub fn end_of(&self, epoch: Epoch, log_end: Offset) -> Option<(Epoch, Offset)> {
        let above = self.starts.partition_point(|(known, _)| *known <= epoch);
        let (found, _) = *self.starts.get(above.checked_sub(1)?)?;
        let end = self.starts.get(above).map_or(log_end, |(_, start)| *start);
        Some((found, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(starts: &[(u64, u64)]) -> EpochHistory {
        let starts = starts.iter().map(|(epoch, at)| (Epoch(*epoch), Offset(*at))).collect();
        EpochHistory::new(starts).unwrap()
    }

    #[test]
    fn a_leader_names_its_largest_epoch_not_above_the_followers_and_where_it_ended() {
        let leader = history(&[(1, 0), (3, 10), (6, 25)]);
        let end = Offset(40);
        assert_eq!(leader.end_of(Epoch(0), end), None);
        assert_eq!(leader.end_of(Epoch(1), end), Some((Epoch(1), Offset(10))));
        assert_eq!(leader.end_of(Epoch(2), end), Some((Epoch(1), Offset(10))));
        assert_eq!(leader.end_of(Epoch(5), end), Some((Epoch(3), Offset(25))));
        assert_eq!(leader.end_of(Epoch(6), end), Some((Epoch(6), Offset(40))));
        assert_eq!(leader.end_of(Epoch(9), end), Some((Epoch(6), Offset(40))));
    }

    #[test]
    fn cutting_a_log_drops_the_epochs_that_begin_at_or_behind_the_cut() {
        let mut log = history(&[(1, 0), (3, 10), (6, 25)]);
        log.truncate(Offset(26));
        assert_eq!(log.last(), Some(Epoch(6)));
        log.truncate(Offset(25));
        assert_eq!(log.last(), Some(Epoch(3)));
        log.truncate(Offset(0));
        assert_eq!(log, EpochHistory::default());
    }

    #[test]
    fn batches_of_a_known_epoch_leave_the_history_as_it_is() {
        let mut log = EpochHistory::default();
        for (epoch, base) in [(2, 0), (2, 1), (2, 9), (5, 12), (5, 13)] {
            log.append(Epoch(epoch), Offset(base));
        }
        assert_eq!(log, history(&[(2, 0), (5, 12)]));
    }

    #[test]
    #[should_panic(expected = "epoch 1 behind epoch 2")]
    fn an_older_epoch_never_follows_a_newer_one() {
        let mut log = history(&[(2, 0)]);
        log.append(Epoch(1), Offset(5));
    }

    #[test]
    fn epochs_that_do_not_ascend_are_refused() {
        let starts = vec![(Epoch(2), Offset(0)), (Epoch(2), Offset(5))];
        assert!(EpochHistory::new(starts).is_err());
        let starts = vec![(Epoch(1), Offset(5)), (Epoch(2), Offset(5))];
        assert!(EpochHistory::new(starts).is_err());
    }
}
