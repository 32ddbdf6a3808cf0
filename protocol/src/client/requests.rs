//! How requests and their answers look: an array of a number and the fields.

use bytes::BytesMut;

use super::wire::{check_ranges, unknown};
use super::{
    AbsentBroker, Binding, BrokerStatus, Claim, ClusterStatus, ConsumerAttached, Drain,
    ExchangeKind, Moved, PlannedMove, QueueClass, QueueCounts, QueueOptions, QueueSummary, Request,
    Response, Stuck, StuckQueues,
};
use crate::frame::FrameError;
use crate::wire::{Items, Reader, Wire, put_struct_variant, put_variant, wire_enum, wire_struct};

wire_struct!(QueueOptions { replicas, min_isr, strict; class });
wire_struct!(QueueSummary { name, id, replicas, in_sync, min_isr, leader, epoch; class, tainted });
wire_struct!(QueueCounts {
    enqueued,
    ready,
    delivered,
    settled,
    purged,
    consumers,
    bytes,
    high_watermark,
    log_end,
});
wire_struct!(Binding { exchange, queue, routing_key });
wire_struct!(ClusterStatus {
    cluster,
    brokers,
    coordinator_connected,
    session_timeout_ms,
    queues,
    queues_without_leader,
    queues_under_replicated,
    absent,
    controller;
    tombstones,
});
wire_struct!(BrokerStatus { address, incarnation, version, leads, copies, drain });
wire_struct!(AbsentBroker { broker, copies, drain });
wire_struct!(Claim { queue, epoch, ranges });
wire_struct!(PlannedMove { virtual_host, queue, what, from, to });
wire_struct!(Stuck { takers, queues });
wire_struct!(StuckQueues { what, missing, copies, queues });
wire_struct!(ConsumerAttached { epoch, queue, held, settled });

mod request_kind {
    pub(super) const DECLARE_EXCHANGE: u8 = 1;
    pub(super) const DELETE_EXCHANGE: u8 = 2;
    pub(super) const LIST_EXCHANGES: u8 = 3;
    pub(super) const DECLARE_QUEUE: u8 = 4;
    pub(super) const DELETE_QUEUE: u8 = 5;
    pub(super) const PURGE_QUEUE: u8 = 6;
    pub(super) const LIST_QUEUES: u8 = 7;
    pub(super) const DESCRIBE_QUEUE: u8 = 8;
    pub(super) const BIND: u8 = 9;
    pub(super) const UNBIND: u8 = 10;
    pub(super) const LIST_BINDINGS: u8 = 11;
    pub(super) const CLUSTER_STATUS: u8 = 12;
    pub(super) const ATTACH_PRODUCER: u8 = 13;
    pub(super) const DETACH_PRODUCER: u8 = 14;
    pub(super) const ATTACH_CONSUMER: u8 = 15;
    pub(super) const DETACH_CONSUMER: u8 = 16;
    pub(super) const DRAIN: u8 = 17;
    pub(super) const QUEUE_CONDITION: u8 = 18;
    pub(super) const REPLICA_STATUS: u8 = 19;
    pub(super) const ELECTIONS: u8 = 20;
    pub(super) const RECOVER: u8 = 21;
    pub(super) const ATTENTION: u8 = 22;
    pub(super) const ADD_USER: u8 = 23;
    pub(super) const SET_PASSWORD: u8 = 24;
    pub(super) const DELETE_USER: u8 = 25;
    pub(super) const LIST_USERS: u8 = 26;
    pub(super) const SET_PERMISSIONS: u8 = 27;
    pub(super) const SET_TAGS: u8 = 28;
    pub(super) const LIST_CREDENTIALS: u8 = 29;
    pub(super) const BROWSE: u8 = 50;
    pub(super) const COUNT_OBJECTS: u8 = 52;
    pub(super) const PLAN: u8 = 37;
    pub(super) const STUCK: u8 = 56;
    pub(super) const CLEAR_TAINT: u8 = 44;
    pub(super) const RETIRE: u8 = 45;
    pub(super) const LIST_SETTINGS: u8 = 30;
    pub(super) const CHANGE_SETTING: u8 = 31;
    pub(super) const LIST_DEFINITIONS: u8 = 32;
}

