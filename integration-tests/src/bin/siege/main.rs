//! Lays siege to a running broker: thousands of idle connections, strangers that say nothing, frames that never end, bombs; and
//! measures meanwhile what an honest client feels and what the broker's memory does. Prints figures, judges nothing.

mod attacks;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bellwether_client::{Client, Producer};
use bellwether_integration_tests::wire::Wire;
use clap::Parser;
use hdrhistogram::Histogram;
use serde_json::json;

/// Measures a broker under attack. Start one first, for instance `bellwether dev`, and give its process here.
#[derive(Debug, Parser)]
#[command(name = "siege")]
struct Options {
    /// Where the broker takes clients
    #[arg(long, value_name = "HOST:PORT")]
    connect: String,
    /// Its process, whose memory is read
    #[arg(long, value_name = "PID")]
    pid: u32,
    /// Idle connections
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Attackers of each kind
    #[arg(long, default_value_t = 100)]
    attackers: usize,
    /// How long each kind of attack goes on, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    idle_connections(&options).await?;
    let client = Client::connect([options.connect.as_str()]).await?;
    client.declare("siege").await?;
    let producer = client.producer().to_queue("siege").start().await?;
    let time = Duration::from_secs(options.seconds);
    report(&options, "nobody", &measure(&producer, time).await?)?;
    for attack in attacks::ALL {
        let attackers = attack.begin(&options.connect, options.attackers);
        let felt = measure(&producer, time).await;
        attackers.end().await;
        report(&options, attack.name(), &felt?)?;
        client.purge("siege").await?;
    }
    client.close().await?;
    Ok(())
}

/// What a connection that says nothing but its hello costs.
async fn idle_connections(options: &Options) -> Result<()> {
    let before = resident_bytes(options.pid)?;
    let began = Instant::now();
    let mut connections = Vec::with_capacity(options.connections);
    for number in 0..options.connections {
        let connected = Wire::connect(&options.connect).await;
        connections.push(connected.with_context(|| format!("connection {number}"))?);
    }
    let after = resident_bytes(options.pid)?;
    let each = after.saturating_sub(before) / (options.connections.max(1) as u64);
    let took_ms = began.elapsed().as_millis();
    println!(
        "{}",
        json!({ "idle_connections": options.connections, "took_ms": took_ms, "resident_bytes_before": before, "resident_bytes_after": after, "bytes_each": each })
    );
    Ok(())
}

/// Publishes one message after another, each confirmed before the next.
async fn measure(producer: &Producer, time: Duration) -> Result<Histogram<u64>> {
    let mut felt = Histogram::new(3)?;
    let until = Instant::now() + time;
    while Instant::now() < until {
        let sent = Instant::now();
        producer.send("a message of an honest client").await?.await?;
        felt.record(u64::try_from(sent.elapsed().as_micros())?)?;
    }
    Ok(felt)
}

fn report(options: &Options, attack: &str, felt: &Histogram<u64>) -> Result<()> {
    println!(
        "{}",
        json!({
            "attack": attack,
            "attackers": options.attackers,
            "confirms": felt.len(),
            "confirm_p50_us": felt.value_at_quantile(0.5),
            "confirm_p99_us": felt.value_at_quantile(0.99),
            "resident_bytes": resident_bytes(options.pid)?,
        })
    );
    Ok(())
}

fn resident_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
