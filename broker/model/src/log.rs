//! A log of the model: at most sixteen records of one byte each, so that a world is small and quick to compare.

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    EpochStart,
    /// The message with this number; the first is 1.
    Message(u8),
    /// The settle of the message with this number.
    Settle(u8),
}

/// A record and the epoch in which it was appended. No two records of a run are equal, but for an epoch start that is written twice
/// by a leader that goes on with an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub epoch: u8,
    pub what: What,
}

impl Record {
    fn byte(self) -> u8 {
        let what = match self.what {
            What::EpochStart => 1,
            What::Message(number) => 2 + number,
            What::Settle(number) => 9 + number,
        };
        (self.epoch << 4) | what
    }

    fn of(byte: u8) -> Record {
        let what = match byte & 15 {
            1 => What::EpochStart,
            number @ 2..=8 => What::Message(number - 2),
            number => What::Settle(number - 9),
        };
        Record { epoch: byte >> 4, what }
    }
}

/// One byte for each record, the first in the lowest one; a byte that is zero ends the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Log(u128);

/// Records that a log has room for. The bounds stay below it.
pub const RECORDS_MAX: u8 = 16;

impl Log {
    #[must_use]
    pub fn len(self) -> u8 {
        let free = self.0.leading_zeros() / 8;
        RECORDS_MAX - u8::try_from(free).unwrap_or(RECORDS_MAX)
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn get(self, at: u8) -> Option<Record> {
        (at < self.len()).then(|| Record::of((self.0 >> (8 * u32::from(at))) as u8))
    }

    pub fn push(&mut self, record: Record) {
        assert!(self.len() < RECORDS_MAX, "the bounds allow more records than a log has room for");
        self.0 |= u128::from(record.byte()) << (8 * u32::from(self.len()));
    }

    /// The first `end` records.
    #[must_use]
    pub fn cut(self, end: u8) -> Log {
        if end >= RECORDS_MAX {
            return self;
        }
        Log(self.0 & ((1 << (8 * u32::from(end))) - 1))
    }

    pub fn records(self) -> impl Iterator<Item = Record> {
        (0..self.len()).filter_map(move |at| self.get(at))
    }

    #[must_use]
    pub fn starts_with(self, other: Log) -> bool {
        self.cut(other.len()) == other
    }

    /// How many records at the beginning are the same.
    #[must_use]
    pub fn shared_with(self, other: Log) -> u8 {
        let differing = u8::try_from((self.0 ^ other.0).trailing_zeros() / 8).unwrap_or(0);
        differing.min(self.len()).min(other.len())
    }

    /// The epoch of the last record, or 0.
    #[must_use]
    pub fn last_epoch(self) -> u8 {
        self.len().checked_sub(1).and_then(|last| self.get(last)).map_or(0, |record| record.epoch)
    }

    /// The largest epoch in this log that is not above `epoch`, and where it ends.
    #[must_use]
    pub fn end_of(self, epoch: u8) -> Option<(u8, u8)> {
        let end = self.records().take_while(|record| record.epoch <= epoch).count();
        let end = u8::try_from(end).unwrap_or(RECORDS_MAX);
        self.get(end.checked_sub(1)?).map(|record| (record.epoch, end))
    }

    /// How many epoch starts stand at the end, with nothing behind them.
    #[must_use]
    pub fn trailing_epoch_starts(self) -> u8 {
        let is_start =
            |at: &u8| self.get(*at).is_some_and(|record| record.what == What::EpochStart);
        (0..self.len()).rev().take_while(is_start).map(|_| 1).sum()
    }

    #[must_use]
    pub fn holds(self, what: What) -> bool {
        self.records().any(|record| record.what == what)
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[")?;
        for (at, record) in self.records().enumerate() {
            let gap = if at == 0 { "" } else { " " };
            match record.what {
                What::EpochStart => write!(f, "{gap}e{}", record.epoch)?,
                What::Message(number) => write!(f, "{gap}m{number}")?,
                What::Settle(number) => write!(f, "{gap}settle(m{number})")?,
            }
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(records: &[(u8, What)]) -> Log {
        let mut log = Log::default();
        for (epoch, what) in records {
            log.push(Record { epoch: *epoch, what: *what });
        }
        log
    }

    #[test]
    fn a_log_keeps_its_records_in_order_and_is_cut_at_their_bounds() {
        use What::{EpochStart, Message, Settle};
        let whole = log(&[(1, EpochStart), (1, Message(1)), (3, EpochStart), (3, Settle(1))]);
        assert_eq!(format!("{whole:?}"), "[e1 m1 e3 settle(m1)]");
        assert_eq!((whole.len(), whole.cut(2).len(), whole.cut(0)), (4, 2, Log::default()));
        assert_eq!(whole.get(3), Some(Record { epoch: 3, what: Settle(1) }));
        assert_eq!(
            (whole.end_of(2), whole.end_of(3), whole.end_of(0)),
            (Some((1, 2)), Some((3, 4)), None)
        );
        let other = log(&[(1, EpochStart), (1, Message(2))]);
        assert_eq!((whole.shared_with(other), whole.shared_with(whole)), (1, 4));
        assert!(whole.starts_with(whole.cut(3)) && !whole.starts_with(other));
    }
}