impl Wire for Request {
    fn put(&self, out: &mut BytesMut) {
        use request_kind as kind;
        match self {
            Request::DeclareExchange { exchange, kind } => {
                put_variant(out, kind::DECLARE_EXCHANGE, &[exchange, kind]);
            }
            Request::DeleteExchange { exchange, if_unused } => {
                put_variant(out, kind::DELETE_EXCHANGE, &[exchange, if_unused]);
            }
            Request::ListExchanges => put_variant(out, kind::LIST_EXCHANGES, &[]),
            Request::DeclareQueue { queue, options } => {
                put_variant(out, kind::DECLARE_QUEUE, &[queue, options]);
            }
            Request::DeleteQueue { queue, if_unused, if_empty } => {
                put_variant(out, kind::DELETE_QUEUE, &[queue, if_unused, if_empty]);
            }
            Request::PurgeQueue { queue } => put_variant(out, kind::PURGE_QUEUE, &[queue]),
            Request::ListQueues { after, limit } => {
                put_variant(out, kind::LIST_QUEUES, &[after, limit]);
            }
            Request::DescribeQueue { queue } => put_variant(out, kind::DESCRIBE_QUEUE, &[queue]),
            Request::Bind { exchange, queue, routing_key } => {
                put_variant(out, kind::BIND, &[exchange, queue, routing_key]);
            }
            Request::Unbind { exchange, queue, routing_key } => {
                put_variant(out, kind::UNBIND, &[exchange, queue, routing_key]);
            }
            Request::ListBindings { queue } => put_variant(out, kind::LIST_BINDINGS, &[queue]),
            Request::ClusterStatus => put_variant(out, kind::CLUSTER_STATUS, &[]),
            Request::AddUser { user, credentials, tags } => {
                put_variant(out, kind::ADD_USER, &[user, credentials, tags]);
            }
            Request::SetPassword { user, credentials } => {
                put_variant(out, kind::SET_PASSWORD, &[user, credentials]);
            }
            Request::SetTags { user, tags, force } => {
                let fields: [&dyn Wire; 3] = [user, tags, force];
                put_variant(out, kind::SET_TAGS, &fields[..if *force { 3 } else { 2 }]);
            }
            Request::ListCredentials => put_variant(out, kind::LIST_CREDENTIALS, &[]),
            Request::CountObjects => put_variant(out, kind::COUNT_OBJECTS, &[]),
            Request::Browse(browse) => put_struct_variant(out, kind::BROWSE, browse),
            Request::DeleteUser { user, force } => {
                let fields: [&dyn Wire; 2] = [user, force];
                put_variant(out, kind::DELETE_USER, &fields[..if *force { 2 } else { 1 }]);
            }
            Request::ListUsers => put_variant(out, kind::LIST_USERS, &[]),
            Request::SetPermissions { user, virtual_host, permissions } => {
                put_variant(out, kind::SET_PERMISSIONS, &[user, virtual_host, permissions]);
            }
            Request::AttachProducer { producer, name, next } => {
                put_variant(out, kind::ATTACH_PRODUCER, &[producer, name, next]);
            }
            Request::DetachProducer { producer } => {
                put_variant(out, kind::DETACH_PRODUCER, &[producer]);
            }
            Request::AttachConsumer { consumer, queue, prefetch, prefetch_bytes, claim } => {
                let fields: [&dyn Wire; 5] = [consumer, queue, prefetch, prefetch_bytes, claim];
                put_variant(out, kind::ATTACH_CONSUMER, &fields);
            }
            Request::QueueCondition { queue } => put_variant(out, kind::QUEUE_CONDITION, &[queue]),
            Request::ReplicaStatus { queue, count, below } => {
                let fields: [&dyn Wire; 3] = [queue, count, below];
                let known = if below.is_some() { 3 } else { 2 };
                put_variant(out, kind::REPLICA_STATUS, &fields[..known]);
            }
            Request::Elections { queue, limit } => {
                put_variant(out, kind::ELECTIONS, &[queue, limit]);
            }
            Request::Recover(recover) => put_struct_variant(out, kind::RECOVER, recover),
            Request::Attention { limit } => put_variant(out, kind::ATTENTION, &[limit]),
            Request::ClearTaint { queue, epoch } => {
                put_variant(out, kind::CLEAR_TAINT, &[queue, epoch]);
            }
            Request::Drain { broker, drain } => put_variant(out, kind::DRAIN, &[broker, drain]),
            Request::Retire { broker } => put_variant(out, kind::RETIRE, &[broker]),
            Request::Plan => put_variant(out, kind::PLAN, &[]),
            Request::Stuck { suppose, limit } => {
                put_variant(out, kind::STUCK, &[suppose, limit]);
            }
            Request::ListSettings => put_variant(out, kind::LIST_SETTINGS, &[]),
            Request::ListDefinitions { after, limit } => {
                put_variant(out, kind::LIST_DEFINITIONS, &[after, limit]);
            }
            Request::ChangeSetting { key, value } => {
                put_variant(out, kind::CHANGE_SETTING, &[key, value]);
            }
            Request::DetachConsumer { consumer } => {
                put_variant(out, kind::DETACH_CONSUMER, &[consumer]);
            }
        }
    }

    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        let mut items = Items::begin(reader)?;
        let request = match items.next("request kind")? {
            kind @ 1..=8 => take_named(&mut items, kind)?,
            kind @ 18..=22 => take_operators(&mut items, kind)?,
            kind @ 23..=29 => take_about_users(&mut items, kind)?,
            kind => take_other(&mut items, kind)?,
        };
        items.end()?;
        Ok(request)
    }
}

