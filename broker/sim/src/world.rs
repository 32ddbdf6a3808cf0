//! The simulated cluster: brokers, their disks, the network between them, the ensemble and the clients, all
//! driven by one schedule and one source of chance.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bellwether_protocol::ids::{BrokerId, BrokerLife, Incarnation, Member, StoreId};
use bellwether_protocol::names::ProducerName;
use bellwether_protocol::peer::PeerFrame;
use bellwether_replication::{Identity, Timing};

use crate::clients::{Client, Consumer, Kind, Numbers, Producer};
use crate::coordinator::{Cas, Ensemble};
use crate::disk::Disk;
use crate::network::Connection;
use crate::process::{Fact, Input, Output, Process, QUEUE, STORE_FAILED, Side};
use crate::random::Random;
use crate::schedule::Schedule;
use crate::witness::Witness;
use crate::words::{ClientId, Reply, Request};

/// How large the cluster of a history is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Brokers that hold a copy at first.
    pub brokers: usize,
    /// Brokers that hold none at first.
    pub spares: usize,
    pub min_isr: u8,
    pub producers: u32,
    pub consumers: u32,
}

/// Session time-out of the simulated ensemble, in microseconds.
pub(crate) const SESSION_TIMEOUT_US: u64 = 2_000_000;

/// A broker: its disk, and its process if it runs.
pub struct Node {
    pub disk: Disk,
    pub process: Option<Process>,
    /// Counts the processes: what was meant for an earlier one is dropped.
    pub generation: u64,
    /// The life that it registered last, over or not.
    pub life: Option<BrokerLife>,
    /// Its connection to the ensemble; each has a number.
    pub connected: bool,
    pub link: u64,
    /// CASes sent whose answer has not come.
    pub(crate) open_cas: Vec<Cas>,
    pub(crate) disk_slow_until_us: u64,
    /// A sync failed: the disk counts as lost.
    pub(crate) store_failed: bool,
    /// Stopped by a signal: what arrives waits here.
    pub paused: bool,
    pub(crate) backlog: VecDeque<Input>,
    /// Lives of the others as it saw them last.
    pub(crate) known: BTreeMap<usize, BrokerLife>,
}

/// What can happen.
#[derive(Debug)]
pub enum Happening {
    Tick,
    Redial,
    Expiries,
    Fault,
    ClientTurn(usize),
    Input {
        node: usize,
        generation: u64,
        input: Input,
    },
    Up {
        connection: u64,
        side: Side,
    },
    Down {
        connection: u64,
        side: Side,
    },
    Frame {
        connection: u64,
        to: Side,
        frame: PeerFrame,
    },
    ReadState {
        node: usize,
        generation: u64,
        link: u64,
    },
    StateRead {
        node: usize,
        generation: u64,
        link: u64,
        inputs: Vec<Input>,
    },
    Cas {
        node: usize,
        generation: u64,
        link: u64,
        cas: Cas,
        late: bool,
    },
    CasAnswer {
        node: usize,
        generation: u64,
        link: u64,
        cas: Cas,
        won: Option<i32>,
    },
    Request {
        node: usize,
        generation: u64,
        client: ClientId,
        link: u64,
        request: Request,
    },
    Reply {
        client: ClientId,
        link: u64,
        reply: Reply,
    },
    Restart {
        node: usize,
    },
    /// All in-sync members die; this one is not in sync.
    LoseInSync {
        behind: usize,
    },
    /// An operator finds the in-sync set gone, and has this broker's copy lead.
    Recover {
        node: usize,
    },
    Register {
        node: usize,
        generation: u64,
    },
    Terminate {
        node: usize,
        generation: u64,
    },
    Replace {
        node: usize,
        generation: u64,
    },
    Resume {
        node: usize,
    },
    Reconnect {
        node: usize,
    },
    ReconnectAll,
}

