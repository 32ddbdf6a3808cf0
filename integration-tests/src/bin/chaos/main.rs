//! Chaos: brokers and an ensemble under load and under faults, drawn from a printed seed; then everything is healed and
//! drained, and the checker says whether a promise was broken.

mod inject;
mod report;
mod scene;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bellwether_integration_tests::binary;
use bellwether_integration_tests::broker::BrokerOptions;
use bellwether_integration_tests::cluster::{Cluster, Setup};
use bellwether_integration_tests::faults::{FaultKind, Plan};
use bellwether_integration_tests::load::Load;
use bellwether_integration_tests::preload::Syncs;
use bellwether_integration_tests::recorder::Recorder;
use clap::Parser;

use inject::Injector;
use report::{Report, Table};

/// Exit code when a promise was broken, as against 1 for a run that could not be carried out.
const VIOLATED: u8 = 2;
/// Exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;
/// A broker that has made so many syncs has started, and writes what its clients sent.
const SYNCS_OF_A_START: u32 = 30;
/// With so many broken promises there is nothing more to learn from the rest of the run.
const VIOLATIONS_ENOUGH: u64 = 1_000;

/// Runs a cluster under load, injects faults, heals, drains, and checks that no promise was broken.
///
/// Exit codes: 0 nothing violated; 2 something violated, evidence kept; 1 the run failed; 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Options {
    /// Draws the faults; the same seed gives the same faults in the same order. Default: a new one, printed
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults are injected
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Brokers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    brokers: u32,
    /// Faults to draw from, with commas: kill, pause, term, zk-kill, zk-all, restart-all, rolling-restart, power-loss, wipe, drain,
    /// membership, disk-slow, disk-full, fsync-error, corrupt, partition, slow-link, clock-jump, combo; or all
    #[arg(long, default_value = "all", value_parser = Kinds::parse)]
    faults: Kinds,
    /// Messages a second of most producers
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    rate: u32,
    /// Bytes of a message
    #[arg(long, default_value_t = 512)]
    size: usize,
    /// Folder for data, logs and history; removed at the end when nothing was violated. Default: chaos-SEED
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Makes the brokers' syncs do nothing once they have started. With power-loss among the faults the run must then end with
    /// violations, or it would prove nothing
    #[arg(long)]
    without_syncs: bool,
    /// Keep the folder in any case
    #[arg(long)]
    keep: bool,
}

/// Kinds of faults to draw from.
#[derive(Clone, Debug)]
struct Kinds(Vec<FaultKind>);

impl Kinds {
    fn parse(names: &str) -> Result<Kinds, String> {
        if names == "all" {
            return Ok(Kinds(FaultKind::ALL.to_vec()));
        }
        names.split(',').map(str::parse).collect::<Result<_, _>>().map(Kinds)
    }

    /// Whether a run draws one of these: two at once are drawn from all kinds when no others are named.
    fn draw(&self, wanted: &[FaultKind]) -> bool {
        let only_two =
            self.0.iter().all(|kind| !kind.lasts()) && self.0.contains(&FaultKind::Combo);
        wanted.iter().any(|kind| self.0.contains(kind) || (only_two && kind.lasts()))
    }
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let folder = options.folder.clone().unwrap_or_else(|| PathBuf::from(format!("chaos-{seed}")));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            ended = run(&options, seed, &folder) => {
                ended.with_context(|| format!("the run failed; what there is lies in {}", folder.display()))
            }
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                // Dropping the run ends every child that it started.
                eprintln!("interrupted; what there is lies in {}", folder.display());
                Ok(ExitCode::from(INTERRUPTED))
            }
        }
    })
}

