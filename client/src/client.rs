//! The client: the operations on queues, exchanges and bindings, and the way to producers and consumers.

use std::sync::Arc;
use std::time::Instant;

use bellwether_protocol::client::{
    Binding, ClusterStatus, Drain, ExchangeKind, PlannedMove, QueueCounts, QueueOptions,
    QueueSummary, Request, Response,
};
use bellwether_protocol::ids::BrokerId;
use bellwether_protocol::names::{ExchangeName, QueueName, RoutingKey};

use crate::backoff::Backoff;
use crate::builder::{ADDRESSES_MAX, ClientBuilder, Config};
use crate::cluster::{At, Cluster};
use crate::consumer::ConsumerBuilder;
use crate::error::{
    BindError, ConnectError, DeclareError, DeleteError, DrainError, FlushError, PurgeError,
    QueryError, Trouble,
};
use crate::link::ConnectFailure;
use crate::producer::ProducerBuilder;

/// Queues asked for in one page.
const PAGE_QUEUES: u32 = 1000;

/// A connection to a cluster: to as many of its brokers as there is something to do at. Cheap to clone; all clones
/// share the connections, which end when the last clone and the last producer and consumer are gone.
#[derive(Clone, Debug)]
pub struct Client {
    cluster: Arc<Cluster>,
}

/// A queue that was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Whether it was made now; it may have been there with the same options.
    pub created: bool,
    /// How it is kept.
    pub queue: QueueSummary,
    /// What one should know, such as fewer replicas than asked for.
    pub warning: Option<String>,
}

/// A queue, and what its leader counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// How it is kept and who leads.
    pub queue: QueueSummary,
    /// What its leader counts.
    pub counts: QueueCounts,
}

impl Client {
    /// Connects to any of these brokers, each `host:port`; the others of the cluster are learnt from it.
    ///
    /// # Errors
    /// [`ConnectError`]: nothing was done.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use bellwether_client::Client;
    /// let client = Client::connect(["127.0.0.1:7400", "127.0.0.1:7401"]).await?;
    /// client.declare("orders").await?;
    /// # Ok(()) }
    /// ```
    pub async fn connect<A: AsRef<str>>(
        brokers: impl IntoIterator<Item = A>,
    ) -> Result<Client, ConnectError> {
        Client::builder().connect(brokers).await
    }