/// Requests about one exchange or one queue.
fn take_named(items: &mut Items<'_>, kind: u8) -> Result<Request, FrameError> {
    use request_kind as kind;
    Ok(match kind {
        kind::DECLARE_EXCHANGE => Request::DeclareExchange {
            exchange: items.next("DeclareExchange.exchange")?,
            kind: items.next("DeclareExchange.kind")?,
        },
        kind::DELETE_EXCHANGE => Request::DeleteExchange {
            exchange: items.next("DeleteExchange.exchange")?,
            if_unused: items.next("DeleteExchange.if_unused")?,
        },
        kind::LIST_EXCHANGES => Request::ListExchanges,
        kind::DECLARE_QUEUE => Request::DeclareQueue {
            queue: items.next("DeclareQueue.queue")?,
            options: items.next("DeclareQueue.options")?,
        },
        kind::DELETE_QUEUE => Request::DeleteQueue {
            queue: items.next("DeleteQueue.queue")?,
            if_unused: items.next("DeleteQueue.if_unused")?,
            if_empty: items.next("DeleteQueue.if_empty")?,
        },
        kind::PURGE_QUEUE => Request::PurgeQueue { queue: items.next("PurgeQueue.queue")? },
        kind::LIST_QUEUES => Request::ListQueues {
            after: items.next("ListQueues.after")?,
            limit: items.next("ListQueues.limit")?,
        },
        kind::DESCRIBE_QUEUE => {
            Request::DescribeQueue { queue: items.next("DescribeQueue.queue")? }
        }
        kind => return Err(unknown("request", kind)),
    })
}

