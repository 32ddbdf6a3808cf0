//! Requests that are looked up in what the broker knows: quick, but the answers may be long. A connection has one at work at a
//! time, and the broker [`LOOKUPS_AT_ONCE`](super::LOOKUPS_AT_ONCE): clients that ask without end take turns, message traffic does not wait
//! behind them, and no more answers are made than there is memory for.

use std::collections::VecDeque;
use std::sync::Arc;

use bellwether_protocol::client::Request;
use bellwether_protocol::ids::RequestId;
use bellwether_protocol::names::VirtualHost;

use super::Service;
use super::outbox::Outbox;
use super::requests::{answer, carry_out};
use crate::login::Rights;

/// Look-ups that wait on a connection before nothing more is read from it: they are quick, and so is the way back to the client.
const WAITING_MAX: usize = 16;

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
        // Never closed. The turn is kept until the answer is counted: the next looks at what that leaves.
        let turn = service.lookups.acquire().await;
        service.metrics.memory.answers_have_room().await;
        let done = carry_out(service, host, &rights, request).await;
        outbox.push(answer(id, done));
        drop(turn);
    }
}
