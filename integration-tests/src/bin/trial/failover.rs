//! Kills or freezes the leader or a follower under load, and measures how long confirms and deliveries stand still.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bellwether_integration_tests::cluster::Cluster;
use bellwether_integration_tests::eventually::eventually;
use bellwether_integration_tests::gaps::median_and_worst;
use bellwether_integration_tests::load::{ConsumerSpec, Load, ProducerSpec, QueueSpec};
use bellwether_integration_tests::recorder::{Gaps, Recorder};
use clap::Args;
use serde_json::json;

const QUEUE: &str = "trial";
/// Quiet before each blow, so that gaps of one are not counted for the next.
const QUIET: Duration = Duration::from_secs(1);
/// Longest that is waited for messages to flow again.
const FLOWING_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub struct Options {
    /// How often
    #[arg(long, default_value_t = 20)]
    times: u32,
    /// The broker is started, or goes on, after so long
    #[arg(long, default_value_t = 4_000)]
    back_after_ms: u64,
    /// Messages a second
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// Bytes of a message
    #[arg(long, default_value_t = 1_024)]
    size: usize,
}

/// A gap that begins within this is that of the blow; one that begins later is of what follows (a broker that starts again), or of
/// the machine.
const OF_THE_BLOW: Duration = Duration::from_millis(50);

/// Whom it hits, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    KillLeader,
    KillFollower,
    FreezeLeader,
    FreezeFollower,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Case::KillLeader => "kill-leader",
            Case::KillFollower => "kill-follower",
            Case::FreezeLeader => "freeze-leader",
            Case::FreezeFollower => "freeze-follower",
        }
    }
}

pub async fn run(
    mut cluster: Cluster,
    recorder: Arc<Recorder>,
    case: Case,
    options: &Options,
) -> Result<bool> {
    cluster.driver().await?.declare_queue(QUEUE, 3, None).await?;
    let queue = QueueSpec::new(QUEUE, vec![ConsumerSpec::default()]);
    let producer = ProducerSpec {
        per_second: options.rate,
        bytes: options.size,
        window: 1_000,
        ..ProducerSpec::to_queue("trial", QUEUE)
    };
    let reach = cluster.reach();
    let load =
        Load::start(&reach, Arc::clone(&recorder), &[queue], vec![(producer, vec![0])]).await?;
    let mut all = Vec::new();
    for time in 1..=options.times {
        let gaps =
            blow(&mut cluster, &recorder, case, Duration::from_millis(options.back_after_ms))
                .await?;
        println!(
            "{time:>3}  {}: confirms {:?} (from {:?} after it on), deliveries {:?}",
            case.name(),
            gaps.confirms,
            gaps.confirms_after,
            gaps.deliveries
        );
        all.push(gaps);
    }
    let verdict = load.finish().await?;
    let millis = |gap: fn(&Gaps) -> Duration| {
        let (median, worst) = median_and_worst(all.iter().map(gap).collect()).unwrap_or_default();
        (median.as_millis() as u64, worst.as_millis() as u64)
    };
    let (confirms, deliveries) = (millis(|gaps| gaps.confirms), millis(|gaps| gaps.deliveries));
    let later = all.iter().filter(|gaps| gaps.confirms_after > OF_THE_BLOW).count();
    let report = json!({
        "trial": case.name(),
        "times": options.times,
        "back_after_ms": options.back_after_ms,
        "rate": options.rate,
        "size": options.size,
        "confirm_gap_median_ms": confirms.0,
        "confirm_gap_worst_ms": confirms.1,
        "confirm_gaps_that_began_later": later,
        "delivery_gap_median_ms": deliveries.0,
        "delivery_gap_worst_ms": deliveries.1,
        "ok": verdict.is_clean(),
        "verdict": verdict,
    });
    println!("{report}");
    Ok(verdict.is_clean())
}

/// One blow, until everything flows and is whole again.
async fn blow(
    cluster: &mut Cluster,
    recorder: &Recorder,
    case: Case,
    back_after: Duration,
) -> Result<Gaps> {
    cluster.whole(&[QUEUE]).await?;
    tokio::time::sleep(QUIET).await;
    let leader = cluster.leader_of(QUEUE).await?;
    let follower = cluster
        .brokers()
        .iter()
        .map(|broker| broker.id())
        .find(|&id| id != leader)
        .context("no follower")?;
    recorder.note(&format!("{} {leader} leads, {follower} follows", case.name()));
    recorder.watch();
    let back = tokio::time::sleep(back_after);
    match case {
        Case::KillLeader => restart(cluster, leader, back).await?,
        Case::KillFollower => restart(cluster, follower, back).await?,
        Case::FreezeLeader => freeze(cluster, leader, back).await?,
        Case::FreezeFollower => freeze(cluster, follower, back).await?,
    }
    eventually("messages to flow again", FLOWING_WITHIN, async || {
        anyhow::ensure!(recorder.all_flow(), "nothing flows");
        Ok(())
    })
    .await?;
    Ok(recorder.gaps())
}

async fn restart(cluster: &mut Cluster, id: u32, back: tokio::time::Sleep) -> Result<()> {
    cluster.broker(id).kill()?;
    back.await;
    cluster.broker(id).start()?;
    cluster.broker(id).ready().await
}

async fn freeze(cluster: &mut Cluster, id: u32, back: tokio::time::Sleep) -> Result<()> {
    cluster.broker(id).pause()?;
    back.await;
    cluster.broker(id).resume()
}
