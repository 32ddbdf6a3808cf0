//! What a demonstration has seen so far: confirms, arrivals, and the silence after the kill.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::Notify;

use super::tally::{Count, Tally};

/// In front of each body: which run, and which message.
pub const STAMP_BYTES: usize = 16;

/// What the producing, the consuming and the killing side share.
pub struct Score {
    seen: Mutex<Seen>,
    /// Half of the messages are confirmed.
    pub half: Notify,
    run: u64,
    pub messages: u32,
}

pub struct Seen {
    tally: Tally,
    pub killed_at: Option<Instant>,
    pub last_confirm: Option<Instant>,
    /// The longest time without a confirm since the kill.
    pub silence: Duration,
    pub last_arrival: Instant,
}

impl Score {
    /// For `messages` messages of a new run.
    pub fn new(messages: u32) -> Arc<Score> {
        let seen = Seen {
            tally: Tally::new(messages as usize),
            killed_at: None,
            last_confirm: None,
            silence: Duration::ZERO,
            last_arrival: Instant::now(),
        };
        Arc::new(Score {
            seen: Mutex::new(seen),
            half: Notify::new(),
            run: rand::random(),
            messages,
        })
    }

    /// All that was seen.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body of message `number`.
    pub fn body(&self, number: u64, filler: &[u8]) -> Bytes {
        stamped(self.run, number, filler)
    }

    /// Message `number` was confirmed.
    pub fn confirmed(&self, number: u64) {
        let mut seen = self.seen();
        seen.tally.confirm(usize::try_from(number).unwrap_or(usize::MAX));
        let now = Instant::now();
        if let (Some(killed_at), Some(last)) = (seen.killed_at, seen.last_confirm) {
            seen.silence = seen.silence.max(now - last.max(killed_at));
        }
        seen.last_confirm = Some(now);
        if seen.tally.count().confirmed == u64::from(self.messages / 2) {
            self.half.notify_one();
        }
    }

    /// A message with this body arrived.
    pub fn received(&self, body: &[u8]) {
        let mut seen = self.seen();
        seen.last_arrival = Instant::now();
        if let Some((run, number)) = read_stamp(body)
            && run == self.run
        {
            // A number that was never sent cannot bear the stamp of this run.
            let _known = seen.tally.receive(usize::try_from(number).unwrap_or(usize::MAX));
        }
    }

    /// The result so far.
    pub fn count(&self) -> Count {
        self.seen().tally.count()
    }
}

fn stamped(run: u64, number: u64, filler: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(STAMP_BYTES + filler.len());
    body.put_u64(run);
    body.put_u64(number);
    body.put_slice(filler);
    body.freeze()
}

fn read_stamp(body: &[u8]) -> Option<(u64, u64)> {
    let (run, rest) = body.split_first_chunk()?;
    let (number, _) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*run), u64::from_be_bytes(*number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_which_run_and_which_message_it_belongs_to() {
        assert_eq!(read_stamp(&stamped(7, 9, b"xyz")), Some((7, 9)));
        assert_eq!(read_stamp(b"short"), None);
    }

    #[test]
    fn silence_is_counted_from_the_kill_on() {
        let score = Score::new(1_000);
        score.confirmed(0);
        score.seen().last_confirm = Some(Instant::now() - Duration::from_secs(60));
        score.seen().killed_at = Some(Instant::now() - Duration::from_secs(1));
        score.confirmed(1);
        let silence = score.seen().silence;
        assert!(
            (Duration::from_secs(1)..Duration::from_secs(30)).contains(&silence),
            "{silence:?}"
        );
    }
}
