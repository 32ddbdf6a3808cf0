//! A run against a cluster that is there already: load and checker, and no fault but those that are allowed. Also when it is interrupted,
//! what it began is ended, what it published is drained and judged, and its queues are deleted.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bellwether_client::{BrokerId, Drain};
use bellwether_integration_tests::checker::Violation;
use bellwether_integration_tests::driver::Driver;
use bellwether_integration_tests::eventually::eventually;
use bellwether_integration_tests::faults::FaultKind;
use bellwether_integration_tests::load::Load;
use bellwether_integration_tests::recorder::Recorder;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::ending::Ending;
use crate::leaders::Leaders;
use crate::options::Options;
use crate::own::make;
use crate::progress::Faults;
use crate::scene::Scene;

/// When a fault has ended, flows that stand still for so long are stuck (promise G10).
const FLOWING_WITHIN: Duration = Duration::from_secs(60);
/// Copies of each queue, where there are as many brokers.
const REPLICAS: u8 = 3;

pub async fn run(
    options: &Options,
    seed: u64,
    folder: &Path,
    interrupted: CancellationToken,
) -> Result<bool> {
    let hooks = Hook::all(options)?;
    let reach = options.attach.reach()?;
    let driver = Driver::connect(&reach, "chaos").await.context("connecting to your cluster")?;
    let brokers = driver.client().cluster_status().await?.brokers.len();
    let replicas =
        options.attach.replicas.unwrap_or(REPLICAS.min(brokers.try_into().unwrap_or(REPLICAS)));
    let folder = make(folder)?;
    println!("seed {seed}, {} minutes, attached to {brokers} brokers", options.minutes);
    println!("evidence in {}", folder.display());

    let recorder = Arc::new(Recorder::new(Some(&folder.join("history.txt")))?);
    let scene = Scene { prefix: format!("chaos-{seed}"), seed, replicas };
    scene.declare(&driver).await?;
    let producers = scene.producers(options.rate, options.size);
    let load = Load::start(&reach, Arc::clone(&recorder), &scene.queues(), producers).await?;
    let leaders = Leaders::watch(reach, scene.queue_names(), Arc::clone(&recorder));
    let begun = Instant::now();
    flows(&recorder).await.context("before any fault")?;
    let faults = Attached { driver: &driver, recorder: &recorder, interrupted }
        .inject(&hooks, options, seed)
        .await?;

    println!("{:6.1} s  draining", begun.elapsed().as_secs_f64());
    let verdict = load.finish().await?;
    let clean = verdict.is_clean();
    if clean {
        scene.delete(&driver).await.context("deleting the queues of this run")?;
    } else {
        println!("the queues {}-… are left as they are", scene.prefix);
    }
    let kept = !clean || options.keep;
    let ending = Ending {
        facts: format!("seed {seed}, attached to {brokers} brokers, {replicas} replicas"),
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
    Ok(clean)
}

/// What this run may do to the cluster.
#[derive(Clone, Debug)]
enum Hook {
    /// Leaderships leave a broker for a while.
    Drain,
    Command(String),
}

impl Hook {
    fn all(options: &Options) -> Result<Vec<Hook>> {
        let kinds = options.kinds().0;
        ensure!(
            kinds.iter().all(|kind| *kind == FaultKind::Drain),
            "of --faults only drain is possible against a cluster of your own; other faults are commands of yours: --fault-command"
        );
        let drains = kinds.iter().map(|_| Hook::Drain);
        let commands = options.attach.fault_command.iter().cloned().map(Hook::Command);
        Ok(drains.chain(commands).collect())
    }
}

struct Attached<'a> {
    driver: &'a Driver,
    recorder: &'a Recorder,
    interrupted: CancellationToken,
}

impl Attached<'_> {
    async fn inject(&self, hooks: &[Hook], options: &Options, seed: u64) -> Result<Faults> {
        let mut random = StdRng::seed_from_u64(seed);
        let until = Duration::from_secs_f64(options.minutes * 60.0);
        let mut faults = Faults::until(until);
        while !faults.are_over(self.recorder) && !self.interrupted.is_cancelled() {
            let Some(hook) = hooks.choose(&mut random) else {
                self.rest(until).await;
                break;
            };
            self.rest(Duration::from_millis(random.random_range(1_000..=4_000))).await;
            let lasts = Duration::from_millis(random.random_range(1_000..=8_000));
            let begun = faults.begin(self.recorder, &self.words(hook));
            self.recorder.watch();
            self.carry_out(hook, lasts, &mut random).await?;
            if let Err(error) = flows(self.recorder).await {
                let what = format!("after {}: {error:#}", self.words(hook));
                self.recorder.broken(Violation::Stuck { queue: "all".to_owned(), what });
            }
            let name = match hook {
                Hook::Drain => "drain",
                Hook::Command(_) => "command",
            };
            faults.end(self.recorder, begun, name.to_owned(), self.recorder.gaps());
        }
        Ok(faults)
    }

    async fn carry_out(&self, hook: &Hook, lasts: Duration, random: &mut StdRng) -> Result<()> {
        match hook {
            Hook::Drain => {
                let client = self.driver.client();
                let mut brokers = client.cluster_status().await?.brokers;
                // One that somebody else drains stays as it is.
                brokers.retain(|broker| broker.drain.is_none());
                let Some(broker) = brokers.choose(random) else { return Ok(()) };
                let id: BrokerId = broker.address.broker;
                client.drain(id, Some(Drain::Leaderships)).await?;
                self.rest(lasts).await;
                eventually("the drain to be taken back", FLOWING_WITHIN, async || {
                    Ok(client.drain(id, None).await?)
                })
                .await
            }
            Hook::Command(command) => {
                let begun = call(command, "begin").await;
                if begun.is_ok() {
                    self.rest(lasts).await;
                }
                // Also after half of it was done.
                call(command, "heal").await?;
                begun
            }
        }
    }

    fn words(&self, hook: &Hook) -> String {
        match hook {
            Hook::Drain => "drain".to_owned(),
            Hook::Command(command) => command.clone(),
        }
    }

    async fn rest(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.interrupted.cancelled() => {}
        }
    }
}

async fn call(command: &str, what: &str) -> Result<()> {
    let line = format!("{command} {what}");
    let status = Command::new("sh").args(["-c", &line]).status().await?;
    ensure!(status.success(), "the fault command `{line}` ended with {status}");
    Ok(())
}

async fn flows(recorder: &Recorder) -> Result<()> {
    eventually("everything to flow", FLOWING_WITHIN, async || {
        ensure!(recorder.all_flow(), "some producer or queue stands still");
        Ok(())
    })
    .await
}
