//! Lays siege to a broker: thousands of idle connections, strangers that say nothing, frames that never end, bombs, clients that
//! never read, a thousand that come back at once; and measures meanwhile what an honest client feels and what the broker's memory
//! does. Prints tables, and says whether the bounds were kept.

mod assault;
mod attacks;
mod besieged;
mod crowd;
mod felt;
mod reconnect;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use besieged::Besieged;

/// Exit code when something was beyond its bounds.
const BEYOND: u8 = 1;

/// Measures a broker under attack: one that it starts itself, on a ZooKeeper of its own, or a running one.
#[derive(Debug, Parser)]
#[command(name = "siege")]
struct Options {
    /// A running broker, instead of one of its own: where it takes clients
    #[arg(long, value_name = "HOST:PORT", requires = "pid")]
    connect: Option<String>,
    /// Its process, whose memory is read
    #[arg(long, value_name = "PID", requires = "connect")]
    pid: Option<u32>,
    /// Memory of the control group that its own broker runs in: a number of bytes, or of KiB, MiB, GiB with K, M, G
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "connect")]
    memory: Option<u64>,
    /// Attackers of each kind; 0: no attacks
    #[arg(long, default_value_t = 100)]
    attackers: usize,
    /// How long each kind of attack goes on, in seconds, and how long is measured before it
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Only attacks whose names contain this
    #[arg(long, value_name = "WORDS", default_value = "")]
    only: String,
    /// Idle connections, all made at once; 0: none
    #[arg(long, default_value_t = 0)]
    idle: usize,
    /// Clients that are served by one of two brokers when that is killed and started again; 0: none. Nothing else is done then
    #[arg(long, default_value_t = 0, conflicts_with = "connect")]
    reconnect: usize,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    // What a client logs while its broker is away belongs to the trial.
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    raise_open_files();
    let options = Options::parse();
    let kept = tokio::select! {
        kept = run(&options) => kept?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            anyhow::bail!("interrupted");
        }
    };
    println!("{}", if kept { "Within bounds." } else { "BEYOND BOUNDS." });
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::from(BEYOND) })
}

async fn run(options: &Options) -> Result<bool> {
    let time = Duration::from_secs(options.seconds);
    if options.reconnect > 0 {
        return reconnect::run(options.reconnect, time).await;
    }
    let mut besieged = match (&options.connect, options.pid) {
        (Some(address), Some(pid)) => Besieged::running(address, pid),
        _ => Besieged::start(options.memory, options.idle).await?,
    };
    let mut kept = true;
    if options.idle > 0 {
        kept &= crowd::run(&besieged, options.idle, time).await?;
    }
    if options.attackers > 0 {
        kept &= assault::run(&mut besieged, options.attackers, time, &options.only).await?;
    }
    besieged.end().await?;
    Ok(kept)
}

fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(digits) => (digits, text.as_bytes()[text.len() - 1]),
        None => (text, b' '),
    };
    let number: u64 = digits.parse().map_err(|_| "a number, perhaps with K, M or G".to_owned())?;
    Ok(number
        << match unit {
            b'K' => 10,
            b'M' => 20,
            b'G' => 30,
            _ => 0,
        })
}

/// Thousands of connections take as many descriptors.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
