//! The JSON form of a tombstone.

use bellwether_protocol::ids::QueueId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{document, host, queue_name};
use crate::records::{TombstoneRecord, UnknownFields};

#[derive(Serialize, Deserialize)]
struct TombstoneJson {
    queue: Uuid,
    virtual_host: String,
    name: String,
    #[serde(flatten)]
    unknown: UnknownFields,
}

document!(TombstoneRecord as TombstoneJson, "tombstone");

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
