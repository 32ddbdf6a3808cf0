//! How much a producer may publish: a window over what is not answered yet, granted in cumulative counts.

/// One producer's credit. All counts run from its attach.
#[derive(Debug)]
pub struct Credit {
    window_messages: u64,
    window_bytes: u64,
    granted_messages: u64,
    granted_bytes: u64,
    published_messages: u64,
    published_bytes: u64,
    answered_messages: u64,
    answered_bytes: u64,
}

/// What may have been published in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub messages: u64,
    pub bytes: u64,
}

impl Credit {
    /// The whole window, nothing granted yet.
    #[must_use]
    pub fn new(window_messages: u64, window_bytes: u64) -> Credit {
        Credit {
            window_messages,
            window_bytes,
            granted_messages: 0,
            granted_bytes: 0,
            published_messages: 0,
            published_bytes: 0,
            answered_messages: 0,
            answered_bytes: 0,
        }
    }

    /// Counts a frame; `false` when it was not granted. A frame that begins inside the granted bytes may end beyond them:
    /// otherwise a message larger than the window could never be sent.
    #[must_use]
    pub fn publish(&mut self, messages: u64, bytes: u64) -> bool {
        let allowed = self.published_messages + messages <= self.granted_messages
            && self.published_bytes < self.granted_bytes;
        self.published_messages += messages;
        self.published_bytes += bytes;
        allowed
    }

    /// Counts what was confirmed or refused.
    pub fn answer(&mut self, messages: u64, bytes: u64) {
        self.answered_messages += messages;
        self.answered_bytes += bytes;
        assert!(
            self.answered_messages <= self.published_messages,
            "answered what was never published"
        );
    }

    /// What was granted.
    #[must_use]
    pub fn granted(&self) -> Grant {
        Grant { messages: self.granted_messages, bytes: self.granted_bytes }
    }

    /// What to grant now, if half the window is used up since the last grant or nothing is open.
    pub fn grant(&mut self) -> Option<Grant> {
        let messages = self.answered_messages + self.window_messages;
        let bytes = self.answered_bytes + self.window_bytes;
        let more_messages = messages - self.granted_messages;
        let more_bytes = bytes.saturating_sub(self.granted_bytes);
        // A single message larger than the window leaves nothing open when it is answered, and no credit either.
        let stuck = self.answered_messages == self.published_messages
            && (self.published_bytes >= self.granted_bytes
                || self.published_messages >= self.granted_messages);
        if more_messages * 2 < self.window_messages && more_bytes * 2 < self.window_bytes && !stuck
        {
            return None;
        }
        self.granted_messages = messages;
        self.granted_bytes = self.granted_bytes.max(bytes);
        Some(Grant { messages: self.granted_messages, bytes: self.granted_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_comes_in_halves_of_the_window_and_not_with_every_confirm() {
        let mut credit = Credit::new(100, 10_000);
        assert_eq!(credit.grant(), Some(Grant { messages: 100, bytes: 10_000 }));
        assert_eq!(credit.grant(), None);
        for _ in 0..49 {
            assert!(credit.publish(1, 10));
            credit.answer(1, 10);
            assert_eq!(credit.grant(), None);
        }
        assert!(credit.publish(1, 10));
        credit.answer(1, 10);
        assert_eq!(credit.grant(), Some(Grant { messages: 150, bytes: 10_500 }));
    }

    #[test]
    fn what_was_not_granted_is_noticed() {
        let mut credit = Credit::new(10, 1_000);
        assert!(!credit.publish(1, 1), "before the first grant");
        let mut credit = Credit::new(10, 1_000);
        credit.grant();
        assert!(credit.publish(10, 10));
        assert!(!credit.publish(1, 1));
    }

    #[test]
    fn a_message_larger_than_the_window_is_let_through_alone() {
        let mut credit = Credit::new(10, 1_000);
        credit.grant();
        assert!(credit.publish(1, 5_000));
        assert!(!credit.publish(1, 1), "the bytes are used up");
        credit.answer(1, 5_000);
        assert_eq!(credit.grant(), Some(Grant { messages: 11, bytes: 6_000 }));
    }
}
