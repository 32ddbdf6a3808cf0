//! Clients as the bundled one behaves: producers that send again what is not confirmed, consumers that settle.

use std::collections::{BTreeMap, VecDeque};

use bellwether_protocol::client::Settlement;
use bellwether_protocol::error::Outcome;
use bellwether_protocol::ids::{Epoch, Offset, OffsetRange, Seq};
use bellwether_protocol::names::ProducerName;
use bellwether_queue::merged;

use crate::random::Random;
use crate::witness::Witness;
use crate::words::{ClientId, MessageId, Publish, Reply, Request};

/// Batches that a producer has open.
const WINDOW: usize = 5;

/// A client and the broker it talks to.
pub struct Client {
    pub id: ClientId,
    /// The broker it is connected to; none: it looks for one.
    pub broker: Option<usize>,
    pub kind: Kind,
}

pub enum Kind {
    Producer(Producer),
    Consumer(Consumer),
}

#[derive(Default)]
pub struct Producer {
    pub name: Option<ProducerName>,
    next_seq: u64,
    next_token: u64,
    open: VecDeque<Open>,
}

struct Open {
    first: Seq,
    ids: Vec<MessageId>,
    /// The request that is under way.
    token: Option<u64>,
    sent_before: bool,
}

pub struct Consumer {
    prefetch: u32,
    key: u64,
    attached: Option<Epoch>,
    seen: Epoch,
    held: BTreeMap<Offset, MessageId>,
    next_number: u64,
    settling: BTreeMap<u64, (Vec<OffsetRange>, bool)>,
    /// What it had when it lost its leader, and whether it was settling that for good.
    kept: BTreeMap<Offset, (Option<MessageId>, bool)>,
}

impl Consumer {
    pub fn new(prefetch: u32) -> Consumer {
        Consumer {
            prefetch,
            key: 0,
            attached: None,
            seen: Epoch(0),
            held: BTreeMap::new(),
            next_number: 1,
            settling: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }
}

/// Numbers that no other has in this history.
#[derive(Default)]
pub struct Numbers {
    next_message: u64,
    next_consumer: u64,
}

impl Client {
    /// Has time to do something: what it sends to the broker that it talks to.
    pub fn acts(
        &mut self,
        random: &mut Random,
        numbers: &mut Numbers,
        quiet: bool,
    ) -> Vec<Request> {
        let Some(_) = self.broker else { return Vec::new() };
        match &mut self.kind {
            Kind::Producer(producer) => {
                if !quiet && producer.open.len() < producer.window() && random.chance(60) {
                    producer.open_batch(random, numbers);
                }
                producer.pump()
            }
            Kind::Consumer(consumer) => consumer.acts(random, numbers, quiet),
        }
    }

    pub fn hears(&mut self, reply: Reply, witness: &mut Witness) {
        match (&mut self.kind, reply) {
            (_, Reply::Lost) => {
                self.broker = None;
                match &mut self.kind {
                    Kind::Producer(producer) => producer.lost(),
                    Kind::Consumer(consumer) => consumer.lost(),
                }
            }
            (Kind::Producer(producer), Reply::Published { token, result }) => {
                if !producer.published(token, result.map_err(|error| error.outcome), witness) {
                    self.broker = None;
                }
            }
            (Kind::Consumer(consumer), reply) => {
                if !consumer.hears(reply, witness) {
                    self.broker = None;
                }
            }
            (Kind::Producer(_), other) => panic!("a producer is told {other:?}"),
        }
    }

    #[must_use]
    pub fn is_producer(&self) -> bool {
        matches!(self.kind, Kind::Producer(_))
    }

    /// Whether it has nothing under way and nothing left to do.
    pub fn is_done(&self) -> bool {
        match &self.kind {
            Kind::Producer(producer) => producer.open.is_empty(),
            Kind::Consumer(consumer) => consumer.held.is_empty(),
        }
    }
}

impl Producer {
    pub fn new(name: Option<ProducerName>) -> Producer {
        Producer { name, ..Producer::default() }
    }

    /// Without a name nothing is ever sent again, and one batch at a time is enough.
    fn window(&self) -> usize {
        if self.name.is_some() { WINDOW } else { 1 }
    }

    fn open_batch(&mut self, random: &mut Random, numbers: &mut Numbers) {
        let count = random.between(1, 6);
        let ids = (0..count).map(|next| MessageId(numbers.next_message + next)).collect();
        numbers.next_message += count;
        // Its messages to other queues take numbers too.
        let first = self.next_seq + 1 + random.between(0, 2);
        self.next_seq = first + count - 1;
        self.open.push_back(Open { first: Seq(first), ids, token: None, sent_before: false });
    }

    fn pump(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        let mut previous = None;
        for open in &mut self.open {
            let chained = previous.is_some();
            let last = Seq(open.first.0 + open.ids.len() as u64 - 1);
            let before = previous.replace(last).unwrap_or(Seq(open.first.0 - 1));
            if open.token.is_some() {
                continue;
            }
            self.next_token += 1;
            open.token = Some(self.next_token);
            requests.push(Request::Publish(Publish {
                token: self.next_token,
                producer: self.name.clone(),
                previous: before,
                chained,
                first: open.first,
                resent: std::mem::replace(&mut open.sent_before, true),
                ids: open.ids.clone(),
            }));
        }
        requests
    }

