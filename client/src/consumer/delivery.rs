//! One message in the application's hand, and the future of its settling.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bellwether_protocol::client::Settlement;
use bellwether_protocol::headers::{Headers, InvalidHeaders};
use bellwether_protocol::ids::{Epoch, Offset};
use bellwether_protocol::message::Message;
use bellwether_protocol::names::{ExchangeName, RoutingKey};
use bytes::Bytes;
use tokio::time::Sleep;

use super::holds::Serial;
use super::inbox::Inbox;
use super::settles::Ticket;
use crate::error::SettleError;

/// What deliveries of one run have in common.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(super) inbox: Arc<Inbox>,
    pub(super) serial: Serial,
    pub(super) epoch: Epoch,
    pub(super) redelivered: bool,
    pub(super) returns: u32,
    pub(super) time_ms: u64,
    pub(super) exchange: ExchangeName,
    pub(super) routing_key: RoutingKey,
}

/// A message, held until it is settled: acknowledged, rejected or returned. Dropping it unsettled returns it to its
/// place in the queue.
///
/// A failover does not take it away: the consumer asks the next leader to let it keep what it holds. Settling is
/// [`Stale`](SettleError::Stale) (not done) when that one has given the message to another consumer first, or when this consumer is
/// gone; the message comes again then.
#[must_use = "a delivery that is dropped goes back to its queue"]
pub struct Delivery {
    origin: Arc<Origin>,
    offset: Offset,
    message: Message,
    settled: bool,
}

impl std::fmt::Debug for Delivery {
    /// Never shows a body.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("offset", &self.offset.0)
            .field("epoch", &self.origin.epoch.0)
            .field("redelivered", &self.origin.redelivered)
            .field("bytes", &self.message.body.len())
            .finish()
    }
}

impl Delivery {
    pub(super) fn new(origin: Arc<Origin>, offset: Offset, message: Message) -> Delivery {
        Delivery { origin, offset, message, settled: false }
    }

    /// What the producer wrote.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.message.body
    }

    /// The headers that the producer added; empty when there are none.
    ///
    /// # Errors
    /// When they are not readable, which a broker would have refused.
    pub fn headers(&self) -> Result<Headers, InvalidHeaders> {
        self.message.headers.as_ref().map_or_else(|| Ok(Headers::default()), Headers::decode)
    }

    /// Its place in the queue.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset.0
    }

    /// The term of leadership it was delivered in.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.origin.epoch.0
    }

    /// Whether it may have been delivered before.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.origin.redelivered
    }

    /// How often it was returned before.
    #[must_use]
    pub fn returns(&self) -> u32 {
        self.origin.returns
    }

    /// When the queue's leader took it, in milliseconds since 1970.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.origin.time_ms
    }

    /// The exchange it was published to; empty for the default exchange.
    #[must_use]
    pub fn exchange(&self) -> &str {
        self.origin.exchange.as_str()
    }

    /// The routing key it was published with.
    #[must_use]
    pub fn routing_key(&self) -> &str {
        self.origin.routing_key.as_str()
    }

    /// Dealt with: it never comes again. Await the answer to know it; or drop it, and it is done all the same.
    pub fn ack(self) -> Settled {
        self.settle(Settlement::Ack)
    }

    /// Not wanted: it never comes again.
    pub fn reject(self) -> Settled {
        self.settle(Settlement::Reject)
    }

    /// Back to its place in the queue, for whoever is next.
    pub fn return_(self) -> Settled {
        self.settle(Settlement::Return)
    }

    fn settle(mut self, settlement: Settlement) -> Settled {
        self.settled = true;
        let inbox = Arc::clone(&self.origin.inbox);
        match inbox.settle(self.origin.serial, settlement, self.offset) {
            Some(ticket) => Settled::new(inbox, Some(ticket), 0),
            None => Settled::new(inbox, None, 1),
        }
    }

    pub(super) fn place(&self) -> (Serial, Offset) {
        (self.origin.serial, self.offset)
    }

    /// It is settled with others: dropping it returns nothing.
    pub(super) fn into_place(mut self) -> (Serial, Offset) {
        self.settled = true;
        self.place()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.settled {
            self.origin.inbox.give_back(self.origin.serial, self.offset);
        }
    }
}

/// A future of a settle's confirm. Dropping it cancels nothing.
pub struct Settled {
    inbox: Arc<Inbox>,
    /// The frame it went into; mostly there is just one.
    ticket: Option<Ticket>,
    more: Vec<Ticket>,
    /// Deliveries of the call that were stale.
    stale: u64,
    failed: Option<SettleError>,
    epoch: Option<Epoch>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl std::fmt::Debug for Settled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let open = usize::from(self.ticket.is_some()) + self.more.len();
        write!(f, "Settled({open} open, {} stale)", self.stale)
    }
}

impl Settled {
    pub(super) fn new(inbox: Arc<Inbox>, ticket: Option<Ticket>, stale: u64) -> Settled {
        Settled {
            inbox,
            ticket,
            more: Vec::new(),
            stale,
            failed: None,
            epoch: None,
            deadline: None,
        }
    }

    pub(super) fn of_many(inbox: Arc<Inbox>, mut tickets: Vec<Ticket>, stale: u64) -> Settled {
        let ticket = tickets.pop();
        Settled { inbox, ticket, more: tickets, stale, failed: None, epoch: None, deadline: None }
    }

    /// The latest term of leadership that the consumer knew of when the answer was taken: not below the one in which it was
    /// confirmed. `None` before.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.epoch.map(|epoch| epoch.0)
    }

    fn outcome(&mut self) -> Result<(), SettleError> {
        match self.failed.take() {
            Some(failed) => Err(failed),
            None if self.stale > 0 => Err(SettleError::Stale {
                stale: self.stale,
                message:
                    "delivered before a failover or on a lost connection, or settled already; \
                          it comes again if it is unsettled"
                        .to_owned(),
            }),
            None => Ok(()),
        }
    }
}

impl Future for Settled {
    type Output = Result<(), SettleError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        while let Some(ticket) = this.ticket {
            match this.inbox.with_settles(|settles| settles.poll(ticket, context.waker())) {
                Poll::Ready(outcome) => {
                    this.inbox.with_settles(|settles| settles.receipt_dropped(ticket));
                    this.ticket = this.more.pop();
                    this.failed = this.failed.take().or(outcome.err());
                }
                Poll::Pending => {
                    let patience = this.inbox.patience();
                    let deadline =
                        this.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                    return match deadline.as_mut().poll(context) {
                        Poll::Ready(()) => {
                            Poll::Ready(Err(SettleError::TimedOut { waited: patience }))
                        }
                        Poll::Pending => Poll::Pending,
                    };
                }
            }
        }
        this.epoch = Some(this.inbox.epoch());
        Poll::Ready(this.outcome())
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        for ticket in self.ticket.take().into_iter().chain(self.more.drain(..)) {
            self.inbox.with_settles(|settles| settles.receipt_dropped(ticket));
        }
    }
}
