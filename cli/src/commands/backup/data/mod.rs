//! Backups of data: the messages that wait, read without taking them, and published again.

mod format;
mod progress;
mod read;
mod restore;
mod save;
#[cfg(test)]
mod tests;
mod verify;
mod write;

pub use read::is_data;
pub use restore::restore;
pub use save::backup;

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A string takes everything.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
