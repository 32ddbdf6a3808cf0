//! The JSON form of a queue's state.

use bellwether_protocol::ids::{BrokerId, Epoch, Member, StoreId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::document;
use crate::paths;
use crate::records::past::PastJson;
use crate::records::{Later, LaterInState, QueueState, UnknownFields};

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
    #[serde(flatten)]
    unknown: UnknownFields,
}

document!(QueueState as StateJson, "queue state");

impl From<&QueueState> for StateJson {
    fn from(record: &QueueState) -> Self {
        let none = LaterInState::default();
        let later = record.past.later.as_deref().unwrap_or(&none);
        let members = |members: &[Member], later: &Later<Member>| {
            let member = |member: &Member| MemberJson {
                broker: member.broker.0,
                store: member.store.0,
                unknown: later.of(member),
            };
            members.iter().map(member).collect()
        };
        Self {
            epoch: record.epoch.0,
            leader: record.leader.map(|life| life.to_string()),
            isr: members(&record.isr, &later.isr),
            min_isr: record.min_isr,
            replicas: record.replicas.iter().map(|broker| broker.0).collect(),
            given_up: members(&record.given_up, &later.given_up),
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
        let members = |members: Vec<MemberJson>, later: &mut Later<Member>| {
            let member = |json: MemberJson| {
                let (broker, store) = (BrokerId(json.broker), StoreId(json.store));
                later.keep(Member { broker, store }, json.unknown);
                Member { broker, store }
            };
            members.into_iter().map(member).collect()
        };
        let mut later = LaterInState::default();
        let isr = members(json.isr, &mut later.isr);
        let given_up = members(json.given_up, &mut later.given_up);
        Ok(Self {
            epoch: Epoch(json.epoch),
            leader: json.leader.map(life).transpose()?,
            isr,
            min_isr: json.min_isr,
            replicas: json.replicas.into_iter().map(BrokerId).collect(),
            given_up,
            past: Box::new(json.past.into_past(later)?),
            unknown: json.unknown,
        })
    }
}
