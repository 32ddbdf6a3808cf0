//! The JSON forms of the records: what an operator reads with zkCli. Fields of a later version land in `unknown` and are
//! written back, so that a broker of this version can change a document without losing them. Only the top level of a document is
//! kept so: a later version adds its fields there.

use std::collections::BTreeMap;

use bellwether_protocol::client::{Drain, ExchangeKind};
use bellwether_protocol::ids::{
    BrokerId, BrokerLife, ClusterId, Epoch, Incarnation, Member, QueueId, StoreId,
};
use bellwether_protocol::names::{ExchangeName, QueueName, RoutingKey, VirtualHost};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::past::PastJson;
use super::{
    Binding, BindingsRecord, BrokerRecord, ClusterRecord, ControllerRecord, DrainRecord,
    ExchangeRecord, NameRecord, QueueDefinition, QueueState, SettingsRecord, TombstoneRecord,
    UnknownFields,
};
use crate::paths;

/// A document that this version cannot read. Whoever meets it leaves the document as it is and says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no {what} that this version can read: {reason}")]
pub struct RecordError {
    pub what: &'static str,
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct ClusterJson {
    cluster: Uuid,
    format: u32,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct BrokerJson {
    broker: u32,
    /// Hexadecimal: a 64-bit number would lose digits in other readers of JSON.
    incarnation: String,
    store: Uuid,
    client_address: String,
    peer_address: String,
    host: String,
    version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rack: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    peer_tls: bool,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct DrainJson {
    drain: String,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct ControllerJson {
    controller: String,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct SettingsJson {
    settings: BTreeMap<String, String>,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct NameJson {
    queue: Uuid,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct DefinitionJson {
    queue: Uuid,
    virtual_host: String,
    name: String,
    replicas_wanted: u8,
    min_isr: u8,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct StateJson {
    epoch: u64,
    /// `<id>.<incarnation>` as in the path of a live broker, or null.
    leader: Option<String>,
    isr: Vec<MemberJson>,
    min_isr: u8,
    replicas: Vec<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    given_up: Vec<MemberJson>,
    #[serde(flatten)]
    past: PastJson,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct MemberJson {
    broker: u32,
    store: Uuid,
}

#[derive(Serialize, Deserialize)]
struct ExchangeJson {
    kind: String,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct BindingsJson {
    bindings: Vec<BindingJson>,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct BindingJson {
    exchange: String,
    routing_key: String,
}

#[derive(Serialize, Deserialize)]
struct TombstoneJson {
    queue: Uuid,
    virtual_host: String,
    name: String,
    #[serde(flatten)]
    unknown: UnknownFields,
}

/// Ties a record to its JSON form: `to_bytes` and `parse`.
macro_rules! document {
    ($record:ident as $json:ident, $what:literal) => {
        impl $record {
            /// As it is kept in the coordinator.
            #[must_use]
            pub fn to_bytes(&self) -> Bytes {
                write(&$json::from(self))
            }

            /// Reads what [`Self::to_bytes`], of this or another version, wrote.
            ///
            /// # Errors
            /// [`RecordError`] says what cannot be read; the document is better left alone then.
            pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
                read::<$json, Self>($what, bytes)
            }
        }
    };
}

document!(ClusterRecord as ClusterJson, "cluster record");
document!(BrokerRecord as BrokerJson, "broker record");
document!(DrainRecord as DrainJson, "drain record");
document!(ControllerRecord as ControllerJson, "controller record");
document!(SettingsRecord as SettingsJson, "cluster-wide settings");
document!(NameRecord as NameJson, "queue name record");
document!(QueueDefinition as DefinitionJson, "queue definition");
document!(QueueState as StateJson, "queue state");
document!(ExchangeRecord as ExchangeJson, "exchange record");
document!(BindingsRecord as BindingsJson, "bindings record");
document!(TombstoneRecord as TombstoneJson, "tombstone");

fn write<J: Serialize>(json: &J) -> Bytes {
    // Maps with text keys, numbers and text: none of it is refused by the JSON writer, and memory does not fail to write.
    Bytes::from(serde_json::to_vec(json).expect("a record is always valid JSON"))
}

fn read<J: DeserializeOwned, R: TryFrom<J, Error = String>>(
    what: &'static str,
    bytes: &[u8],
) -> Result<R, RecordError> {
    let json: J = serde_json::from_slice(bytes)
        .map_err(|error| RecordError { what, reason: error.to_string() })?;
    R::try_from(json).map_err(|reason| RecordError { what, reason })
}

impl From<&ClusterRecord> for ClusterJson {
    fn from(record: &ClusterRecord) -> Self {
        Self { cluster: record.cluster.0, format: record.format, unknown: record.unknown.clone() }
    }
}

impl TryFrom<ClusterJson> for ClusterRecord {
    type Error = String;
    fn try_from(json: ClusterJson) -> Result<Self, String> {
        Ok(Self { cluster: ClusterId(json.cluster), format: json.format, unknown: json.unknown })
    }
}

impl From<&BrokerRecord> for BrokerJson {
    fn from(record: &BrokerRecord) -> Self {
        Self {
            broker: record.life.broker.0,
            incarnation: record.life.incarnation.to_string(),
            store: record.store.0,
            client_address: record.client_address.clone(),
            peer_address: record.peer_address.clone(),
            host: record.host.clone(),
            version: record.version.clone(),
            rack: record.rack.clone(),
            peer_tls: record.peer_tls,
            unknown: record.unknown.clone(),
        }
    }
}

impl TryFrom<BrokerJson> for BrokerRecord {
    type Error = String;
    fn try_from(json: BrokerJson) -> Result<Self, String> {
        let incarnation = u64::from_str_radix(&json.incarnation, 16)
            .map_err(|_| format!("incarnation {:?} is no hexadecimal number", json.incarnation))?;
        Ok(Self {
            life: BrokerLife {
                broker: BrokerId(json.broker),
                incarnation: Incarnation(incarnation),
            },
            store: StoreId(json.store),
            client_address: json.client_address,
            peer_address: json.peer_address,
            host: json.host,
            version: json.version,
            rack: json.rack,
            peer_tls: json.peer_tls,
            unknown: json.unknown,
        })
    }
}

impl From<&DrainRecord> for DrainJson {
    fn from(record: &DrainRecord) -> Self {
        let drain = match record.drain {
            Drain::Leaderships => "leaderships",
            Drain::Copies => "copies",
        };
        Self { drain: drain.to_owned(), unknown: record.unknown.clone() }
    }
}

impl TryFrom<DrainJson> for DrainRecord {
    type Error = String;
    fn try_from(json: DrainJson) -> Result<Self, String> {
        let drain = match json.drain.as_str() {
            "leaderships" => Drain::Leaderships,
            "copies" => Drain::Copies,
            other => return Err(format!("drain {other:?} is not known")),
        };
        Ok(Self { drain, unknown: json.unknown })
    }
}

impl From<&SettingsRecord> for SettingsJson {
    fn from(record: &SettingsRecord) -> Self {
        Self { settings: record.settings.clone(), unknown: record.unknown.clone() }
    }
}

impl TryFrom<SettingsJson> for SettingsRecord {
    type Error = String;
    fn try_from(json: SettingsJson) -> Result<Self, String> {
        Ok(Self { settings: json.settings, unknown: json.unknown })
    }
}

impl From<&ControllerRecord> for ControllerJson {
    fn from(record: &ControllerRecord) -> Self {
        Self { controller: record.life.to_string(), unknown: record.unknown.clone() }
    }
}

impl TryFrom<ControllerJson> for ControllerRecord {
    type Error = String;
    fn try_from(json: ControllerJson) -> Result<Self, String> {
        let life = paths::parse_life(&json.controller)
            .ok_or_else(|| format!("controller {:?} is no life of a broker", json.controller))?;
        Ok(Self { life, unknown: json.unknown })
    }
}

impl From<&NameRecord> for NameJson {
    fn from(record: &NameRecord) -> Self {
        Self { queue: record.queue.0, unknown: record.unknown.clone() }
    }
}

impl TryFrom<NameJson> for NameRecord {
    type Error = String;
    fn try_from(json: NameJson) -> Result<Self, String> {
        Ok(Self { queue: QueueId(json.queue), unknown: json.unknown })
    }
}

impl From<&QueueDefinition> for DefinitionJson {
    fn from(record: &QueueDefinition) -> Self {
        Self {
            queue: record.queue.0,
            virtual_host: record.virtual_host.to_string(),
            name: record.name.to_string(),
            replicas_wanted: record.replicas_wanted,
            min_isr: record.min_isr,
            unknown: record.unknown.clone(),
        }
    }
}

impl TryFrom<DefinitionJson> for QueueDefinition {
    type Error = String;
    fn try_from(json: DefinitionJson) -> Result<Self, String> {
        Ok(Self {
            queue: QueueId(json.queue),
            virtual_host: host(&json.virtual_host)?,
            name: queue_name(&json.name)?,
            replicas_wanted: json.replicas_wanted,
            min_isr: json.min_isr,
            unknown: json.unknown,
        })
    }
}

impl From<&QueueState> for StateJson {
    fn from(record: &QueueState) -> Self {
        let member =
            |member: &Member| MemberJson { broker: member.broker.0, store: member.store.0 };
        Self {
            epoch: record.epoch.0,
            leader: record.leader.map(|life| life.to_string()),
            isr: record.isr.iter().map(member).collect(),
            min_isr: record.min_isr,
            replicas: record.replicas.iter().map(|broker| broker.0).collect(),
            given_up: record.given_up.iter().map(member).collect(),
            past: PastJson::from(&*record.past),
            unknown: record.unknown.clone(),
        }
    }
}

impl TryFrom<StateJson> for QueueState {
    type Error = String;
    fn try_from(json: StateJson) -> Result<Self, String> {
        let life = |text: String| {
            paths::parse_life(&text)
                .ok_or_else(|| format!("leader {text:?} is no life of a broker"))
        };
        let member = |member: MemberJson| Member {
            broker: BrokerId(member.broker),
            store: StoreId(member.store),
        };
        Ok(Self {
            epoch: Epoch(json.epoch),
            leader: json.leader.map(life).transpose()?,
            isr: json.isr.into_iter().map(member).collect(),
            min_isr: json.min_isr,
            replicas: json.replicas.into_iter().map(BrokerId).collect(),
            given_up: json.given_up.into_iter().map(member).collect(),
            past: Box::new(json.past.try_into()?),
            unknown: json.unknown,
        })
    }
}

impl From<&ExchangeRecord> for ExchangeJson {
    fn from(record: &ExchangeRecord) -> Self {
        let kind = match record.kind {
            ExchangeKind::Direct => "direct",
            ExchangeKind::Fanout => "fanout",
        };
        Self { kind: kind.to_owned(), unknown: record.unknown.clone() }
    }
}

impl TryFrom<ExchangeJson> for ExchangeRecord {
    type Error = String;
    fn try_from(json: ExchangeJson) -> Result<Self, String> {
        let kind = match json.kind.as_str() {
            "direct" => ExchangeKind::Direct,
            "fanout" => ExchangeKind::Fanout,
            other => return Err(format!("exchange kind {other:?} is not known")),
        };
        Ok(Self { kind, unknown: json.unknown })
    }
}

impl From<&BindingsRecord> for BindingsJson {
    fn from(record: &BindingsRecord) -> Self {
        let binding = |binding: &Binding| BindingJson {
            exchange: binding.exchange.to_string(),
            routing_key: binding.routing_key.to_string(),
        };
        Self {
            bindings: record.bindings.iter().map(binding).collect(),
            unknown: record.unknown.clone(),
        }
    }
}

impl TryFrom<BindingsJson> for BindingsRecord {
    type Error = String;
    fn try_from(json: BindingsJson) -> Result<Self, String> {
        let binding = |binding: BindingJson| {
            Ok(Binding {
                exchange: ExchangeName::new(binding.exchange).map_err(|error| error.to_string())?,
                routing_key: RoutingKey::new(binding.routing_key)
                    .map_err(|error| error.to_string())?,
            })
        };
        let bindings = json.bindings.into_iter().map(binding).collect::<Result<_, String>>()?;
        Ok(Self { bindings, unknown: json.unknown })
    }
}

impl From<&TombstoneRecord> for TombstoneJson {
    fn from(record: &TombstoneRecord) -> Self {
        Self {
            queue: record.queue.0,
            virtual_host: record.virtual_host.to_string(),
            name: record.name.to_string(),
            unknown: record.unknown.clone(),
        }
    }
}

impl TryFrom<TombstoneJson> for TombstoneRecord {
    type Error = String;
    fn try_from(json: TombstoneJson) -> Result<Self, String> {
        Ok(Self {
            queue: QueueId(json.queue),
            virtual_host: host(&json.virtual_host)?,
            name: queue_name(&json.name)?,
            unknown: json.unknown,
        })
    }
}

fn host(name: &str) -> Result<VirtualHost, String> {
    VirtualHost::new(name).map_err(|error| error.to_string())
}

fn queue_name(name: &str) -> Result<QueueName, String> {
    QueueName::new(name).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Committed, Election, Past, Resignation, Taint, Trigger};
    use bellwether_protocol::ids::Offset;

    fn uuid(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn state() -> QueueState {
        QueueState {
            epoch: Epoch(3),
            leader: Some(BrokerLife { broker: BrokerId(1), incarnation: Incarnation(0xabc) }),
            isr: vec![Member { broker: BrokerId(1), store: StoreId(uuid(1)) }],
            min_isr: 2,
            replicas: vec![BrokerId(1), BrokerId(2)],
            given_up: Vec::new(),
            past: Box::default(),
            unknown: UnknownFields::new(),
        }
    }

    fn past() -> Past {
        let life = BrokerLife { broker: BrokerId(2), incarnation: Incarnation(9) };
        let election = |trigger| Election {
            epoch: Epoch(3),
            at_ms: 1_700_000_000_000,
            from: Some(life),
            to: life,
            trigger,
            why: Some("its disk failed".to_owned()),
            took_ms: 34,
        };
        Past {
            elections: vec![
                Election { from: None, why: None, ..election(Trigger::Declared) },
                election(Trigger::Resigned),
                election(Trigger::Other("by lot".to_owned())),
            ],
            resignation: Some(Resignation { by: life, why: "its disk failed".to_owned() }),
            committed: Some(Committed { end: Offset(9), enqueued: 7, settled: 2, at_ms: 5 }),
            taint: Some(Taint {
                epoch: Epoch(3),
                by: life,
                at_ms: 6,
                end: Offset(4),
                lost: 5,
                more: true,
            }),
        }
    }

    #[test]
    fn a_state_remembers_the_last_elections_and_no_more() {
        let mut kept = Past::default();
        for epoch in 1..=20 {
            let election = past().elections.remove(1);
            kept = kept.with(Election { epoch: Epoch(epoch), ..election });
        }
        let epochs: Vec<u64> = kept.elections.iter().map(|election| election.epoch.0).collect();
        assert_eq!(epochs, (13..=20).collect::<Vec<_>>());
    }

    #[test]
    fn an_operator_reads_the_state_of_a_queue_without_a_manual() {
        let text = String::from_utf8(state().to_bytes().to_vec()).unwrap();
        assert_eq!(
            text,
            r#"{"epoch":3,"leader":"1.0000000000000abc","isr":[{"broker":1,"store":"00000000-0000-0000-0000-000000000001"}],"min_isr":2,"replicas":[1,2]}"#
        );
        let resigned = QueueState { leader: None, ..state() }.to_bytes();
        assert!(std::str::from_utf8(&resigned).unwrap().contains(r#""leader":null"#));
    }

    #[test]
    fn fields_of_a_later_version_survive_a_change_by_this_one() {
        let later =
            br#"{"epoch":3,"leader":null,"isr":[],"min_isr":1,"replicas":[],"tier":{"cold":true},"note":"x"}"#;
        let mut state = QueueState::parse(later).unwrap();
        state.epoch = state.epoch.next();
        let again: serde_json::Value = serde_json::from_slice(&state.to_bytes()).unwrap();
        assert_eq!(again["epoch"], 4);
        assert_eq!(again["tier"]["cold"], true);
        assert_eq!(again["note"], "x");
    }

    #[test]
    fn every_record_comes_back_as_it_was() {
        let unknown: UnknownFields = [("later".to_owned(), 7.into())].into_iter().collect();
        let cluster =
            ClusterRecord { cluster: ClusterId(uuid(5)), format: 1, unknown: unknown.clone() };
        assert_eq!(ClusterRecord::parse(&cluster.to_bytes()), Ok(cluster));
        let broker = BrokerRecord {
            life: BrokerLife { broker: BrokerId(2), incarnation: Incarnation(u64::MAX) },
            store: StoreId(uuid(6)),
            client_address: "h:1".into(),
            peer_address: "h:2".into(),
            host: "h".into(),
            version: "0.1.0".into(),
            rack: Some("a".into()),
            peer_tls: true,
            unknown: unknown.clone(),
        };
        assert_eq!(BrokerRecord::parse(&broker.to_bytes()), Ok(broker.clone()));
        let racked_nowhere = BrokerRecord { rack: None, peer_tls: false, ..broker };
        assert_eq!(BrokerRecord::parse(&racked_nowhere.to_bytes()), Ok(racked_nowhere));
        for drain in [Drain::Leaderships, Drain::Copies] {
            let record = DrainRecord { drain, unknown: unknown.clone() };
            assert_eq!(DrainRecord::parse(&record.to_bytes()), Ok(record));
        }
        let settings = SettingsRecord {
            settings: [("heartbeat".to_owned(), "20s".to_owned())].into_iter().collect(),
            unknown: unknown.clone(),
        };
        assert_eq!(SettingsRecord::parse(&settings.to_bytes()), Ok(settings));
        let controller = ControllerRecord {
            life: BrokerLife { broker: BrokerId(2), incarnation: Incarnation(7) },
            unknown: unknown.clone(),
        };
        assert_eq!(ControllerRecord::parse(&controller.to_bytes()), Ok(controller));
        let name = NameRecord { queue: QueueId(uuid(7)), unknown: unknown.clone() };
        assert_eq!(NameRecord::parse(&name.to_bytes()), Ok(name));
        let definition = QueueDefinition {
            queue: QueueId(uuid(7)),
            virtual_host: VirtualHost::default(),
            name: QueueName::new("\"quoted\" / ü").unwrap(),
            replicas_wanted: 3,
            min_isr: 2,
            unknown: unknown.clone(),
        };
        assert_eq!(QueueDefinition::parse(&definition.to_bytes()), Ok(definition.clone()));
        assert_eq!(QueueState::parse(&state().to_bytes()), Ok(state()));
        let gave_up = QueueState {
            given_up: vec![Member { broker: BrokerId(3), store: StoreId(uuid(3)) }],
            ..state()
        };
        assert_eq!(QueueState::parse(&gave_up.to_bytes()), Ok(gave_up));
        let remembers = QueueState { past: Box::new(past()), ..state() };
        assert_eq!(QueueState::parse(&remembers.to_bytes()), Ok(remembers));
        for kind in [ExchangeKind::Direct, ExchangeKind::Fanout] {
            let exchange = ExchangeRecord { kind, unknown: unknown.clone() };
            assert_eq!(ExchangeRecord::parse(&exchange.to_bytes()), Ok(exchange));
        }
        let binding = Binding {
            exchange: ExchangeName::new("e").unwrap(),
            routing_key: RoutingKey::new("").unwrap(),
        };
        let bindings = BindingsRecord { bindings: vec![binding], unknown: unknown.clone() };
        assert_eq!(BindingsRecord::parse(&bindings.to_bytes()), Ok(bindings));
        let QueueDefinition { queue, virtual_host, name, .. } = definition;
        let tombstone = TombstoneRecord { queue, virtual_host, name, unknown };
        assert_eq!(TombstoneRecord::parse(&tombstone.to_bytes()), Ok(tombstone));
    }

    #[test]
    fn what_cannot_be_read_is_named_with_the_reason() {
        let reason = |bytes: &[u8]| QueueState::parse(bytes).unwrap_err().to_string();
        assert!(reason(b"").starts_with("this is no queue state that this version can read: EOF"));
        assert!(
            reason(br#"{"epoch":1,"isr":[],"min_isr":1,"replicas":[],"leader":"one"}"#)
                .contains("leader \"one\" is no life")
        );
        assert!(
            reason(br#"{"leader":null,"isr":[],"min_isr":1,"replicas":[]}"#)
                .contains("missing field `epoch`")
        );
        let exchange = ExchangeRecord::parse(br#"{"kind":"topic"}"#).unwrap_err();
        assert_eq!(exchange.reason, "exchange kind \"topic\" is not known");
        let name =
            br#"{"queue":"00000000-0000-0000-0000-000000000001","virtual_host":"","name":"q"}"#;
        assert!(
            TombstoneRecord::parse(name)
                .unwrap_err()
                .reason
                .contains("virtual host name may not be empty")
        );
    }
}
