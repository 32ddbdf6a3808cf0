//! The client crate as the tests use it: the one place that names its calls, and puts outcomes into the checker's words.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result};
use bellwether_client::{
    Client, Consumer, Delivery, ExchangeKind, Outcome as Answer, Producer, PublishError,
    QueueOptions, Receipt, SettleError, Settled, TlsOptions,
};
use bytes::Bytes;

use crate::checker::{Counts, Outcome};

/// How long any operation may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Where brokers are reached, and how.
#[derive(Clone, Debug)]
pub struct Reach {
    /// `HOST:PORT` of each.
    pub addresses: Vec<String>,
    /// What is said in TLS; none: it is not spoken.
    pub tls: Option<TlsOptions>,
    /// As whom.
    pub login: Login,
    /// That all names lie in; none: the default one.
    pub virtual_host: Option<String>,
}

/// As whom a client connects.
#[derive(Clone, Default)]
pub enum Login {
    #[default]
    Nobody,
    /// A user and the password.
    Password(String, String),
    /// The user whom the certificate names.
    Certificate,
}

/// The password is nobody's business.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Login::Nobody => f.write_str("nobody"),
            Login::Password(user, _) => f.write_str(user),
            Login::Certificate => f.write_str("by certificate"),
        }
    }
}

impl Reach {
    /// Without TLS.
    #[must_use]
    pub fn plain(addresses: Vec<String>) -> Reach {
        Reach { addresses, tls: None, login: Login::Nobody, virtual_host: None }
    }
}

/// A connected client.
#[derive(Clone, Debug)]
pub struct Driver {
    client: Client,
}

/// What did not succeed: certainly, or perhaps.
#[derive(Clone, Debug)]
pub struct Failure {
    pub outcome: Outcome,
    pub why: String,
}

/// A queue as its leader describes it.
#[derive(Clone, Debug)]
pub struct QueueView {
    pub leader: Option<u32>,
    pub epoch: u64,
    pub replicas: Vec<u32>,
    pub in_sync: Vec<u32>,
    pub counts: Counts,
}

impl QueueView {
    /// Whether every replica is in sync.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.in_sync.len() == self.replicas.len()
    }
}

impl Driver {
    /// Connects to whichever of the brokers answers.
    pub async fn connect(reach: &Reach, name: &str) -> Result<Driver> {
        let mut builder = Client::builder().name(name).deadline(DEADLINE);
        if let Some(tls) = &reach.tls {
            builder = builder.tls(tls.clone());
        }
        match &reach.login {
            Login::Nobody => {}
            Login::Password(user, password) => builder = builder.login(user, password),
            Login::Certificate => builder = builder.login_by_certificate(),
        }
        if let Some(name) = &reach.virtual_host {
            builder = builder.virtual_host(name.as_str());
        }
        Ok(Driver { client: builder.connect(reach.addresses.iter()).await? })
    }

    /// The client itself.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Declares a queue.
    pub async fn declare_queue(
        &self,
        queue: &str,
        replicas: u8,
        min_isr: Option<u8>,
    ) -> Result<()> {
        let options = QueueOptions { replicas, min_isr, ..QueueOptions::default() };
        self.client
            .declare_with(queue, options)
            .await
            .with_context(|| format!("declaring {queue}"))?;
        Ok(())
    }

    /// Declares a fanout exchange.
    pub async fn declare_fanout(&self, exchange: &str) -> Result<()> {
        self.client.declare_exchange(exchange, ExchangeKind::Fanout).await?;
        Ok(())
    }

    /// Binds a queue to an exchange.
    pub async fn bind(&self, exchange: &str, queue: &str, key: &str) -> Result<()> {
        self.client.bind(exchange, queue, key).await?;
        Ok(())
    }

    /// What the leader says of a queue.
    pub async fn describe(&self, queue: &str) -> Result<QueueView> {
        let seen = self.client.describe(queue).await?;
        let ids = |brokers: &[bellwether_protocol::ids::BrokerId]| {
            brokers.iter().map(|broker| broker.0).collect()
        };
        Ok(QueueView {
            leader: seen.queue.leader.map(|leader| leader.0),
            epoch: seen.queue.epoch.0,
            replicas: ids(&seen.queue.replicas),
            in_sync: ids(&seen.queue.in_sync),
            counts: Counts {
                enqueued: seen.counts.enqueued,
                ready: seen.counts.ready,
                delivered: seen.counts.delivered,
                settled: seen.counts.settled,
                purged: seen.counts.purged,
            },
        })
    }

