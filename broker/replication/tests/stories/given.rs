//! A replica in a situation, for stories: who it is, what it has read, and what it does.

#![allow(dead_code, reason = "each story uses a part")]

use std::time::{Duration, Instant};

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::{QueueState, UnknownFields};
use bellwether_log::EpochHistory;
use bellwether_protocol::ids::{
    BrokerId, BrokerLife, Epoch, Incarnation, Member, Offset, QueueId, StoreId,
};
use bellwether_protocol::peer::{NoPosition, Position, Subscription};
use bellwether_replication::{CasOutcome, Effect, Event, Identity, LogFacts, Replica, Timing};
use uuid::Uuid;

pub fn life(broker: u32) -> BrokerLife {
    BrokerLife { broker: BrokerId(broker), incarnation: Incarnation(u64::from(broker) * 100) }
}

pub fn another_life(broker: u32) -> BrokerLife {
    BrokerLife { broker: BrokerId(broker), incarnation: Incarnation(u64::from(broker) * 100 + 1) }
}

pub fn member(broker: u32) -> Member {
    Member { broker: BrokerId(broker), store: StoreId(Uuid::from_u128(u128::from(broker))) }
}

pub fn queue() -> QueueId {
    QueueId(Uuid::from_u128(7))
}

pub fn version(version: i32) -> Version {
    Version(version)
}

pub fn brokers(isr: &[Member]) -> Vec<u32> {
    isr.iter().map(|member| member.broker.0).collect()
}

pub fn state(epoch: u64, leader: Option<u32>, isr: &[u32]) -> QueueState {
    QueueState {
        epoch: Epoch(epoch),
        leader: leader.map(life),
        isr: isr.iter().map(|broker| member(*broker)).collect(),
        min_isr: 2,
        replicas: [1, 2, 3].map(BrokerId).to_vec(),
        given_up: Vec::new(),
        past: Default::default(),
        unknown: UnknownFields::new(),
    }
}

pub type Cas = (Version, QueueState);

/// One replica and what it wants done.
pub struct Given {
    replica: Replica,
    me: Member,
    now: Instant,
    effects: Vec<Effect>,
    end: Offset,
}

impl Given {
    fn replica(broker: u32, store: u128, facts: LogFacts) -> Given {
        let now = Instant::now() + Duration::from_secs(1000);
        let me = Member { broker: BrokerId(broker), store: StoreId(Uuid::from_u128(store)) };
        let identity = Identity {
            queue: QueueId(Uuid::from_u128(7)),
            member: me,
            started: now - Duration::from_secs(100),
        };
        let end = facts.end;
        let replica = Replica::new(identity, Timing::default(), facts);
        let mut given = Given { replica, me, now, effects: Vec::new(), end };
        given.happens(Event::Connected(true));
        given.happens(Event::Life(Some(life(broker))));
        given
    }

    /// Broker 1, named by the state of epoch 1, with nothing durable yet.
    pub fn fresh_leader() -> Given {
        Given::fresh_leader_with_isr(&[1, 2, 3])
    }

    pub fn fresh_leader_with_isr(isr: &[u32]) -> Given {
        let mut given = Given::replica(1, 1, LogFacts::default());
        given.reads(state(1, Some(1), isr), 0);
        given
    }

    pub fn leader_of_three() -> Given {
        Given::leader_with_isr(&[1, 2, 3])
    }

    /// Broker 1, serving in epoch 1 with an epoch start that is committed.
    pub fn leader_with_isr(isr: &[u32]) -> Given {
        let mut given = Given::replica(1, 1, LogFacts::default());
        given.reads(state(1, Some(1), isr), 0);
        let others: Vec<u32> = isr.iter().copied().filter(|broker| *broker != 1).collect();
        given.whole_at(Epoch(1), &others);
        assert_eq!(given.serves(), Some(Epoch(1)));
        given.take_effects();
        given
    }

