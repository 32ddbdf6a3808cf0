//! Waiting for facts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How often a fact is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `fact` gives a value. When it has not `within` that time, the last reason why not is the error.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut fact: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        // An attempt that hangs must not hide that the time is up.
        let left = within.saturating_sub(begun.elapsed()).max(LOOK_EVERY);
        let attempt = match tokio::time::timeout(left, fact()).await {
            Ok(attempt) => attempt,
            Err(_) => Err(anyhow::anyhow!("no answer within {left:?}")),
        };
        match attempt {
            Ok(value) => return Ok(value),
            Err(why) if begun.elapsed() >= within => {
                return Err(why).with_context(|| format!("waited {within:?} for {what}"));
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
