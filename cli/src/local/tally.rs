//! The count of a demonstration: what was confirmed against what was received.

/// Which messages, by number from zero, were confirmed and which arrived.
#[derive(Debug)]
pub struct Tally {
    confirmed: Vec<bool>,
    received: Vec<bool>,
    confirmed_count: u64,
    /// Received and confirmed, each counted once.
    matched: u64,
    received_count: u64,
    duplicates: u64,
}

/// The result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub confirmed: u64,
    pub received: u64,
    pub lost: u64,
    pub duplicates: u64,
}

impl Tally {
    /// For messages `0..messages`.
    pub fn new(messages: usize) -> Tally {
        Tally {
            confirmed: vec![false; messages],
            received: vec![false; messages],
            confirmed_count: 0,
            matched: 0,
            received_count: 0,
            duplicates: 0,
        }
    }

    /// Message `number` was confirmed.
    pub fn confirm(&mut self, number: usize) {
        if !std::mem::replace(&mut self.confirmed[number], true) {
            self.confirmed_count += 1;
            self.matched += u64::from(self.received[number]);
        }
    }

    /// Message `number` arrived; `false` when there is no such message.
    pub fn receive(&mut self, number: usize) -> bool {
        let Some(received) = self.received.get_mut(number) else { return false };
        if std::mem::replace(received, true) {
            self.duplicates += 1;
        } else {
            self.received_count += 1;
            self.matched += u64::from(self.confirmed[number]);
        }
        true
    }

    /// The result so far.
    pub fn count(&self) -> Count {
        Count {
            confirmed: self.confirmed_count,
            received: self.received_count,
            lost: self.confirmed_count - self.matched,
            duplicates: self.duplicates,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_confirmed_message_that_never_came_is_lost_and_only_a_second_coming_is_a_duplicate() {
        let mut tally = Tally::new(4);
        tally.receive(0); // Delivered before its confirm arrived.
        tally.confirm(0);
        tally.confirm(1);
        tally.receive(2); // Stored, but the confirm was lost.
        tally.receive(2);
        assert!(!tally.receive(4));
        assert_eq!(tally.count(), Count { confirmed: 2, received: 2, lost: 1, duplicates: 1 });
        tally.receive(1);
        assert_eq!(tally.count().lost, 0);
    }
}
