//! Random histories against a model too plain to be wrong: a vector of records, a map of messages, scans everywhere.

mod given;

use std::collections::BTreeMap;

use bellwether_log::{Record, SettleKind};
use bellwether_protocol::error::ErrorCode;
use bellwether_protocol::ids::{Epoch, Offset, OffsetRange, Seq};
use bellwether_queue::{Admission, Effect, Queue};
use given::{enqueue, epoch_start, producer};
use proptest::prelude::*;

const PRODUCERS: [&str; 3] = ["p0", "p1", "p2"];

#[derive(Clone, Debug)]
enum Step {
    Publish {
        producer: Option<usize>,
        back: u64,
        gap: u64,
        count: u32,
    },
    Commit {
        records: usize,
    },
    Attach {
        prefetch: u32,
    },
    Detach {
        consumer: usize,
    },
    /// Settles some of what a consumer holds: of every `stride` messages one.
    Settle {
        consumer: usize,
        stride: usize,
        returns: bool,
    },
    /// Settles what perhaps nobody holds.
    SettleWrongly {
        consumer: usize,
        first: u64,
        length: u64,
    },
    /// Keeps what it says it had.
    Claim {
        consumer: usize,
        first: u64,
        length: u64,
    },
    Dispatch,
    Pause {
        consumer: usize,
        paused: bool,
    },
    Purge,
    Checkpoint,
    /// The leader is lost, and with it all but `kept` of what was not committed.
    FailOver {
        kept: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (proptest::option::of(0..PRODUCERS.len()), 0..4_u64, 0..3_u64, 1..6_u32).prop_map(
            |(producer, back, gap, count)| Step::Publish { producer, back, gap, count }),
        6 => (1..6_usize).prop_map(|records| Step::Commit { records }),
        2 => (1..7_u32).prop_map(|prefetch| Step::Attach { prefetch }),
        1 => (0..4_usize).prop_map(|consumer| Step::Detach { consumer }),
        4 => (0..4_usize, 1..4_usize, any::<bool>()).prop_map(
            |(consumer, stride, returns)| Step::Settle { consumer, stride, returns }),
        1 => (0..4_usize, 0..60_u64, 1..9_u64).prop_map(
            |(consumer, first, length)| Step::SettleWrongly { consumer, first, length }),
        2 => (0..4_usize, 0..60_u64, 1..9_u64).prop_map(
            |(consumer, first, length)| Step::Claim { consumer, first, length }),
        6 => Just(Step::Dispatch),
        1 => (0..4_usize, any::<bool>()).prop_map(
            |(consumer, paused)| Step::Pause { consumer, paused }),
        1 => Just(Step::Purge),
        1 => Just(Step::Checkpoint),
        1 => (0..9_usize).prop_map(|kept| Step::FailOver { kept }),
    ]
}

/// Where a message is that is neither settled nor purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Ready,
    Held(u64),
    Pending,
    Purging,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    place: Place,
    returns: u32,
}

#[derive(Clone, Copy, Debug)]
struct Consumer {
    prefetch: usize,
    paused: bool,
    /// Claimed: beyond its prefetch, if need be.
    claimed: usize,
}

/// The leader, a follower, and the model of what they should be.
struct World {
    leader: Queue,
    follower: Queue,
    checkpoint: Vec<u8>,
    log: Vec<(u64, Record)>,
    committed: usize,
    end: u64,
    epoch: u64,
    led_from: u64,
    messages: BTreeMap<u64, Message>,
    last: BTreeMap<&'static str, u64>,
    consumers: BTreeMap<u64, Consumer>,
    next_key: u64,
    enqueued: u64,
    settled: u64,
    purged: u64,
    first_delivered: Vec<u64>,
}

impl World {
    fn new() -> World {
        let mut world = World {
            leader: Queue::new(),
            follower: Queue::new(),
            checkpoint: Queue::new().checkpoint(),
            log: Vec::new(),
            committed: 0,
            end: 0,
            epoch: 0,
            led_from: 0,
            messages: BTreeMap::new(),
            last: BTreeMap::new(),
            consumers: BTreeMap::new(),
            next_key: 1,
            enqueued: 0,
            settled: 0,
            purged: 0,
            first_delivered: Vec::new(),
        };
        world.begin_epoch();
        world
    }

    fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.append(epoch_start(self.epoch, self.end));
        self.commit(usize::MAX);
        self.led_from = self.end;
        self.leader.lead(Epoch(self.epoch));
        self.consumers.clear();
        self.first_delivered.clear();
        for message in self.messages.values_mut() {
            message.place = Place::Ready;
        }
    }

    fn append(&mut self, record: Record) {
        self.leader.appended(Offset(self.end), &record);
        let count = u64::from(record.count());
        self.log.push((self.end, record));
        self.end += count;
    }

    fn commit(&mut self, records: usize) {
        for _ in 0..records {
            let Some((base, record)) = self.log.get(self.committed).cloned() else { return };
            self.committed += 1;
            let (mut effects, mut followed) = (Vec::new(), Vec::new());
            self.leader.apply(Offset(base), &record, &mut effects).unwrap();
            self.follower.apply(Offset(base), &record, &mut followed).unwrap();
            assert_eq!(effects, followed, "the follower sees the same messages go");
            let gone: Vec<u64> = effects
                .iter()
                .flat_map(|effect| match effect {
                    Effect::Gone { run } => run.first.0..run.end.0,
                    Effect::Purged { .. } => 0..0,
                    Effect::Deliver { .. } => panic!("a commit delivers nothing"),
                })
                .collect();
            assert_eq!(gone, self.model_commit(base, &record), "gone by {record:?}");
        }
    }

    fn model_commit(&mut self, base: u64, record: &Record) -> Vec<u64> {
        let covers = |ranges: &[OffsetRange], offset: u64| {
            ranges.iter().any(|range| (range.first.0..range.end.0).contains(&offset))
        };
        let mut gone = Vec::new();
        match record {
            Record::EpochStart { .. } => {}
            Record::Enqueue(enqueue) => {
                let count = u64::from(enqueue.messages.count());
                self.enqueued += count;
                let message = Message { place: Place::Ready, returns: 0 };
                self.messages.extend((base..base + count).map(|offset| (offset, message)));
            }
            Record::Settle { ranges, .. } => {
                gone.extend(self.messages.keys().filter(|offset| covers(ranges, **offset)));
                self.settled += gone.len() as u64;
            }
            Record::Return { ranges } => {
                for (_, message) in self.messages.iter_mut().filter(|(at, _)| covers(ranges, **at))
                {
                    message.place = Place::Ready;
                    message.returns += 1;
                }
            }
            Record::Purge { below, held } => {
                let goes = |at: &&u64| **at < below.0 && !covers(held, **at);
                gone.extend(self.messages.keys().filter(goes));
                self.purged += gone.len() as u64;
            }
        }
        self.messages.retain(|offset, _| !gone.contains(offset));
        gone
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Publish { producer, back, gap, count } => {
                self.publish(producer.map(|p| PRODUCERS[p]), back, gap, count);
            }
            Step::Commit { records } => self.commit(records),
            Step::Attach { prefetch } => {
                if self.consumers.len() < 4 {
                    self.leader.attach(self.next_key, prefetch);
                    let consumer =
                        Consumer { prefetch: prefetch as usize, paused: false, claimed: 0 };
                    self.consumers.insert(self.next_key, consumer);
                    self.next_key += 1;
                }
            }
            Step::Detach { consumer } => {
                let Some(key) = self.key(consumer) else { return };
                self.consumers.remove(&key);
                let held = self.held(key);
                self.place(&held, Place::Pending);
                match self.leader.detach(key) {
                    Some(record) => self.append(record),
                    None => assert_eq!(held, [], "what it held is returned"),
                }
            }
            Step::Settle { consumer, stride, returns } => {
                let Some(key) = self.key(consumer) else { return };
                let some: Vec<u64> = self.held(key).into_iter().step_by(stride).collect();
                self.settle(key, &some, returns);
            }
            Step::SettleWrongly { consumer, first, length } => {
                let Some(key) = self.key(consumer) else { return };
                let range = OffsetRange::new(Offset(first), Offset(first + length));
                if (first..first + length).all(|at| self.held(key).contains(&at)) {
                    self.settle(key, &(first..first + length).collect::<Vec<_>>(), false);
                } else {
                    let refused = self.leader.settle(key, Epoch(self.epoch), &[range]);
                    assert_eq!(refused.unwrap_err().code, ErrorCode::Stale);
                }
            }
            Step::Claim { consumer, first, length } => self.claim(consumer, first, first + length),
            Step::Dispatch => self.dispatch(),
            Step::Pause { consumer, paused } => {
                let Some(key) = self.key(consumer) else { return };
                if paused {
                    self.leader.pause(key)
                } else {
                    self.leader.resume(key)
                }
                self.consumers.get_mut(&key).unwrap().paused = paused;
            }
            Step::Purge => {
                let record = self.leader.purge();
                let below = self.leader.applied().0;
                let ready = |(at, message): &(&u64, &Message)| {
                    **at < below && message.place == Place::Ready
                };
                let ready: Vec<u64> =
                    self.messages.iter().filter(ready).map(|(at, _)| *at).collect();
                self.place(&ready, Place::Purging);
                self.append(record);
            }
            Step::Checkpoint => self.checkpoint = self.follower.checkpoint(),
            Step::FailOver { kept } => self.fail_over(kept),
        }
    }

    fn publish(&mut self, name: Option<&'static str>, back: u64, gap: u64, count: u32) {
        let time_ms = self.leader.time_ms().max(self.end);
        let Some(name) = name else { return self.append(enqueue(None, count, time_ms)) };
        let last = self.last.get(name).copied().unwrap_or(0);
        let first = (last + 1 + gap).saturating_sub(back).max(1);
        let admission =
            self.leader.admit(Some(&producer(name)), Seq(0), false, Seq(first), count, back > 0);
        let sent = first + u64::from(count) - 1;
        let stored = last.min(sent).saturating_sub(first - 1) as u32;
        if stored == count {
            assert_eq!(admission, Admission::Duplicate);
        } else {
            assert_eq!(admission, Admission::Append { skip: stored });
            let mark = Some((name, first + u64::from(stored)));
            self.append(enqueue(mark, count - stored, time_ms));
            self.last.insert(name, sent);
        }
    }

    fn settle(&mut self, key: u64, offsets: &[u64], returns: bool) {
        if offsets.is_empty() {
            return;
        }
        let range = |at: &u64| OffsetRange::new(Offset(*at), Offset(at + 1));
        let ranges: Vec<_> = offsets.iter().map(range).collect();
        let ranges = self.leader.settle(key, Epoch(self.epoch), &ranges).unwrap();
        self.place(offsets, Place::Pending);
        let settle = |ranges| Record::Settle { kind: SettleKind::Ack, ranges };
        self.append(if returns { Record::Return { ranges } } else { settle(ranges) });
    }

    fn claim(&mut self, consumer: usize, first: u64, end: u64) {
        let Some(key) = self.key(consumer) else { return };
        let claimed = self.leader.claim(key, &[OffsetRange::new(Offset(first), Offset(end))]);
        let claimed = claimed.unwrap();
        let offsets = |ranges: &[OffsetRange]| -> Vec<u64> {
            ranges.iter().flat_map(|range| range.first.0..range.end.0).collect()
        };
        let within = first..end.min(self.leader.applied().0).max(first);
        let place = |at: &u64| self.messages.get(at).map(|message| message.place);
        let ready: Vec<u64> = within.clone().filter(|at| place(at) == Some(Place::Ready)).collect();
        assert_eq!(offsets(&claimed.held), ready);
        let gone: Vec<u64> = within.filter(|at| place(at).is_none()).collect();
        assert_eq!(offsets(&claimed.settled), gone);
        self.place(&ready, Place::Held(key));
        self.consumers.get_mut(&key).unwrap().claimed += ready.len();
    }

    fn dispatch(&mut self) {
        let mut effects = Vec::new();
        self.leader.dispatch(&mut effects);
        for effect in effects {
            let Effect::Deliver { consumer, run, redelivered, returns } = effect else {
                panic!("a dispatch only delivers: {effect:?}");
            };
            assert!(run.count() > 0 && !self.consumers[&consumer].paused);
            for offset in run.first.0..run.end.0 {
                let front = self.messages.iter().find(|(_, message)| message.place == Place::Ready);
                let (front, message) = front.expect("only what is ready is delivered");
                assert_eq!(offset, *front, "from the front");
                assert_eq!(returns, message.returns);
                assert_eq!(redelivered, returns > 0 || offset < self.led_from, "{offset} marked");
                if returns == 0 {
                    assert!(!self.first_delivered.contains(&offset));
                    self.first_delivered.push(offset);
                }
                self.place(&[offset], Place::Held(consumer));
            }
        }
        let mut consumers = self.consumers.iter();
        let idle = consumers.find(|(key, c)| !c.paused && self.held(**key).len() < c.prefetch);
        let waiting = self.messages.values().any(|message| message.place == Place::Ready);
        assert!(idle.is_none() || !waiting, "{idle:?} has room and messages wait");
    }

    /// The follower leads, from a checkpoint and the records behind it, with some of what was not committed.
    fn fail_over(&mut self, kept: usize) {
        self.log.truncate(self.committed + kept);
        self.end = self.log.last().map_or(0, |(base, record)| base + u64::from(record.count()));
        let mut restored = Queue::restore(&self.checkpoint).unwrap();
        for (base, record) in &self.log[..self.committed] {
            if Offset(*base) >= restored.applied() {
                restored.apply(Offset(*base), record, &mut Vec::new()).unwrap();
            }
        }
        assert_eq!(restored.checkpoint(), self.follower.checkpoint());
        self.leader.stop_leading();
        assert_eq!(self.leader.checkpoint(), self.follower.checkpoint());
        self.leader = std::mem::replace(&mut self.follower, restored);
        self.last.clear();
        for (_, record) in &self.log {
            if let Record::Enqueue(enqueue) = record
                && let Some(mark) = &enqueue.producer
            {
                let name = PRODUCERS.iter().find(|name| **name == mark.name.as_str()).unwrap();
                self.last.insert(name, mark.first.0 + u64::from(enqueue.messages.count()) - 1);
            }
        }
        self.begin_epoch();
    }

    fn key(&self, consumer: usize) -> Option<u64> {
        self.consumers.keys().nth(consumer).copied()
    }

    fn held(&self, key: u64) -> Vec<u64> {
        let held =
            |(at, message): (&u64, &Message)| (message.place == Place::Held(key)).then_some(*at);
        self.messages.iter().filter_map(held).collect()
    }

    fn place(&mut self, offsets: &[u64], place: Place) {
        for offset in offsets {
            self.messages.get_mut(offset).unwrap().place = place;
        }
    }

    fn check(&self) {
        let counts = self.leader.counts();
        let out = |message: &&Message| matches!(message.place, Place::Held(_) | Place::Pending);
        let out = self.messages.values().filter(out).count() as u64;
        assert_eq!(counts.enqueued, self.enqueued);
        assert_eq!(counts.settled, self.settled);
        assert_eq!(counts.purged, self.purged);
        assert_eq!(counts.delivered, out);
        assert_eq!(counts.ready, self.messages.len() as u64 - out);
        assert_eq!(
            counts.enqueued,
            counts.ready + counts.delivered + counts.settled + counts.purged
        );
        assert_eq!(counts.consumers as usize, self.consumers.len());
        assert_eq!(counts.log_end, Offset(self.end));
        for (key, consumer) in &self.consumers {
            let held = self.held(*key);
            assert!(held.len() <= consumer.prefetch + consumer.claimed, "prefetch of {key}");
            let runs = self.leader.held_by(*key);
            let offsets: Vec<u64> = runs.iter().flat_map(|run| run.first.0..run.end.0).collect();
            assert_eq!(offsets, held, "held by {key}");
        }
        let unsettled = self.leader.unsettled().flat_map(|run| run.first.0..run.end.0);
        assert!(unsettled.eq(self.messages.keys().copied()));
        assert_eq!(self.leader.checkpoint(), self.follower.checkpoint(), "replicas are the same");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400, rng_seed: proptest::test_runner::RngSeed::Fixed(2026),
        failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn the_queue_does_what_the_plain_model_does(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            world.check();
        }
    }
}
