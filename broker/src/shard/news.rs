//! What the catalog tells: definitions, states, tombstones, who is live; and this broker's own life.

use std::collections::HashMap;
use std::sync::Arc;

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::{QueueDefinition, QueueState};
use bellwether_journal::{Condition, RecoveredLog};
use bellwether_protocol::client::QueueClass;
use bellwether_protocol::ids::{BrokerLife, Member, Offset, OffsetRange, QueueId, StoreId};
use bellwether_protocol::names::{QueueName, VirtualHost};
use bellwether_queue::Queue;
use bellwether_replication::{Event, Identity, LogFacts, Replica};
use uuid::Uuid;

use super::Shard;
use super::delete::AskedDelete;
use super::input::{LiveBrokers, QueueNews, ShardInput};
use super::queue::{LocalQueue, answer};
use super::sample::{Tally, Trigger};
use super::tools::Tools;

impl Shard {
    pub(super) fn take(&mut self, input: ShardInput) {
        match input {
            ShardInput::Publish(publishes) => {
                for publish in publishes {
                    match self.queues.get_mut(&publish.queue) {
                        Some(queue) => {
                            self.tools.touch(publish.queue);
                            queue.publish(&mut self.tools, publish)
                        }
                        None => {
                            self.tools.outcome(&publish.origin, publish.token, Err(unknown_here()))
                        }
                    }
                }
            }
            ShardInput::Attach(attach) => match self.queues.get_mut(&attach.queue) {
                Some(queue) => {
                    self.tools.touch(attach.queue);
                    queue.attach(&mut self.tools, attach)
                }
                None => answer(attach.reply, Err(unknown_here())),
            },
            ShardInput::Detach { queue, consumer } => {
                self.on(queue, |queue, tools| queue.detach(tools, consumer))
            }
            ShardInput::Settle(settles) => {
                for settle in settles {
                    self.on(settle.queue, |queue, tools| queue.settle(tools, settle));
                }
            }
            ShardInput::Drained { queue, consumer } => {
                self.on(queue, |queue, tools| queue.drained(tools, consumer))
            }
            ShardInput::Purge { queue: id, reply } => match self.queues.get_mut(&id) {
                Some(queue) => {
                    queue.purge(&mut self.tools, reply);
                    self.tools.touch(id);
                }
                None => answer(reply, Err(unknown_here())),
            },
            ShardInput::PrepareDelete { queue: id, if_unused, if_empty, reply } => {
                match self.queues.get_mut(&id) {
                    Some(queue) => {
                        let asked = AskedDelete { if_unused, if_empty, reply };
                        queue.prepare_delete(&mut self.tools, asked);
                        self.tools.touch(id);
                    }
                    None => answer(reply, Err(unknown_here())),
                }
            }
            ShardInput::DeleteDecided { queue, deleted } => {
                self.on(queue, |queue, tools| queue.delete_decided(tools, deleted));
            }
            ShardInput::DurablyGone { queues, reply } => answer(reply, self.durably_gone(&queues)),
            ShardInput::Describe { queue, reply } => {
                let described = match self.queues.get(&queue) {
                    Some(queue) => queue.describe(&self.tools),
                    None => Err(unknown_here()),
                };
                answer(reply, described);
            }
            ShardInput::Browse { queue, look, reply } => match self.queues.get(&queue) {
                Some(queue) => queue.browse(&self.tools, look, reply),
                None => answer(reply, Err(unknown_here())),
            },
            ShardInput::Queues(news) => {
                for news in news {
                    self.queue_news(news);
                }
            }
            ShardInput::Brokers(live) => self.brokers(live),
            ShardInput::Life(life) => {
                self.tools.life = life;
                self.each(|queue, tools| queue.step(tools, Event::Life(life)));
            }
            ShardInput::CoordinatorConnected(connected) => {
                self.tools.connected = connected;
                self.each(|queue, tools| queue.step(tools, Event::Connected(connected)));
            }
            ShardInput::Ping { reply } => answer(reply, ()),
            ShardInput::Retime { lag_limit, settle } => {
                (self.tools.timing.lag_limit, self.tools.timing.settle) = (lag_limit, settle);
                self.each(|queue, _| queue.replica.retime(lag_limit, settle));
            }
            ShardInput::Peer(news) => self.peer(news),
            ShardInput::SnapshotAsked { queue, epoch, reply } => {
                let head = match self.queues.get(&queue) {
                    Some(queue) => queue.snapshot_head(&self.tools, epoch),
                    None => Err(unknown_here()),
                };
                answer(reply, head);
            }
            ShardInput::SnapshotMore { queue, ranges, reply } => {
                let more = match self.queues.get(&queue) {
                    Some(queue) => queue.snapshot_more(&self.tools, &ranges),
                    None => Err(unknown_here()),
                };
                answer(reply, more);
            }
            ShardInput::Sample { wanted, reply } => answer(reply, self.sample(&wanted)),
            ShardInput::CopyStatus { queue, reply } => {
                let status = self
                    .queues
                    .get(&queue)
                    .map(|queue| (queue.copy_status(&self.tools), queue.machine.applied()));
                answer(reply, status);
            }
            ShardInput::StoppedCopies { limit, reply } => answer(reply, self.stopped_copies(limit)),
            ShardInput::Force(order) => self.force(*order),
            ShardInput::DiskStalls(stalls) => {
                self.disk_stalls = stalls;
                self.each(|queue, tools| queue.step(tools, Event::DiskStalls(stalls)));
            }
            ShardInput::DiskReturns => {
                self.each(|queue, tools| queue.step(tools, Event::DiskReturns));
            }
            ShardInput::HandOver { begin, reply } => {
                if begin {
                    self.each(|queue, tools| {
                        // What was gathered in this turn comes before the end: behind it its fate would be unknown.
                        queue.append_settles(tools);
                        queue.step(tools, Event::HandOver);
                    });
                }
                answer(
                    reply,
                    self.queues.values().filter(|queue| queue.replica.hands_over()).count(),
                );
            }
        }
    }

