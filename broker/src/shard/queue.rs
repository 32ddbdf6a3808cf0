//! One queue's replica on this broker: the pure machines and what the shell keeps beside them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::{QueueDefinition, QueueState};
use bellwether_log::{Batch, Record};
use bellwether_protocol::client::Settlement;
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::{BrokerLife, Epoch, Offset, OffsetRange, QueueId};
use bellwether_protocol::names::QueueName;
use bellwether_queue::Queue;
use bellwether_replication::{Effect, Event, NotForced, Replica};
use tokio::sync::oneshot;

use super::delete::HeldDelete;
use super::deliver::Consumer;
use super::input::{
    AttachConsumer, ConsumerKey, ConsumerSettle, Lease, PublishOrigin, QueuePublish,
};
use super::sample::{Tally, Trigger};
use super::stream::Stream;
use super::tools::Tools;
use super::trace::Traced;

/// Publishes that wait for a new leader to serve. Each waits for one round of its followers; beyond it they are refused, to be tried again.
const HELD_PUBLISHES_MAX: usize = 4096;
/// Settles that wait while the leadership is about to move; beyond it their consumers are closed, and claim at the next leader.
const HELD_SETTLES_MAX: usize = 4096;
/// Consumers that wait for a new leader to serve. Each waits as a publish does; beyond it they are sent to look for the leader again.
const HELD_ATTACHES_MAX: usize = 4096;
/// Ranges in the claims of all of them, 16 bytes each.
const HELD_CLAIM_RANGES_MAX: usize = 1_000_000;

/// How long a new leader waits with handing out for the consumers of its predecessor: one that is there claims what it holds, and
/// it is not delivered a second time. Most are back within a few milliseconds.
const CLAIM_WITHIN: Duration = Duration::from_millis(100);

/// One queue's replica.
pub(crate) struct LocalQueue {
    pub id: QueueId,
    pub definition: Arc<QueueDefinition>,
    pub replica: Replica,
    pub machine: Queue,
    /// A read of committed records is under way: applying waits for it.
    pub applying_from_disk: bool,
    /// While this broker leads.
    pub leader: Option<Box<Leader>>,
    /// A snapshot that is being fetched.
    pub incoming: Option<super::snapshot::Incoming>,
    /// Number of the last fetch of a snapshot: parts of earlier ones are dropped.
    pub fetch: u64,
    /// The epoch it was asked for in.
    pub fetching: Option<Epoch>,
    /// What is wrong with the log here, until it was fetched anew.
    pub damage: Option<String>,
    /// What went through it while it was led here, in this life of the process.
    pub tally: Tally,
    /// What gives rise to the leadership that is asked for.
    pub trigger: Trigger,
    /// When it was last written down how far the log is committed.
    pub noted_at: Option<Instant>,
    /// Who waits to hear what came of an order to lead.
    pub forced: Option<oneshot::Sender<Result<Box<QueueState>, NotForced>>>,
}

/// What exists only while this broker leads the queue.
pub(crate) struct Leader {
    pub epoch: Epoch,
    /// Set when everything the log held at the start is committed.
    pub serves: bool,
    /// The high watermark has passed the epoch start: serve once everything up to this offset is applied.
    pub serve_at: Option<(Epoch, Instant, Offset)>,
    /// From when on consumers are attached: no deposed leader delivers any more.
    pub deliver_from: Instant,
    /// From when on it hands out: consumers that were with its predecessor have had time to come and claim what they hold.
    pub dispatch_from: Instant,
    pub lease: Lease,
    /// Appended, not committed: in order of the log.
    pub waiting: VecDeque<Waiting>,
    pub held_publishes: Vec<QueuePublish>,
    pub held_attaches: Vec<AttachConsumer>,
    pub held_settles: Vec<HeldSettle>,
    pub consumers: BTreeMap<ConsumerKey, Consumer>,
    /// Settles of this turn, merged into one record each.
    pub settling: Settling,
    pub streams: HashMap<BrokerLife, Stream>,
    /// The high watermark moved: followers have to hear of it.
    pub tell_committed: bool,
    /// The queue is being deleted: nothing is taken, confirmed or delivered.
    pub deleting: bool,
    /// It is to be, as soon as a change of its state is decided that is under way.
    pub held_delete: Option<HeldDelete>,
    /// What committed purges took, for those who wait for them.
    pub purged: VecDeque<u64>,
    pub time_ms: u64,
    pub traced: Traced,
}