    /// A client with other settings than the defaults.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) async fn start(config: Config, given: Vec<String>) -> Result<Client, ConnectError> {
        if given.is_empty() {
            return Err(ConnectError::NoAddress);
        }
        let started = Instant::now();
        let deadline = config.deadline;
        let given: Vec<String> = given.into_iter().take(ADDRESSES_MAX).collect();
        let cluster = Cluster::new(config, given);
        let mut last = "no broker has answered".to_owned();
        let connecting = async {
            let mut backoff = Backoff::default();
            loop {
                match cluster.any(None).await {
                    Ok(_) => return Ok(()),
                    Err(failure) => match &*failure {
                        ConnectFailure::Refused { address, error }
                            if !error.code.is_worth_retrying() =>
                        {
                            return Err(ConnectError::Refused {
                                address: address.clone(),
                                code: error.code,
                                message: error.message.clone(),
                            });
                        }
                        // Whatever is wrong with certificates will not pass by itself.
                        ConnectFailure::Insecure { address, why } => {
                            return Err(ConnectError::Insecure {
                                address: address.clone(),
                                message: why.clone(),
                            });
                        }
                        failure => last = failure.to_string(),
                    },
                }
                tokio::time::sleep(backoff.next()).await;
            }
        };
        match tokio::time::timeout(deadline, connecting).await {
            Ok(connected) => connected.map(|()| Client { cluster }),
            Err(_) => Err(ConnectError::Unreachable { waited: started.elapsed(), last }),
        }
    }

    /// Declares a queue with three replicas. Done also when it exists with the same options.
    ///
    /// # Errors
    /// [`DeclareError`]; its `outcome` says whether it is certainly not done.
    pub async fn declare(&self, queue: impl AsRef<str>) -> Result<Declared, DeclareError> {
        self.declare_with(queue, QueueOptions::default()).await
    }

    /// Declares a queue with these options. Done also when it exists with the same ones.
    ///
    /// # Errors
    /// [`DeclareError`]; its `outcome` says whether it is certainly not done.
    pub async fn declare_with(
        &self,
        queue: impl AsRef<str>,
        options: QueueOptions,
    ) -> Result<Declared, DeclareError> {
        let queue = QueueName::new(queue)?;
        match self.ask(Request::DeclareQueue { queue, options }).await? {
            Response::Declared { created, queue, warning } => {
                Ok(Declared { created, queue, warning })
            }
            other => Err(unexpected(&other).into()),
        }
    }

    /// Deletes a queue, its messages and its bindings.
    ///
    /// # Errors
    /// [`DeleteError`]; its `outcome` says whether it is certainly not done.
    pub async fn delete(&self, queue: impl AsRef<str>) -> Result<(), DeleteError> {
        self.delete_with(queue, false, false).await
    }

    /// Deletes a queue, but not when it has consumers (`if_unused`) or messages (`if_empty`).
    ///
    /// # Errors
    /// [`DeleteError`]; its `outcome` says whether it is certainly not done.
    pub async fn delete_with(
        &self,
        queue: impl AsRef<str>,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<(), DeleteError> {
        let queue = QueueName::new(queue)?;
        let request = Request::DeleteQueue { queue, if_unused, if_empty };
        done(&self.ask_once(request).await?).map_err(DeleteError::from)
    }

    /// Removes the ready messages of a queue. How many there were.
    ///
    /// # Errors
    /// [`PurgeError`]; its `outcome` says whether it is certainly not done.
    pub async fn purge(&self, queue: impl AsRef<str>) -> Result<u64, PurgeError> {
        let queue = QueueName::new(queue)?;
        match self.ask_once(Request::PurgeQueue { queue }).await? {
            Response::Purged { messages } => Ok(messages),
            other => Err(unexpected(&other).into()),
        }
    }

    /// A queue with its counts, from its leader.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn describe(&self, queue: impl AsRef<str>) -> Result<Described, QueryError> {
        let queue = QueueName::new(queue)?;
        match self.ask(Request::DescribeQueue { queue }).await? {
            Response::Queue { summary, counts } => Ok(Described { queue: summary, counts }),
            other => Err(unexpected(&other).into()),
        }
    }

    /// All queues of the virtual host, in order of name. For very many, [`Client::queues_after`] gives pages.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn queues(&self) -> Result<Vec<QueueSummary>, QueryError> {
        let mut queues: Vec<QueueSummary> = Vec::new();
        loop {
            let after = queues.last().map(|queue| queue.name.clone());
            let page = self.page(after, PAGE_QUEUES).await?;
            if page.is_empty() {
                return Ok(queues);
            }
            queues.extend(page);
        }
    }

    /// At most `limit` queues behind the one named, in order of name. None: there are no more.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn queues_after(
        &self,
        after: impl AsRef<str>,
        limit: u32,
    ) -> Result<Vec<QueueSummary>, QueryError> {
        self.page(Some(QueueName::new(after)?), limit).await
    }

    async fn page(
        &self,
        after: Option<QueueName>,
        limit: u32,
    ) -> Result<Vec<QueueSummary>, QueryError> {
        match self.ask(Request::ListQueues { after, limit }).await? {
            Response::Queues(queues) => Ok(queues),
            other => Err(unexpected(&other).into()),
        }
    }

    /// Declares an exchange. Done also when it exists with the same kind.
    ///
    /// # Errors
    /// [`DeclareError`]; its `outcome` says whether it is certainly not done.
    pub async fn declare_exchange(
        &self,
        exchange: impl AsRef<str>,
        kind: ExchangeKind,
    ) -> Result<(), DeclareError> {
        let exchange = ExchangeName::new(exchange)?;
        let request = Request::DeclareExchange { exchange, kind };
        done(&self.ask(request).await?).map_err(DeclareError::from)
    }

    /// Deletes an exchange and the bindings that start at it.
    ///
    /// # Errors
    /// [`DeleteError`]; its `outcome` says whether it is certainly not done.
    pub async fn delete_exchange(&self, exchange: impl AsRef<str>) -> Result<(), DeleteError> {
        self.delete_exchange_with(exchange, false).await
    }

    /// Deletes an exchange, but not when anything is bound to it (`if_unused`).
    ///
    /// # Errors
    /// [`DeleteError`]; its `outcome` says whether it is certainly not done.
    pub async fn delete_exchange_with(
        &self,
        exchange: impl AsRef<str>,
        if_unused: bool,
    ) -> Result<(), DeleteError> {
        let exchange = ExchangeName::new(exchange)?;
        let request = Request::DeleteExchange { exchange, if_unused };
        done(&self.ask_once(request).await?).map_err(DeleteError::from)
    }

    /// All exchanges of the virtual host, in order of name.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn exchanges(&self) -> Result<Vec<(ExchangeName, ExchangeKind)>, QueryError> {
        match self.ask(Request::ListExchanges).await? {
            Response::Exchanges(exchanges) => Ok(exchanges),
            other => Err(unexpected(&other).into()),
        }
    }

    /// Binds a queue to an exchange by a routing key. Done also when it is bound.
    ///
    /// # Errors
    /// [`BindError`]; its `outcome` says whether it is certainly not done.
    pub async fn bind(
        &self,
        exchange: impl AsRef<str>,
        queue: impl AsRef<str>,
        routing_key: impl AsRef<str>,
    ) -> Result<(), BindError> {
        let request = Request::Bind {
            exchange: ExchangeName::new(exchange)?,
            queue: QueueName::new(queue)?,
            routing_key: RoutingKey::new(routing_key)?,
        };
        done(&self.ask(request).await?).map_err(BindError::from)
    }

    /// Removes a binding. Done also when there is none.
    ///
    /// # Errors
    /// [`BindError`]; its `outcome` says whether it is certainly not done.
    pub async fn unbind(
        &self,
        exchange: impl AsRef<str>,
        queue: impl AsRef<str>,
        routing_key: impl AsRef<str>,
    ) -> Result<(), BindError> {
        let request = Request::Unbind {
            exchange: ExchangeName::new(exchange)?,
            queue: QueueName::new(queue)?,
            routing_key: RoutingKey::new(routing_key)?,
        };
        done(&self.ask(request).await?).map_err(BindError::from)
    }

    /// All bindings of the virtual host, or those of one queue.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn bindings(&self, queue: Option<&str>) -> Result<Vec<Binding>, QueryError> {
        let queue = queue.map(QueueName::new).transpose()?;
        match self.ask(Request::ListBindings { queue }).await? {
            Response::Bindings(bindings) => Ok(bindings),
            other => Err(unexpected(&other).into()),
        }
    }

    /// The brokers, and how the queues are, as one broker sees it.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn cluster_status(&self) -> Result<ClusterStatus, QueryError> {
        match self.ask(Request::ClusterStatus).await? {
            Response::Cluster(status) => Ok(status),
            other => Err(unexpected(&other).into()),
        }
    }

    /// Says what is to be moved away from a broker, live or not; `None`: nothing any more. Done when that is written down: the moving
    /// comes after, and [`Client::cluster_status`] shows how far it is.
    ///
    /// # Errors
    /// [`DrainError`].
    pub async fn drain(&self, broker: BrokerId, drain: Option<Drain>) -> Result<(), DrainError> {
        match self.ask(Request::Drain { broker, drain }).await? {
            Response::Done => Ok(()),
            other => Err(unexpected(&other).into()),
        }
    }

    /// What the cluster is about to move to be even again, the first moves, and whether there are more. It does that by itself: this
    /// is for looking.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn plan(&self) -> Result<(Vec<PlannedMove>, bool), QueryError> {
        match self.ask(Request::Plan).await? {
            Response::Plan { moves, more } => Ok((moves, more)),
            other => Err(unexpected(&other).into()),
        }
    }

    /// A producer, to be set up and started.
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(Arc::clone(&self.cluster))
    }

    /// A consumer of this queue, to be set up and started.
    pub fn consumer(&self, queue: impl Into<String>) -> ConsumerBuilder {
        ConsumerBuilder::new(Arc::clone(&self.cluster), queue.into())
    }

    /// Ends everything in good order: waits until what was sent and settled is confirmed, detaches, says goodbye.
    ///
    /// # Errors
    /// How many messages of one of its producers were not confirmed.
    pub async fn close(self) -> Result<(), FlushError> {
        self.cluster.close().await
    }

    pub(crate) async fn ask(&self, request: Request) -> Result<Response, Trouble> {
        Ok(self.cluster.ask(request, At::Anywhere).await?.response)
    }

    pub(crate) async fn ask_once(&self, request: Request) -> Result<Response, Trouble> {
        Ok(self.cluster.ask_once(request).await?.response)
    }
}

fn done(response: &Response) -> Result<(), Trouble> {
    match response {
        Response::Done => Ok(()),
        other => Err(unexpected(other)),
    }
}

/// An answer to another question: the broker may have done as asked.
pub(crate) fn unexpected(response: &Response) -> Trouble {
    Trouble::Unknown(format!("the broker's answer makes no sense here: {response:?}"))
}
