//! One life of a broker's process: the shell around the two pure machines, as plain as it can be. Inputs and
//! the time go in, outputs come out; the world carries them.

use std::collections::BTreeMap;
use std::time::Instant;

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::Committed;
use bellwether_log::{Batch, Record};
use bellwether_protocol::ids::{BrokerLife, Offset, QueueId, StoreId};
use bellwether_protocol::peer::PeerFrame;
use bellwether_queue::Queue;
use bellwether_replication::{CasOutcome, Effect, Event, Identity, LogFacts, Replica, Timing};

use crate::disk::{Disk, Image, Write};
use crate::ports::{Fact, Input, Output, Side};
use crate::serving::Leader;
use crate::stalling::Attention;

/// The one queue of the simulation.
pub const QUEUE: QueueId = QueueId(uuid::Uuid::from_u128(7));

/// A process.
pub struct Process {
    pub life: Option<BrokerLife>,
    pub replica: Replica,
    /// Whether there is a copy here. Without one, what concerns the queue is not heard; but for a state that asks for a copy.
    pub(crate) hosts: bool,
    pub(crate) identity: Identity,
    pub(crate) connected: bool,
    /// The last version of the state that was heard of.
    known: Option<Version>,
    /// A sync failed: whatever copy there is here, or will be, takes no part.
    pub(crate) store_failed: bool,
    /// Stores that nobody has seen, for copies that begin anew.
    pub(crate) next_store: u128,
    pub machine: Queue,
    pub log: Image,
    pub(crate) leader: Option<Leader>,
    /// Until when each peer that dialed has promised, if it has.
    pub(crate) promised: BTreeMap<BrokerLife, Option<Instant>>,
    pub(crate) asked: BTreeMap<(BrokerLife, u64), Instant>,
    next_ask: u64,
    ask_again_at: Instant,
    /// A snapshot is on its way to the disk, to take the log's place: nothing else may change the log meanwhile.
    pub(crate) installing: bool,
    /// The last fetch of a snapshot.
    pub(crate) fetch: u64,
    pub(crate) timing: Timing,
    pub(crate) attention: Attention,
    pub(crate) now: Instant,
    last_tick: Instant,
    pub(crate) out: Vec<Output>,
}

/// Why a replica stops whose disk failed: the one reason that is no defect.
pub const STORE_FAILED: &str = "a sync failed";

impl Process {
    /// A process that starts with what the disk holds; `stores` numbers stores that nobody has seen.
    pub fn start(
        now: Instant,
        identity: Identity,
        timing: Timing,
        disk: &Disk,
        stores: u128,
    ) -> Process {
        let log = if disk.is_damaged() { Image::default() } else { disk.synced().clone() };
        let checkpoint = log.checkpoint.as_ref();
        let machine = checkpoint.map_or_else(Queue::new, |checkpoint| {
            Queue::restore(&checkpoint.state).expect("a checkpoint was written by this very build")
        });
        let facts = LogFacts {
            epochs: log.epochs.clone(),
            start: log.start,
            end: log.end,
            durable: log.end,
            high_watermark: checkpoint.map_or(Offset(0), |checkpoint| checkpoint.high_watermark),
        };
        Process {
            life: None,
            replica: Replica::new(identity.clone(), timing, facts),
            hosts: disk.has_log(),
            identity,
            connected: false,
            known: None,
            store_failed: false,
            next_store: stores,
            machine,
            log,
            leader: None,
            promised: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_ask: 0,
            ask_again_at: now,
            installing: false,
            fetch: 0,
            timing,
            attention: Attention::begins(now),
            now,
            last_tick: now,
            out: Vec::new(),
        }
    }

