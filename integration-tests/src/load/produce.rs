//! One producer: stamped bodies at a steady rate, each with its outcome.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use crate::checker::{MessageId, ProducerIndex};
use crate::driver::{Driver, Pending};
use crate::recorder::Recorder;
use crate::stamp;

/// What a producer does.
#[derive(Clone, Debug)]
pub struct ProducerSpec {
    /// Its name, so that retries are stored once.
    pub name: String,
    pub exchange: String,
    pub key: String,
    /// Messages a second; 0: as fast as the cluster takes them.
    pub per_second: u32,
    /// Bytes of a body.
    pub bytes: usize,
    /// Most unconfirmed messages.
    pub window: usize,
}

impl ProducerSpec {
    /// To one queue, by its name.
    #[must_use]
    pub fn to_queue(name: &str, queue: &str) -> ProducerSpec {
        ProducerSpec {
            name: name.to_owned(),
            exchange: String::new(),
            key: queue.to_owned(),
            per_second: 1_000,
            bytes: 256,
            window: 500,
        }
    }
}

pub(super) async fn run(
    driver: Driver,
    recorder: Arc<Recorder>,
    producer: ProducerIndex,
    spec: ProducerSpec,
    stop: CancellationToken,
) -> Result<()> {
    let sender = driver.producer(&spec.name, &spec.exchange, &spec.key, spec.window).await?;
    let (pending, outcomes) = mpsc::channel(spec.window);
    let waiting = tokio::spawn(take_outcomes(Arc::clone(&recorder), outcomes));
    let mut pace = Pace::new(spec.per_second);
    while !stop.is_cancelled() {
        pace.next().await;
        let (message, begun) = (recorder.publish(producer), Instant::now());
        match sender.send(stamp::body(message, spec.bytes)).await {
            Ok(receipt) => pending.send((message, begun, receipt)).await?,
            Err(failure) => {
                recorder.published(message, failure.outcome, &failure.why);
            }
        }
    }
    drop(pending);
    waiting.await?;
    sender.close().await;
    Ok(())
}

async fn take_outcomes(
    recorder: Arc<Recorder>,
    mut outcomes: mpsc::Receiver<(MessageId, Instant, Pending)>,
) {
    while let Some((message, begun, receipt)) = outcomes.recv().await {
        match receipt.outcome().await {
            Ok(()) => recorder.confirmed(message, begun.elapsed()),
            Err(failure) => recorder.published(message, failure.outcome, &failure.why),
        }
    }
}
