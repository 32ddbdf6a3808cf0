//! One connection to one broker, shared by everything that this client does there. A reader task hands what
//! arrives to whom it concerns; a writer task collects what is waiting and writes it in one go.

mod connect;
mod login;
mod outbox;
mod reader;
mod requests;
mod writer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bellwether_protocol::client::{BrokerFrame, ClientFrame, Welcome};
use bellwether_protocol::error::{BrokerAddress, ErrorBody};
use bellwether_protocol::ids::{BrokerId, ConsumerHandle, ProducerHandle};
use tokio_util::sync::CancellationToken;

pub(crate) use connect::{ConnectFailure, connect};
pub(crate) use outbox::{Lane, Source};
pub(crate) use requests::Answer;

use crate::consumer::Inbox;
use crate::lock::Locked;
use crate::producer::Pipe;
use outbox::Outbox;
use requests::Requests;

/// Names one connection in this process. Never used twice, so that what was said on a lost connection is never
/// taken for news of its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LinkId(u64);

impl LinkId {
    fn next() -> LinkId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        LinkId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct Link {
    id: LinkId,
    address: String,
    welcome: Welcome,
    next_handle: AtomicU32,
    routes: Locked<Routes>,
    outbox: Outbox,
    requests: Requests,
    closed: CancellationToken,
    why: OnceLock<String>,
}

/// Who hears what arrives. Bounded by the producers and consumers that the application has started.
#[derive(Debug, Default)]
struct Routes {
    producers: HashMap<ProducerHandle, Arc<Pipe>>,
    consumers: HashMap<ConsumerHandle, Arc<Inbox>>,
}

impl Link {
    fn new(address: String, welcome: Welcome) -> Link {
        Link {
            id: LinkId::next(),
            address,
            welcome,
            next_handle: AtomicU32::new(1),
            routes: Locked::default(),
            outbox: Outbox::default(),
            requests: Requests::default(),
            closed: CancellationToken::new(),
            why: OnceLock::new(),
        }
    }

    pub(crate) fn id(&self) -> LinkId {
        self.id
    }

    pub(crate) fn broker(&self) -> BrokerId {
        self.welcome.broker
    }

    /// Where it leads, as the broker itself says, or as it was reached.
    pub(crate) fn broker_address(&self) -> BrokerAddress {
        BrokerAddress { broker: self.broker(), address: self.address.clone() }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Resolves when the connection is gone.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Why it is gone, for people.
    pub(crate) fn why_closed(&self) -> String {
        let why = self.why.get().map_or("it was closed", String::as_str);
        format!("the connection to {} was lost: {why}", self.address)
    }

    /// Ends the connection at once. Everything that waits on it learns of it.
    pub(crate) fn fail(&self, why: impl Into<String>) {
        if self.why.set(why.into()).is_ok() {
            tracing::debug!(broker.address = %self.address, why = %self.why_closed(), "connection closed");
        }
        self.closed.cancel();
        self.requests.lost();
        // The routes hold producers and consumers, and those hold this link: cut the circle.
        let routes = std::mem::take(&mut *self.routes.lock());
        for inbox in routes.consumers.values() {
            inbox.link_lost(self.id);
        }
        self.outbox.clear();
    }

    /// Says goodbye once everything that is waiting has been written, then ends the connection.
    pub(crate) fn close(&self) {
        self.outbox.goodbye();
    }

    /// Routes what arrives for a new producer to `pipe`.
    pub(crate) fn register_producer(&self, pipe: Arc<Pipe>) -> ProducerHandle {
        let handle = ProducerHandle(self.next_handle.fetch_add(1, Ordering::Relaxed));
        self.routes.lock().producers.insert(handle, pipe);
        handle
    }

    /// Routes what arrives for a new consumer to `inbox`.
    pub(crate) fn register_consumer(&self, inbox: Arc<Inbox>) -> ConsumerHandle {
        let handle = ConsumerHandle(self.next_handle.fetch_add(1, Ordering::Relaxed));
        self.routes.lock().consumers.insert(handle, inbox);
        handle
    }

    pub(crate) fn forget_producer(&self, handle: ProducerHandle) {
        self.routes.lock().producers.remove(&handle);
    }

    pub(crate) fn forget_consumer(&self, handle: ConsumerHandle) {
        self.routes.lock().consumers.remove(&handle);
    }

    /// Has the writer ask `source` for what it has to send. A source calls it once until it was asked.
    pub(crate) fn ready(&self, lane: Lane, source: Arc<dyn Source>) {
        if !self.is_closed() {
            self.outbox.ready(lane, source);
        }
    }

    /// Hands a frame that has arrived to whom it concerns. An error ends the connection.
    fn dispatch(&self, frame: BrokerFrame) -> Result<(), String> {
        match frame {
            BrokerFrame::Response { id, response } => {
                self.requests.answered(id, Answer::Response(response));
            }
            BrokerFrame::Failure { id, error } => {
                self.requests.answered(id, Answer::Failure(error))
            }
            BrokerFrame::Confirmed { producer, ranges } => {
                if let Some(pipe) = self.pipe(producer) {
                    pipe.confirmed(&ranges);
                }
            }
            BrokerFrame::PublishFailed { producer, range, error } => {
                if let Some(pipe) = self.pipe(producer) {
                    pipe.failed(self.id, producer, range, &error);
                }
            }
            BrokerFrame::PublishCredit { producer, messages, bytes, withheld } => {
                if let Some(pipe) = self.pipe(producer) {
                    pipe.credited(self.id, producer, (messages, bytes), withheld);
                }
            }
            BrokerFrame::Deliver(deliver) => {
                if let Some(inbox) = self.inbox(deliver.consumer) {
                    inbox.delivered(self.id, deliver)?;
                }
            }
            BrokerFrame::Settled { consumer, up_to } => {
                if let Some(inbox) = self.inbox(consumer) {
                    inbox.settled(self.id, consumer, up_to);
                }
            }
            BrokerFrame::SettleFailed { consumer, number, error } => {
                if let Some(inbox) = self.inbox(consumer) {
                    inbox.settle_failed(self.id, consumer, number, &error);
                }
            }
            BrokerFrame::ConsumerClosed { consumer, error } => {
                if let Some(inbox) = self.inbox(consumer) {
                    inbox.closed_by_broker(self.id, consumer, error);
                    self.forget_consumer(consumer);
                }
            }
            BrokerFrame::Heartbeat => {}
            BrokerFrame::Goodbye(error) => return Err(goodbye(&error)),
            BrokerFrame::Welcome(_) => return Err("a second welcome arrived".to_owned()),
            BrokerFrame::Challenge(_) => {
                return Err("it asked for a proof after its welcome".to_owned());
            }
        }
        Ok(())
    }

    fn pipe(&self, handle: ProducerHandle) -> Option<Arc<Pipe>> {
        self.routes.lock().producers.get(&handle).cloned()
    }

    fn inbox(&self, handle: ConsumerHandle) -> Option<Arc<Inbox>> {
        self.routes.lock().consumers.get(&handle).cloned()
    }

    /// Sends a frame ahead of settles and publishes.
    fn send(&self, frame: ClientFrame) {
        if !self.is_closed() && !self.outbox.control(frame) {
            self.fail("it has not read for too long");
        }
    }
}

fn goodbye(error: &ErrorBody) -> String {
    format!("the broker said goodbye: {} (code {})", error.message, error.code.number())
}
