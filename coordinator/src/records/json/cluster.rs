//! The JSON forms of what is kept of the cluster itself and of its brokers.

use std::collections::BTreeMap;

use bellwether_protocol::client::Drain;
use bellwether_protocol::ids::{BrokerId, BrokerLife, ClusterId, Incarnation, StoreId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::document;
use crate::paths;
use crate::records::{
    BrokerRecord, ClusterRecord, ControllerRecord, DrainRecord, SettingsRecord, UnknownFields,
};

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
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    disk_stalls: bool,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct DrainJson {
    drain: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    retired: bool,
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

document!(ClusterRecord as ClusterJson, "cluster record");
document!(BrokerRecord as BrokerJson, "broker record");
document!(DrainRecord as DrainJson, "drain record");
document!(ControllerRecord as ControllerJson, "controller record");
document!(SettingsRecord as SettingsJson, "cluster-wide settings");

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
            disk_stalls: record.disk_stalls,
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
            disk_stalls: json.disk_stalls,
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
        Self { drain: drain.to_owned(), retired: record.retired, unknown: record.unknown.clone() }
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
        Ok(Self { drain, retired: json.retired, unknown: json.unknown })
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