/// Everything.
pub struct World {
    pub seed: u64,
    pub shape: Shape,
    pub(crate) random: Random,
    pub(crate) schedule: Schedule<Happening>,
    pub nodes: Vec<Node>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    /// Ordered pairs that cannot be dialed before a time.
    pub(crate) blocked: BTreeMap<(usize, usize), u64>,
    pub(crate) ensemble: Ensemble,
    pub(crate) ensemble_away: bool,
    /// Every change that was sent and names the present version: it may apply yet, whatever became of its author.
    pub(crate) under_way: Vec<Cas>,
    pub(crate) clients: Vec<Client>,
    /// Numbers of the clients' connections, and when their lanes are free: to the broker, from it.
    pub(crate) client_links: Vec<(u64, u64, u64)>,
    /// Where the end of each one's last connection has not been heard of: the node, and which start of it.
    pub(crate) client_losses: Vec<Option<(usize, u64)>>,
    /// Until when each looks for no broker.
    pub(crate) clients_away_until_us: Vec<u64>,
    pub(crate) numbers: Numbers,
    next_incarnation: u64,
    next_store: u128,
    pub witness: Witness,
    /// Faults are over: producers begin nothing new, consumers settle everything.
    pub(crate) quiet: bool,
    /// What happened, if it is kept.
    pub story: Option<Vec<String>>,
    pub happened: u64,
}

impl World {
    #[must_use]
    pub fn new(seed: u64, keep_story: bool) -> World {
        let mut random = Random::new(seed);
        let brokers = if random.chance(20) { 2 } else { 3 };
        let min_isr = match (brokers, random.between(0, 9)) {
            (2, 0..5) | (_, 0..2) => 1,
            (3, 2) => 3,
            _ => 2,
        };
        let shape = Shape {
            brokers,
            spares: usize::from(random.chance(50)) + usize::from(random.chance(20)),
            min_isr,
            producers: random.between(1, 3) as u32,
            consumers: random.between(1, 5) as u32,
        };
        let all = brokers + shape.spares;
        let nodes: Vec<Node> = (0..all).map(|node| Node::new(node as u128 + 1)).collect();
        let isr = (0..brokers).map(|node| member_of(node, &nodes[node].disk)).collect();
        let mut world = World {
            seed,
            shape,
            random,
            schedule: Schedule::new(),
            nodes,
            connections: BTreeMap::new(),
            next_connection: 0,
            blocked: BTreeMap::new(),
            ensemble: Ensemble::new(isr, min_isr),
            ensemble_away: false,
            under_way: Vec::new(),
            clients: Vec::new(),
            client_links: Vec::new(),
            client_losses: Vec::new(),
            clients_away_until_us: Vec::new(),
            numbers: Numbers::default(),
            next_incarnation: 0,
            next_store: 100,
            witness: Witness::default(),
            quiet: false,
            story: keep_story.then(Vec::new),
            happened: 0,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for number in 0..self.shape.producers {
            // The last of several has no name: it never sends again.
            let named = self.shape.producers == 1 || number + 1 < self.shape.producers;
            let name =
                named.then(|| ProducerName::new(format!("p{number}")).expect("a plain name"));
            self.add_client(Kind::Producer(Producer::new(name)));
        }
        for _ in 0..self.shape.consumers {
            let prefetch = self.random.between(1, 12) as u32;
            self.add_client(Kind::Consumer(Consumer::new(prefetch)));
        }
        for node in 0..self.nodes.len() {
            let delay = self.random.between(0, 50_000);
            self.schedule.after(delay, Happening::Restart { node });
        }
        self.schedule.after(1_000, Happening::Tick);
        self.schedule.after(1_500, Happening::Redial);
        self.schedule.after(1_700, Happening::Expiries);
        self.schedule.after(1_000_000, Happening::Fault);
    }

    fn add_client(&mut self, kind: Kind) {
        let index = self.clients.len();
        self.clients.push(Client { id: ClientId(index as u32), broker: None, kind });
        self.client_links.push((0, 0, 0));
        self.clients_away_until_us.push(0);
        self.client_losses.push(None);
        self.schedule.after(2_000, Happening::ClientTurn(index));
    }

    /// Runs until a time, or until a promise is broken.
    pub fn run_until(&mut self, until_us: u64) {
        while self.witness.violation.is_none() {
            let Some(happening) = self.schedule.next(until_us) else { return };
            self.happened += 1;
            self.happen(happening);
        }
    }

    /// Whether, faults being over, nothing is left to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.clients.iter().all(Client::is_done)
            && self.witness.waiting() == 0
            && self
                .serving()
                .is_some_and(|(_, process)| process.machine.applied() == self.witness.end())
    }

