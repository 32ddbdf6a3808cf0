//! Producers and consumers that keep a cluster busy and report everything to a [`Recorder`].

mod consume;
mod pace;
mod produce;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use consume::ConsumerSpec;
pub use produce::ProducerSpec;

use crate::checker::{Consumers, Counts, QueueIndex, Verdict, Violation};
use crate::driver::{Driver, Reach};
use crate::eventually::eventually;
use crate::recorder::Recorder;

/// When all faults have ended, a queue that has not drained after so long is stuck (promise G10).
const DRAINED_WITHIN: Duration = Duration::from_secs(90);

/// A queue under load.
#[derive(Clone, Debug)]
pub struct QueueSpec {
    pub name: String,
    pub consumers: Vec<ConsumerSpec>,
    /// Nobody consumes from it until the producers have stopped: its messages wait.
    pub rests: bool,
}

impl QueueSpec {
    /// With these consumers from the beginning.
    #[must_use]
    pub fn new(name: &str, consumers: Vec<ConsumerSpec>) -> QueueSpec {
        QueueSpec { name: name.to_owned(), consumers, rests: false }
    }
}

/// A running load.
pub struct Load {
    recorder: Arc<Recorder>,
    driver: Driver,
    reach: Reach,
    queues: Vec<(QueueSpec, QueueIndex)>,
    producers: JoinSet<Result<()>>,
    consumers: JoinSet<Result<()>>,
    stop_producers: CancellationToken,
    stop_consumers: CancellationToken,
}

impl Load {
    /// Starts a consumer for each that is listed, then the producers. Each has a connection of its own. `route` says to
    /// which of the queues (counted from zero) a producer's messages go.
    pub async fn start(
        reach: &Reach,
        recorder: Arc<Recorder>,
        queues: &[QueueSpec],
        producers: Vec<(ProducerSpec, Vec<usize>)>,
    ) -> Result<Load> {
        let mut load = Load {
            driver: Driver::connect(reach, "load").await?,
            recorder,
            reach: reach.clone(),
            queues: Vec::new(),
            producers: JoinSet::new(),
            consumers: JoinSet::new(),
            stop_producers: CancellationToken::new(),
            stop_consumers: CancellationToken::new(),
        };
        for spec in queues {
            load.start_queue(spec).await?;
        }
        for (spec, routes) in producers {
            load.start_producer(spec, &routes).await?;
        }
        Ok(load)
    }

    /// The history so far.
    #[must_use]
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// Ends the producers, waits until every queue is drained, and judges.
    pub async fn finish(mut self) -> Result<Verdict> {
        self.recorder.note("the producers stop");
        self.stop_producers.cancel();
        join(&mut self.producers).await.context("a producer failed")?;
        self.recorder.note("draining");
        for (spec, queue) in self.queues.clone() {
            if spec.rests {
                self.start_consumers(&spec, queue).await?;
            }
        }
        let mut counts = Vec::new();
        for (QueueSpec { name, .. }, queue) in self.queues.clone() {
            match self.drained(&name).await {
                Ok(count) => counts.push((queue, count)),
                Err(error) => {
                    let what = format!(
                        "not drained, with {} messages out: {error:#}",
                        self.recorder.outstanding(queue)
                    );
                    self.recorder.broken(Violation::Stuck { queue: name, what });
                }
            }
        }
        self.stop_consumers.cancel();
        join(&mut self.consumers).await.context("a consumer failed")?;
        self.recorder.finish(&counts)
    }

    async fn start_queue(&mut self, spec: &QueueSpec) -> Result<()> {
        let among = if spec.consumers.len() > 1 { Consumers::Several } else { Consumers::One };
        let queue = self.recorder.queue(&spec.name, among);
        self.queues.push((spec.clone(), queue));
        if spec.rests {
            self.recorder.rests(queue);
            return Ok(());
        }
        self.start_consumers(spec, queue).await
    }

    async fn start_consumers(&mut self, spec: &QueueSpec, queue: QueueIndex) -> Result<()> {
        for consumer in &spec.consumers {
            let driver = Driver::connect(&self.reach, "consumer").await?;
            let (recorder, stop) = (Arc::clone(&self.recorder), self.stop_consumers.clone());
            let (name, consumer) = (spec.name.clone(), consumer.clone());
            self.consumers.spawn(async move {
                consume::run(driver, recorder, queue, &name, consumer, stop).await
            });
        }
        Ok(())
    }

    async fn start_producer(&mut self, spec: ProducerSpec, routes: &[usize]) -> Result<()> {
        let routes: Vec<QueueIndex> = routes.iter().map(|&route| self.queues[route].1).collect();
        let producer = self.recorder.producer(&routes);
        let driver = Driver::connect(&self.reach, "producer").await?;
        let (recorder, stop) = (Arc::clone(&self.recorder), self.stop_producers.clone());
        self.producers
            .spawn(async move { produce::run(driver, recorder, producer, spec, stop).await });
        Ok(())
    }

    /// Waits until nothing is left in the queue and its leader's counts stand still.
    async fn drained(&self, queue: &str) -> Result<Counts> {
        eventually(&format!("{queue} to drain"), DRAINED_WITHIN, async || {
            let seen = self.driver.describe(queue).await?;
            let counts = seen.counts;
            anyhow::ensure!(
                counts.ready + counts.delivered == 0,
                "{counts:?}, led by {:?}",
                seen.leader
            );
            Ok(counts)
        })
        .await
    }
}

async fn join(tasks: &mut JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}