    /// One thing happens to the process.
    pub fn take(&mut self, now: Instant, disk: &mut Disk, input: Input) -> Vec<Output> {
        self.now = now;
        match input {
            Input::Life(life) => {
                self.life = life;
                self.step(disk, Event::Life(life));
            }
            Input::Connected(connected) => {
                self.connected = connected;
                self.step(disk, Event::Connected(connected));
            }
            Input::State { state, version, synced } => {
                // As the catalog does: what is read never goes back.
                if self.known > Some(version) {
                    return Vec::new();
                }
                self.known = Some(version);
                if !self.hosts && self.is_asked_to_host(disk, &state) {
                    self.begins_copy(disk);
                }
                self.step(disk, Event::State { state, version, synced });
            }
            Input::Cas { version, state, outcome } => {
                if let CasOutcome::Done { version } = outcome {
                    self.known = self.known.max(Some(version));
                }
                self.step(disk, Event::Cas { version, state, outcome });
            }
            Input::Gone(life) => self.step(disk, Event::Gone { life }),
            Input::Dead(life) => self.step(disk, Event::Dead { life }),
            Input::Up { peer, side: Side::Dialed } => self.step(disk, Event::Dialed { peer }),
            Input::Up { peer, side: Side::Accepted } => {
                self.promised.insert(peer, None);
            }
            Input::Down { peer, side: Side::Dialed } => self.step(disk, Event::DialedDown { peer }),
            Input::Down { peer, side: Side::Accepted } => {
                self.promised.remove(&peer);
                self.step(disk, Event::AcceptedDown { peer });
            }
            Input::Frame { peer, side, frame } => self.frame(disk, peer, side, frame),
            Input::Synced => self.synced(disk),
            Input::SnapshotAsked { from, epoch, fetch } => self.give_snapshot(from, epoch, fetch),
            Input::Snapshot { epoch, fetch, image } if fetch == self.fetch && !self.installing => {
                self.snapshot(disk, epoch, image);
            }
            // Of a fetch that was given up, or while another is on its way to the disk.
            Input::Snapshot { .. } => {}
            Input::Client { client, request } => self.request(disk, client, request),
            Input::ClientLost { client } => self.client_lost(disk, client),
            Input::HandOver => self.step(disk, Event::HandOver),
            Input::Force { state, version, gone, order } => {
                self.known = self.known.max(Some(version));
                self.step(disk, Event::State { state, version, synced: true });
                if let Some(life) = gone {
                    self.step(disk, Event::Gone { life });
                }
                self.step(disk, Event::Force(order));
            }
            Input::StoreFailed => {
                self.store_failed = true;
                self.step(disk, Event::StoreFailed { why: STORE_FAILED.to_owned() });
            }
            Input::LogLost(store) => {
                self.step(disk, Event::LogLost { store, why: "bits have turned".to_owned() });
            }
            Input::Clean => self.clean(disk),
            Input::Tick => self.tick(disk),
        }
        self.finish_turn(disk);
        std::mem::take(&mut self.out)
    }

    pub(crate) fn step(&mut self, disk: &mut Disk, event: Event) {
        if !self.hosts {
            return;
        }
        let mut effects = Vec::new();
        self.replica.step(self.now, event, &mut effects);
        for effect in effects {
            self.perform(disk, effect);
        }
    }

    fn perform(&mut self, disk: &mut Disk, effect: Effect) {
        let (dialed, accepted) = (Side::Dialed, Side::Accepted);
        match effect {
            Effect::ReadState => self.out.push(Output::ReadState),
            Effect::Cas { version, state } => {
                if state.leader.is_none() {
                    self.asks_for_no_leader(state.epoch);
                }
                self.out.push(Output::Cas { version, state });
            }
            Effect::Subscribe { leader, subscription } => {
                self.send(leader, dialed, PeerFrame::Subscribe(vec![subscription]));
            }
            Effect::Unsubscribe { leader, epoch } => {
                self.send(leader, dialed, PeerFrame::Unsubscribe(vec![(QUEUE, epoch)]));
            }
            Effect::ReportDurable { leader, epoch, end } => {
                self.send(leader, dialed, PeerFrame::Durable(vec![(QUEUE, epoch, end)]));
            }
            Effect::FetchSnapshot { leader, epoch } => {
                self.fetch += 1;
                self.out.push(Output::FetchSnapshot { leader, epoch, fetch: self.fetch });
            }
            Effect::TellEpochEnd { to, epoch, last_epoch, end, number } => {
                let frame = PeerFrame::EpochEnd { queue: QUEUE, epoch, last_epoch, end, number };
                self.send(to, accepted, frame);
            }
            Effect::TellNotLeading { to, epoch, seen } => {
                self.send(to, accepted, PeerFrame::NotLeading { queue: QUEUE, epoch, seen });
            }
            Effect::TellSnapshotNeeded { to, epoch } => {
                self.send(to, accepted, PeerFrame::SnapshotNeeded { queue: QUEUE, epoch });
            }
            Effect::Stream { to, from } => {
                if let Some(leader) = &mut self.leader {
                    leader.streams.insert(to, from);
                }
            }
            Effect::StopStream { to } => {
                if let Some(leader) = &mut self.leader {
                    leader.streams.remove(&to);
                }
            }
            Effect::AskPositions { brokers } => {
                for broker in brokers {
                    let frame = PeerFrame::PositionAsk(vec![QUEUE]);
                    self.out.push(Output::SendToBroker { broker, frame });
                }
            }
            Effect::Truncate { to } => self.write(disk, Write::Truncate(to)),
            Effect::AppendEpochStart { epoch: _ } => {
                if let Some(leader) = self.life {
                    let time_ms = self.machine.time_ms();
                    self.append(disk, &Record::EpochStart { leader, time_ms });
                }
            }
            Effect::HighWatermark { end: _ } => {
                if let Some(leader) = &mut self.leader {
                    leader.tell_committed = true;
                }
            }
            Effect::Lead { epoch } => {
                self.leader = Some(Leader::new(epoch));
                self.begins_to_lead(epoch);
                self.out.push(Output::Fact(Fact::Leads { epoch }));
            }
            Effect::Serve { epoch, deliver_from } => self.serve(disk, epoch, deliver_from),
            Effect::StopLeading { epoch: _ } => self.stop_leading(),
            Effect::LeaseChanged | Effect::IsrChanged { .. } | Effect::Forced(_) => {}
            Effect::Superseded { why } => {
                self.next_store += 1;
                let store = StoreId(uuid::Uuid::from_u128(self.next_store));
                self.step(disk, Event::LogLost { store, why });
            }
            Effect::Stays => self.take_held(disk),
            Effect::Parted => self.part(disk),
            Effect::Renewed => {
                self.machine = Queue::new();
                self.log = Image::default();
            }
            Effect::Stopped { why: _ } if self.replica.awaits_snapshot() => self.stop_leading(),
            Effect::Stopped { why } => {
                self.stop_leading();
                self.out.push(Output::Fact(Fact::Stopped { why }));
            }
        }
    }

