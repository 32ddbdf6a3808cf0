//! A simulated ensemble: one queue's state under compare-and-set, the paths of live brokers, and sessions that end.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::{QueueState, UnknownFields};
use bellwether_protocol::ids::{BrokerId, BrokerLife, Epoch, Member};

/// What the ensemble holds.
#[derive(Debug)]
pub struct Ensemble {
    /// Every state there was; the index is the version.
    states: Vec<QueueState>,
    live: BTreeSet<BrokerLife>,
    /// Of sessions that are not over: since when each is disconnected, if it is.
    sessions: BTreeMap<BrokerLife, Option<u64>>,
}

/// A compare-and-set.
#[derive(Clone, Debug)]
pub struct Cas {
    pub by: BrokerLife,
    pub version: Version,
    pub state: QueueState,
}

impl Ensemble {
    #[must_use]
    pub fn new(isr: Vec<Member>, min_isr: u8) -> Ensemble {
        let state = QueueState {
            epoch: Epoch(0),
            leader: None,
            replicas: isr.iter().map(|member| member.broker).collect(),
            isr,
            min_isr,
            given_up: Vec::new(),
            past: Default::default(),
            unknown: UnknownFields::new(),
        };
        Ensemble { states: vec![state], live: BTreeSet::new(), sessions: BTreeMap::new() }
    }

    #[must_use]
    pub fn state(&self) -> &QueueState {
        self.states.last().expect("there is one from the beginning")
    }

    #[must_use]
    pub fn version(&self) -> Version {
        Version(self.states.len() as i32 - 1)
    }

    /// An older state with its version, as a server that lags behind would show it.
    #[must_use]
    pub fn older(&self, back: u64) -> (QueueState, Version) {
        let index = self.states.len().saturating_sub(1 + back as usize);
        (self.states[index].clone(), Version(index as i32))
    }

    #[must_use]
    pub fn is_live(&self, life: BrokerLife) -> bool {
        self.live.contains(&life)
    }

    /// A session begins and puts its path there.
    pub fn register(&mut self, life: BrokerLife) {
        self.live.insert(life);
        self.sessions.insert(life, None);
    }

    #[must_use]
    pub fn has_session(&self, life: BrokerLife) -> bool {
        self.sessions.contains_key(&life)
    }

    pub fn disconnected(&mut self, life: BrokerLife, now_us: u64) {
        if let Some(since) = self.sessions.get_mut(&life) {
            since.get_or_insert(now_us);
        }
    }

    pub fn connected(&mut self, life: BrokerLife) {
        if let Some(since) = self.sessions.get_mut(&life) {
            *since = None;
        }
    }

    /// Sessions that were disconnected for longer than the time-out.
    #[must_use]
    pub fn overdue(&self, now_us: u64, timeout_us: u64) -> Vec<BrokerLife> {
        let overdue = |since: &u64| now_us.saturating_sub(*since) > timeout_us;
        let all = self.sessions.iter();
        all.filter(|(_, since)| since.as_ref().is_some_and(overdue))
            .map(|(life, _)| *life)
            .collect()
    }

    /// The session is over, and its path with it.
    pub fn end_session(&mut self, life: BrokerLife) {
        self.sessions.remove(&life);
        self.live.remove(&life);
    }

    /// Other brokers are to hold the copies: what a controller does, by a CAS of its own.
    pub fn move_to(&mut self, replicas: Vec<BrokerId>) {
        let state = QueueState { replicas, ..self.state().clone() };
        self.states.push(state);
    }

    /// Applies a CAS, if its session still lives and the version is the one named.
    pub fn apply(&mut self, cas: &Cas) -> Option<Version> {
        if !self.has_session(cas.by) || cas.version != self.version() {
            return None;
        }
        self.states.push(cas.state.clone());
        Some(self.version())
    }
}
