//! The asks for a promise that are under way on one connection. A lease counts from when its ask was *sent*: the peer
//! cannot have promised before that.

use std::collections::VecDeque;
use std::time::Instant;

/// Asks without an answer that are remembered. More are never answered in time: an ask is worth two thirds of T, and
/// goes out every sixth of it.
const ASKS_MAX: usize = 16;

#[derive(Debug, Default)]
pub(super) struct PromiseClock {
    last: u64,
    asks: VecDeque<(u64, Instant)>,
}

impl PromiseClock {
    /// An ask goes out now; its number.
    pub fn ask(&mut self, now: Instant) -> u64 {
        self.last += 1;
        self.asks.push_back((self.last, now));
        if self.asks.len() > ASKS_MAX {
            self.asks.pop_front();
        }
        self.last
    }

    /// When the ask was sent that this number answers, if it is not too old.
    pub fn answered(&mut self, number: u64) -> Option<Instant> {
        while let Some((asked, sent)) = self.asks.pop_front() {
            if asked == number {
                return Some(sent);
            }
        }
        None
    }
}
