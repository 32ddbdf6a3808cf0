//! What an honest client feels: one message after another, each confirmed before the next.

use std::time::{Duration, Instant};

use anyhow::Result;
use bellwether_client::{Client, Producer};
use hdrhistogram::Histogram;

/// The honest client's p99 may grow by so much.
const RATIO_MAX: f64 = 2.0;

/// The queue it publishes to.
const QUEUE: &str = "siege";

/// The honest client.
pub struct Honest {
    client: Client,
    producer: Producer,
}

/// Confirm times.
#[derive(Debug)]
pub struct Felt {
    micros: Histogram<u64>,
}

impl Honest {
    pub async fn connect(address: &str) -> Result<Honest> {
        let client = Client::connect([address]).await?;
        client.declare(QUEUE).await?;
        let producer = client.producer().to_queue(QUEUE).start().await?;
        Ok(Honest { client, producer })
    }

    /// One that is there already.
    pub fn of(client: Client, producer: Producer) -> Honest {
        Honest { client, producer }
    }

    /// For so long.
    pub async fn feels(&self, time: Duration) -> Result<Felt> {
        let until = Instant::now() + time;
        feel(&self.producer, || Instant::now() >= until).await
    }

    /// Until something else has ended.
    pub async fn feels_during<T>(
        &self,
        during: impl Future<Output = Result<T>>,
    ) -> Result<(Felt, T)> {
        let over = std::cell::Cell::new(false);
        let other = async {
            let ended = during.await;
            over.set(true);
            ended
        };
        let (felt, other) = tokio::join!(feel(&self.producer, || over.get()), other);
        Ok((felt?, other?))
    }

    /// Takes the messages out of the queue again.
    pub async fn purge(&self) -> Result<()> {
        self.client.purge(QUEUE).await?;
        Ok(())
    }

    pub async fn leave(self) -> Result<()> {
        self.producer.close().await?;
        self.client.close().await?;
        Ok(())
    }
}

/// Until `over`.
async fn feel(producer: &Producer, over: impl Fn() -> bool) -> Result<Felt> {
    let mut micros = Histogram::new(3)?;
    while !over() {
        let sent = Instant::now();
        producer.send("a message of an honest client").await?.await?;
        micros.record(u64::try_from(sent.elapsed().as_micros())?)?;
    }
    Ok(Felt { micros })
}

impl Felt {
    /// Both together: before and after something, what is felt without it.
    pub fn and(mut self, other: &Felt) -> Result<Felt> {
        self.micros.add(&other.micros)?;
        Ok(self)
    }

    /// Milliseconds, at this share of the confirms.
    fn ms(&self, quantile: f64) -> f64 {
        self.micros.value_at_quantile(quantile) as f64 / 1000.0
    }

    pub fn p50_ms(&self) -> f64 {
        self.ms(0.5)
    }

    pub fn p99_ms(&self) -> f64 {
        self.ms(0.99)
    }

    pub fn confirms(&self) -> u64 {
        self.micros.len()
    }

    /// How much longer p99 is than it was.
    pub fn ratio(&self, before: &Felt) -> f64 {
        self.p99_ms() / before.p99_ms().max(0.001)
    }

    /// Whether that is little enough.
    pub fn is_close_to(&self, before: &Felt) -> bool {
        self.ratio(before) <= RATIO_MAX
    }
}