/// Ranges settled in this turn, by what becomes of them.
#[derive(Default)]
pub(crate) struct Settling {
    pub acks: Vec<OffsetRange>,
    pub rejects: Vec<OffsetRange>,
    pub returns: Vec<OffsetRange>,
    /// Who is to be told when they are committed.
    pub told: Vec<(ConsumerKey, u64)>,
}

impl Settling {
    pub fn add(&mut self, settlement: Settlement, ranges: Vec<OffsetRange>) {
        match settlement {
            Settlement::Ack => self.acks.extend(ranges),
            Settlement::Reject => self.rejects.extend(ranges),
            Settlement::Return => self.returns.extend(ranges),
        }
    }
}

/// What consumers asked for while the leadership was about to move, in their order.
pub(crate) enum HeldSettle {
    Settle(ConsumerSettle),
    Detach(ConsumerKey),
}

/// Why a settle was not done whose queue somebody else leads now: who claims what it held there can settle it there.
pub(crate) fn handed_over(queue: &QueueName) -> ErrorBody {
    let words = format!("queue {queue} is being handed over or deleted");
    ErrorBody::not_done(ErrorCode::NotLeader, words)
}

/// Somebody who waits until the log is committed up to `end`.
pub(crate) struct Waiting {
    pub end: Offset,
    pub who: Waiter,
}

pub(crate) enum Waiter {
    Publish { origin: Arc<dyn PublishOrigin>, token: u64 },
    Settle { consumer: ConsumerKey, number: u64 },
    Purge { reply: oneshot::Sender<Result<u64, ErrorBody>> },
}

impl Leader {
    fn new(epoch: Epoch, now: Instant) -> Leader {
        Leader {
            epoch,
            serves: false,
            serve_at: None,
            deliver_from: now,
            dispatch_from: now,
            lease: Lease::default(),
            waiting: VecDeque::new(),
            held_publishes: Vec::new(),
            held_attaches: Vec::new(),
            held_settles: Vec::new(),
            consumers: BTreeMap::new(),
            settling: Settling::default(),
            streams: HashMap::new(),
            tell_committed: false,
            deleting: false,
            held_delete: None,
            purged: VecDeque::new(),
            time_ms: 0,
            traced: Traced::default(),
        }
    }

    pub fn hold_publish(&mut self, publish: QueuePublish) -> Option<QueuePublish> {
        if self.held_publishes.len() < HELD_PUBLISHES_MAX {
            self.held_publishes.push(publish);
            return None;
        }
        Some(publish)
    }

    pub fn hold_attach(&mut self, attach: AttachConsumer) -> Option<AttachConsumer> {
        let ranges =
            |attach: &AttachConsumer| attach.claim.as_ref().map_or(0, |claim| claim.ranges.len());
        let held: usize = self.held_attaches.iter().map(ranges).sum();
        if self.held_attaches.len() < HELD_ATTACHES_MAX
            && held + ranges(&attach) <= HELD_CLAIM_RANGES_MAX
        {
            self.held_attaches.push(attach);
            return None;
        }
        Some(attach)
    }

    /// Keeps a settle until it is known who leads. A consumer for whose settles there is no room is closed, and not refused: the
    /// answers to its later ones would seem to be about this one too.
    pub fn hold_settle(&mut self, settle: ConsumerSettle, queue: &QueueName) {
        let Some(consumer) = self.consumers.get(&settle.consumer) else { return };
        if consumer.leaving {
            return;
        }
        if self.held_settles.len() < HELD_SETTLES_MAX {
            return self.held_settles.push(HeldSettle::Settle(settle));
        }
        consumer.sink.closed(handed_over(queue));
        self.hold_detach(settle.consumer);
    }

    /// The same for one that leaves: behind what it has settled. One for each consumer at most.
    pub fn hold_detach(&mut self, key: ConsumerKey) {
        if let Some(consumer) = self.consumers.get_mut(&key).filter(|consumer| !consumer.leaving) {
            consumer.leaving = true;
            self.held_settles.push(HeldSettle::Detach(key));
        }
    }
}

