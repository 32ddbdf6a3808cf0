//! The JSON forms of a queue's name and of its definition.

use bellwether_protocol::client::QueueClass;
use bellwether_protocol::ids::QueueId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{document, host, queue_name};
use crate::records::{NameRecord, QueueDefinition, UnknownFields};

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
    /// Not there in those of older versions.
    #[serde(default, skip_serializing_if = "ClassJson::is_standard")]
    class: ClassJson,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ClassJson {
    Bulk,
    #[default]
    Standard,
    Vital,
}

impl ClassJson {
    fn is_standard(&self) -> bool {
        *self == ClassJson::Standard
    }
}

impl From<QueueClass> for ClassJson {
    fn from(class: QueueClass) -> Self {
        match class {
            QueueClass::Bulk => ClassJson::Bulk,
            QueueClass::Standard => ClassJson::Standard,
            QueueClass::Vital => ClassJson::Vital,
        }
    }
}

impl From<ClassJson> for QueueClass {
    fn from(class: ClassJson) -> Self {
        match class {
            ClassJson::Bulk => QueueClass::Bulk,
            ClassJson::Standard => QueueClass::Standard,
            ClassJson::Vital => QueueClass::Vital,
        }
    }
}

document!(NameRecord as NameJson, "queue name record");
document!(QueueDefinition as DefinitionJson, "queue definition");

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
            class: record.class.into(),
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
            class: json.class.into(),
            unknown: json.unknown,
        })
    }
}
