//! Publishes on their way to a remote leader: who waits for the outcome of which.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::peer::{Forward, ForwardResult, PeerFrame};

use super::outbox::{Outbox, Pushed};
use crate::shard::input::{PublishOrigin, QueuePublish};

type Outcomes = Vec<(u64, Result<(), ErrorBody>)>;

/// What was forwarded on one connection and is not answered. Bounded by the publishers' credit.
#[derive(Default)]
pub(super) struct Forwards(Mutex<Table>);

#[derive(Default)]
struct Table {
    last: u64,
    open: HashMap<u64, (Arc<dyn PublishOrigin>, u64)>,
    closed: bool,
}

impl Forwards {
    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a publish on its way; it comes back when the connection is gone.
    pub fn send(&self, outbox: &Outbox, publish: QueuePublish) -> Result<(), Box<QueuePublish>> {
        let token = {
            let mut table = self.table();
            if table.closed {
                return Err(Box::new(publish));
            }
            table.last += 1;
            let token = table.last;
            table.open.insert(token, (publish.origin.clone(), publish.token));
            token
        };
        match outbox.push(PeerFrame::Forward(forward(token, &publish))) {
            Pushed::Taken => Ok(()),
            Pushed::Full | Pushed::Closed => match self.table().open.remove(&token) {
                Some(_) => Err(Box::new(publish)),
                // Whoever ended the connection has told the origin that nobody knows.
                None => Ok(()),
            },
        }
    }

    /// Tells the origins what became of these.
    pub fn settle(&self, results: Vec<(u64, ForwardResult)>) {
        let mut told = Told::default();
        {
            let mut table = self.table();
            for (token, result) in results {
                if let Some(waiting) = table.open.remove(&token) {
                    told.add(
                        waiting,
                        match result {
                            ForwardResult::Committed => Ok(()),
                            ForwardResult::Failed(error) => Err(error),
                        },
                    );
                }
            }
        }
        told.tell();
    }

    /// The connection is gone: nobody knows what became of the rest.
    pub fn abandon(&self) {
        let mut told = Told::default();
        {
            let mut table = self.table();
            table.closed = true;
            for (_, waiting) in table.open.drain() {
                let error = ErrorBody::unknown(
                    ErrorCode::Unconfirmed,
                    "the connection to the queue's leader was lost; send again with the same sequence number",
                );
                told.add(waiting, Err(error));
            }
        }
        told.tell();
    }
}

/// Outcomes by origin, so that each is called once.
#[derive(Default)]
struct Told(HashMap<usize, (Arc<dyn PublishOrigin>, Outcomes)>);

impl Told {
    fn add(
        &mut self,
        (origin, token): (Arc<dyn PublishOrigin>, u64),
        result: Result<(), ErrorBody>,
    ) {
        let key = Arc::as_ptr(&origin).cast::<()>() as usize;
        self.0.entry(key).or_insert_with(|| (origin, Vec::new())).1.push((token, result));
    }

    fn tell(self) {
        for (origin, outcomes) in self.0.into_values() {
            origin.outcomes(outcomes);
        }
    }
}

fn forward(token: u64, publish: &QueuePublish) -> Forward {
    Forward {
        token,
        queue: publish.queue,
        producer: publish.producer.clone(),
        previous: publish.previous,
        chained: publish.chained,
        first: publish.first,
        resent: publish.resent,
        exchange: publish.exchange.clone(),
        routing_key: publish.routing_key.clone(),
        messages: publish.messages.clone(),
    }
}

/// What a forward is for the shard that leads its queue.
pub(super) fn publish(forward: Forward, origin: Arc<dyn PublishOrigin>) -> QueuePublish {
    QueuePublish {
        queue: forward.queue,
        token: forward.token,
        origin,
        producer: forward.producer,
        previous: forward.previous,
        chained: forward.chained,
        first: forward.first,
        resent: forward.resent,
        exchange: forward.exchange,
        routing_key: forward.routing_key,
        messages: forward.messages,
    }
}

/// The way back of outcomes to the broker that forwarded.
pub(super) struct WayBack(pub Arc<Outbox>);

impl PublishOrigin for WayBack {
    fn outcomes(&self, outcomes: Outcomes) {
        self.0.forwarded(outcomes.into_iter().map(|(token, result)| {
            (
                token,
                match result {
                    Ok(()) => ForwardResult::Committed,
                    Err(error) => ForwardResult::Failed(error),
                },
            )
        }));
    }
}