    /// The epoch start is durable here and at these followers.
    pub fn whole_at(&mut self, epoch: Epoch, followers: &[u32]) {
        self.durable_here();
        let last = self.replica.log().epochs.starts().iter().rev().nth(1).map(|(epoch, _)| epoch.0);
        let before = self.end.0 - 1;
        for follower in followers {
            self.follower_joins_epoch(*follower, epoch, last, before);
            self.happens(Event::Durable { from: life(*follower), epoch, end: self.end });
        }
    }

    pub fn follower_of_three(broker: u32) -> Given {
        Given::follower(broker, &[1, 2, 3])
    }

    /// Agreed with broker 1, the leader of epoch 1, on a log of one record, which is committed.
    pub fn follower(broker: u32, isr: &[u32]) -> Given {
        Given::follower_with_store(broker, u128::from(broker), isr)
    }

    pub fn follower_with_store(broker: u32, store: u128, isr: &[u32]) -> Given {
        let mut given = Given::replica(broker, store, LogFacts::default());
        given.reads(state(1, Some(1), isr), 0);
        given.epoch_ends(1, 1, None, 0);
        given.streamed(1, 1);
        given.happens(Event::LocalDurable { end: Offset(1) });
        given.happens(Event::Committed {
            from: life(1),
            epoch: Epoch(1),
            high_watermark: Offset(1),
        });
        given.take_effects();
        given
    }

    /// Another log than the one it has: the process was restarted with it.
    pub fn holds(&mut self, epochs: &[(u64, u64)], end: u64, high_watermark: u64) {
        let starts = epochs.iter().map(|(epoch, start)| (Epoch(*epoch), Offset(*start))).collect();
        let facts = LogFacts {
            epochs: EpochHistory::new(starts).expect("in order"),
            start: Offset(0),
            end: Offset(end),
            durable: Offset(end),
            high_watermark: Offset(high_watermark),
        };
        *self = Given::replica(self.me.broker.0, self.me.store.0.as_u128(), facts);
    }

    /// The leader of `epoch` answers the last subscription.
    pub fn epoch_ends(&mut self, leader: u32, epoch: u64, last_epoch: Option<u64>, end: u64) {
        let asked = self.subscription().expect("it has subscribed");
        self.happens(Event::EpochEnd {
            from: life(leader),
            epoch: Epoch(epoch),
            last_epoch: last_epoch.map(Epoch),
            end: Offset(end),
            number: asked.number,
        });
    }

    /// The leader streamed `count` records of `epoch`.
    pub fn streamed(&mut self, epoch: u64, count: u64) {
        let base = self.end;
        self.end = base.plus(count);
        let leader = life(1);
        assert_eq!(
            self.replica.admit(self.now, leader, Epoch(epoch), base),
            bellwether_replication::Admit::From(base)
        );
        self.replica.followed(&[(Epoch(epoch), base)], self.end);
    }

    /// What the clock on the wall shows.
    pub fn wall(&mut self, unix_ms: u64) {
        self.replica.tell_time(unix_ms);
    }

    /// The disks of these brokers stall, or did a moment ago, and of no others.
    pub fn unready(&mut self, brokers: &[u32]) {
        let brokers: Vec<BrokerId> = brokers.iter().copied().map(BrokerId).collect();
        self.replica.unready(&brokers);
    }

    /// So many queues lose this leader at once.
    pub fn crowd(&mut self, leader: u32, queues: usize) {
        self.replica.crowd(life(leader), queues);
    }

    pub fn happens(&mut self, event: Event) {
        let from = self.effects.len();
        self.replica.step(self.now, event, &mut self.effects);
        let starts =
            self.effects[from..].iter().any(|e| matches!(e, Effect::AppendEpochStart { .. }));
        if starts {
            self.end = self.end.plus(1);
            let end = self.end;
            self.replica.step(self.now, Event::Appended { end }, &mut self.effects);
        }
    }

    pub fn reads(&mut self, state: QueueState, version: i32) {
        self.happens(Event::State { state, version: Version(version), synced: true });
    }