    /// Who serves the queue, by the ensemble's word and its own.
    #[must_use]
    pub fn serving(&self) -> Option<(BrokerLife, &Process)> {
        let leader = self.ensemble.state().leader?;
        let node = self.nodes.iter().find(|node| node.life == Some(leader))?;
        let process = node.process.as_ref()?;
        (process.replica.serves() == Some(self.ensemble.state().epoch)).then_some((leader, process))
    }

    /// How everything stands, for the end of a story.
    #[must_use]
    pub fn condition(&self) -> Vec<String> {
        let ensemble =
            format!("ensemble: {:?} {:?}", self.ensemble.version(), self.ensemble.state());
        let nodes = self.nodes.iter().enumerate().map(|(number, node)| {
            let replica = node.process.as_ref().map(|process| &process.replica);
            let (life, connected, paused) = (node.life, node.connected, node.paused);
            format!("b{}: {life:?} connected={connected} paused={paused} {replica:?}", number + 1)
        });
        std::iter::once(ensemble).chain(nodes).collect()
    }

    /// The epoch that the ensemble holds.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.ensemble.state().epoch.0
    }

    pub(crate) fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            let now = self.schedule.now_us();
            let (seconds, micros) = (now / 1_000_000, now % 1_000_000);
            story.push(format!("{seconds:>3}.{micros:06}  {}", line()));
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tick => {
                for node in 0..self.nodes.len() {
                    self.give(node, Input::Tick);
                }
                self.schedule.after(10_000, Happening::Tick);
            }
            Happening::Redial => {
                self.redial();
                self.schedule.after(10_000, Happening::Redial);
            }
            Happening::Expiries => {
                self.expire_overdue();
                self.schedule.after(50_000, Happening::Expiries);
            }
            Happening::Fault => self.fault(),
            Happening::ClientTurn(client) => self.client_turn(client),
            Happening::Input { node, generation, input } => {
                if self.nodes[node].generation == generation {
                    self.give(node, input);
                }
            }
            Happening::Up { connection, side } => self.connection_up(connection, side),
            Happening::Down { connection, side } => self.connection_down(connection, side),
            Happening::Frame { connection, to, frame } => self.frame_arrives(connection, to, frame),
            Happening::ReadState { node, generation, link } => {
                self.read_arrives(node, generation, link)
            }
            Happening::StateRead { node, generation, link, inputs } => {
                if self.is_linked(node, generation, link) {
                    inputs.into_iter().for_each(|input| self.give(node, input));
                }
            }
            Happening::Cas { node, generation, link, cas, late } => {
                self.cas_arrives(node, generation, link, cas, late);
            }
            Happening::CasAnswer { node, generation, link, cas, won } => {
                self.cas_answered(node, generation, link, cas, won);
            }
            Happening::Request { node, generation, client, link, request } => {
                if self.nodes[node].generation == generation
                    && self.client_links[client.0 as usize].0 == link
                {
                    self.give(node, Input::Client { client, request });
                }
            }
            Happening::Reply { client, link, reply } => self.reply_arrives(client, link, reply),
            Happening::Restart { node } => self.restart(node),
            Happening::LoseInSync { behind } => self.lose_the_in_sync(behind),
            Happening::Recover { node } => self.recover(node),
            Happening::Register { node, generation } => self.register(node, generation),
            Happening::Terminate { node, generation } => self.terminate(node, generation),
            Happening::Replace { node, generation } => self.replace_disk(node, generation),
            Happening::Resume { node } => self.resume(node),
            Happening::Reconnect { node } => self.reconnect(node),
            Happening::ReconnectAll => self.ensemble_returns(),
        }
    }

    /// Something reaches a process, if there is one; one that is stopped hears it when it goes on.
    pub(crate) fn give(&mut self, node: usize, input: Input) {
        let now = self.schedule.now();
        let it = &mut self.nodes[node];
        if it.paused {
            if !matches!(input, Input::Tick) {
                it.backlog.push_back(input);
            }
            return;
        }
        let Some(process) = &mut it.process else { return };
        if let Input::ClientLost { client } = &input {
            self.client_losses[client.0 as usize] = None;
        }
        let told = (self.story.is_some() && !is_routine(&input))
            .then(|| format!("b{} <- {input:?}", node + 1));
        let outputs = process.take(now, &mut it.disk, input);
        if let Some(told) = told {
            self.tell(|| told);
        }
        for output in outputs {
            self.carry_out(node, output);
        }
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        if !is_routine_too(&output) {
            self.tell(|| format!("b{} -> {output:?}", node + 1));
        }
        match output {
            Output::ReadState => self.send_read(node),
            Output::Cas { version, state } => self.send_cas(node, version, state),
            Output::Send { peer, side, frame } => self.send_frame(node, peer, side, frame),
            Output::SendToBroker { broker, frame } => self.send_to_broker(node, broker, frame),
            Output::FetchSnapshot { leader, epoch, fetch } => {
                let Some(from) = self.nodes[node].life else { return };
                let input = Input::SnapshotAsked { from, epoch, fetch };
                match self.node_of(leader) {
                    Some(leader) => self.later(leader, 5_000, input),
                    None => self.later(node, 5_000, Input::Snapshot { epoch, fetch, image: None }),
                }
            }
            Output::GiveSnapshot { to, epoch, fetch, image } => {
                let image = if self.random.chance(15) { None } else { image };
                if let Some(to) = self.node_of(to) {
                    self.later(to, 20_000, Input::Snapshot { epoch, fetch, image });
                }
            }
            Output::Sync => {
                let is_slow = self.nodes[node].disk_slow_until_us > self.schedule.now_us();
                let takes = if is_slow || self.random.chance(2) { 100_000 } else { 300 };
                self.later(node, takes, Input::Synced);
            }
            Output::Reply { client, reply } => {
                let index = client.0 as usize;
                if self.clients[index].broker == Some(node) {
                    let delay = self.random.delay(300);
                    let lane = &mut self.client_links[index];
                    lane.2 = lane.2.max(self.schedule.now_us() + delay);
                    let (link, _, at) = *lane;
                    self.schedule.at(at, Happening::Reply { client, link, reply });
                }
            }
            Output::Fact(fact) => self.witnessed(node, fact),
        }
    }

    fn witnessed(&mut self, node: usize, fact: Fact) {
        let Some(life) = self.nodes[node].life else { return };
        match fact {
            Fact::Leads { epoch } => self.witness.leads(life, epoch),
            Fact::Serves { epoch, applied } => self.witness.serves(life, epoch, applied),
            Fact::Applied { batch } => self.witness.applied(life, &batch),
            Fact::Confirms { epoch, end } => {
                let nodes = &self.nodes;
                let disk_of = |member: Member| {
                    let disk = &nodes[member.broker.0 as usize - 1].disk;
                    (disk.store() == Some(member.store)).then(|| disk.synced())
                };
                self.witness.confirms(epoch, end, &self.ensemble, disk_of);
            }
            // One that was deposed promises nothing with it: it can neither deliver nor confirm a settle.
            Fact::Claimed { epoch, .. } if epoch != self.ensemble.state().epoch => {}
            Fact::Claimed { held, .. } => self.witness.claimed(life, &held),
            Fact::Delivers { epoch, run, batches, redelivered } => {
                self.witness.delivers(life, epoch, run, &batches, redelivered);
            }
            Fact::Stopped { why } if why == STORE_FAILED => {}
            Fact::Stopped { why } => self.witness.stopped(life, &why),
        }
    }

    pub(crate) fn later(&mut self, node: usize, usual_us: u64, input: Input) {
        let delay = self.random.delay(usual_us);
        let generation = self.nodes[node].generation;
        self.schedule.after(delay, Happening::Input { node, generation, input });
    }

    pub(crate) fn node_of(&self, life: BrokerLife) -> Option<usize> {
        self.nodes.iter().position(|node| node.process.is_some() && node.life == Some(life))
    }

    pub(crate) fn add_connection(&mut self, dialer: usize, acceptor: usize) {
        let (Some(from), Some(to)) = (self.nodes[dialer].life, self.nodes[acceptor].life) else {
            return;
        };
        let number = self.next_connection;
        self.next_connection += 1;
        self.connections.insert(number, Connection::new((dialer, from), (acceptor, to)));
        let (first, second) = (self.random.delay(300), self.random.delay(300));
        self.schedule.after(first, Happening::Up { connection: number, side: Side::Accepted });
        self.schedule
            .after(first + second, Happening::Up { connection: number, side: Side::Dialed });
    }

    fn restart(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            return;
        }
        let now = self.schedule.now();
        // More than a process gives up in a history.
        let stores = self.next_store;
        self.next_store += 1_000;
        let it = &mut self.nodes[node];
        let identity = Identity { queue: QUEUE, member: member_of(node, &it.disk), started: now };
        // Leaderships move soon, so that a history has many of them.
        let settle = Duration::from_millis(500);
        let timing = Timing { settle, ..Timing::default() };
        it.process = Some(Process::start(now, identity, timing, &it.disk, stores));
        it.generation += 1;
        it.connected = false;
        it.paused = false;
        it.backlog.clear();
        it.known.clear();
        it.open_cas.clear();
        let generation = it.generation;
        self.tell(|| format!("b{} starts", node + 1));
        self.finds_damage(node);
        let delay = self.random.delay(60_000);
        self.schedule.after(delay, Happening::Register { node, generation });
    }

    /// A process takes a new life, once the node of its last one is gone: it closes that session itself.
    fn register(&mut self, node: usize, generation: u64) {
        if self.nodes[node].generation != generation || self.nodes[node].process.is_none() {
            return;
        }
        if self.ensemble_away || self.nodes[node].paused {
            let delay = self.random.delay(100_000);
            return self.schedule.after(delay, Happening::Register { node, generation });
        }
        if let Some(old) = self.nodes[node].life {
            self.ensemble.end_session(old);
        }
        self.next_incarnation += 1;
        let broker = BrokerId(node as u32 + 1);
        let life = BrokerLife { broker, incarnation: Incarnation(self.next_incarnation) };
        self.ensemble.register(life);
        self.nodes[node].life = Some(life);
        self.nodes[node].connected = true;
        self.nodes[node].link += 1;
        self.tell(|| format!("b{} lives as {life}", node + 1));
        self.give(node, Input::Connected(true));
        self.give(node, Input::Life(Some(life)));
        self.ensemble_changed();
    }

    /// An empty disk, as after a replacement: a store that nobody has seen.
    pub(crate) fn new_store(&mut self) -> StoreId {
        self.next_store += 1;
        StoreId(uuid::Uuid::from_u128(self.next_store))
    }
}