/// Requests about users.
fn take_about_users(items: &mut Items<'_>, kind: u8) -> Result<Request, FrameError> {
    use request_kind as kind;
    Ok(match kind {
        kind::ADD_USER => Request::AddUser {
            user: items.next("AddUser.user")?,
            credentials: items.next("AddUser.credentials")?,
            tags: items.next("AddUser.tags")?,
        },
        kind::SET_PASSWORD => Request::SetPassword {
            user: items.next("SetPassword.user")?,
            credentials: items.next("SetPassword.credentials")?,
        },
        kind::SET_TAGS => Request::SetTags {
            user: items.next("SetTags.user")?,
            tags: items.next("SetTags.tags")?,
            force: items.next_or_default("SetTags.force")?,
        },
        kind::LIST_CREDENTIALS => Request::ListCredentials,
        kind::DELETE_USER => Request::DeleteUser {
            user: items.next("DeleteUser.user")?,
            force: items.next_or_default("DeleteUser.force")?,
        },
        kind::LIST_USERS => Request::ListUsers,
        kind::SET_PERMISSIONS => Request::SetPermissions {
            user: items.next("SetPermissions.user")?,
            virtual_host: items.next("SetPermissions.virtual_host")?,
            permissions: items.next("SetPermissions.permissions")?,
        },
        kind => return Err(unknown("request", kind)),
    })
}

/// Bindings, the cluster, producers and consumers.
fn take_other(items: &mut Items<'_>, kind: u8) -> Result<Request, FrameError> {
    use request_kind as kind;
    Ok(match kind {
        kind::BIND => Request::Bind {
            exchange: items.next("Bind.exchange")?,
            queue: items.next("Bind.queue")?,
            routing_key: items.next("Bind.routing_key")?,
        },
        kind::UNBIND => Request::Unbind {
            exchange: items.next("Unbind.exchange")?,
            queue: items.next("Unbind.queue")?,
            routing_key: items.next("Unbind.routing_key")?,
        },
        kind::LIST_BINDINGS => Request::ListBindings { queue: items.next("ListBindings.queue")? },
        kind::CLUSTER_STATUS => Request::ClusterStatus,
        kind::ATTACH_PRODUCER => Request::AttachProducer {
            producer: items.next("AttachProducer.producer")?,
            name: items.next("AttachProducer.name")?,
            next: items.next("AttachProducer.next")?,
        },
        kind::DETACH_PRODUCER => {
            Request::DetachProducer { producer: items.next("DetachProducer.producer")? }
        }
        kind::ATTACH_CONSUMER => Request::AttachConsumer {
            consumer: items.next("AttachConsumer.consumer")?,
            queue: items.next("AttachConsumer.queue")?,
            prefetch: items.next("AttachConsumer.prefetch")?,
            prefetch_bytes: items.next("AttachConsumer.prefetch_bytes")?,
            claim: check_claim(items.next_or_default("AttachConsumer.claim")?)?,
        },
        kind::DRAIN => Request::Drain {
            broker: items.next("Drain.broker")?,
            drain: items.next("Drain.drain")?,
        },
        kind::PLAN => Request::Plan,
        kind::STUCK => Request::Stuck {
            suppose: items.next("Stuck.suppose")?,
            limit: items.next("Stuck.limit")?,
        },
        kind::RETIRE => Request::Retire { broker: items.next("Retire.broker")? },
        kind::CLEAR_TAINT => Request::ClearTaint {
            queue: items.next("ClearTaint.queue")?,
            epoch: items.next("ClearTaint.epoch")?,
        },
        kind::COUNT_OBJECTS => Request::CountObjects,
        kind::BROWSE => Request::Browse(items.fields()?),
        kind::LIST_SETTINGS => Request::ListSettings,
        kind::LIST_DEFINITIONS => Request::ListDefinitions {
            after: items.next("ListDefinitions.after")?,
            limit: items.next("ListDefinitions.limit")?,
        },
        kind::CHANGE_SETTING => Request::ChangeSetting {
            key: items.next("ChangeSetting.key")?,
            value: items.next("ChangeSetting.value")?,
        },
        kind::DETACH_CONSUMER => {
            Request::DetachConsumer { consumer: items.next("DetachConsumer.consumer")? }
        }
        kind => return Err(unknown("request", kind)),
    })
}