impl LocalQueue {
    /// Something happened to the replica: the machine acts, and its effects are carried out.
    pub fn step(&mut self, tools: &mut Tools, event: Event) {
        let mut effects = Vec::new();
        self.replica.tell_time(tools.time_ms);
        self.replica.step(tools.now, event, &mut effects);
        self.perform(tools, effects);
        tools.touch(self.id);
    }

    /// Whether time alone may make it act.
    pub fn wants_ticks(&self) -> bool {
        self.replica.wants_ticks() || self.waits_to_deliver() || self.waits_to_delete()
    }

    pub fn perform(&mut self, tools: &mut Tools, effects: Vec<Effect>) {
        for effect in effects {
            self.perform_one(tools, effect);
        }
    }

    /// Appends a record as leader; answers the log's new end.
    pub fn append(&mut self, tools: &mut Tools, record: &Record) -> Offset {
        let epoch = self.leader.as_ref().map_or_else(Epoch::default, |leader| leader.epoch);
        let base = tools.logs.end(self.id);
        let batch = Batch::encode(self.id, epoch, base, record);
        let end = batch.end();
        tools.logs.append(batch);
        self.step(tools, Event::Appended { end });
        end
    }

    /// Begins to lead, without serving yet.
    pub fn begin_leading(&mut self, tools: &mut Tools, epoch: Epoch) {
        tracing::info!(queue = %self.definition.name, queue.id = %self.id, %epoch, "this broker leads the queue");
        std::mem::take(&mut self.trigger).count(&tools.environment.metrics);
        tools.environment.metrics.queues_led.add(1);
        self.leader = Some(Box::new(Leader::new(epoch, tools.now)));
    }

    /// Everything the log held is committed: serve those who have waited.
    pub fn begin_serving(&mut self, tools: &mut Tools, epoch: Epoch, deliver_from: Instant) {
        let Some(leader) = &mut self.leader else { return };
        leader.serves = true;
        // Purges of older epochs have nobody here who waits for their counts.
        leader.purged.clear();
        leader.deliver_from = deliver_from;
        leader.dispatch_from = match self.machine.has_messages() {
            true => deliver_from.max(tools.now + CLAIM_WITHIN),
            false => deliver_from,
        };
        self.machine.lead(epoch);
        for publish in std::mem::take(&mut leader.held_publishes) {
            self.publish(tools, publish);
        }
        self.take_held_attaches(tools);
    }

    /// The leadership stays here after all; or it goes for good, and who waits with a publish is told to go elsewhere.
    pub fn take_held(&mut self, tools: &mut Tools) {
        let Some(leader) = &mut self.leader else { return };
        for publish in std::mem::take(&mut leader.held_publishes) {
            self.publish(tools, publish);
        }
        let Some(leader) = self.leader.as_mut().filter(|leader| !leader.deleting) else { return };
        if self.replica.leads().is_none() {
            return;
        }
        for held in std::mem::take(&mut leader.held_settles) {
            match held {
                HeldSettle::Settle(settle) => self.settle(tools, settle),
                HeldSettle::Detach(consumer) => self.detach(tools, consumer),
            }
        }
    }

    /// Leads no more. What was appended and is not committed has an unknown fate (promise G11).
    pub fn stop_leading(&mut self, tools: &mut Tools) {
        let Some(mut leader) = self.leader.take() else { return };
        tracing::info!(queue = %self.definition.name, queue.id = %self.id, epoch = %leader.epoch, "this broker no longer leads the queue");
        leader.lease.end();
        tools.environment.leases.forget(self.id);
        tools.environment.metrics.queues_led.subtract(1);
        tools.environment.metrics.leaderships_ended.increment();
        self.machine.stop_leading();
        for waiting in leader.waiting.drain(..) {
            self.fate_unknown(tools, &leader.consumers, waiting.who);
        }
        for publish in leader.held_publishes.drain(..) {
            let error = self.not_leader(tools);
            tools.outcome(&publish.origin, publish.token, Err(error));
        }
        for attach in leader.held_attaches.drain(..) {
            answer(attach.reply, Err(self.not_leader(tools)));
        }
        if let Some(delete) = leader.held_delete.take() {
            answer(delete.asked.reply, Err(self.not_leader(tools)));
        }
        let held = leader.held_settles.drain(..).filter_map(|held| match held {
            HeldSettle::Settle(settle) => Some((settle.consumer, settle.number)),
            HeldSettle::Detach(_) => None,
        });
        for (consumer, number) in held.chain(leader.settling.told.drain(..)) {
            if let Some(consumer) = leader.consumers.get(&consumer) {
                consumer.sink.settle_failed(number, handed_over(&self.definition.name));
            }
        }
        for consumer in leader.consumers.into_values() {
            consumer.sink.closed(self.not_leader(tools));
        }
    }