    /// Starts a producer whose messages go to `exchange` with `key`.
    pub async fn producer(
        &self,
        name: &str,
        exchange: &str,
        key: &str,
        window: usize,
    ) -> Result<Sender> {
        let builder = self
            .client
            .producer()
            .exchange(exchange)
            .routing_key(key)
            .named(name, 1)
            .window(window);
        Ok(Sender { producer: builder.start().await? })
    }

    /// Starts a consumer.
    pub async fn consumer(&self, queue: &str, prefetch: u32) -> Result<Inbox, Failure> {
        let started = self.client.consumer(queue).prefetch(prefetch).start().await;
        let consumer = started
            .map_err(|error| Failure { outcome: Outcome::NotDone, why: error.to_string() })?;
        Ok(Inbox { consumer })
    }
}

/// A producer.
#[derive(Debug)]
pub struct Sender {
    producer: Producer,
}

impl Sender {
    /// Sends a message; waits while the window is full.
    pub async fn send(&self, body: Bytes) -> Result<Pending, Failure> {
        Ok(Pending { receipt: self.producer.send(body).await.map_err(publish_failure)? })
    }

    /// Sends a message and waits for its confirm.
    pub async fn confirm(&self, body: Bytes) -> Result<(), Failure> {
        self.send(body).await?.outcome().await
    }

    /// Ends it when all it sent has an outcome; those are known from the receipts.
    pub async fn close(self) {
        self.producer.close().await.ok();
    }
}

/// The confirm of a message, to be awaited.
#[derive(Debug)]
pub struct Pending {
    receipt: Receipt,
}

impl Pending {
    /// What became of it.
    pub async fn outcome(self) -> Result<(), Failure> {
        self.receipt.await.map_err(publish_failure)
    }
}

/// A consumer.
#[derive(Debug)]
pub struct Inbox {
    consumer: Consumer,
}

impl Inbox {
    /// The next delivery; none when the consumer was detached.
    pub async fn next(&mut self) -> Option<Parcel> {
        match self.consumer.next().await? {
            Ok(delivery) => Some(Parcel { delivery }),
            Err(error) => {
                tracing::warn!(%error, "a consumer was detached");
                None
            }
        }
    }

    /// Leaves; what was not settled goes back to the queue.
    pub async fn close(self) {
        self.consumer.close().await;
    }
}

/// A delivery.
#[derive(Debug)]
pub struct Parcel {
    delivery: Delivery,
}

impl Parcel {
    #[must_use]
    pub fn body(&self) -> &Bytes {
        self.delivery.body()
    }

    #[must_use]
    pub fn offset(&self) -> u64 {
        self.delivery.offset()
    }

    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.delivery.epoch()
    }

    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.delivery.redelivered()
    }

    /// Dealt with.
    pub fn ack(self) -> Settling {
        Settling { settled: self.delivery.ack() }
    }

    /// Not wanted.
    pub fn reject(self) -> Settling {
        Settling { settled: self.delivery.reject() }
    }

    /// Back to its place.
    pub fn return_(self) -> Settling {
        Settling { settled: self.delivery.return_() }
    }
}

/// A settle on its way.
#[derive(Debug)]
pub struct Settling {
    settled: Settled,
}

impl Settling {
    /// In which epoch, at the latest, it was confirmed; known once it is.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.settled.epoch()
    }
}

impl Future for Settling {
    type Output = Result<(), Failure>;

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        Pin::new(&mut self.settled).poll(context).map_err(settle_failure)
    }
}

fn publish_failure(error: PublishError) -> Failure {
    Failure { outcome: outcome(error.outcome()), why: error.to_string() }
}

fn settle_failure(error: SettleError) -> Failure {
    Failure { outcome: outcome(error.outcome()), why: error.to_string() }
}

fn outcome(answer: Answer) -> Outcome {
    match answer {
        Answer::NotDone => Outcome::NotDone,
        Answer::Unknown => Outcome::Unknown,
    }
}
