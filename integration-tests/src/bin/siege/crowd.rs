//! Thousands of connections that come at once and then say nothing: what they cost, and what an honest client feels meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bellwether_integration_tests::wire::Wire;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::besieged::Besieged;
use super::felt::Honest;

/// Connections that are being made at once.
const AT_ONCE: usize = 100;

/// What an idle connection may cost.
const BYTES_EACH_MAX: u64 = 20 * 1024;

/// `false` when something was beyond its bounds.
pub async fn run(besieged: &Besieged, connections: usize, time: Duration) -> Result<bool> {
    let honest = Honest::connect(besieged.address()).await?;
    let before = honest.feels(time).await?;
    let memory_before = besieged.memory()?;
    let began = Instant::now();
    let (coming, crowd) = honest.feels_during(connect_all(besieged.address(), connections)).await?;
    let took = began.elapsed();
    let each = besieged.memory()?.saturating_sub(memory_before) / connections.max(1) as u64;
    let there = honest.feels(time).await?;
    drop(crowd);
    let before = before.and(&honest.feels(time).await?)?;
    println!(
        "{connections} connections in {:.1} s: {each} bytes each. Honest p99: {:.2} ms without them, {:.2} ms while they came ({:.2}x), {:.2} ms while they were there ({:.2}x).",
        took.as_secs_f64(),
        before.p99_ms(),
        coming.p99_ms(),
        coming.ratio(&before),
        there.p99_ms(),
        there.ratio(&before),
    );
    honest.purge().await?;
    honest.leave().await?;
    Ok(each <= BYTES_EACH_MAX && coming.is_close_to(&before) && there.is_close_to(&before))
}

async fn connect_all(address: &str, connections: usize) -> Result<Vec<Wire>> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut coming = JoinSet::new();
    for number in 0..connections {
        let (turns, address) = (Arc::clone(&turns), address.to_owned());
        coming.spawn(async move {
            let _turn = turns.acquire().await?;
            Wire::connect(&address).await.with_context(|| format!("connection {number}"))
        });
    }
    let mut there = Vec::with_capacity(connections);
    while let Some(connected) = coming.join_next().await {
        there.push(connected??);
    }
    Ok(there)
}
