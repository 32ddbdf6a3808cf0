//! The client of Bellwether, a highly available message-queue broker.
//!
//! [`Client`] connects to any broker of a cluster and finds the others. [`Producer`] publishes, [`Consumer`] is a
//! stream of [`Delivery`]s. All of them live through failovers: they find the new leader, send again what was not
//! confirmed (and is stored once), and go on.
//!
//! Every operation answers one of three: *done*, *not done*, or *unknown* (the connection or the leadership was lost in
//! the middle). The errors' `outcome()` tells the last two apart.
//!
//! ```no_run
//! use bellwether_client::Client;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(["127.0.0.1:7400", "127.0.0.1:7401", "127.0.0.1:7402"]).await?;
//! client.declare("orders").await?;
//!
//! let producer = client.producer().to_queue("orders").start().await?;
//! producer.send_and_confirm("42 apples").await?;
//!
//! let mut consumer = client.consumer("orders").start().await?;
//! if let Some(delivery) = consumer.next().await.transpose()? {
//!     println!("{:?}", delivery.body());
//!     delivery.ack().await?;
//! }
//! client.close().await?;
//! # Ok(()) }
//! ```
#![warn(missing_docs)]

mod backoff;
mod browse;
mod builder;
mod client;
mod cluster;
mod consumer;
mod error;
mod link;
mod lock;
mod login;
mod message;
mod producer;
mod tls;
mod users;

pub use bellwether_protocol::client::{
    AbsentBroker, Attention, Binding, BrokerStatus, ClusterStatus, CommittedNote, CopyHealth,
    CopyRole, CopyStatus, Drain, ElectionReport, ExchangeKind, LiveBroker, Moved, Number, NumberOf,
    Permissions, PlannedMove, QueueClass, QueueCondition, QueueCounts, QueueOptions, QueueSummary,
    Recover, ReplicaStatus, Resigned, StoppedCopy, Stuck, StuckQueues, TaintCleared, TaintNote,
    Troubled, UserSummary, UserTag, Withheld,
};
pub use bellwether_protocol::error::BrokerAddress;
pub use bellwether_protocol::headers::{HeaderValue, Headers};
pub use bellwether_protocol::ids::{
    BrokerId, BrokerLife, ClusterId, Epoch, Incarnation, Member, Offset, QueueId, StoreId,
};
pub use bellwether_protocol::names::{ExchangeName, QueueName, RoutingKey, UserName, VirtualHost};
pub use bellwether_protocol::scram::{Credentials, InvalidPassword, Password};
pub use browse::{BrowsedMessage, Browser};
pub use builder::ClientBuilder;
pub use client::{Client, Declared, Described};
pub use consumer::{Consumer, ConsumerBuilder, Delivery, Settled};
pub use error::{
    BindError, ConnectError, ConsumeError, DeclareError, DeleteError, DrainError, ErrorCode,
    FlushError, InvalidName, Outcome, ProducerError, PublishError, PurgeError, QueryError,
    RecoverError, SettingError, SettleError, UserError,
};
pub use message::{InvalidMessage, Message};
pub use producer::{Producer, ProducerBuilder, Receipt};
pub use tls::TlsOptions;
