//! The simulated cluster: brokers, their disks, the network between them, the ensemble and the clients, all
//! driven by one schedule and one source of chance.

use std::collections::BTreeMap;

use bellwether_protocol::ids::BrokerLife;
use bellwether_protocol::names::ProducerName;

use crate::clients::{Client, Consumer, Kind, Numbers, Producer};
use crate::coordinator::{Cas, Ensemble};
use crate::counts::Counts;
use crate::happenings::Happening;
use crate::network::Connection;
use crate::nodes::{Node, member_of};
use crate::process::Process;
use crate::random::Random;
use crate::schedule::Schedule;
use crate::witness::Witness;
use crate::words::ClientId;

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

/// Everything.
pub struct World {
    pub seed: u64,
    pub shape: Shape,
    pub(crate) random: Random,
    pub(crate) schedule: Schedule<Happening>,
    pub nodes: Vec<Node>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) next_connection: u64,
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
    pub(crate) next_incarnation: u64,
    pub(crate) next_store: u128,
    pub witness: Witness,
    pub counts: Counts,
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
            counts: Counts::default(),
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
}
