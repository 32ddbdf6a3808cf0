//! The JSON form of a queue's state.

use bellwether_protocol::ids::{BrokerId, Epoch, Member, StoreId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::document;
use crate::paths;
use crate::records::past::PastJson;
use crate::records::{QueueState, UnknownFields};

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

document!(QueueState as StateJson, "queue state");

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
