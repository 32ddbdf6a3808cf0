//! What a process does while it leads: publishes, consumers, settles, confirms, deliveries under the lease.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bellwether_log::{Batch, Enqueue, ProducerMark, Record, SettleKind};
use bellwether_protocol::client::Settlement;
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::{BrokerLife, Epoch, Offset, OffsetRange, Seq};
use bellwether_protocol::names::{ExchangeName, RoutingKey};
use bellwether_queue::{Admission, Effect};

use crate::disk::Disk;
use crate::ports::{Fact, Output};
use crate::process::Process;
use crate::words::{ClientId, Publish, Reply, Request, block_of, messages_of};

/// A term of leadership.
pub(crate) struct Leader {
    pub epoch: Epoch,
    serves: bool,
    deliver_from: Option<Instant>,
    /// Followers, and up to where each was streamed to.
    pub streams: BTreeMap<BrokerLife, Offset>,
    pub tell_committed: bool,
    /// Who waits until the log is committed up to where.
    waiting: VecDeque<(Offset, ClientId, Waiter)>,
    consumers: BTreeMap<u64, ClientId>,
    /// What came while the leadership was about to move.
    held: Vec<(ClientId, Request)>,
    paused: Vec<u64>,
}

enum Waiter {
    Publish { token: u64 },
    Settle { consumer: u64, number: u64 },
    Purge,
}

impl Leader {
    pub fn new(epoch: Epoch) -> Leader {
        Leader {
            epoch,
            serves: false,
            deliver_from: None,
            streams: BTreeMap::new(),
            tell_committed: false,
            waiting: VecDeque::new(),
            consumers: BTreeMap::new(),
            held: Vec::new(),
            paused: Vec::new(),
        }
    }
}

impl Process {
    pub(crate) fn serve(&mut self, disk: &mut Disk, epoch: Epoch, deliver_from: Instant) {
        self.apply_committed(disk);
        let applied = self.machine.applied();
        let Some(leader) = &mut self.leader else { return };
        self.machine.lead(epoch);
        leader.serves = true;
        leader.deliver_from = Some(deliver_from);
        self.out.push(Output::Fact(Fact::Serves { epoch, applied }));
    }

    pub(crate) fn stop_leading(&mut self) {
        let Some(leader) = self.leader.take() else { return };
        self.machine.stop_leading();
        for (_, client, waiter) in leader.waiting {
            let unknown = |code| ErrorBody::unknown(code, "the leadership was lost");
            match waiter {
                Waiter::Publish { token } => {
                    let result = Err(unknown(ErrorCode::Unconfirmed));
                    self.reply(client, Reply::Published { token, result });
                }
                Waiter::Settle { consumer, number } => {
                    let error = unknown(ErrorCode::Unsettled);
                    self.reply(client, Reply::SettleFailed { consumer, number, error });
                }
                Waiter::Purge => {}
            }
        }
        for (client, request) in leader.held {
            self.refuse(client, request);
        }
        for (consumer, client) in leader.consumers {
            self.reply(client, Reply::Closed { consumer });
        }
    }

    fn reply(&mut self, client: ClientId, reply: Reply) {
        self.out.push(Output::Reply { client, reply });
    }

    pub(crate) fn request(&mut self, disk: &mut Disk, client: ClientId, request: Request) {
        let serves = self.leader.as_ref().is_some_and(|leader| leader.serves);
        let serves = serves && self.replica.leads().is_some();
        let holds = self.replica.is_moving() && !matches!(request, Request::Attach { .. });
        if let Some(leader) = self.leader.as_mut().filter(|_| holds) {
            return leader.held.push((client, request));
        }
        match request {
            Request::Publish(publish) => {
                let token = publish.token;
                if let Err(error) = self.publish(disk, client, publish, serves) {
                    self.reply(client, Reply::Published { token, result: Err(error) });
                }
            }
            Request::Attach { consumer, .. } if !serves || !self.may_deliver() => {
                self.reply(client, Reply::Closed { consumer });
            }
            Request::Attach { consumer, prefetch, claim } => {
                self.attach(client, consumer, prefetch, &claim);
            }
            Request::Detach { consumer } => self.detach(disk, consumer),
            Request::Settle { consumer, number, epoch, settlement, ranges } => {
                let settled = self.settle(disk, consumer, epoch, settlement, &ranges, serves);
                match (settled, &mut self.leader) {
                    (Ok(end), Some(leader)) => {
                        let waiter = Waiter::Settle { consumer, number };
                        leader.waiting.push_back((end, client, waiter));
                    }
                    (Ok(_), None) => panic!("settled without leading"),
                    (Err(error), _) => {
                        self.reply(client, Reply::SettleFailed { consumer, number, error });
                    }
                }
            }
            Request::Purge if serves => {
                let record = self.machine.purge();
                let end = self.append_own(disk, &record);
                if let Some(leader) = &mut self.leader {
                    leader.waiting.push_back((end, client, Waiter::Purge));
                }
            }
            Request::Purge => {}
        }
    }

