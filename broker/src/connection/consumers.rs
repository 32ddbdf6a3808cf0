//! A consumer on a connection: the sink that its queue's shard delivers to.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use bellwether_protocol::client::{BrokerFrame, ConsumerAttached, DeliveredRun, Response};
use bellwether_protocol::error::ErrorBody;
use bellwether_protocol::ids::{ConsumerHandle, Epoch, QueueId, RequestId};
use bellwether_protocol::names::QueueName;

use super::Service;
use super::outbox::{Delivery, Outbox};
use crate::shard::input::{ConsumerKey, ConsumerSink, Lease};

/// One consumer. Shared by the connection's reader and writer and the queue's shard.
pub(super) struct Outlet {
    pub key: ConsumerKey,
    pub handle: ConsumerHandle,
    /// As the client names it.
    pub queue_name: QueueName,
    me: Weak<Outlet>,
    queue: OnceLock<QueueId>,
    /// The request that attaches it, until it is answered: the answer goes before the first delivery.
    attaching: Mutex<Option<RequestId>>,
    /// Gone: what it still has in the outbox is dropped.
    closed: AtomicBool,
    /// The highest [`bellwether_protocol::client::Settle::number`] so far.
    settled_number: AtomicU64,
    outbox: Arc<Outbox>,
    service: Arc<Service>,
}

impl Outlet {
    pub fn new(
        key: ConsumerKey,
        handle: ConsumerHandle,
        queue_name: QueueName,
        request: RequestId,
        outbox: Arc<Outbox>,
        service: Arc<Service>,
    ) -> Arc<Outlet> {
        service.metrics.consumers.add(1);
        Arc::new_cyclic(|me| Outlet {
            key,
            handle,
            queue_name,
            me: me.clone(),
            queue: OnceLock::new(),
            attaching: Mutex::new(Some(request)),
            closed: AtomicBool::new(false),
            settled_number: AtomicU64::new(0),
            outbox,
            service,
        })
    }

    /// Its queue, once that was found.
    pub fn queue(&self) -> Option<QueueId> {
        self.queue.get().copied()
    }

    pub fn found_queue(&self, queue: QueueId) {
        self.queue.get_or_init(|| queue);
    }

    /// Takes no more; `false` when it did not before.
    pub fn close(&self) -> bool {
        let first = !self.closed.swap(true, Ordering::AcqRel);
        if first {
            self.service.metrics.consumers.subtract(1);
        }
        first
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether a settle of this number comes in its turn.
    pub fn takes_number(&self, number: u64) -> bool {
        self.settled_number.fetch_max(number, Ordering::AcqRel) < number
    }

    /// Refuses the request that was to attach it.
    pub fn refused(&self, error: ErrorBody) {
        self.close();
        if let Some(id) = self.take_attaching() {
            self.outbox.push(BrokerFrame::Failure { id, error });
        }
    }

    fn take_attaching(&self) -> Option<RequestId> {
        self.attaching.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ConsumerSink for Outlet {
    fn attached(&self, attached: ConsumerAttached) {
        if let Some(id) = self.take_attaching() {
            let response = Response::ConsumerAttached(attached);
            self.outbox.push(BrokerFrame::Response { id, response });
        }
    }

    fn deliver(&self, epoch: Epoch, lease: Lease, runs: Vec<DeliveredRun>) -> bool {
        let Some(outlet) = self.me.upgrade() else { return false };
        self.outbox.deliver(Delivery { outlet, epoch, lease, runs })
    }

    fn settled(&self, up_to: u64) {
        if !self.is_closed() {
            self.outbox.push_settled(self.handle, up_to);
        }
    }

    fn settle_failed(&self, number: u64, error: ErrorBody) {
        if !self.is_closed() {
            self.outbox.push(BrokerFrame::SettleFailed { consumer: self.handle, number, error });
        }
    }

    fn closed(&self, error: ErrorBody) {
        let error = match self.queue() {
            Some(queue) => self.service.catalog.with_leader(queue, error),
            None => error,
        };
        if !self.close() {
            return;
        }
        match self.take_attaching() {
            Some(id) => self.outbox.push(BrokerFrame::Failure { id, error }),
            None => self.outbox.push(BrokerFrame::ConsumerClosed { consumer: self.handle, error }),
        }
    }
}
