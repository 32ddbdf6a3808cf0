//! The documents kept in the coordinator, as types. Their JSON forms, which keep fields that this version does not know, are types of their own.

use bellwether_protocol::client::ExchangeKind;
use bellwether_protocol::error::BrokerAddress;
use bellwether_protocol::ids::{BrokerId, BrokerLife, ClusterId, Epoch, Member, QueueId, StoreId};
use bellwether_protocol::names::{QueueName, VirtualHost};

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

/// `/exchanges/<vhost>/<name>`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeRecord {
    pub kind: ExchangeKind,
    pub unknown: UnknownFields,
}
