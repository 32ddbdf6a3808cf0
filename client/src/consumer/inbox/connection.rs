//! What the connection tells: deliveries, answers to settles, its end; and what it takes along.

use std::sync::{Arc, MutexGuard};

use bellwether_protocol::client::{ClientFrame, Deliver, DeliveredRun, Settle};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::frame::Frame;
use bellwether_protocol::ids::{ConsumerHandle, Epoch};
use bellwether_protocol::message::Message;
use bytes::BytesMut;

use super::{Inbox, Run, State};
use crate::consumer::delivery::Origin;
use crate::consumer::holds::Serial;
use crate::error::{SettleError, Trouble};
use crate::link::{LinkId, Source};

impl Inbox {
    /// An error ends the connection.
    pub(crate) fn delivered(
        self: &Arc<Self>,
        link: LinkId,
        deliver: Deliver,
    ) -> Result<(), String> {
        let mut state = self.state.lock();
        if state.closed || !state.is_attached(link, deliver.consumer) {
            return Ok(());
        }
        if deliver.epoch < state.seen {
            // From a leader that does not know yet that it was deposed. Its successor delivers them.
            tracing::debug!(epoch = %deliver.epoch, seen = %state.seen, "dropped a stale delivery");
            return Ok(());
        }
        if state.enter(deliver.epoch) {
            let why = format!("deliveries went on in epoch {}", deliver.epoch);
            return self.lost(state, &why);
        }
        let count: u64 = deliver.runs.iter().map(|run| u64::from(run.messages.count())).sum();
        let unsettled = state.waiting + state.held.count();
        if unsettled + count > u64::from(self.prefetch) {
            return Err(format!(
                "{count} messages came where {unsettled} of {} were unsettled",
                self.prefetch
            ));
        }
        state.waiting += count;
        let (serial, epoch) = (state.held.serial(), deliver.epoch);
        state.arrived.extend(deliver.runs.into_iter().map(|run| self.arrive(serial, epoch, run)));
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    fn arrive(self: &Arc<Self>, serial: Serial, epoch: Epoch, run: DeliveredRun) -> Run {
        Run {
            next: run.first,
            messages: run.messages.iter().collect::<Vec<Message>>().into_iter(),
            origin: Arc::new(Origin {
                inbox: Arc::clone(self),
                serial,
                epoch,
                redelivered: run.redelivered,
                returns: run.returns,
                time_ms: run.time_ms,
                exchange: run.exchange,
                routing_key: run.routing_key,
            }),
        }
    }

    pub(crate) fn settled(&self, link: LinkId, handle: ConsumerHandle, up_to: u64) {
        let mut wake = Vec::new();
        let mut state = self.state.lock();
        if state.is_attached(link, handle) {
            state.settles.settled(up_to, &mut wake);
        }
        self.wake_after(state, wake);
    }

    pub(crate) fn settle_failed(
        &self,
        link: LinkId,
        handle: ConsumerHandle,
        number: u64,
        error: &ErrorBody,
    ) {
        let mut wake = Vec::new();
        let mut state = self.state.lock();
        if state.is_attached(link, handle) {
            tracing::debug!(error.code = error.code.number(), %error.message, "a settle failed");
            match error.code {
                ErrorCode::NotLeader | ErrorCode::Unsettled => state.settles.doubted(number),
                _ => state.settles.failed(number, SettleError::refused(error), &mut wake),
            }
        }
        self.wake_after(state, wake);
    }

    pub(crate) fn closed_by_broker(&self, link: LinkId, handle: ConsumerHandle, error: ErrorBody) {
        let mut state = self.state.lock();
        if !state.is_attached(link, handle) {
            return;
        }
        state.hint.clone_from(&error.leader);
        if !error.code.is_worth_retrying() {
            state.end = Some(Trouble::Refused(error.clone()).into());
            state.ended = true;
        }
        self.lose(state, &error.message);
    }

    pub(crate) fn link_lost(&self, link: LinkId) {
        let state = self.state.lock();
        if let Some(attachment) = state.attachment.as_ref().filter(|here| here.link.id() == link) {
            let why = attachment.link.why_closed();
            self.lose(state, &why);
        }
    }

    fn lost(&self, state: MutexGuard<'_, State>, why: &str) -> Result<(), String> {
        self.lose(state, why);
        Ok(())
    }
}

impl State {
    fn is_attached(&self, link: LinkId, handle: ConsumerHandle) -> bool {
        self.attachment.as_ref().is_some_and(|here| here.link.id() == link && here.handle == handle)
    }
}

impl Source for Inbox {
    fn pull(&self, link: LinkId, budget: usize, out: &mut BytesMut) -> bool {
        let mut state = self.state.lock();
        let State { settles, attachment, queued, .. } = &mut *state;
        let Some(attachment) = attachment.as_ref().filter(|here| here.link.id() == link) else {
            return false;
        };
        let Some(epoch) = attachment.epoch.filter(|_| attachment.decided) else {
            *queued = false;
            return false;
        };
        let start = out.len();
        while out.len() - start < budget {
            let Some(order) = settles.next_order() else {
                *queued = false;
                return false;
            };
            ClientFrame::Settle(Settle {
                consumer: attachment.handle,
                number: order.number,
                epoch,
                settlement: order.settlement,
                ranges: order.ranges,
            })
            .encode(out);
        }
        *queued = true;
        true
    }
}
