//! Requests that only look, and whose answers may be long. A connection has one at work at a time; clients that ask without end
//! take turns, at a pace that leaves the processors to messages and the coordinator to elections, and no more answers are made
//! than there is memory for.

use std::collections::VecDeque;
use std::sync::Arc;

use bellwether_protocol::client::Request;
use bellwether_protocol::ids::RequestId;
use bellwether_protocol::names::VirtualHost;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Duration, Instant};

use super::Service;
use super::admission::Pace;
use super::outbox::Outbox;
use super::requests::{answer, carry_out};
use super::weight::weight;
use crate::login::Rights;

/// Look-ups that wait on a connection before nothing more is read from it: they are quick, and so is the way back to the client.
const WAITING_MAX: usize = 16;

/// Look-ups a second that a broker answers from memory, over time; a quarter of that at once after a pause. What clients that ask
/// without end can take is a small part of a processor.
const PER_SECOND: u32 = 4_000;

/// What one of them takes, with all that goes with it; one that takes longer counts for as many more.
const USUAL: Duration = Duration::from_micros(20);

/// An answer counts for one more look-up for each so many bytes.
const BYTES_A_LOOKUP: usize = 16 * 1024;

/// Look-ups that shards answer at once, for all clients: each answer may take a mebibyte before it is counted.
const SHARDS_MAX: usize = 4;

/// Look-ups that the coordinator answers at once, for all clients: a small part of what may be under way to it, which elections and
/// changes of in-sync sets wait for as well.
const COORDINATOR_MAX: usize = 8;

/// Who has the answer. Those of one source keep no others waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Memory,
    Shards,
    Coordinator,
}

/// Whose turn it is to look something up, on all connections together: in the order in which they asked.
pub(super) struct LookupTurns {
    memory: Mutex<Pace>,
    shards: Semaphore,
    coordinator: Semaphore,
    /// Who waits for room for its answer.
    room: Mutex<()>,
}

impl Default for LookupTurns {
    fn default() -> LookupTurns {
        LookupTurns {
            memory: Mutex::new(Pace::new(PER_SECOND)),
            shards: Semaphore::new(SHARDS_MAX),
            coordinator: Semaphore::new(COORDINATOR_MAX),
            room: Mutex::default(),
        }
    }
}

/// What waits on one connection.
#[derive(Default)]
pub(super) struct Lookups {
    waiting: VecDeque<Lookup>,
    at_work: bool,
}

/// One of them, with the rights of when it was asked.
pub(super) struct Lookup {
    pub id: RequestId,
    pub request: Request,
    pub rights: Arc<Rights>,
}

impl Lookups {
    /// Whether a request is one.
    pub fn are(request: &Request) -> bool {
        source(request).is_some()
    }

    /// Those that wait; one that is at work is a task.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether so many wait that the client has to.
    pub fn are_many(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }

    pub fn add(&mut self, lookup: Lookup) {
        self.waiting.push_back(lookup);
    }

    /// Whether one waits and none is at work.
    pub fn could_go_on(&self) -> bool {
        !self.at_work && !self.waiting.is_empty()
    }

    /// The next, unless one is at work.
    pub fn next(&mut self) -> Option<Lookup> {
        if self.at_work {
            return None;
        }
        let next = self.waiting.pop_front();
        self.at_work = next.is_some();
        next
    }

    /// The one at work is answered.
    pub fn done(&mut self) {
        self.at_work = false;
    }
}

impl Lookup {
    pub async fn answer(self, service: &Service, host: &VirtualHost, outbox: &Outbox) {
        let turns = &service.lookups;
        match source(&self.request) {
            Some(Source::Shards) => self.answer_among(&turns.shards, service, host, outbox).await,
            Some(Source::Coordinator) => {
                self.answer_among(&turns.coordinator, service, host, outbox).await
            }
            Some(Source::Memory) | None => self.answer_from_memory(service, host, outbox).await,
        }
    }

    async fn answer_from_memory(self, service: &Service, host: &VirtualHost, outbox: &Outbox) {
        let Lookup { id, request, rights } = self;
        // The turn is kept until the answer is counted: the next looks at what that leaves.
        let mut pace = service.lookups.memory.lock().await;
        if let Some(at) = pace.next() {
            tokio::time::sleep_until(at).await;
        }
        service.lookups.room(service).await;
        let began = Instant::now();
        let answer = answer(id, carry_out(service, host, &rights, request).await);
        let took = began.elapsed().as_micros() / USUAL.as_micros();
        pace.take(weight(&answer) / BYTES_A_LOOKUP + usize::try_from(took).unwrap_or(usize::MAX));
        outbox.push(answer);
    }

    async fn answer_among(
        self,
        turns: &Semaphore,
        service: &Service,
        host: &VirtualHost,
        outbox: &Outbox,
    ) {
        let Lookup { id, request, rights } = self;
        let _turn = turns.acquire().await.expect("it is never closed");
        service.lookups.room(service).await;
        outbox.push(answer(id, carry_out(service, host, &rights, request).await));
    }
}

impl LookupTurns {
    /// Waits for room for one more answer.
    async fn room(&self, service: &Service) {
        let _only_one_waits = self.room.lock().await;
        service.metrics.memory.answers_have_room().await;
    }
}

/// Who answers a request, if it is a look-up.
fn source(request: &Request) -> Option<Source> {
    match request {
        Request::ListExchanges
        | Request::ListQueues { .. }
        | Request::ListBindings { .. }
        | Request::ListDefinitions { .. }
        | Request::ListUsers
        | Request::Elections { .. }
        | Request::ClusterStatus => Some(Source::Memory),
        Request::Browse(_) | Request::Attention { .. } => Some(Source::Shards),
        Request::QueueCondition { .. } | Request::ListSettings | Request::Plan => {
            Some(Source::Coordinator)
        }
        _ => None,
    }
}