    fn fate_unknown(
        &self,
        tools: &mut Tools,
        consumers: &BTreeMap<ConsumerKey, Consumer>,
        who: Waiter,
    ) {
        let name = &self.definition.name;
        match who {
            Waiter::Publish { origin, token } => {
                let words = format!(
                    "the leadership of queue {name} was lost after the message was appended; it may be stored. Send it again with the same sequence number"
                );
                tools.outcome(
                    &origin,
                    token,
                    Err(ErrorBody::unknown(ErrorCode::Unconfirmed, words)),
                );
            }
            Waiter::Settle { consumer, number } => {
                if let Some(consumer) = consumers.get(&consumer) {
                    let words = format!(
                        "the leadership of queue {name} was lost; the settle may be done or not"
                    );
                    consumer
                        .sink
                        .settle_failed(number, ErrorBody::unknown(ErrorCode::Unsettled, words));
                }
            }
            Waiter::Purge { reply } => {
                let words = format!(
                    "the leadership of queue {name} was lost; the purge may be done or not"
                );
                answer(reply, Err(ErrorBody::unknown(ErrorCode::NotLeader, words)));
            }
        }
    }

    /// "Not here", and where, if that is known.
    pub fn not_leader(&self, tools: &Tools) -> ErrorBody {
        let name = &self.definition.name;
        let stopped = self.replica.stopped();
        if let Some(why) = stopped.filter(|_| !self.replica.stopped_alone()) {
            return ErrorBody::not_done(
                ErrorCode::QueueStopped,
                format!("queue {name} has stopped on this broker: {why}"),
            );
        }
        let leader = self
            .replica
            .state()
            .and_then(|(state, _)| state.leader)
            .filter(|leader| Some(*leader) != tools.life)
            .and_then(|leader| tools.address_of(leader.broker));
        let words = match &leader {
            Some(leader) => {
                format!("queue {name} is led by broker {} at {}", leader.broker, leader.address)
            }
            None => match self.damage.as_deref().or(stopped) {
                Some(why) => format!(
                    "queue {name} has no leader at the moment, and its copy on this broker is out of use: {why}"
                ),
                None => format!("queue {name} has no leader at the moment; try again shortly"),
            },
        };
        ErrorBody { leader, ..ErrorBody::not_done(ErrorCode::NotLeader, words) }
    }

    /// The version of the state that this broker has read.
    pub fn state_version(&self) -> Option<Version> {
        self.replica.state().map(|(_, version)| version)
    }

    /// What is done once a turn: settles of the turn become records, the committed is applied, followers and consumers get theirs.
    pub fn finish_turn(&mut self, tools: &mut Tools) {
        self.append_settles(tools);
        self.apply_committed(tools);
        self.take_held_attaches(tools);
        self.take_held_delete(tools);
        self.stream_to_followers(tools);
        self.deliver(tools);
    }

    /// The members whose promises a delivery needs may have changed.
    pub fn renew_lease(&mut self, tools: &Tools) {
        let Some(leader) = &self.leader else { return };
        let members = self.replica.lease_members().filter(|_| !leader.deleting);
        let promises = members.and_then(|members| {
            let promises_of =
                |life| leader.streams.get(life).and_then(|stream| stream.promises.clone());
            members.iter().map(promises_of).collect()
        });
        match promises {
            Some(promises) => tools.environment.leases.grant(self.id, &leader.lease, promises),
            None => tools.environment.leases.lapse(&leader.lease),
        }
    }
}