fn check_claim(claim: Option<Claim>) -> Result<Option<Claim>, FrameError> {
    if let Some(claim) = &claim {
        check_ranges(&claim.ranges).map_err(|error| error.at("Claim.ranges"))?;
    }
    Ok(claim)
}

/// What operators ask when something is wrong.
fn take_operators(items: &mut Items<'_>, kind: u8) -> Result<Request, FrameError> {
    use request_kind as kind;
    Ok(match kind {
        kind::QUEUE_CONDITION => {
            Request::QueueCondition { queue: items.next("QueueCondition.queue")? }
        }
        kind::REPLICA_STATUS => Request::ReplicaStatus {
            queue: items.next("ReplicaStatus.queue")?,
            count: items.next("ReplicaStatus.count")?,
            below: items.next_or_default("ReplicaStatus.below")?,
        },
        kind::ELECTIONS => Request::Elections {
            queue: items.next("Elections.queue")?,
            limit: items.next("Elections.limit")?,
        },
        kind::RECOVER => Request::Recover(items.fields()?),
        kind::ATTENTION => Request::Attention { limit: items.next("Attention.limit")? },
        kind => return Err(unknown("request", kind)),
    })
}

mod response_kind {
    pub(super) const DONE: u8 = 1;
    pub(super) const DECLARED: u8 = 2;
    pub(super) const PURGED: u8 = 3;
    pub(super) const EXCHANGES: u8 = 4;
    pub(super) const QUEUES: u8 = 5;
    pub(super) const QUEUE: u8 = 6;
    pub(super) const BINDINGS: u8 = 7;
    pub(super) const CLUSTER: u8 = 8;
    pub(super) const PRODUCER_ATTACHED: u8 = 9;
    pub(super) const CONSUMER_ATTACHED: u8 = 10;
    pub(super) const CONDITION: u8 = 18;
    pub(super) const REPLICA: u8 = 19;
    pub(super) const ELECTIONS: u8 = 20;
    pub(super) const RECOVERED: u8 = 21;
    pub(super) const ATTENTION: u8 = 22;
    pub(super) const USERS: u8 = 23;
    pub(super) const CREDENTIALS: u8 = 24;
    pub(super) const BROWSED: u8 = 50;
    pub(super) const COUNTED: u8 = 52;
    pub(super) const PLAN: u8 = 40;
    pub(super) const STUCK: u8 = 56;
    pub(super) const SETTINGS: u8 = 30;
    pub(super) const DEFINITIONS: u8 = 31;
}