    /// `false`: it has to look for another broker.
    fn published(
        &mut self,
        token: u64,
        result: Result<(), Outcome>,
        witness: &mut Witness,
    ) -> bool {
        let Some(at) = self.open.iter().position(|open| open.token == Some(token)) else {
            return true;
        };
        match result {
            Ok(()) => {
                if let Some(open) = self.open.remove(at) {
                    witness.confirmed_to_producer(&open.ids);
                }
                true
            }
            Err(outcome) if self.name.is_none() => {
                if let (Some(open), Outcome::NotDone) = (self.open.remove(at), outcome) {
                    witness.refused_for_good(&open.ids);
                }
                false
            }
            Err(_) => {
                self.lost();
                false
            }
        }
    }

    /// Nothing more comes of what is under way here.
    fn lost(&mut self) {
        if self.name.is_none() {
            self.open.clear();
        }
        for open in &mut self.open {
            open.token = None;
        }
    }
}

impl Consumer {
    fn acts(&mut self, random: &mut Random, numbers: &mut Numbers, quiet: bool) -> Vec<Request> {
        let Some(epoch) = self.attached else {
            if self.key == 0 {
                numbers.next_consumer += 1;
                self.key = numbers.next_consumer;
                let claim = self.kept.keys().map(|at| OffsetRange::new(*at, at.plus(1))).collect();
                let (consumer, prefetch) = (self.key, self.prefetch);
                return vec![Request::Attach { consumer, prefetch, claim: merged(claim) }];
            }
            return Vec::new();
        };
        let consumer = self.key;
        if !quiet && random.chance(2) {
            self.lost();
            if random.chance(50) {
                // It leaves for good, and another comes.
                self.kept.clear();
            }
            return vec![Request::Detach { consumer }];
        }
        if self.held.is_empty() || random.chance(30) {
            return Vec::new();
        }
        let settlement = match random.between(0, 99) {
            _ if quiet => Settlement::Ack,
            0..80 => Settlement::Ack,
            80..90 => Settlement::Reject,
            _ => Settlement::Return,
        };
        let some: Vec<Offset> =
            self.held.keys().copied().filter(|_| quiet || random.chance(70)).collect();
        let ranges = merged(some.iter().map(|at| OffsetRange::new(*at, at.plus(1))).collect());
        if ranges.is_empty() {
            return Vec::new();
        }
        self.held.retain(|at, _| !some.contains(at));
        let number = self.next_number;
        self.next_number += 1;
        self.settling.insert(number, (ranges.clone(), settlement == Settlement::Return));
        vec![Request::Settle { consumer, number, epoch, settlement, ranges }]
    }

    /// `false`: it has to look for another broker.
    fn hears(&mut self, reply: Reply, witness: &mut Witness) -> bool {
        match reply {
            Reply::Attached { consumer, epoch, .. }
                if consumer == self.key && epoch < self.seen =>
            {
                self.lost();
                false
            }
            Reply::Attached { consumer, epoch, held, settled } if consumer == self.key => {
                self.attached = Some(epoch);
                self.seen = self.seen.max(epoch);
                self.decided(&held, &settled, witness);
                true
            }
            Reply::Deliver { consumer, epoch, messages } if consumer == self.key => {
                if epoch >= self.seen {
                    self.held.extend(messages);
                }
                if self.held.len() > self.prefetch as usize {
                    witness.prefetch_exceeded(self.held.len(), self.prefetch);
                }
                true
            }
            Reply::Settled { consumer, number } if consumer == self.key => {
                if let Some((ranges, returned)) = self.settling.remove(&number) {
                    witness.settle_confirmed(&ranges, returned);
                }
                true
            }
            Reply::SettleFailed { consumer, number, .. } if consumer == self.key => {
                if let Some((ranges, returned)) = self.settling.remove(&number) {
                    self.keep(&ranges, returned);
                }
                true
            }
            Reply::Closed { consumer } if consumer == self.key => {
                self.lost();
                false
            }
            _ => true,
        }
    }

    /// A leader was forced: no broker takes a claim of what was delivered before.
    pub fn forgets(&mut self) {
        self.kept.clear();
    }

    /// What it had is its own again, or settled, or somebody else's.
    fn decided(&mut self, held: &[OffsetRange], settled: &[OffsetRange], witness: &mut Witness) {
        let kept = std::mem::take(&mut self.kept);
        let within = |ranges: &[OffsetRange], at: Offset| {
            ranges.iter().any(|range| (range.first..range.end).contains(&at))
        };
        for (at, (id, for_good)) in kept {
            if within(held, at) {
                self.held.insert(at, id.unwrap_or(MessageId(u64::MAX)));
            } else if within(settled, at) && for_good {
                // That its settle is done is what it takes from this.
                witness.settle_confirmed(&[OffsetRange::new(at, at.plus(1))], false);
            }
        }
    }

    fn lost(&mut self) {
        self.key = 0;
        for (at, id) in std::mem::take(&mut self.held) {
            self.kept.insert(at, (Some(id), false));
        }
        for (ranges, returned) in std::mem::take(&mut self.settling).into_values() {
            self.keep(&ranges, returned);
        }
        self.attached = None;
    }

    /// To be asked for at the next leader: a settle that was not answered.
    fn keep(&mut self, ranges: &[OffsetRange], returned: bool) {
        for at in ranges.iter().flat_map(|range| range.first.0..range.end.0) {
            self.kept.insert(Offset(at), (None, !returned));
        }
    }
}
