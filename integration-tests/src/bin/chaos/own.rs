//! A run on a cluster of its own, with every fault there is.

use std::path::{Path, PathBuf};
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

use crate::ending::Ending;
use crate::inject::Injector;
use crate::leaders::Leaders;
use crate::options::Options;
use crate::progress::Faults;
use crate::scene::Scene;

/// A broker that has made so many syncs has started, and writes what its clients sent.
const SYNCS_OF_A_START: u32 = 30;
/// Copies of each queue.
const REPLICAS: u8 = 3;

pub async fn run(options: &Options, seed: u64, folder: &Path) -> Result<bool> {
    let folder = make(folder)?;
    let kinds = options.kinds();
    println!("seed {seed}, {} minutes, faults {}", options.minutes, kinds.names());
    println!("binary {}", binary::bellwether()?.display());
    println!("evidence in {}", folder.display());

    let recorder = Arc::new(Recorder::new(Some(&folder.join("history.txt")))?);
    let scene = Scene { prefix: "chaos".to_owned(), seed, replicas: REPLICAS };
    let cluster = start_cluster(options, &folder).await?;
    scene.declare(&cluster.driver().await?).await?;
    let reach = cluster.reach();
    let producers = scene.producers(options.rate, options.size);
    let load = Load::start(&reach, Arc::clone(&recorder), &scene.queues(), producers).await?;
    let leaders = Leaders::watch(reach, scene.queue_names(), Arc::clone(&recorder));
    let begun = Instant::now();
    let mut injector = Injector::new(cluster, Arc::clone(&recorder), scene.queue_names()).await?;
    let faults = inject_faults(&mut injector, options, seed, &recorder).await?;

    println!("{:6.1} s  healing and draining", begun.elapsed().as_secs_f64());
    injector.heal().await?;
    let verdict = load.finish().await?;
    let kept = !verdict.is_clean() || options.keep;
    if kept {
        injector.keep_logs(&folder)?;
    }
    drop(injector);
    let ending = Ending {
        facts: format!(
            "seed {seed}, {} brokers, {} replicas, faults: {}",
            options.brokers,
            REPLICAS,
            kinds.names().replace(',', ", ")
        ),
        seed,
        took: begun.elapsed(),
        queues: scene.queue_names(),
        reigns: leaders.reigns(),
        timeline: recorder.timeline(),
        faults,
        verdict,
        kept: kept.then_some(folder.clone()),
    };
    ending.tell(options.report.as_deref())?;
    if !kept {
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(ending.verdict.is_clean())
}

/// The folder, which must be new.
pub fn make(folder: &Path) -> Result<PathBuf> {
    std::fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder.canonicalize()?)
}

async fn start_cluster(options: &Options, folder: &Path) -> Result<Cluster> {
    println!("starting an ensemble of 3 and {} brokers", options.brokers);
    let syncs =
        if options.without_syncs { Syncs::IgnoredAfter(SYNCS_OF_A_START) } else { Syncs::Kept };
    let kinds = options.kinds();
    // What rots, and what a failed sync did not carry, must be told from what the system would have written all the same.
    let power_loss = kinds
        .draw(&[FaultKind::PowerLoss, FaultKind::Corrupt, FaultKind::FsyncError])
        .then_some(syncs);
    let setup = Setup {
        brokers: options.brokers,
        options: BrokerOptions {
            power_loss,
            slow_disk: kinds.draw(&[FaultKind::DiskSlow]),
            bad_disk: kinds.draw(&[FaultKind::DiskFull, FaultKind::FsyncError]),
            wrong_clock: kinds.draw(&[FaultKind::ClockJump]),
            arguments: hurried(),
            ..BrokerOptions::default()
        },
        folder: Some(folder.to_owned()),
        network: kinds.draw(&[FaultKind::Partition, FaultKind::SlowLink]),
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

async fn inject_faults(
    injector: &mut Injector,
    options: &Options,
    seed: u64,
    recorder: &Recorder,
) -> Result<Faults> {
    let mut faults = Faults::until(Duration::from_secs_f64(options.minutes * 60.0));
    let kinds = options.kinds().0;
    for fault in Plan::new(seed, &kinds, options.brokers as usize, injector.servers()) {
        tokio::time::sleep(fault.after).await;
        if faults.are_over(recorder) {
            break;
        }
        let begun = faults.begin(recorder, &fault.to_string());
        let gaps = injector.inject(&fault).await?;
        faults.end(recorder, begun, fault.name(), gaps);
    }
    Ok(faults)
}