impl Wire for Response {
    fn put(&self, out: &mut BytesMut) {
        use response_kind as kind;
        match self {
            Response::Done => put_variant(out, kind::DONE, &[]),
            Response::Declared { created, queue, warning } => {
                put_variant(out, kind::DECLARED, &[created, queue, warning]);
            }
            Response::Purged { messages } => put_variant(out, kind::PURGED, &[messages]),
            Response::Exchanges(exchanges) => put_variant(out, kind::EXCHANGES, &[exchanges]),
            Response::Queues(queues) => put_variant(out, kind::QUEUES, &[queues]),
            Response::Queue { summary, counts } => {
                put_variant(out, kind::QUEUE, &[summary, counts]);
            }
            Response::Bindings(bindings) => put_variant(out, kind::BINDINGS, &[bindings]),
            Response::Cluster(status) => put_struct_variant(out, kind::CLUSTER, status),
            Response::Definitions(queues) => put_variant(out, kind::DEFINITIONS, &[queues]),
            Response::Settings(settings) => put_variant(out, kind::SETTINGS, &[settings]),
            Response::Condition(condition) => {
                put_struct_variant(out, kind::CONDITION, &**condition);
            }
            Response::Replica(status) => put_struct_variant(out, kind::REPLICA, &**status),
            Response::Elections(elections) => put_variant(out, kind::ELECTIONS, &[elections]),
            Response::Recovered(queue) => put_variant(out, kind::RECOVERED, &[queue]),
            Response::Attention(attention) => {
                put_struct_variant(out, kind::ATTENTION, &**attention);
            }
            Response::Users(users) => put_variant(out, kind::USERS, &[users]),
            Response::Credentials(users) => put_variant(out, kind::CREDENTIALS, &[users]),
            Response::Counted(numbers) => put_variant(out, kind::COUNTED, &[numbers]),
            Response::Browsed(browsed) => put_struct_variant(out, kind::BROWSED, browsed),
            Response::ProducerAttached => put_variant(out, kind::PRODUCER_ATTACHED, &[]),
            Response::Plan { moves, more } => put_variant(out, kind::PLAN, &[moves, more]),
            Response::Stuck(stuck) => put_struct_variant(out, kind::STUCK, stuck),
            Response::ConsumerAttached(attached) => {
                put_struct_variant(out, kind::CONSUMER_ATTACHED, attached);
            }
        }
    }

    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        use response_kind as kind;
        let mut items = Items::begin(reader)?;
        let response = match items.next("response kind")? {
            kind::DONE => Response::Done,
            kind::DECLARED => Response::Declared {
                created: items.next("Declared.created")?,
                queue: items.next("Declared.queue")?,
                warning: items.next("Declared.warning")?,
            },
            kind::PURGED => Response::Purged { messages: items.next("Purged.messages")? },
            kind::EXCHANGES => Response::Exchanges(items.next("Exchanges.exchanges")?),
            kind::QUEUES => Response::Queues(items.next("Queues.queues")?),
            kind::QUEUE => Response::Queue {
                summary: items.next("Queue.summary")?,
                counts: items.next("Queue.counts")?,
            },
            kind::BINDINGS => Response::Bindings(items.next("Bindings.bindings")?),
            kind::CLUSTER => Response::Cluster(items.fields()?),
            kind::DEFINITIONS => Response::Definitions(items.next("Definitions.queues")?),
            kind::SETTINGS => Response::Settings(items.next("Settings.settings")?),
            kind::CONDITION => Response::Condition(Box::new(items.fields()?)),
            kind::REPLICA => Response::Replica(Box::new(items.fields()?)),
            kind::ELECTIONS => Response::Elections(items.next("Elections.elections")?),
            kind::RECOVERED => Response::Recovered(items.next("Recovered.queue")?),
            kind::ATTENTION => Response::Attention(Box::new(items.fields()?)),
            kind::USERS => Response::Users(items.next("Users.users")?),
            kind::CREDENTIALS => Response::Credentials(items.next("Credentials.users")?),
            kind::COUNTED => Response::Counted(items.next("Counted.numbers")?),
            kind::BROWSED => Response::Browsed(items.fields()?),
            kind::PRODUCER_ATTACHED => Response::ProducerAttached,
            kind::PLAN => {
                Response::Plan { moves: items.next("Plan.moves")?, more: items.next("Plan.more")? }
            }
            kind::STUCK => Response::Stuck(items.fields()?),
            kind::CONSUMER_ATTACHED => Response::ConsumerAttached(items.fields()?),
            kind => return Err(unknown("response", kind)),
        };
        items.end()?;
        Ok(response)
    }
}

wire_enum!(ExchangeKind "kind of exchange" { Direct = 1, Fanout = 2 });

wire_enum!(QueueClass "class of queue" { Bulk = 1, Standard = 2, Vital = 3 });

wire_enum!(Moved "thing to be moved" { Leadership = 1, Copy = 2 });

wire_enum!(Drain "kind of drain" { Leaderships = 1, Copies = 2 });
