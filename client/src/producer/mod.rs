//! Publishing: a producer numbers messages, sends them in batches, and tells what became of each.

mod driver;
mod pipe;
mod receipt;
mod window;

use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::client::Withheld;
use bellwether_protocol::ids::Seq;
use bellwether_protocol::names::{ExchangeName, ProducerName, QueueName, RoutingKey};

pub(crate) use pipe::Pipe;
pub use receipt::Receipt;

use crate::cluster::Cluster;
use crate::error::{FlushError, ProducerError, PublishError};
use crate::message::Message;
use driver::{Driver, random_name};
use window::{Address, Window, WindowLimits};

/// Default of [`ProducerBuilder::window`], in messages.
const WINDOW_MESSAGES: usize = 1000;

/// Default of [`ProducerBuilder::window_bytes`].
const WINDOW_BYTES: usize = 32 * 1024 * 1024;

/// How a [`Producer`] is set up. Made by [`Client::producer`](crate::Client::producer).
#[derive(Clone, Debug)]
#[must_use = "nothing is started before `start`"]
pub struct ProducerBuilder {
    cluster: Arc<Cluster>,
    exchange: String,
    routing_key: String,
    name: Option<(String, u64)>,
    limits: WindowLimits,
    deadline: Duration,
    fail_fast: bool,
}

impl ProducerBuilder {
    pub(crate) fn new(cluster: Arc<Cluster>) -> ProducerBuilder {
        ProducerBuilder {
            deadline: cluster.config.deadline,
            cluster,
            exchange: String::new(),
            routing_key: String::new(),
            name: None,
            limits: WindowLimits { messages: WINDOW_MESSAGES, bytes: WINDOW_BYTES },
            fail_fast: false,
        }
    }

    /// Where messages go that do not say otherwise. Default: the default exchange, where the routing key is the
    /// name of a queue.
    pub fn exchange(mut self, exchange: impl Into<String>) -> Self {
        self.exchange = exchange.into();
        self
    }

    /// The routing key of messages that do not say otherwise. Default: empty.
    pub fn routing_key(mut self, routing_key: impl Into<String>) -> Self {
        self.routing_key = routing_key.into();
        self
    }

    /// Messages straight to this queue, through the default exchange.
    pub fn to_queue(self, queue: impl Into<String>) -> Self {
        self.exchange("").routing_key(queue)
    }

    /// The producer's name, and the number of its next message: 1 for a name that was never used, and the number
    /// behind the last one for a producer that goes on. A message whose number the queue has already seen under
    /// this name is confirmed and not stored again, so that an application that keeps its numbers can
    /// publish exactly once over its own restarts.
    ///
    /// Without a name the client makes one that is never used again; retries within this producer's life are
    /// safe in any case.
    pub fn named(mut self, name: impl Into<String>, next: u64) -> Self {
        self.name = Some((name.into(), next.max(1)));
        self
    }

    /// Most messages without a confirm: beyond them [`Producer::send`] waits. Default: 1000.
    pub fn window(mut self, messages: usize) -> Self {
        self.limits.messages = messages.max(1);
        self
    }

    /// Most bytes without a confirm. Default: 32 MiB.
    pub fn window_bytes(mut self, bytes: usize) -> Self {
        self.limits.bytes = bytes.max(1);
        self
    }

    /// How long a message is tried, until its receipt says "not done" or "unknown". Default: the client's.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Tells refusals that may pass, such as too few replicas or a full disk, at once. By default they
    /// are waited out until the deadline, and order is kept.
    pub fn fail_fast(mut self) -> Self {
        self.fail_fast = true;
        self
    }

