//! The documents kept in the coordinator, as types. Their JSON forms, which keep fields that this version does not know, are types of their own.

mod json;

pub use json::RecordError;

use bellwether_protocol::client::ExchangeKind;
use bellwether_protocol::error::BrokerAddress;
use bellwether_protocol::ids::{BrokerId, BrokerLife, ClusterId, Epoch, Member, QueueId, StoreId};
use bellwether_protocol::names::{ExchangeName, QueueName, RoutingKey, VirtualHost};

/// Fields of a document that this version does not know: they survive its writes.
pub type UnknownFields = serde_json::Map<String, serde_json::Value>;

/// `/cluster`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRecord {
    pub cluster: ClusterId,
    pub format: u32,
    pub unknown: UnknownFields,
}

/// `/brokers/live/<id>.<incarnation>` and `/brokers/ids/<id>`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRecord {
    pub life: BrokerLife,
    pub store: StoreId,
    /// Where clients reach it.
    pub client_address: String,
    /// Where brokers reach it.
    pub peer_address: String,
    /// The host it says it runs on, shown when two brokers claim one id.
    pub host: String,
    pub version: String,
    pub rack: Option<String>,
    pub unknown: UnknownFields,
}

impl BrokerRecord {
    /// As clients are told.
    #[must_use]
    pub fn address(&self) -> BrokerAddress {
        BrokerAddress { broker: self.life.broker, address: self.client_address.clone() }
    }
}

/// `/names/<vhost>/<hh>/<queue>`: which queue has the name now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRecord {
    pub queue: QueueId,
    pub unknown: UnknownFields,
}

/// `/queues/<hh>/<uuid>`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDefinition {
    pub queue: QueueId,
    pub virtual_host: VirtualHost,
    pub name: QueueName,
    /// Replicas asked for; there are fewer in `replica_set` when brokers were missing.
    pub replicas_wanted: u8,
    pub min_isr: u8,
    /// The first is preferred as leader.
    pub replica_set: Vec<BrokerId>,
    pub unknown: UnknownFields,
}

/// `/queues/<hh>/<uuid>/state`: changed by CAS only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueState {
    pub epoch: Epoch,
    pub leader: Option<BrokerLife>,
    /// In order of the replica set.
    pub isr: Vec<Member>,
    pub min_isr: u8,
    pub unknown: UnknownFields,
}

/// `/exchanges/<vhost>/<hh>/<name>`
///
/// Whoever adds a binding to an exchange also writes this document again, unchanged, in the same multi. Its version then moves with
/// every binding, so that a delete that names the version it saw cannot leave a binding behind that came in meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeRecord {
    pub kind: ExchangeKind,
    pub unknown: UnknownFields,
}

/// `/bindings/<hh>/<uuid>`: what one queue is bound by; no document, no bindings. It goes in the multi that deletes the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingsRecord {
    pub bindings: Vec<Binding>,
    pub unknown: UnknownFields,
}

/// One binding of a queue, to an exchange of its virtual host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Binding {
    pub exchange: ExchangeName,
    pub routing_key: RoutingKey,
}

/// Most bytes of one queue's bindings document: what a write may hold, less its other steps. Tens of thousands of
/// bindings with short names, or 850 of the longest.
pub const BINDINGS_BYTES_MAX: usize = 900_000;

/// `/deleted/<hh>/<uuid>`: this queue is gone for good, and local data of it may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TombstoneRecord {
    pub queue: QueueId,
    pub virtual_host: VirtualHost,
    pub name: QueueName,
    pub unknown: UnknownFields,
}
