//! The documents kept in the coordinator, as types. Their JSON forms, which keep fields that this version does not know, are types of their own.

mod json;
mod later;
mod past;
#[cfg(test)]
mod released;

pub use json::RecordError;
pub use later::{Later, LaterInState};
pub use past::{
    Cleared, Committed, ELECTIONS_MAX, Election, Past, Resignation, Taint, Trigger, WHY_CHARS_MAX,
    shortened,
};

use std::collections::BTreeMap;

use bellwether_protocol::client::QueueClass;
use bellwether_protocol::client::{Drain, ExchangeKind};
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
    /// Whether it speaks TLS with brokers. Earlier versions do not say.
    pub peer_tls: bool,
    /// Its disk stalls, or did a moment ago: it would decline to lead. Earlier versions do not say.
    pub disk_stalls: bool,
    pub unknown: UnknownFields,
}

impl BrokerRecord {
    /// As clients are told.
    #[must_use]
    pub fn address(&self) -> BrokerAddress {
        BrokerAddress { broker: self.life.broker, address: self.client_address.clone() }
    }
}

/// `/brokers/drained/<id>`: what an operator wants of a broker. No document: nothing out of the ordinary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainRecord {
    pub drain: Drain,
    /// It goes for good: what its disk held is not waited for once it is not live any more.
    pub retired: bool,
    pub unknown: UnknownFields,
}

/// `/controller`: who sees to it that copies and leaderships are where they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerRecord {
    pub life: BrokerLife,
    pub unknown: UnknownFields,
}

/// `/config`: settings that hold for every broker, beneath what a broker is told by its file, its environment or its flags. No
/// document: none. What a key means and whether its value can be worked with is for each broker to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsRecord {
    /// Values as they would stand in a configuration file.
    pub settings: BTreeMap<String, String>,
    pub unknown: UnknownFields,
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
    /// Replicas asked for; the state names fewer while brokers are missing.
    pub replicas_wanted: u8,
    /// Asked for, or a majority of the replicas wanted.
    pub min_isr: u8,
    pub class: QueueClass,
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
    /// The replica set: who is to hold a copy. The first is preferred as leader, the others stand in this order. It stands here
    /// and not in the definition, so that who may join the ISR is decided by the same CAS that lets somebody join.
    pub replicas: Vec<BrokerId>,
    /// Copies outside the replica set that gave their log up in this epoch: what they said before they did may still be under way, and
    /// must not bring them back into the ISR. Those of older epochs are not heard any more.
    pub given_up: Vec<Member>,
    /// How it came to be. Boxed: states are handed on by value, in events and effects.
    pub past: Box<Past>,
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
    /// Fields of a later version inside single bindings.
    pub later: Later<Binding>,
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

/// `/brokers/stores/<id>`: the data folder that the broker had when it last registered. It outlives the broker's session, so that what
/// a broker that is away may still hold is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRecord {
    pub broker: BrokerId,
    pub store: StoreId,
    /// Those that it had before, the latest last, for as long as they may come back: [`FORMER_STORES_MAX`] at most. Whoever deletes a queue
    /// names them, too.
    pub former: Vec<StoreId>,
    pub unknown: UnknownFields,
}

/// Former data folders that are remembered of a broker: more than anybody swaps disks within the minutes that they are waited for. The
/// earliest is forgotten first.
pub const FORMER_STORES_MAX: usize = 16;

/// `/deleted/<hh>/<uuid>`: this queue is gone for good, and local data of it may go. Each store strikes itself off when it durably holds
/// nothing of it any more, and the document goes with the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TombstoneRecord {
    pub queue: QueueId,
    pub virtual_host: VirtualHost,
    pub name: QueueName,
    /// Who may still hold a copy. Versions before had no such list: then nobody is known to hold nothing.
    pub stores: Option<Vec<HoldingStore>>,
    pub unknown: UnknownFields,
}

/// A data folder that may hold a copy of a deleted queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldingStore {
    pub broker: BrokerId,
    /// Whichever the broker has, where it has not registered since stores are written down.
    pub store: Option<StoreId>,
    pub unknown: UnknownFields,
}