    fn attach(&mut self, client: ClientId, consumer: u64, prefetch: u32, claim: &[OffsetRange]) {
        self.machine.attach(consumer, prefetch);
        let Some(leader) = &mut self.leader else { return };
        leader.consumers.insert(consumer, client);
        let epoch = leader.epoch;
        let (mut held, mut settled) = (Vec::new(), Vec::new());
        if !claim.is_empty() {
            let claimed = self.machine.claim(consumer, claim).expect("a sound claim");
            (held, settled) = (claimed.held, claimed.settled);
            self.out.push(Output::Fact(Fact::Claimed { epoch, held: held.clone() }));
        }
        self.reply(client, Reply::Attached { consumer, epoch, held, settled });
    }

    /// Whether no leader before it may deliver any more.
    fn may_deliver(&self) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.deliver_from <= Some(self.now))
    }

    /// The leadership stays here after all.
    pub(crate) fn take_held(&mut self, disk: &mut Disk) {
        let Some(leader) = &mut self.leader else { return };
        for (client, request) in std::mem::take(&mut leader.held) {
            self.request(disk, client, request);
        }
    }

    fn refuse(&mut self, client: ClientId, request: Request) {
        match request {
            Request::Publish(publish) => {
                let token = publish.token;
                self.reply(client, Reply::Published { token, result: Err(not_leader()) });
            }
            Request::Settle { consumer, number, .. } => {
                let error = not_leader();
                self.reply(client, Reply::SettleFailed { consumer, number, error });
            }
            Request::Attach { .. } | Request::Detach { .. } | Request::Purge => {}
        }
    }

    fn append_own(&mut self, disk: &mut Disk, record: &Record) -> Offset {
        let base = self.log.end;
        self.machine.appended(base, record);
        self.append(disk, record)
    }

    fn publish(
        &mut self,
        disk: &mut Disk,
        client: ClientId,
        publish: Publish,
        serves: bool,
    ) -> Result<(), ErrorBody> {
        if !serves {
            return Err(not_leader());
        }
        if self.replica.starved(self.now) {
            return Err(ErrorBody::not_done(ErrorCode::NotEnoughReplicas, "too few in-sync"));
        }
        let Publish { token, producer, previous, chained, first, resent, ids } = publish;
        let count = ids.len() as u32;
        let admission =
            self.machine.admit(producer.as_ref(), previous, chained, first, count, resent);
        match admission {
            Admission::Refused(error) => return Err(error),
            Admission::Duplicate => {}
            Admission::Append { skip } => {
                let record = Record::Enqueue(Enqueue {
                    producer: producer
                        .map(|name| ProducerMark { name, first: Seq(first.0 + u64::from(skip)) }),
                    time_ms: self.machine.time_ms(),
                    exchange: ExchangeName::default(),
                    routing_key: RoutingKey::new("q").expect("a plain name"),
                    messages: block_of(&ids[skip as usize..]),
                });
                self.append_own(disk, &record);
            }
        }
        let end = self.log.end;
        if let Some(leader) = &mut self.leader {
            leader.waiting.push_back((end, client, Waiter::Publish { token }));
        }
        Ok(())
    }

    fn settle(
        &mut self,
        disk: &mut Disk,
        consumer: u64,
        epoch: Epoch,
        settlement: Settlement,
        ranges: &[OffsetRange],
        serves: bool,
    ) -> Result<Offset, ErrorBody> {
        if !serves {
            return Err(not_leader());
        }
        let ranges = self.machine.settle(consumer, epoch, ranges)?;
        let record = match settlement {
            Settlement::Ack => Record::Settle { kind: SettleKind::Ack, ranges },
            Settlement::Reject => Record::Settle { kind: SettleKind::Reject, ranges },
            Settlement::Return => Record::Return { ranges },
        };
        Ok(self.append_own(disk, &record))
    }

    fn detach(&mut self, disk: &mut Disk, consumer: u64) {
        let Some(leader) = &mut self.leader else { return };
        leader.consumers.remove(&consumer);
        leader.paused.retain(|paused| *paused != consumer);
        if let Some(record) = self.machine.detach(consumer) {
            self.append_own(disk, &record);
        }
    }

    pub(crate) fn client_lost(&mut self, disk: &mut Disk, client: ClientId) {
        let Some(leader) = &self.leader else { return };
        let theirs = leader.consumers.iter().filter(|(_, owner)| **owner == client);
        let theirs: Vec<u64> = theirs.map(|(consumer, _)| *consumer).collect();
        for consumer in theirs {
            self.detach(disk, consumer);
        }
    }

    pub(crate) fn answer_committed(&mut self) {
        let committed = self.replica.log().high_watermark.min(self.machine.applied());
        let Some(leader) = &mut self.leader else { return };
        let epoch = leader.epoch;
        let mut told = Vec::new();
        while leader.waiting.front().is_some_and(|(end, ..)| *end <= committed) {
            told.extend(leader.waiting.pop_front());
        }
        for (end, client, waiter) in told {
            self.out.push(Output::Fact(Fact::Confirms { epoch, end }));
            match waiter {
                Waiter::Publish { token } => {
                    self.reply(client, Reply::Published { token, result: Ok(()) });
                }
                Waiter::Settle { consumer, number } => {
                    self.reply(client, Reply::Settled { consumer, number });
                }
                Waiter::Purge => {}
            }
        }
    }

    /// Whether every other member of the maximal ISR has promised, as of now.
    fn lease_holds(&self) -> bool {
        let Some(members) = self.replica.lease_members() else { return false };
        let promised = |life| self.promised.get(life).copied().flatten();
        members.iter().all(|life| promised(life).is_some_and(|until| self.now < until))
    }

    pub(crate) fn deliver(&mut self) {
        let may = |leader: &Leader| leader.serves && leader.deliver_from <= Some(self.now);
        if !self.leader.as_ref().is_some_and(may) || !self.lease_holds() {
            return;
        }
        let mut effects = Vec::new();
        while self.machine.wants_dispatch() {
            self.machine.dispatch(&mut effects);
            for effect in effects.drain(..) {
                if let Effect::Deliver { consumer, run, redelivered, .. } = effect {
                    self.hand_over(consumer, run, redelivered);
                }
            }
        }
    }

    fn hand_over(&mut self, consumer: u64, run: OffsetRange, redelivered: bool) {
        let Some(leader) = &mut self.leader else { return };
        let Some(client) = leader.consumers.get(&consumer).copied() else { return };
        let epoch = leader.epoch;
        // Now and then a consumer's outbox is full with it.
        if run.first.0.is_multiple_of(5) && !leader.paused.contains(&consumer) {
            leader.paused.push(consumer);
            self.machine.pause(consumer);
        }
        let batches = self.batches_of(run);
        let messages = batches.iter().flat_map(messages_of);
        let messages =
            messages.filter(|(at, _)| (run.first..run.end).contains(at)).collect::<Vec<_>>();
        self.out.push(Output::Fact(Fact::Delivers { epoch, run, batches, redelivered }));
        self.reply(client, Reply::Deliver { consumer, epoch, messages });
    }

    fn batches_of(&self, run: OffsetRange) -> Vec<Batch> {
        let (mut at, mut batches) = (run.first, Vec::new());
        while at < run.end {
            let Some(batch) = self.log.batch_with(at) else { break };
            at = batch.end();
            batches.push(batch.clone());
        }
        batches
    }

    pub(crate) fn resume_consumers(&mut self) {
        if let Some(leader) = &mut self.leader {
            for consumer in leader.paused.drain(..) {
                self.machine.resume(consumer);
            }
        }
    }
}

fn not_leader() -> ErrorBody {
    ErrorBody::not_done(ErrorCode::NotLeader, "not led here")
}
