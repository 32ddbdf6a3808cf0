//! Measured trials on this machine: a cluster of three `serve` processes on a real ensemble of three, 2 s sessions, and a
//! load. Each trial ends with one line of JSON.

mod backlog;
mod failover;
mod many;
mod outage;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use bellwether_integration_tests::cluster::{Cluster, Setup};
use bellwether_integration_tests::recorder::Recorder;
use clap::{Parser, Subcommand};

/// Exit code when a message was lost, or any other promise broken.
const VIOLATED: u8 = 2;

/// Measures a cluster of three brokers on this machine. Each trial ends with one line of JSON.
#[derive(Debug, Parser)]
#[command(name = "trial")]
struct Options {
    /// Keep data, logs and history in this folder; without it they go with the trial
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
    #[command(subcommand)]
    trial: Trial,
}

#[derive(Debug, Subcommand)]
enum Trial {
    /// Kills the leader (SIGKILL) under load, again and again
    KillLeader(failover::Options),
    /// Kills a follower (SIGKILL) under load, again and again
    KillFollower(failover::Options),
    /// Freezes the leader (SIGSTOP) under load, again and again
    FreezeLeader(failover::Options),
    /// Freezes a follower (SIGSTOP) under load, again and again
    FreezeFollower(failover::Options),
    /// Kills the whole ensemble for a while under load
    EnsembleDown(outage::Options),
    /// Kills a broker that leads thousands of queues
    ManyQueues(many::Options),
    /// Messages a second from a producer to a consumer
    Throughput(throughput::Options),
    /// Memory and restart time with many messages waiting
    Backlog(backlog::Options),
    /// Disk used while one queue keeps idle messages and another turns over many
    Churn(backlog::ChurnOptions),
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let clean = runtime.block_on(async {
        tokio::select! {
            ended = run(options) => ended,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                anyhow::bail!("interrupted");
            }
        }
    })?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::from(VIOLATED) })
}

/// `false` when a promise was broken.
async fn run(Options { folder, trial }: Options) -> Result<bool> {
    let cluster = Cluster::start_with(Setup { folder: folder.clone(), ..Setup::default() }).await?;
    let recorder = Arc::new(Recorder::new(
        folder.as_ref().map(|folder| folder.join("history.txt")).as_deref(),
    )?);
    match trial {
        Trial::KillLeader(options) => {
            failover::run(cluster, recorder, failover::Case::KillLeader, &options).await
        }
        Trial::KillFollower(options) => {
            failover::run(cluster, recorder, failover::Case::KillFollower, &options).await
        }
        Trial::FreezeLeader(options) => {
            failover::run(cluster, recorder, failover::Case::FreezeLeader, &options).await
        }
        Trial::FreezeFollower(options) => {
            failover::run(cluster, recorder, failover::Case::FreezeFollower, &options).await
        }
        Trial::EnsembleDown(options) => outage::run(cluster, recorder, &options).await,
        Trial::ManyQueues(options) => many::run(cluster, &options, folder.as_deref()).await,
        Trial::Throughput(options) => throughput::run(cluster, &options).await,
        Trial::Backlog(options) => backlog::run(cluster, &options).await,
        Trial::Churn(options) => backlog::churn(cluster, &options).await,
    }
}
