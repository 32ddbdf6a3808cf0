//! The JSON forms of a tombstone and of the stores that it waits for.

use bellwether_protocol::ids::{BrokerId, QueueId, StoreId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{document, host, queue_name};
use crate::records::{HoldingStore, StoreRecord, TombstoneRecord, UnknownFields};

#[derive(Serialize, Deserialize)]
struct TombstoneJson {
    queue: Uuid,
    virtual_host: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stores: Option<Vec<HoldingStoreJson>>,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct HoldingStoreJson {
    broker: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    store: Option<Uuid>,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct StoreJson {
    broker: u32,
    store: Uuid,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<Uuid>,
    #[serde(flatten)]
    unknown: UnknownFields,
}

document!(TombstoneRecord as TombstoneJson, "tombstone");
document!(StoreRecord as StoreJson, "store record");

impl From<&TombstoneRecord> for TombstoneJson {
    fn from(record: &TombstoneRecord) -> Self {
        let store = |store: &HoldingStore| HoldingStoreJson {
            broker: store.broker.0,
            store: store.store.map(|store| store.0),
            unknown: store.unknown.clone(),
        };
        Self {
            queue: record.queue.0,
            virtual_host: record.virtual_host.to_string(),
            name: record.name.to_string(),
            stores: record.stores.as_ref().map(|stores| stores.iter().map(store).collect()),
            unknown: record.unknown.clone(),
        }
    }
}

impl TryFrom<TombstoneJson> for TombstoneRecord {
    type Error = String;
    fn try_from(json: TombstoneJson) -> Result<Self, String> {
        let store = |json: HoldingStoreJson| HoldingStore {
            broker: BrokerId(json.broker),
            store: json.store.map(StoreId),
            unknown: json.unknown,
        };
        Ok(Self {
            queue: QueueId(json.queue),
            virtual_host: host(&json.virtual_host)?,
            name: queue_name(&json.name)?,
            stores: json.stores.map(|stores| stores.into_iter().map(store).collect()),
            unknown: json.unknown,
        })
    }
}

impl From<&StoreRecord> for StoreJson {
    fn from(record: &StoreRecord) -> Self {
        Self {
            broker: record.broker.0,
            store: record.store.0,
            former: record.former.iter().map(|store| store.0).collect(),
            unknown: record.unknown.clone(),
        }
    }
}

impl TryFrom<StoreJson> for StoreRecord {
    type Error = String;
    fn try_from(json: StoreJson) -> Result<Self, String> {
        Ok(Self {
            broker: BrokerId(json.broker),
            store: StoreId(json.store),
            former: json.former.into_iter().map(StoreId).collect(),
            unknown: json.unknown,
        })
    }
}
