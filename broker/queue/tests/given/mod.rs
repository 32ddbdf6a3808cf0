//! A queue with a log of its own, told in the words of a story: what is appended commits at once unless
//! the story holds it back.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{HashMap, VecDeque};

use bellwether_log::{Enqueue, ProducerMark, Record, SettleKind};
use bellwether_protocol::client::QueueCounts;
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::{
    BrokerId, BrokerLife, Epoch, Incarnation, Offset, OffsetRange, Seq,
};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::{ExchangeName, ProducerName, RoutingKey};
use bellwether_queue::{Admission, Effect, Queue};
use bytes::Bytes;

pub fn range(first: u64, end: u64) -> OffsetRange {
    OffsetRange::new(Offset(first), Offset(end))
}

/// `count` messages without headers and with empty bodies.
pub fn messages(count: u32) -> MessageBlock {
    MessageBlock::from_trusted(count, Bytes::from([0x92, 0xc0, 0xc4, 0x00].repeat(count as usize)))
}

pub fn producer(name: &str) -> ProducerName {
    ProducerName::new(name).unwrap()
}

pub fn enqueue(mark: Option<(&str, u64)>, count: u32, time_ms: u64) -> Record {
    Record::Enqueue(Enqueue {
        producer: mark
            .map(|(name, first)| ProducerMark { name: producer(name), first: Seq(first) }),
        time_ms,
        exchange: ExchangeName::default(),
        routing_key: RoutingKey::new("orders").unwrap(),
        messages: messages(count),
    })
}

pub fn epoch_start(epoch: u64, time_ms: u64) -> Record {
    let leader = BrokerLife { broker: BrokerId(1), incarnation: Incarnation(epoch) };
    Record::EpochStart { leader, time_ms }
}

/// A delivery as a story tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub to: &'static str,
    pub offsets: (u64, u64),
    pub redelivered: bool,
    pub returns: u32,
}

/// Offsets `first` up to and without `end`, for the first time.
pub fn fresh(to: &'static str, first: u64, end: u64) -> Delivery {
    Delivery { to, offsets: (first, end), redelivered: false, returns: 0 }
}

/// The same, perhaps delivered before, and returned so often.
pub fn again(to: &'static str, first: u64, end: u64, returns: u32) -> Delivery {
    Delivery { to, offsets: (first, end), redelivered: true, returns }
}

/// The queue of a story, led from the start. Offset 0 is the first epoch's start.
pub struct Given {
    pub queue: Queue,
    pub epoch: Epoch,
    /// Committed or not, by base offset.
    pub log: Vec<(Offset, Record)>,
    uncommitted: VecDeque<(Offset, Record)>,
    end: Offset,
    holds_back: bool,
    pub time_ms: u64,
    keys: HashMap<&'static str, u64>,
    pub gone: Vec<OffsetRange>,
    pub purged: Vec<u64>,
}

impl Given {
    pub fn queue() -> Given {
        let mut given = Given {
            queue: Queue::new(),
            epoch: Epoch(0),
            log: Vec::new(),
            uncommitted: VecDeque::new(),
            end: Offset(0),
            holds_back: false,
            time_ms: 1_000,
            keys: HashMap::new(),
            gone: Vec::new(),
            purged: Vec::new(),
        };
        given.leads();
        given
    }

    /// A new epoch begins on this replica, with everything in the log committed.
    fn leads(&mut self) {
        self.epoch = self.epoch.next();
        self.append(epoch_start(self.epoch.0, self.time_ms));
        self.commit_all();
        self.queue.lead(self.epoch);
    }

    pub fn append(&mut self, record: Record) {
        let base = self.end;
        self.queue.appended(base, &record);
        self.end = base.plus(u64::from(record.count()));
        self.log.push((base, record.clone()));
        self.uncommitted.push_back((base, record));
        if !self.holds_back {
            self.commit_all();
        }
    }

    /// From here on nothing is committed until [`Given::commits`].
    pub fn holding_commits_back(mut self) -> Given {
        self.holds_back = true;
        self
    }

    pub fn commits(&mut self) -> &mut Given {
        self.commit_all();
        self
    }

    fn commit_all(&mut self) {
        let mut effects = Vec::new();
        for (base, record) in self.uncommitted.drain(..) {
            self.queue.apply(base, &record, &mut effects).unwrap();
        }
        for effect in effects {
            match effect {
                Effect::Gone { run } => self.gone.push(run),
                Effect::Purged { messages } => self.purged.push(messages),
                Effect::Deliver { .. } => panic!("a commit delivers nothing by itself"),
            }
        }
    }

    pub fn messages(mut self, count: u32) -> Given {
        self.publishes(count);
        self
    }

    pub fn consumer(mut self, name: &'static str, prefetch: u32) -> Given {
        self.joins(name, prefetch);
        self
    }