    /// Does something with a queue that has a replica here; one that has none is not concerned.
    pub(super) fn on(&mut self, id: QueueId, act: impl FnOnce(&mut LocalQueue, &mut Tools)) {
        if let Some(queue) = self.queues.get_mut(&id) {
            act(queue, &mut self.tools);
            self.tools.touch(id);
        }
    }

    pub(super) fn each(&mut self, mut act: impl FnMut(&mut LocalQueue, &mut Tools)) {
        for queue in self.queues.values_mut() {
            act(queue, &mut self.tools);
        }
    }

    /// A store that has failed says nothing of what it holds.
    fn durably_gone(&self, queues: &[QueueId]) -> Vec<QueueId> {
        if self.store_failed.is_some() {
            return Vec::new();
        }
        let mut gone = self.tools.logs.durably_gone(queues);
        gone.retain(|queue| !self.queues.contains_key(queue));
        gone
    }

    /// The copy here is given up. The brokers may be others again by now: then it begins anew.
    pub(super) fn part(&mut self, id: QueueId) {
        if let Some(mut queue) = self.queues.remove(&id) {
            queue.stop_leading(&mut self.tools);
            self.attention.forget(id);
            self.tools.logs.remove(id);
            self.tools.reread(id);
        }
    }

    fn queue_news(&mut self, news: QueueNews) {
        match news {
            QueueNews::State { definition, state, version, synced } => {
                self.state_read(definition, state, version, synced);
            }
            QueueNews::Deleted(id) => {
                if let Some(mut queue) = self.queues.remove(&id) {
                    tracing::debug!(queue = %queue.definition.name, queue.id = %id, "the queue was deleted: its log goes");
                    queue.deleted(&mut self.tools);
                    self.attention.forget(id);
                } else {
                    self.tools.logs.remove(id);
                }
            }
            QueueNews::Vanished(id) => self.on(id, |queue, tools| {
                let why = "the coordinator holds neither its state nor a tombstone: it was restored empty or to an older state, or the queue was deleted while this broker was retired or ran with another data folder. The log is kept: restore the coordinator's newer state; in the other case start this broker with an empty folder".to_owned();
                queue.step(tools, Event::Broken { why });
            }),
        }
    }

    fn state_read(
        &mut self,
        definition: Arc<QueueDefinition>,
        state: QueueState,
        version: Version,
        synced: bool,
    ) {
        let id = definition.queue;
        if !self.queues.contains_key(&id) {
            let me = self.tools.environment.member;
            if !state.replicas.contains(&me.broker) && !state.isr.contains(&me) {
                return;
            }
            // A copy that begins with nothing is of a store that nobody has seen; but when the queue begins with it.
            let store = if state.isr.contains(&me) { me.store } else { StoreId(Uuid::new_v4()) };
            if !self.tools.logs.contains(id) {
                self.tools.logs.create_as(id, store);
            }
            self.open(definition.clone(), store, LogFacts::default(), Queue::new());
        }
        let leader = state.leader;
        let live = self.tools.brokers.brokers.iter().any(|broker| Some(broker.life) == leader);
        self.on(id, |queue, tools| {
            queue.definition = definition;
            queue.step(tools, Event::State { state, version, synced });
            if !live && !synced && leader.is_some() {
                // Perhaps gone: proven only by a read of the state first and of the live brokers second.
                tools.reread(id);
            }
        });
    }