/// Answers somebody who may have gone meanwhile.
pub(crate) fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::trace!("nobody waits for this answer any more");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use bellwether_protocol::client::{Claim, ConsumerAttached, DeliveredRun};

    use super::super::input::ConsumerSink;
    use super::*;

    /// Counts how often it was closed.
    #[derive(Default)]
    struct Sink {
        closed: AtomicU32,
    }

    impl ConsumerSink for Sink {
        fn attached(&self, _attached: ConsumerAttached) {}
        fn deliver(&self, _epoch: Epoch, _lease: Lease, _runs: Vec<DeliveredRun>) -> bool {
            true
        }
        fn settled(&self, up_to: u64) {
            panic!("settles up to {up_to} are held, not done");
        }
        fn settle_failed(&self, number: u64, _error: ErrorBody) {
            panic!("settle {number} must not be told apart from its neighbours");
        }
        fn closed(&self, error: ErrorBody) {
            assert_eq!(error.code, ErrorCode::NotLeader);
            self.closed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn settle(key: u64, number: u64) -> ConsumerSettle {
        ConsumerSettle {
            queue: QueueId(uuid::Uuid::from_u128(1)),
            consumer: ConsumerKey(key),
            number,
            epoch: Epoch(1),
            settlement: Settlement::Ack,
            ranges: vec![OffsetRange::new(Offset(number), Offset(number + 1))],
        }
    }

    /// While a move is undecided more settles come than are held. If it is given up, a later settle of the same consumer is
    /// confirmed with "everything up to this": one in between that was only refused would seem settled as well (promise G3).
    #[test]
    fn a_consumer_whose_settles_find_no_room_is_closed_and_none_of_its_later_ones_is_taken() {
        let queue = QueueName::new("orders").unwrap();
        let mut leader = Leader::new(Epoch(1), Instant::now());
        let sinks: [Arc<Sink>; 2] = Default::default();
        for (key, sink) in (0..).zip(&sinks) {
            let sink = Arc::clone(sink) as Arc<dyn ConsumerSink>;
            leader.consumers.insert(ConsumerKey(key), Consumer::new(sink, 0));
        }
        for number in 0..HELD_SETTLES_MAX as u64 {
            leader.hold_settle(settle(0, number), &queue);
        }
        leader.hold_detach(ConsumerKey(0));
        for number in 0..3 {
            leader.hold_settle(settle(1, number), &queue);
        }
        leader.hold_detach(ConsumerKey(1));
        let closed = sinks.each_ref().map(|sink| sink.closed.load(Ordering::Relaxed));
        assert_eq!(closed, [0, 1]);
        let detached = |held: &HeldSettle| match held {
            HeldSettle::Detach(key) => Some(key.0),
            HeldSettle::Settle(settle) => {
                assert_eq!(settle.consumer.0, 0);
                None
            }
        };
        let detached: Vec<u64> = leader.held_settles.iter().filter_map(detached).collect();
        assert_eq!((leader.held_settles.len(), detached), (HELD_SETTLES_MAX + 2, vec![0, 1]));
    }

    fn attach(ranges: usize) -> AttachConsumer {
        let queue = QueueId(uuid::Uuid::from_u128(1));
        let ranges = vec![OffsetRange::new(Offset(0), Offset(1)); ranges];
        let (reply, _) = oneshot::channel();
        AttachConsumer {
            queue,
            consumer: ConsumerKey(1),
            prefetch: 1,
            prefetch_bytes: 0,
            claim: Some(Claim { queue, epoch: Epoch(1), ranges }),
            sink: Arc::new(Sink::default()),
            reply,
        }
    }

    #[test]
    fn consumers_that_wait_for_a_leader_are_few_and_so_are_the_ranges_that_they_claim() {
        let mut leader = Leader::new(Epoch(1), Instant::now());
        let few = (0..2 * HELD_ATTACHES_MAX).filter(|_| leader.hold_attach(attach(1)).is_none());
        assert_eq!(few.count(), HELD_ATTACHES_MAX);

        let mut leader = Leader::new(Epoch(1), Instant::now());
        let large = (0..200).filter(|_| leader.hold_attach(attach(10_000)).is_none());
        assert_eq!(large.count(), HELD_CLAIM_RANGES_MAX / 10_000);
    }
}