    pub fn publishes(&mut self, count: u32) -> &mut Given {
        self.append(enqueue(None, count, self.time_ms));
        self
    }

    pub fn joins(&mut self, name: &'static str, prefetch: u32) -> &mut Given {
        let key = 1 + self.keys.len() as u64;
        self.keys.insert(name, key);
        self.queue.attach(key, prefetch);
        self
    }

    pub fn leaves(&mut self, name: &'static str) -> &mut Given {
        if let Some(record) = self.queue.detach(self.keys[name]) {
            self.append(record);
        }
        self
    }

    /// A named producer publishes, as the shell does it.
    pub fn sends(&mut self, name: &str, first: u64, count: u32, how: Sent) -> Admission {
        let (previous, chained, resent) = match how {
            Sent::New => (0, false, false),
            Sent::Again => (0, false, true),
            Sent::After(previous) => (previous, true, false),
        };
        let admission = self.queue.admit(
            Some(&producer(name)),
            Seq(previous),
            chained,
            Seq(first),
            count,
            resent,
        );
        if let Admission::Append { skip } = admission {
            let mark = Some((name, first + u64::from(skip)));
            self.append(enqueue(mark, count - skip, self.time_ms));
        }
        admission
    }

    /// Everything that is dispatched now, runs that touch joined as far as they are alike.
    pub fn delivers(&mut self) -> Vec<Delivery> {
        let mut effects = Vec::new();
        while self.queue.wants_dispatch() {
            self.queue.dispatch(&mut effects);
        }
        let name = |key| *self.keys.iter().find(|(_, other)| **other == key).unwrap().0;
        let mut deliveries: Vec<Delivery> = Vec::new();
        for effect in effects {
            let Effect::Deliver { consumer, run, redelivered, returns } = effect else {
                panic!("a dispatch only delivers: {effect:?}");
            };
            let offsets = (run.first.0, run.end.0);
            let next = Delivery { to: name(consumer), offsets, redelivered, returns };
            match deliveries.last_mut() {
                Some(last)
                    if last.offsets.1 == offsets.0
                        && (last.to, last.redelivered, last.returns)
                            == (next.to, next.redelivered, next.returns) =>
                {
                    last.offsets.1 = offsets.1;
                }
                _ => deliveries.push(next),
            }
        }
        deliveries
    }

    pub fn acks(&mut self, name: &'static str, ranges: &[(u64, u64)]) -> Result<(), ErrorCode> {
        let ranges = self.settles(name, ranges).map_err(|error| error.code)?;
        self.append(Record::Settle { kind: SettleKind::Ack, ranges });
        Ok(())
    }

    pub fn returns(&mut self, name: &'static str, ranges: &[(u64, u64)]) {
        let ranges = self.settles(name, ranges).unwrap();
        self.append(Record::Return { ranges });
    }

    fn settles(
        &mut self,
        name: &'static str,
        ranges: &[(u64, u64)],
    ) -> Result<Vec<OffsetRange>, ErrorBody> {
        let ranges: Vec<_> = ranges.iter().map(|(first, end)| range(*first, *end)).collect();
        self.queue.settle(self.keys[name], self.epoch, &ranges)
    }

    pub fn pauses(&mut self, name: &'static str) -> &mut Given {
        self.queue.pause(self.keys[name]);
        self
    }

    /// What of this the consumer holds now, and what is settled.
    pub fn claims(
        &mut self,
        name: &'static str,
        ranges: &[(u64, u64)],
    ) -> (Vec<OffsetRange>, Vec<OffsetRange>) {
        let ranges: Vec<_> = ranges.iter().map(|(first, end)| range(*first, *end)).collect();
        let claimed = self.queue.claim(self.keys[name], &ranges).unwrap();
        (claimed.held, claimed.settled)
    }

    pub fn resumes(&mut self, name: &'static str) -> &mut Given {
        self.queue.resume(self.keys[name]);
        self
    }

    pub fn purges(&mut self) -> &mut Given {
        let record = self.queue.purge();
        self.append(record);
        self
    }

    /// Another replica, which got through `from_checkpoint` what was committed by then and the rest as
    /// records, takes over; everything that was appended survives.
    pub fn fails_over(&mut self, from_checkpoint: &[u8]) -> &mut Given {
        self.queue = Queue::restore(from_checkpoint).unwrap();
        self.uncommitted.clear();
        let behind = self.queue.applied();
        let rest = self.log.iter().filter(|(base, _)| *base >= behind).cloned();
        self.uncommitted.extend(rest);
        self.keys.clear();
        self.commit_all();
        self.leads();
        self
    }

    pub fn counts(&self) -> QueueCounts {
        self.queue.counts()
    }
}

/// How a producer sends.
pub enum Sent {
    New,
    Again,
    /// On the heels of this number, which is not confirmed yet.
    After(u64),
}