    /// Starts the producer.
    ///
    /// # Errors
    /// [`ProducerError`]: nothing was started.
    pub async fn start(self) -> Result<Producer, ProducerError> {
        let address = Address {
            exchange: ExchangeName::new(&self.exchange)?,
            routing_key: RoutingKey::new(&self.routing_key)?,
        };
        let named = self.name.is_some();
        let (name, next) = match self.name {
            Some((name, next)) => (ProducerName::new(name)?, next),
            None => (random_name(&self.cluster.config.name), 1),
        };
        let pipe = Arc::new(Pipe::new(Window::new(self.limits, Seq(next)), self.fail_fast));
        let home = match address.exchange.is_default() {
            true => QueueName::new(address.routing_key.as_str()).ok(),
            false => None,
        };
        let driver = Driver {
            cluster: Arc::clone(&self.cluster),
            pipe: Arc::clone(&pipe),
            name: name.clone(),
            named,
            deadline: self.deadline,
            home,
        };
        let link = driver.start().await?;
        let message_bytes_max = link.welcome().message_bytes_max as usize;
        self.cluster.track_producer(&pipe);
        tokio::spawn(driver.run(link));
        Ok(Producer { pipe, address, name, message_bytes_max })
    }
}

/// Publishes messages. Each is numbered, so that it is stored once however often it has to be sent: after a lost
/// connection or a failover everything unconfirmed is sent again, in order, to whichever broker is there.
///
/// Can be shared between tasks behind an `Arc`. Dropping it still sends what it has taken.
///
/// ```no_run
/// # async fn example(client: bellwether_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let producer = client.producer().to_queue("orders").start().await?;
/// let receipt = producer.send("42 apples").await?; // waits only while the window is full
/// receipt.await?; // confirmed: on the disks of a majority
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Producer {
    pipe: Arc<Pipe>,
    address: Address,
    name: ProducerName,
    message_bytes_max: usize,
}

impl Producer {
    /// Sends a message; waits only while the window of unconfirmed messages is full. The receipt tells what became
    /// of it.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`] or [`PublishError::Closed`]: nothing was sent.
    pub async fn send(&self, message: impl Into<Message>) -> Result<Receipt, PublishError> {
        let message = message.into();
        let (bytes, bytes_max) = (message.size(), self.message_bytes_max);
        if bytes > bytes_max {
            return Err(PublishError::TooLarge { bytes, bytes_max });
        }
        // A sender that is never out of room must still let the writing task run.
        tokio::task::coop::consume_budget().await;
        loop {
            if let Some(sent) = self.try_send(&message) {
                return sent.map(|seq| Receipt::new(Arc::clone(&self.pipe), seq));
            }
            self.pipe.room(bytes).await;
        }
    }

    fn try_send(&self, message: &Message) -> Option<Result<Seq, PublishError>> {
        if message.exchange.is_none() && message.routing_key.is_none() {
            return self.pipe.try_send(&self.address, message);
        }
        let address = Address {
            exchange: message.exchange.as_ref().unwrap_or(&self.address.exchange).clone(),
            routing_key: message.routing_key.as_ref().unwrap_or(&self.address.routing_key).clone(),
        };
        self.pipe.try_send(&address, message)
    }

    /// Sends a message and waits until it is confirmed.
    ///
    /// # Errors
    /// [`PublishError`]; its [`outcome`](PublishError::outcome) says whether the message is certainly not stored.
    pub async fn send_and_confirm(&self, message: impl Into<Message>) -> Result<(), PublishError> {
        self.send(message).await?.await
    }

    /// Waits until everything sent before is confirmed or has failed.
    ///
    /// # Errors
    /// How many messages have failed since the last flush, receipts asked or not.
    pub async fn flush(&self) -> Result<(), FlushError> {
        self.pipe.flushed().await
    }

    /// Flushes and ends the producer.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(self) -> Result<(), FlushError> {
        self.pipe.close("it was closed by the application");
        self.pipe.flushed().await
    }

    /// Why the broker grants no more publish credit for now, if it says so: messages are taken until the window is full, and wait.
    /// They are neither refused nor lost; they expire at their deadline.
    ///
    /// ```no_run
    /// # async fn example(producer: bellwether_client::Producer) {
    /// if let Some(why) = producer.withheld() {
    ///     eprintln!("the broker takes nothing for now: {why:?}"); // Memory: consumers are behind
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn withheld(&self) -> Option<Withheld> {
        self.pipe.withheld()
    }

    /// The name under which brokers know this producer.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.pipe.close("it was dropped by the application");
    }
}
