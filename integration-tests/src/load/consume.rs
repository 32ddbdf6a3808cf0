//! One consumer: takes what comes, acknowledges most of it, returns and rejects some, and sometimes leaves and comes back.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::checker::{MessageId, Outcome, QueueIndex};
use crate::driver::{Driver, Inbox, Parcel, Settling};
use crate::recorder::Recorder;
use crate::stamp;

/// Settles whose answers are waited for.
const SETTLING_MAX: usize = 2_000;
/// A consumer that could not attach, or was detached, tries again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What a consumer does.
#[derive(Clone, Debug)]
pub struct ConsumerSpec {
    pub prefetch: u32,
    /// Of a thousand deliveries, so many are returned to the queue.
    pub returns_per_mille: u32,
    /// Of a thousand deliveries, so many are rejected.
    pub rejects_per_mille: u32,
    /// It leaves after about so many deliveries, without settling what it holds, and comes back; 0: it stays.
    pub leaves_after: u64,
    /// For the choices above.
    pub seed: u64,
}

impl Default for ConsumerSpec {
    fn default() -> ConsumerSpec {
        ConsumerSpec {
            prefetch: 500,
            returns_per_mille: 0,
            rejects_per_mille: 0,
            leaves_after: 0,
            seed: 1,
        }
    }
}

/// What becomes of a parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Ack,
    Reject,
    Return,
}

struct Settle {
    settling: Settling,
    message: MessageId,
    epoch: u64,
    choice: Choice,
}

pub(super) async fn run(
    driver: Driver,
    recorder: Arc<Recorder>,
    queue: QueueIndex,
    name: &str,
    spec: ConsumerSpec,
    stop: CancellationToken,
) -> Result<()> {
    let (settles, settled) = mpsc::channel(SETTLING_MAX);
    let waiting = tokio::spawn(take_settles(Arc::clone(&recorder), queue, settled));
    let mut consumer =
        Consumer { random: StdRng::seed_from_u64(spec.seed), recorder, queue, spec, settles };
    while !stop.is_cancelled() {
        match driver.consumer(name, consumer.spec.prefetch).await {
            Ok(inbox) => consumer.serve(inbox, &stop).await?,
            Err(failure) => {
                consumer
                    .recorder
                    .note(&format!("a consumer of {name} could not attach: {}", failure.why));
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }
    drop(consumer);
    waiting.await?;
    Ok(())
}

struct Consumer {
    random: StdRng,
    recorder: Arc<Recorder>,
    queue: QueueIndex,
    spec: ConsumerSpec,
    settles: mpsc::Sender<Settle>,
}

impl Consumer {
    /// Until it leaves, is detached, or everything stops.
    async fn serve(&mut self, mut inbox: Inbox, stop: &CancellationToken) -> Result<()> {
        let stays = match self.spec.leaves_after {
            0 => u64::MAX,
            about => self.random.random_range(about / 2..=about * 2),
        };
        let mut taken = 0;
        while taken < stays {
            let parcel = tokio::select! {
                parcel = inbox.next() => parcel,
                () = stop.cancelled() => break,
            };
            let Some(parcel) = parcel else {
                self.recorder.note("a consumer was detached");
                tokio::time::sleep(AGAIN_AFTER).await;
                return Ok(());
            };
            taken += 1;
            self.deal_with(parcel).await?;
        }
        // What was prefetched and not looked at goes back to the queue.
        inbox.close().await;
        Ok(())
    }

    async fn deal_with(&mut self, parcel: Parcel) -> Result<()> {
        let (offset, epoch) = (parcel.offset(), parcel.epoch());
        let message = stamp::read(parcel.body());
        self.recorder.delivered(self.queue, message.clone(), offset, epoch, parcel.redelivered());
        let Ok(message) = message else {
            // The checker has it; out of the way with it.
            drop(parcel.reject());
            return Ok(());
        };
        let choice = self.choose();
        let settling = match choice {
            Choice::Ack => parcel.ack(),
            Choice::Reject => parcel.reject(),
            Choice::Return => parcel.return_(),
        };
        self.settles.send(Settle { settling, message, epoch, choice }).await?;
        Ok(())
    }

    fn choose(&mut self) -> Choice {
        let drawn = self.random.random_range(0..1_000);
        if drawn < self.spec.returns_per_mille {
            Choice::Return
        } else if drawn < self.spec.returns_per_mille + self.spec.rejects_per_mille {
            Choice::Reject
        } else {
            Choice::Ack
        }
    }
}

async fn take_settles(
    recorder: Arc<Recorder>,
    queue: QueueIndex,
    mut settles: mpsc::Receiver<Settle>,
) {
    while let Some(Settle { mut settling, message, epoch, choice }) = settles.recv().await {
        let answer = (&mut settling).await;
        // Perhaps not by the leader that delivered it.
        let epoch = settling.epoch().unwrap_or(epoch);
        let (outcome, why) = match answer {
            Ok(()) => (Outcome::Done, String::new()),
            Err(failure) => (failure.outcome, failure.why),
        };
        match choice {
            Choice::Ack | Choice::Reject => {
                recorder.settled(queue, &[message], epoch, outcome, &why)
            }
            Choice::Return => {
                recorder.note(&format!("return of {message} in e{epoch}: {outcome:?} {why}"))
            }
        }
    }
}
