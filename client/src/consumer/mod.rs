//! Consuming: a stream of deliveries from one queue, wherever its leader is.

mod delivery;
mod driver;
mod holds;
mod inbox;
mod ranges;
mod settles;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bellwether_protocol::client::Settlement;
use bellwether_protocol::names::QueueName;
use futures::Stream;

pub use delivery::{Delivery, Settled};
pub(crate) use inbox::Inbox;

use crate::cluster::Cluster;
use crate::error::ConsumeError;
use driver::Driver;

/// Default of [`ConsumerBuilder::prefetch`], in messages.
const PREFETCH: u32 = 500;

/// Default of [`ConsumerBuilder::prefetch_bytes`].
const PREFETCH_BYTES: u64 = 32 * 1024 * 1024;

/// How a [`Consumer`] is set up. Made by [`Client::consumer`](crate::Client::consumer).
#[derive(Clone, Debug)]
#[must_use = "nothing is started before `start`"]
pub struct ConsumerBuilder {
    cluster: Arc<Cluster>,
    queue: String,
    prefetch: u32,
    prefetch_bytes: u64,
}

impl ConsumerBuilder {
    pub(crate) fn new(cluster: Arc<Cluster>, queue: String) -> ConsumerBuilder {
        ConsumerBuilder { cluster, queue, prefetch: PREFETCH, prefetch_bytes: PREFETCH_BYTES }
    }

    /// Most messages that are unsettled at once, those included that wait here for the application. 1 gives every
    /// message to whoever is free; more is faster. Default: 500.
    pub fn prefetch(mut self, messages: u32) -> Self {
        self.prefetch = messages.max(1);
        self
    }

    /// Most bytes that are unsettled at once; 0: no limit. One message is always let through. Default: 32 MiB.
    pub fn prefetch_bytes(mut self, bytes: u64) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// Starts consuming.
    ///
    /// # Errors
    /// [`ConsumeError`]: nothing was started.
    pub async fn start(self) -> Result<Consumer, ConsumeError> {
        let queue = QueueName::new(&self.queue)?;
        let inbox = Arc::new(Inbox::new(self.prefetch, self.cluster.config.deadline));
        // From here on dropping this future closes what was begun.
        let consumer = Consumer { inbox: Arc::clone(&inbox), queue: queue.clone() };
        let mut driver = Driver {
            cluster: Arc::clone(&self.cluster),
            inbox: Arc::clone(&inbox),
            queue,
            prefetch: self.prefetch,
            prefetch_bytes: self.prefetch_bytes,
            missed: false,
        };
        driver.start().await?;
        self.cluster.track_consumer(&inbox);
        tokio::spawn(driver.run());
        Ok(consumer)
    }
}

/// A [`Stream`] of deliveries from one queue. After a failover it goes on with the new leader by itself; it ends
/// with an error when the queue is deleted or stops.
///
/// Dropping it gives back what is not settled.
///
/// ```no_run
/// # async fn example(client: bellwether_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let mut consumer = client.consumer("orders").prefetch(100).start().await?;
/// while let Some(delivery) = consumer.next().await {
///     let delivery = delivery?;
///     println!("{:?}", delivery.body());
///     delivery.ack().await?; // or drop the future: it is acknowledged all the same
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Consumer {
    inbox: Arc<Inbox>,
    queue: QueueName,
}

impl Consumer {
    /// The next delivery; `None` behind the end. The same as of [`futures::StreamExt`], without its import.
    pub async fn next(&mut self) -> Option<Result<Delivery, ConsumeError>> {
        std::future::poll_fn(|context| self.inbox.poll_next(context)).await
    }

    /// The queue's name.
    #[must_use]
    pub fn queue(&self) -> &str {
        self.queue.as_str()
    }

    /// Acknowledges this delivery and every earlier one of this consumer that is not settled yet.
    pub fn ack_up_to(&self, delivery: &Delivery) -> Settled {
        let (serial, offset) = delivery.place();
        match self.inbox.settle_up_to(serial, Settlement::Ack, offset) {
            Some(tickets) => Settled::of_many(Arc::clone(&self.inbox), tickets, 0),
            None => Settled::new(Arc::clone(&self.inbox), None, 1),
        }
    }

    /// Acknowledges these deliveries at once. When some of them are stale, the others are acknowledged all the same,
    /// and the answer says how many were.
    pub fn ack_all(&self, deliveries: impl IntoIterator<Item = Delivery>) -> Settled {
        self.settle_all(Settlement::Ack, deliveries)
    }

    /// Rejects these deliveries at once, as [`Consumer::ack_all`] acknowledges them.
    pub fn reject_all(&self, deliveries: impl IntoIterator<Item = Delivery>) -> Settled {
        self.settle_all(Settlement::Reject, deliveries)
    }

    /// Returns these deliveries at once, as [`Consumer::ack_all`] acknowledges them.
    pub fn return_all(&self, deliveries: impl IntoIterator<Item = Delivery>) -> Settled {
        self.settle_all(Settlement::Return, deliveries)
    }

    fn settle_all(
        &self,
        settlement: Settlement,
        deliveries: impl IntoIterator<Item = Delivery>,
    ) -> Settled {
        let places: Vec<_> = deliveries.into_iter().map(Delivery::into_place).collect();
        let (tickets, stale) = self.inbox.settle_all(settlement, places.into_iter());
        Settled::of_many(Arc::clone(&self.inbox), tickets, stale)
    }

    /// Ends the consumer: waits until every settle so far is confirmed or has failed, at most for the client's deadline.
    /// What is unsettled goes back.
    pub async fn close(self) {
        self.inbox.close();
        self.inbox.settled_all().await;
    }
}

impl Stream for Consumer {
    type Item = Result<Delivery, ConsumeError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inbox.poll_next(context)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.inbox.close();
    }
}
