//! The client: the operations on queues, exchanges and bindings, and the way to producers and consumers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_protocol::client::{
    Attention, Binding, ClusterStatus, Drain, ElectionReport, ExchangeKind, Number, PlannedMove,
    QueueCondition, QueueCounts, QueueOptions, QueueSummary, Recover, ReplicaStatus, Request,
    Response, Stuck,
};
use bellwether_protocol::error::BrokerAddress;
use bellwether_protocol::ids::{BrokerId, ClusterId, Epoch, Offset};
use bellwether_protocol::names::{ExchangeName, QueueName, RoutingKey, VirtualHost};

use crate::backoff::Backoff;
use crate::builder::{ADDRESSES_MAX, ClientBuilder, Config};
use crate::cluster::{At, Cluster, Found};
use crate::consumer::ConsumerBuilder;
use crate::error::{
    BindError, ConnectError, DeclareError, DeleteError, DrainError, FlushError, PurgeError,
    QueryError, RecoverError, SettingError, Trouble,
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

    /// How all queues of the virtual host were asked for, in order of name: what it takes to declare them again.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn definitions(&self) -> Result<Vec<(QueueName, QueueOptions)>, QueryError> {
        let mut definitions: Vec<(QueueName, QueueOptions)> = Vec::new();
        loop {
            let after = definitions.last().map(|(name, _)| name.clone());
            match self.ask(Request::ListDefinitions { after, limit: PAGE_QUEUES }).await? {
                Response::Definitions(page) if page.is_empty() => return Ok(definitions),
                Response::Definitions(page) => definitions.extend(page),
                other => return Err(unexpected(&other).into()),
            }
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

    /// Notes down that somebody has dealt with what was lost when a leader was forced on a queue; `epoch` as its taint says.
    ///
    /// # Errors
    /// [`RecoverError`].
    pub async fn clear_taint(&self, queue: &str, epoch: Epoch) -> Result<(), RecoverError> {
        let queue = QueueName::new(queue)?;
        match self.ask(Request::ClearTaint { queue, epoch }).await? {
            Response::Done => Ok(()),
            other => Err(unexpected(&other).into()),
        }
    }

    /// Has everything moved away from a broker that goes for good, live or not. Once it is not live, the cluster waits for nothing that
    /// its disk may hold any more. [`Client::drain`] with `None` takes it back.
    ///
    /// # Errors
    /// [`DrainError`].
    pub async fn retire(&self, broker: BrokerId) -> Result<(), DrainError> {
        match self.ask(Request::Retire { broker }).await? {
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

    /// Queues with copies or leaderships that nobody can take, up to `limit` by name of each kind; `suppose`: as it would be if this
    /// were to be moved away from that broker.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn stuck(
        &self,
        suppose: Option<(BrokerId, Drain)>,
        limit: u32,
    ) -> Result<Stuck, QueryError> {
        match self.ask(Request::Stuck { suppose, limit }).await? {
            Response::Stuck(stuck) => Ok(stuck),
            other => Err(unexpected(&other).into()),
        }
    }

    /// How many queues, exchanges and bindings there are in the cluster, and how many the broker that answers allows.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn count_objects(&self) -> Result<Vec<Number>, QueryError> {
        match self.ask(Request::CountObjects).await? {
            Response::Counted(numbers) => Ok(numbers),
            other => Err(unexpected(&other).into()),
        }
    }

    /// What is set for the whole cluster: keys and values as in a configuration file, in order of key.
    ///
    /// # Errors
    /// [`SettingError`].
    pub async fn settings(&self) -> Result<Vec<(String, String)>, SettingError> {
        match self.ask(Request::ListSettings).await? {
            Response::Settings(settings) => Ok(settings),
            other => Err(unexpected(&other).into()),
        }
    }

    /// Changes a setting for the whole cluster; `None`: it is not set for the cluster any more. Done when it is written down: every
    /// broker then takes it in, within moments of hearing of it.
    ///
    /// # Errors
    /// [`SettingError`].
    pub async fn change_setting(
        &self,
        key: impl Into<String>,
        value: Option<&str>,
    ) -> Result<(), SettingError> {
        let value = value.map(str::to_owned);
        match self.ask(Request::ChangeSetting { key: key.into(), value }).await? {
            Response::Done => Ok(()),
            other => Err(unexpected(&other).into()),
        }
    }

    /// The cluster's identity, as the broker that answers says it.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn cluster_id(&self) -> Result<ClusterId, QueryError> {
        Ok(self.find(Request::ListExchanges, At::Anywhere).await?.link.welcome().cluster)
    }

    /// The virtual host that its names lie in.
    #[must_use]
    pub fn virtual_host(&self) -> &VirtualHost {
        &self.cluster.config.virtual_host
    }

    /// How a queue is and why, as the coordinator holds it, or as a broker last heard of it.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn queue_condition(
        &self,
        queue: impl AsRef<str>,
    ) -> Result<QueueCondition, QueryError> {
        let queue = QueueName::new(queue)?;
        match self.ask(Request::QueueCondition { queue }).await? {
            Response::Condition(condition) => Ok(*condition),
            other => Err(unexpected(&other).into()),
        }
    }

    /// What one broker's own copy of a queue holds; `count`: with the messages up to the end of its log; `below`: and, apart, those
    /// below that offset.
    ///
    /// # Errors
    /// [`QueryError`]: also when that broker does not answer within `patience`. No other one is asked.
    pub async fn replica_status(
        &self,
        broker: &BrokerAddress,
        queue: impl AsRef<str>,
        count: bool,
        below: Option<Offset>,
        patience: Duration,
    ) -> Result<ReplicaStatus, QueryError> {
        let queue = QueueName::new(queue)?;
        let request = Request::ReplicaStatus { queue, count, below };
        match self.cluster.ask_there(broker, request, patience).await? {
            Response::Replica(status) => Ok(*status),
            other => Err(unexpected(&other).into()),
        }
    }

    /// What needs a person, as one broker knows it, with at most `limit` queues of each kind by name.
    ///
    /// # Errors
    /// [`QueryError`]: also when that broker does not answer within `patience`. No other one is asked.
    pub async fn attention(
        &self,
        broker: &BrokerAddress,
        limit: u32,
        patience: Duration,
    ) -> Result<Attention, QueryError> {
        match self.cluster.ask_there(broker, Request::Attention { limit }, patience).await? {
            Response::Attention(attention) => Ok(*attention),
            other => Err(unexpected(&other).into()),
        }
    }

    /// The last changes of leaders, the newest first: of one queue, or of all in the virtual host.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn elections(
        &self,
        queue: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ElectionReport>, QueryError> {
        let queue = queue.map(QueueName::new).transpose()?;
        match self.ask(Request::Elections { queue, limit }).await? {
            Response::Elections(elections) => Ok(elections),
            other => Err(unexpected(&other).into()),
        }
    }

    /// Orders one broker's copy of a queue to lead without the in-sync set. Confirmed messages that it lacks are lost: ask
    /// [`Client::queue_condition`] and [`Client::replica_status`] first, and a person.
    ///
    /// # Errors
    /// [`RecoverError`]; its `outcome` says whether it is certainly not done.
    pub async fn recover(
        &self,
        broker: &BrokerAddress,
        order: Recover,
    ) -> Result<QueueSummary, RecoverError> {
        let patience = self.cluster.config.deadline;
        match self.cluster.ask_there(broker, Request::Recover(order), patience).await? {
            Response::Recovered(queue) => Ok(queue),
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

    /// An answer with who gave it.
    pub(crate) async fn find(&self, request: Request, at: At) -> Result<Found, Trouble> {
        self.cluster.ask(request, at).await
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