    pub(crate) fn send(&mut self, peer: BrokerLife, side: Side, frame: PeerFrame) {
        self.out.push(Output::Send { peer, side, frame });
    }

    pub(crate) fn write(&mut self, disk: &mut Disk, write: Write) {
        self.log.apply(&write);
        disk.write(write);
    }

    /// Appends a record as leader; answers the log's new end.
    pub(crate) fn append(&mut self, disk: &mut Disk, record: &Record) -> Offset {
        let epoch = self.leader.as_ref().map(|leader| leader.epoch).unwrap_or_default();
        let batch = Batch::encode(QUEUE, epoch, self.log.end, record);
        let end = batch.end();
        self.write(disk, Write::Append(batch));
        self.step(disk, Event::Appended { end });
        end
    }

    fn tick(&mut self, disk: &mut Disk) {
        if self.now - self.last_tick > std::time::Duration::from_millis(250) {
            self.step(disk, Event::Paused);
        }
        self.last_tick = self.now;
        self.look_at_disk(disk);
        if self.now >= self.ask_again_at {
            self.ask_again_at = self.now + self.timing.promise / 6;
            let peers: Vec<BrokerLife> = self.promised.keys().copied().collect();
            for peer in peers {
                let number = self.next_ask;
                self.next_ask += 1;
                self.asked.insert((peer, number), self.now);
                self.send(peer, Side::Accepted, PeerFrame::PromiseAsk { number });
            }
            let forget = self.now - self.timing.promise;
            self.asked.retain(|_, asked| *asked >= forget);
        }
        if self.replica.wants_note() {
            let counts = self.machine.counts();
            let (end, enqueued) = (self.machine.applied(), counts.enqueued);
            let settled = counts.settled + counts.purged;
            let noted = Committed { end, enqueued, settled, at_ms: 0, term: None };
            self.step(disk, Event::Note(noted));
        }
        if self.replica.moves_to(self.now).is_some() {
            self.step(disk, Event::Move);
        }
        if self.replica.wants_ticks() {
            self.step(disk, Event::Tick);
        }
        self.resume_consumers();
    }

    pub(crate) fn finish_turn(&mut self, disk: &mut Disk) {
        self.apply_committed(disk);
        self.stream();
        self.deliver();
        if disk.begin_sync() {
            self.attention.syncing_since = Some(self.now);
            self.out.push(Output::Sync);
        }
    }

    pub(crate) fn apply_committed(&mut self, disk: &mut Disk) {
        while self.hosts
            && self.replica.stopped().is_none()
            && self.machine.applied() < self.replica.log().high_watermark
        {
            let from = self.machine.applied();
            let applied = match self.log.batches.get(&from) {
                Some(batch) => {
                    let record = batch.record().expect("this build wrote it");
                    let mut effects = Vec::new();
                    self.out.push(Output::Fact(Fact::Applied { batch: batch.clone() }));
                    self.machine.apply(from, &record, &mut effects).map_err(|e| e.to_string())
                }
                None => Err(format!("committed records from {from} on are missing")),
            };
            if let Err(why) = applied {
                self.step(disk, Event::Broken { why });
            }
        }
        self.answer_committed();
    }
}
