//! Where the copies of a new queue go, and what is said when there are too few brokers for them.

use std::sync::Arc;

use bellwether_coordinator::placement::place;
use bellwether_coordinator::records::{
    BrokerRecord, Election, Past, QueueDefinition, QueueState, Trigger, UnknownFields,
};
use bellwether_protocol::client::QueueOptions;
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::{BrokerId, Epoch, Member, QueueId};
use bellwether_protocol::names::{QueueName, VirtualHost};

use super::Catalog;
use super::queues::now_ms;
use super::tree::Room;

/// A queue about to be made.
pub(super) struct Plan {
    pub definition: QueueDefinition,
    pub state: QueueState,
    pub warning: Option<String>,
}

impl Catalog {
    /// Where the copies go, and how many there can be.
    pub(super) fn plan(
        &self,
        id: QueueId,
        host: &VirtualHost,
        name: &QueueName,
        options: QueueOptions,
    ) -> Result<Plan, ErrorBody> {
        let tree = self.shared.tree();
        let room = tree.room();
        let chosen = place(id, &room.brokers, options.replicas);
        let records: Vec<&Arc<BrokerRecord>> =
            chosen.iter().filter_map(|broker| tree.broker_by_id(*broker)).collect();
        let found = u8::try_from(records.len()).expect("at most REPLICAS_MAX were asked for");
        let min_isr = min_isr(options);
        let warning = fewer_brokers(options, found, &room)?;
        let Some(first) = records.first() else {
            return Err(ErrorBody::not_done(ErrorCode::TooFewBrokers, none_at_all(&room)));
        };
        let definition = QueueDefinition {
            queue: id,
            virtual_host: host.clone(),
            name: name.clone(),
            replicas_wanted: options.replicas,
            min_isr,
            class: options.class,
            unknown: UnknownFields::new(),
        };
        let state = QueueState {
            epoch: Epoch(1),
            leader: Some(first.life),
            isr: records
                .iter()
                .map(|record| Member { broker: record.life.broker, store: record.store })
                .collect(),
            // Of fewer copies than wanted a majority of the wanted ones would be too many to do without.
            min_isr: options.min_isr.unwrap_or(majority(found)),
            replicas: chosen,
            given_up: Vec::new(),
            past: Box::new(Past::default().with(Election {
                epoch: Epoch(1),
                at_ms: now_ms(),
                from: None,
                to: first.life,
                trigger: Trigger::Declared,
                why: None,
                took_ms: 0,
            })),
            unknown: UnknownFields::new(),
        };
        Ok(Plan { definition, state, warning })
    }
}

/// As asked for, or a majority of the replicas.
pub(super) fn min_isr(options: QueueOptions) -> u8 {
    options.min_isr.unwrap_or(majority(options.replicas))
}

fn majority(replicas: u8) -> u8 {
    replicas / 2 + 1
}

/// What to say when there are fewer brokers than replicas wanted.
fn fewer_brokers(
    options: QueueOptions,
    found: u8,
    room: &Room,
) -> Result<Option<String>, ErrorBody> {
    // Of none at all nothing can be made, and there are words of their own for it.
    if found >= options.replicas || found == 0 {
        return Ok(None);
    }
    let too_few = |words: String| Err(ErrorBody::not_done(ErrorCode::TooFewBrokers, words));
    let (wanted, have, more) = (options.replicas, standing(room), remedy(room));
    if options.strict {
        return too_few(format!(
            "{wanted} replicas were asked for, and {have}: {more}, ask for fewer replicas, or declare it without strict"
        ));
    }
    match options.min_isr {
        Some(min_isr) if min_isr > found => too_few(format!(
            "min_isr {min_isr} was asked for, and {have}: the queue could confirm nothing; {more}, or ask for less"
        )),
        _ => Ok(Some(format!(
            "{wanted} replicas were asked for, and {have}: the queue is kept on {found}"
        ))),
    }
}

/// There is nobody to give a copy to.
fn none_at_all(room: &Room) -> String {
    if room.emptied.is_empty() {
        return "no live broker is known yet; try again shortly".to_owned();
    }
    format!("nobody can hold a copy: {}; {}", standing(room), remedy(room))
}

/// How many brokers are live, and which of them are to hold nothing.
fn standing(room: &Room) -> String {
    let live = match room.brokers.len() + room.emptied.len() {
        1 => "1 broker is live".to_owned(),
        live => format!("{live} brokers are live"),
    };
    match room.emptied.as_slice() {
        [] => live,
        [one] => format!("{live}, of which broker {one} is being drained of its copies"),
        many => {
            format!("{live}, of which brokers {} are being drained of their copies", names(many))
        }
    }
}

/// How there come to be more.
fn remedy(room: &Room) -> String {
    match room.emptied.first() {
        None => "start more brokers".to_owned(),
        Some(first) => {
            format!("start more brokers, or end a drain (bellwether cluster drain {first} --undo)")
        }
    }
}

fn names(brokers: &[BrokerId]) -> String {
    brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