    pub fn appends(&mut self, count: u64) {
        self.end = self.end.plus(count);
        self.happens(Event::Appended { end: self.end });
    }

    pub fn durable_here(&mut self) {
        self.happens(Event::LocalDurable { end: self.end });
    }

    pub fn durable_at(&mut self, broker: u32, end: u64) {
        let epoch = self.replica.log().epochs.last().expect("a leader has begun its epoch");
        self.happens(Event::Durable { from: life(broker), epoch, end: Offset(end) });
    }

    pub fn follower_joins(&mut self, broker: u32, last_epoch: Option<u64>, log_end: u64) {
        self.follower_joins_epoch(broker, Epoch(1), last_epoch, log_end);
    }

    pub fn follower_joins_epoch(
        &mut self,
        broker: u32,
        epoch: Epoch,
        last_epoch: Option<u64>,
        log_end: u64,
    ) {
        let subscription = Subscription {
            queue: QueueId(Uuid::from_u128(7)),
            epoch,
            member: member(broker),
            last_epoch: last_epoch.map(Epoch),
            log_end: Offset(log_end),
            number: 1,
        };
        self.happens(Event::Subscribe { from: life(broker), subscription });
    }

    /// These members' logs end where this one's does.
    pub fn positions_agree(&mut self, others: &[u32]) {
        let end = self.replica.log().end.0;
        for other in others {
            self.position_of(*other, 1, end);
        }
    }

    pub fn position_of(&mut self, broker: u32, last_epoch: u64, end: u64) {
        let position = Position {
            queue: QueueId(Uuid::from_u128(7)),
            member: member(broker),
            seen: Epoch(1),
            last_epoch: Epoch(last_epoch),
            log_end: Offset(end),
        };
        self.happens(Event::Position { from: life(broker), position });
    }

    /// A broker with this copy, or in whose place it would begin, cannot say where a log ends.
    pub fn says_nothing(&mut self, from: BrokerLife, member: Member, stopped: bool) {
        let without = NoPosition { queue: queue(), member, stopped };
        self.happens(Event::NoPosition { from, without });
    }

    /// What it answers when it is asked where its log ends.
    pub fn position(&self) -> Result<Position, NoPosition> {
        self.replica.position()
    }

    /// Time passes, in steps as short as the shell's.
    pub fn later(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_millis(10);
            self.happens(Event::Tick);
        }
    }

    /// Time passes without the machine hearing of it.
    pub fn jump(&mut self, time: Duration) {
        self.now += time;
    }

    pub fn answers(&mut self, cas: &Cas, outcome: CasOutcome) {
        self.take_effects();
        self.happens(Event::Cas { version: cas.0, state: cas.1.clone(), outcome });
    }

    /// The last CAS that it asked for since the effects were last taken.
    pub fn cas(&self) -> Option<Cas> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Cas { version, state } => Some((*version, state.clone())),
            _ => None,
        })
    }

    pub fn subscription(&self) -> Option<Subscription> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Subscribe { subscription, .. } => Some(*subscription),
            _ => None,
        })
    }

    pub fn deliver_from(&self) -> Option<Instant> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Serve { deliver_from, .. } => Some(*deliver_from),
            _ => None,
        })
    }

    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    pub fn take_effects(&mut self) {
        self.effects.clear();
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    pub fn high_watermark(&self) -> Offset {
        self.replica.log().high_watermark
    }

    pub fn leads(&self) -> Option<Epoch> {
        self.replica.leads()
    }

    pub fn serves(&self) -> Option<Epoch> {
        self.replica.serves()
    }

    pub fn follows(&self) -> Option<(BrokerLife, Epoch)> {
        self.replica.follows()
    }

    pub fn stopped(&self) -> Option<&str> {
        self.replica.stopped()
    }

    pub fn wants_ticks(&self) -> bool {
        self.replica.wants_ticks()
    }

    pub fn starved(&self) -> bool {
        self.replica.starved(self.now)
    }

    pub fn lease_members(&self) -> Option<Vec<BrokerLife>> {
        self.replica.lease_members()
    }
}