async fn run(options: &Options, seed: u64, folder: &Path) -> Result<ExitCode> {
    std::fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
    let folder = folder.canonicalize()?;
    println!("seed {seed}, {} minutes, faults {}", options.minutes, names(&options.faults.0));
    println!("binary {}", binary::bellwether()?.display());
    println!("evidence in {}", folder.display());

    let recorder = Arc::new(Recorder::new(Some(&folder.join("history.txt")))?);
    let cluster = start_cluster(options, &folder).await?;
    let load = start_load(&cluster, options, seed, Arc::clone(&recorder)).await?;
    let begun = Instant::now();
    let mut injector = Injector::new(cluster, Arc::clone(&recorder), scene::queue_names()).await?;
    let table = inject_faults(&mut injector, options, seed, begun).await?;

    println!("{:6.1} s  healing and draining", begun.elapsed().as_secs_f64());
    injector.heal().await?;
    let verdict = load.finish().await?;
    let clean = verdict.is_clean();
    print!("{table}");
    for evidence in verdict.evidence.iter().take(20) {
        println!("VIOLATED {evidence}");
    }
    let kept = !clean || options.keep;
    if kept {
        injector.keep_logs(&folder)?;
    }
    drop(injector);
    if kept {
        println!("kept: {}", folder.display());
    } else {
        std::fs::remove_dir_all(&folder)?;
    }
    let report =
        Report::new(seed, begun.elapsed(), &table, &verdict, kept.then_some(folder.as_path()));
    println!("{}", serde_json::to_string(&report)?);
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::from(VIOLATED) })
}

async fn start_cluster(options: &Options, folder: &Path) -> Result<Cluster> {
    println!("starting an ensemble of 3 and {} brokers", options.brokers);
    let syncs =
        if options.without_syncs { Syncs::IgnoredAfter(SYNCS_OF_A_START) } else { Syncs::Kept };
    let faults = &options.faults;
    // What rots, and what a failed sync did not carry, must be told from what the system would have written all the same.
    let power_loss = faults
        .draw(&[FaultKind::PowerLoss, FaultKind::Corrupt, FaultKind::FsyncError])
        .then_some(syncs);
    let setup = Setup {
        brokers: options.brokers,
        options: BrokerOptions {
            power_loss,
            slow_disk: faults.draw(&[FaultKind::DiskSlow]),
            bad_disk: faults.draw(&[FaultKind::DiskFull, FaultKind::FsyncError]),
            wrong_clock: faults.draw(&[FaultKind::ClockJump]),
            arguments: hurried(),
            ..BrokerOptions::default()
        },
        folder: Some(folder.to_owned()),
        network: faults.draw(&[FaultKind::Partition, FaultKind::SlowLink]),
        ..Setup::default()
    };
    Cluster::start_with(setup).await
}

/// Small segments and a small cache, so that within minutes space is reclaimed many times and old messages come from the disk; and
/// leaderships that move soon.
fn hurried() -> Vec<String> {
    [
        "--segment-bytes",
        "34MiB",
        "--dead-bytes-max",
        "34MiB",
        "--cache-bytes",
        "1MiB",
        "--leader-settle",
        "1s",
    ]
    .map(str::to_owned)
    .to_vec()
}

async fn start_load(
    cluster: &Cluster,
    options: &Options,
    seed: u64,
    recorder: Arc<Recorder>,
) -> Result<Load> {
    scene::declare(&cluster.driver().await?).await?;
    let (queues, producers) =
        (scene::queues(seed), scene::producers(seed, options.rate, options.size));
    Load::start(&cluster.reach(), recorder, &queues, producers).await
}

async fn inject_faults(
    injector: &mut Injector,
    options: &Options,
    seed: u64,
    begun: Instant,
) -> Result<Table> {
    let until = Duration::from_secs_f64(options.minutes * 60.0);
    let mut table = Table::default();
    for fault in Plan::new(seed, &options.faults.0, options.brokers as usize, injector.servers()) {
        tokio::time::sleep(fault.after).await;
        let progress = injector.progress();
        if begun.elapsed() >= until || progress.violations >= VIOLATIONS_ENOUGH {
            break;
        }
        println!(
            "{:6.1} s  {:<42} {:>8} confirmed {:>8} delivered {:>3} violations",
            begun.elapsed().as_secs_f64(),
            fault,
            progress.confirmed,
            progress.delivered,
            progress.violations
        );
        let gaps = injector.inject(&fault).await?;
        table.add(fault.kinds(), gaps);
    }
    Ok(table)
}

fn names(faults: &[FaultKind]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