    /// The live brokers were read, after the states told before.
    fn brokers(&mut self, live: Arc<LiveBrokers>) {
        self.tools.brokers = live.clone();
        let unready = live.unready();
        if unready != self.unready {
            self.each(|queue, _| queue.replica.unready(&unready));
            self.unready = unready;
        }
        self.crowd(|leader| live.brokers.iter().all(|broker| broker.life != leader));
        self.each(|queue, tools| {
            let leader = queue.replica.state().and_then(|(state, _)| state.leader);
            if let Some(life) =
                leader.filter(|leader| live.brokers.iter().all(|broker| broker.life != *leader))
            {
                queue.step(tools, Event::Gone { life });
            }
        });
    }

    /// Leaders are gone, as `gone` says: tells their queues of how many there are like them.
    pub(super) fn crowd(&mut self, gone: impl Fn(BrokerLife) -> bool) {
        let lost = |queue: &LocalQueue| {
            let leader = queue.replica.state().and_then(|(state, _)| state.leader);
            leader.filter(|leader| gone(*leader))
        };
        let mut crowds: HashMap<BrokerLife, usize> = HashMap::new();
        for leader in self.queues.values().filter_map(|queue| lost(queue)) {
            *crowds.entry(leader).or_default() += self.shards;
        }
        if crowds.is_empty() {
            return;
        }
        for queue in self.queues.values_mut() {
            if let Some(leader) = lost(queue) {
                queue.replica.crowd(leader, crowds[&leader]);
            }
        }
    }

    /// A log that was found at the start: it is part of this broker's replica of the queue, whose definition comes later.
    pub(super) fn recover(&mut self, log: RecoveredLog) {
        let id = log.queue;
        let machine = match &log.checkpoint {
            Some(checkpoint) => {
                Queue::restore(&checkpoint.state).map_err(|error| error.to_string())
            }
            None => Ok(Queue::new()),
        };
        let mut trouble = match &log.condition {
            Condition::Ok => None,
            Condition::Corrupt(what) => Some(what.clone()),
        };
        let machine = machine.unwrap_or_else(|error| {
            trouble.get_or_insert(format!("its checkpoint cannot be read: {error}"));
            Queue::new()
        });
        let facts = match trouble {
            Some(_) => LogFacts::default(),
            None => LogFacts {
                epochs: self.tools.logs.epochs(id).clone(),
                start: log.start,
                end: log.end,
                durable: self.tools.logs.durable(id),
                high_watermark: log
                    .checkpoint
                    .as_ref()
                    .map_or(Offset(0), |checkpoint| checkpoint.high_watermark),
            },
        };
        if trouble.is_none() {
            let below = machine.applied();
            let live = machine.unsettled_in(OffsetRange::new(Offset(0), below));
            self.tools.logs.restored(id, below, &live);
        }
        self.open(Arc::new(nameless(id)), log.store, facts, machine);
        if let Some(what) = trouble {
            self.on(id, |queue, tools| queue.log_is_damaged(tools, &what));
        }
    }

    fn open(
        &mut self,
        definition: Arc<QueueDefinition>,
        store: StoreId,
        facts: LogFacts,
        machine: Queue,
    ) {
        let environment = &self.tools.environment;
        let identity = Identity {
            queue: definition.queue,
            member: Member { store, ..environment.member },
            started: environment.started,
        };
        let mut replica = Replica::new(identity, self.tools.timing, facts);
        replica.unready(&self.unready);
        let id = definition.queue;
        let queue = LocalQueue {
            id,
            definition,
            replica,
            machine,
            applying_from_disk: false,
            leader: None,
            incoming: None,
            fetch: 0,
            fetching: None,
            damage: None,
            tally: Tally::default(),
            trigger: Trigger::default(),
            noted_at: None,
            forced: None,
        };
        self.queues.insert(id, Box::new(queue));
        let (life, connected) = (self.tools.life, self.tools.connected);
        self.on(id, |queue, tools| {
            queue.step(tools, Event::Connected(connected));
            if life.is_some() {
                queue.step(tools, Event::Life(life));
            }
        });
        if self.disk_stalls {
            self.on(id, |queue, tools| queue.step(tools, Event::DiskStalls(true)));
        }
        if let Some(why) = self.store_failed.clone() {
            self.on(id, |queue, tools| queue.step(tools, Event::StoreFailed { why }));
        }
    }
}

/// What is known of a queue whose definition was not read yet.
fn nameless(id: QueueId) -> QueueDefinition {
    let name = QueueName::new(id.to_string()).expect("a uuid is 36 plain characters");
    QueueDefinition {
        queue: id,
        virtual_host: VirtualHost::default(),
        name,
        replicas_wanted: 0,
        min_isr: 1,
        class: QueueClass::Standard,
        unknown: bellwether_coordinator::records::UnknownFields::new(),
    }
}

fn unknown_here() -> bellwether_protocol::error::ErrorBody {
    bellwether_protocol::error::ErrorBody::not_done(
        bellwether_protocol::error::ErrorCode::NotLeader,
        "this broker has no replica of the queue (yet); ask for its leader again",
    )
}
