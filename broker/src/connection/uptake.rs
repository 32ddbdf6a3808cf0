//! How quickly a client takes what is written to it: nothing for too long, and it is gone; too little while the memory for unread
//! answers is used up, and it makes room for those who read.

use std::io;

use tokio::time::{Duration, Instant};

/// What a client takes in each of these while it holds others up, or it is cut off.
const WINDOW: Duration = Duration::from_secs(1);

/// So many bytes of it, at least: slower than any network that is of use.
const WINDOW_BYTES_LEAST: usize = 64 * 1024;

/// One for each attempt to write everything that waits.
pub(super) struct Uptake {
    timeout: Duration,
    /// When it took something last.
    took_at: Instant,
    window_at: Instant,
    window_bytes: usize,
}

impl Uptake {
    pub fn new(timeout: Duration) -> Uptake {
        let now = Instant::now();
        Uptake { timeout, took_at: now, window_at: now, window_bytes: 0 }
    }

    /// How long to wait for the client at most before [`Uptake::waited`] is asked.
    pub fn look_in(&self) -> Duration {
        self.timeout.min(WINDOW)
    }

    /// It took so many bytes; whether it holds others up is only looked at once a window.
    pub fn wrote(&mut self, bytes: usize, holds_up: impl FnOnce() -> bool) -> io::Result<()> {
        let now = Instant::now();
        self.took_at = now;
        self.window_bytes += bytes;
        if now - self.window_at < WINDOW {
            return Ok(());
        }
        self.end_window(now, holds_up())
    }

    /// It took nothing for a while.
    pub fn waited(&mut self, holds_up: bool) -> io::Result<()> {
        let now = Instant::now();
        if now - self.took_at >= self.timeout {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"));
        }
        if now - self.window_at < WINDOW {
            return Ok(());
        }
        self.end_window(now, holds_up)
    }

    fn end_window(&mut self, now: Instant, holds_up: bool) -> io::Result<()> {
        let slow = self.window_bytes < WINDOW_BYTES_LEAST;
        (self.window_at, self.window_bytes) = (now, 0);
        if slow && holds_up {
            let words = "the client hardly reads, and the memory for answers is used up";
            return Err(io::Error::new(io::ErrorKind::TimedOut, words));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn seconds(number: u64) {
        tokio::time::sleep(Duration::from_secs(number)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_gone_after_the_timeout_and_sooner_when_it_holds_others_up() {
        let mut uptake = Uptake::new(Duration::from_secs(3));
        for _ in 0..2 {
            seconds(1).await;
            uptake.waited(false).unwrap();
        }
        seconds(1).await;
        assert!(uptake.waited(false).unwrap_err().to_string().contains("does not read"));
        let mut uptake = Uptake::new(Duration::from_secs(3));
        seconds(1).await;
        assert!(uptake.waited(true).unwrap_err().to_string().contains("used up"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_bytes_a_second_are_not_enough_only_while_memory_is_used_up() {
        let mut uptake = Uptake::new(Duration::from_secs(3));
        for _ in 0..20 {
            seconds(1).await;
            uptake.wrote(1, || false).unwrap();
        }
        seconds(1).await;
        uptake.wrote(WINDOW_BYTES_LEAST, || true).unwrap();
        seconds(1).await;
        uptake.wrote(1, || true).unwrap_err();
    }
}