/// What would fill the story without telling anything.
fn is_routine(input: &Input) -> bool {
    match input {
        Input::Tick | Input::Synced => true,
        Input::Frame { frame, .. } => is_promise(frame),
        Input::Client { .. } => true,
        _ => false,
    }
}

fn is_routine_too(output: &Output) -> bool {
    match output {
        Output::Sync => true,
        Output::Send { frame, .. } => is_promise(frame),
        Output::Reply { .. } | Output::Fact(Fact::Applied { .. }) => true,
        _ => false,
    }
}

fn is_promise(frame: &PeerFrame) -> bool {
    matches!(frame, PeerFrame::PromiseAsk { .. } | PeerFrame::Promise { .. })
}

impl Node {
    fn new(store: u128) -> Node {
        Node {
            disk: Disk::new(StoreId(uuid::Uuid::from_u128(store))),
            process: None,
            generation: 0,
            life: None,
            connected: false,
            link: 0,
            open_cas: Vec::new(),
            disk_slow_until_us: 0,
            store_failed: false,
            paused: false,
            backlog: VecDeque::new(),
            known: BTreeMap::new(),
        }
    }
}

pub(crate) fn member_of(node: usize, disk: &Disk) -> Member {
    // A damaged copy is a member of no set; what it is until it begins anew does not matter.
    let store = disk.store().unwrap_or(StoreId(uuid::Uuid::nil()));
    Member { broker: BrokerId(node as u32 + 1), store }
}
