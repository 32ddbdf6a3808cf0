//! What the application does: it takes deliveries, and settles them.

use std::sync::Arc;
use std::task::{Context, Poll};

use bellwether_protocol::client::Settlement;
use bellwether_protocol::ids::{Epoch, Offset, OffsetRange};

use super::{Inbox, State};
use crate::consumer::delivery::Delivery;
use crate::consumer::holds::Serial;
use crate::consumer::ranges::Ranges;
use crate::consumer::settles::{Settles, Ticket, one};
use crate::error::ConsumeError;

impl Inbox {
    pub(in crate::consumer) fn poll_next(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Delivery, ConsumeError>>> {
        let mut state = self.state.lock();
        if let Some(delivery) = state.take_next() {
            return Poll::Ready(Some(Ok(delivery)));
        }
        if let Some(end) = state.end.take() {
            return Poll::Ready(Some(Err(end)));
        }
        if state.ended || state.closed {
            return Poll::Ready(None);
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }

    /// Settles one delivery; `None`: it is stale.
    pub(in crate::consumer) fn settle(
        self: &Arc<Self>,
        serial: Serial,
        settlement: Settlement,
        offset: Offset,
    ) -> Option<Ticket> {
        let mut state = self.state.lock();
        if !state.held.remove(serial, offset) {
            return None;
        }
        let ticket = state.settles.add(settlement, one(offset));
        state.settles.receipt(ticket);
        let line = state.line_up();
        drop(state);
        self.stand_in_line(line);
        Some(ticket)
    }

    /// Returns a delivery that was dropped. Nobody waits for it.
    pub(in crate::consumer) fn give_back(self: &Arc<Self>, serial: Serial, offset: Offset) {
        let mut state = self.state.lock();
        if !state.held.remove(serial, offset) {
            return;
        }
        state.settles.add(Settlement::Return, one(offset));
        let line = state.line_up();
        drop(state);
        self.stand_in_line(line);
    }

    /// Settles everything held up to and with this offset; `None`: that delivery is stale.
    pub(in crate::consumer) fn settle_up_to(
        self: &Arc<Self>,
        serial: Serial,
        settlement: Settlement,
        offset: Offset,
    ) -> Option<Vec<Ticket>> {
        let mut state = self.state.lock();
        let ranges = state.held.take_up_to(serial, offset);
        if ranges.is_empty() {
            return None;
        }
        let tickets = state.settle_ranges(settlement, ranges);
        let line = state.line_up();
        drop(state);
        self.stand_in_line(line);
        Some(tickets)
    }

    /// Settles these deliveries. Tickets, and how many were stale.
    pub(in crate::consumer) fn settle_all(
        self: &Arc<Self>,
        settlement: Settlement,
        deliveries: impl Iterator<Item = (Serial, Offset)>,
    ) -> (Vec<Ticket>, u64) {
        let mut stale = 0;
        let mut ranges = Ranges::default();
        let mut state = self.state.lock();
        for (serial, offset) in deliveries {
            if state.held.remove(serial, offset) {
                ranges.insert(one(offset));
            } else {
                stale += 1;
            }
        }
        let tickets = state.settle_ranges(settlement, ranges.into_vec());
        let line = state.line_up();
        drop(state);
        self.stand_in_line(line);
        (tickets, stale)
    }

    /// The highest epoch that was seen.
    pub(in crate::consumer) fn epoch(&self) -> Epoch {
        self.state.lock().seen
    }

    pub(in crate::consumer) fn with_settles<T>(&self, then: impl FnOnce(&mut Settles) -> T) -> T {
        then(&mut self.state.lock().settles)
    }

    /// No more deliveries are handed out. What is unsettled goes back when the driver detaches.
    pub(in crate::consumer) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.arrived.clear();
        state.waiting = 0;
        drop(state);
        self.news.notify_one();
    }

    /// Waits until every settle is resolved.
    pub(crate) async fn settled_all(&self) {
        loop {
            let quiet = self.quiet.notified();
            tokio::pin!(quiet);
            // Enabled before the look: a confirm in between is not missed.
            quiet.as_mut().enable();
            if self.state.lock().settles.is_empty() {
                return;
            }
            quiet.await;
        }
    }

    /// Waits until every settle is resolved, `true`, or the attachment is lost.
    pub(in crate::consumer) async fn settled_or_lost(&self) -> bool {
        loop {
            let quiet = self.quiet.notified();
            tokio::pin!(quiet);
            quiet.as_mut().enable();
            let (settled, lost) = {
                let state = self.state.lock();
                (state.settles.is_empty(), state.attachment.is_none())
            };
            if settled || lost {
                return settled;
            }
            quiet.await;
        }
    }
}

impl State {
    fn take_next(&mut self) -> Option<Delivery> {
        if self.attachment.as_ref().is_some_and(|here| !here.decided) {
            return None;
        }
        loop {
            let run = self.arrived.front_mut()?;
            let Some(message) = run.messages.next() else {
                self.arrived.pop_front();
                continue;
            };
            let offset = run.next;
            run.next = offset.plus(1);
            self.waiting -= 1;
            let delivery = Delivery::new(Arc::clone(&run.origin), offset, message);
            self.held.insert(one(offset));
            return Some(delivery);
        }
    }

    fn settle_ranges(&mut self, settlement: Settlement, ranges: Vec<OffsetRange>) -> Vec<Ticket> {
        let mut tickets: Vec<Ticket> =
            ranges.into_iter().map(|range| self.settles.add(settlement, range)).collect();
        tickets.dedup();
        for ticket in &tickets {
            self.settles.receipt(*ticket);
        }
        tickets
    }
}
