//! Requests that are looked up in what the broker knows: quick, but the answers may be long. A connection has one at work at a
//! time, and so has the broker: clients that ask without end take turns at a pace that leaves the processors to messages, and no
//! more answers are made than there is memory for.

use std::collections::VecDeque;
use std::sync::Arc;

use bellwether_protocol::client::Request;
use bellwether_protocol::ids::RequestId;
use bellwether_protocol::names::VirtualHost;
use tokio::sync::Mutex;

use super::Service;
use super::admission::Pace;
use super::outbox::Outbox;
use super::requests::{answer, carry_out};
use super::weight::weight;
use crate::login::Rights;

/// Look-ups that wait on a connection before nothing more is read from it: they are quick, and so is the way back to the client.
const WAITING_MAX: usize = 16;

/// Look-ups a second that a broker answers, over time; a quarter of that at once after a pause. Each costs some 20 microseconds with
/// all that goes with it: what clients that ask without end can take is a small part of a processor.
const PER_SECOND: u32 = 4_000;

/// An answer counts for one more look-up for each so many bytes.
const BYTES_A_LOOKUP: usize = 16 * 1024;

/// Whose turn it is to look something up, on all connections together: in the order in which they asked.
pub(super) struct LookupTurns(Mutex<Pace>);

impl Default for LookupTurns {
    fn default() -> LookupTurns {
        LookupTurns(Mutex::new(Pace::new(PER_SECOND)))
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
        matches!(
            request,
            Request::ListExchanges
                | Request::ListQueues { .. }
                | Request::ListBindings { .. }
                | Request::ListDefinitions { .. }
                | Request::ListUsers
                | Request::ClusterStatus
        )
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
        let Lookup { id, request, rights } = self;
        // The turn is kept until the answer is counted: the next looks at what that leaves.
        let mut pace = service.lookups.0.lock().await;
        if let Some(at) = pace.next() {
            tokio::time::sleep_until(at).await;
        }
        service.metrics.memory.answers_have_room().await;
        let answer = answer(id, carry_out(service, host, &rights, request).await);
        pace.take(weight(&answer) / BYTES_A_LOOKUP);
        outbox.push(answer);
    }
}
