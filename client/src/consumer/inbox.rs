//! What a consumer's stream, its deliveries, its driver and its connection share: messages that have arrived,
//! offsets that are held, and settles on their way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bellwether_protocol::client::{
    Claim, ClientFrame, ConsumerAttached, Deliver, DeliveredRun, SETTLE_RANGES_MAX, Settle,
    Settlement,
};
use bellwether_protocol::error::{BrokerAddress, ErrorBody, ErrorCode};
use bellwether_protocol::frame::Frame;
use bellwether_protocol::ids::{ConsumerHandle, Epoch, Offset, OffsetRange, QueueId};
use bellwether_protocol::message::Message;
use bytes::BytesMut;
use tokio::sync::Notify;

use super::delivery::{Delivery, Origin};
use super::holds::{Holds, Serial};
use super::ranges::Ranges;
use super::settles::{Settles, Ticket, Verdict, one};
use crate::error::{ConsumeError, SettleError, Trouble};
use crate::link::{Lane, Link, LinkId, Source};
use crate::lock::Locked;

/// A consumer's shared half.
#[derive(Debug)]
pub(crate) struct Inbox {
    prefetch: u32,
    /// How long the confirm of a settle is waited for.
    patience: Duration,
    state: Locked<State>,
    /// The driver has something to do.
    news: Notify,
    /// A settle was resolved, or the attachment was lost.
    quiet: Notify,
}

#[derive(Debug, Default)]
struct State {
    attachment: Option<Attachment>,
    /// The queue's identity and the epoch in which this consumer last held something; none before it was attached.
    known: Option<(QueueId, Epoch)>,
    /// Highest epoch of any attachment or delivery. What is older comes from a deposed leader.
    seen: Epoch,
    arrived: VecDeque<Run>,
    /// Messages in `arrived`.
    waiting: u64,
    /// What the application has, unsettled.
    held: Holds,
    settles: Settles,
    /// Whether this stands in its connection's line.
    queued: bool,
    reader: Option<Waker>,
    /// Why the stream ends; told once.
    end: Option<ConsumeError>,
    ended: bool,
    closed: bool,
    /// Where the broker said to go.
    hint: Option<BrokerAddress>,
}

#[derive(Debug)]
struct Attachment {
    link: Arc<Link>,
    handle: ConsumerHandle,
    /// Not known before the broker's answer or its first delivery.
    epoch: Option<Epoch>,
    /// The broker's answer was looked at: it is known what of earlier deliveries this consumer still has. Before that nothing is
    /// handed out and nothing settled.
    decided: bool,
}

/// Messages of one address that have arrived.
struct Run {
    origin: Arc<Origin>,
    next: Offset,
    messages: std::vec::IntoIter<Message>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Run({} messages from {})", self.messages.len(), self.next)
    }
}

/// What an answer to an attach came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// It is attached, or its attachment is over already.
    Done,
    /// An older epoch than was seen: its sender is no leader any more.
    Deposed,
    /// The queue was deleted, and another declared under its name.
    AnotherQueue,
}

/// What the driver should do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Go on.
    None,
    /// Find the leader again.
    Reattach,
    /// The application has closed it.
    Closed,
    /// The stream has ended with an error.
    Ended,
}

impl Inbox {
    pub(super) fn new(prefetch: u32, patience: Duration) -> Inbox {
        Inbox {
            prefetch,
            patience,
            state: Locked::default(),
            news: Notify::new(),
            quiet: Notify::new(),
        }
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    // What the application does.

    pub(super) fn poll_next(
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
    pub(super) fn settle(
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
    pub(super) fn give_back(self: &Arc<Self>, serial: Serial, offset: Offset) {
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
    pub(super) fn settle_up_to(
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
    pub(super) fn settle_all(
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
    pub(super) fn epoch(&self) -> Epoch {
        self.state.lock().seen
    }

    pub(super) fn with_settles<T>(&self, then: impl FnOnce(&mut Settles) -> T) -> T {
        then(&mut self.state.lock().settles)
    }

    /// No more deliveries are handed out. What is unsettled goes back when the driver detaches.
    pub(super) fn close(&self) {
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
    pub(super) async fn settled_or_lost(&self) -> bool {
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

    // What the connection tells.

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
            // The next leader will say what became of it.
            if !matches!(error.code, ErrorCode::NotLeader | ErrorCode::Unsettled) {
                state.settles.failed(number, SettleError::refused(error), &mut wake);
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

    fn lost(&self, state: std::sync::MutexGuard<'_, State>, why: &str) -> Result<(), String> {
        self.lose(state, why);
        Ok(())
    }

    /// The attachment is over. Who leads next will say what of the unsettled this consumer keeps; the rest comes again.
    fn lose(&self, mut state: std::sync::MutexGuard<'_, State>, why: &str) {
        let mut wake = Vec::new();
        let attachment = state.forget_attachment(why, &mut wake);
        wake.extend(state.reader.take());
        self.wake_after(state, wake);
        if let Some(attachment) = attachment {
            attachment.link.forget_consumer(attachment.handle);
        }
        self.quiet.notify_waiters();
        self.news.notify_one();
    }

    fn wake_after(&self, state: std::sync::MutexGuard<'_, State>, wake: Vec<Waker>) {
        let quiet = state.settles.is_empty();
        // Woken tasks take the lock at once: let go of it first.
        drop(state);
        wake.into_iter().for_each(Waker::wake);
        if quiet {
            self.quiet.notify_waiters();
        }
    }

    // What the driver does.

    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    pub(super) fn work(&self) -> Work {
        let state = self.state.lock();
        if state.closed {
            Work::Closed
        } else if state.ended {
            Work::Ended
        } else if state.attachment.is_none() {
            Work::Reattach
        } else {
            Work::None
        }
    }

    pub(super) fn take_hint(&self) -> Option<BrokerAddress> {
        self.state.lock().hint.take()
    }

    /// Takes deliveries of this attachment. Called before the broker is asked for it: its first messages may be here
    /// before its answer is looked at.
    pub(super) fn attach(&self, link: &Arc<Link>, handle: ConsumerHandle) {
        let mut wake = Vec::new();
        let mut state = self.state.lock();
        state.forget_attachment("attached anew", &mut wake);
        let link = Arc::clone(link);
        state.attachment = Some(Attachment { link, handle, epoch: None, decided: false });
        state.queued = false;
        self.wake_after(state, wake);
    }

    /// What this consumer has of earlier leaders and would keep; settles whose answers did not come included.
    pub(super) fn claim(&self) -> Option<Claim> {
        let state = self.state.lock();
        let (queue, epoch) = state.known?;
        let all: Ranges = state.held.earlier().chain(state.settles.pending()).collect();
        let mut ranges = all.into_vec();
        // What lies beyond comes again.
        ranges.truncate(SETTLE_RANGES_MAX);
        (!ranges.is_empty()).then_some(Claim { queue, epoch, ranges })
    }

    /// The broker's answer.
    pub(super) fn attached(self: &Arc<Self>, answer: ConsumerAttached) -> Attached {
        let ConsumerAttached { epoch, queue, held, settled } = answer;
        let mut state = self.state.lock();
        if state.known.is_some_and(|(known, _)| known != queue) {
            return Attached::AnotherQueue;
        }
        if epoch < state.seen {
            return Attached::Deposed;
        }
        if state.enter(epoch) {
            // It went on before its answer was looked at.
            let why = format!("deliveries went on behind epoch {epoch}");
            self.lose(state, &why);
            return Attached::Done;
        }
        let verdict = Verdict {
            held: held.into_iter().collect(),
            settled: settled.into_iter().collect(),
            same_leader: state.known.is_some_and(|(_, before)| before == epoch),
        };
        let mut wake = Vec::new();
        state.held.keep(&verdict.held);
        state.settles.decided(&verdict, &mut wake);
        state.known = Some((queue, epoch));
        if let Some(here) = &mut state.attachment {
            here.decided = true;
        }
        wake.extend(state.reader.take());
        let line = state.line_up();
        self.wake_after(state, wake);
        self.stand_in_line(line);
        Attached::Done
    }

    /// Gives the attachment up.
    pub(super) fn detach(&self, why: &str) -> Option<(Arc<Link>, ConsumerHandle)> {
        let mut wake = Vec::new();
        let mut state = self.state.lock();
        let gone = state.forget_attachment(why, &mut wake);
        self.wake_after(state, wake);
        let gone = gone?;
        gone.link.forget_consumer(gone.handle);
        Some((gone.link, gone.handle))
    }

    /// Ends the attachment for good.
    pub(super) fn leave(&self) -> Option<(Arc<Link>, ConsumerHandle)> {
        self.state.lock().ended = true;
        self.detach("the consumer was closed")
    }

    /// The stream ends with this.
    pub(super) fn end(&self, error: ConsumeError) {
        let mut state = self.state.lock();
        if !state.ended {
            state.end = Some(error);
            state.ended = true;
        }
        self.lose(state, "the consumer has ended");
    }

    fn stand_in_line(self: &Arc<Self>, link: Option<Arc<Link>>) {
        if let Some(link) = link {
            link.ready(Lane::Settles, Arc::clone(self) as Arc<dyn Source>);
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

    fn is_attached(&self, link: LinkId, handle: ConsumerHandle) -> bool {
        self.attachment.as_ref().is_some_and(|here| here.link.id() == link && here.handle == handle)
    }

    /// Notes the epoch of the attachment. Whether it has changed under it, which ends it.
    fn enter(&mut self, epoch: Epoch) -> bool {
        self.seen = self.seen.max(epoch);
        let known = self.attachment.as_mut().map(|here| here.epoch.get_or_insert(epoch));
        known.is_some_and(|known| *known != epoch)
    }

    fn forget_attachment(&mut self, why: &str, wake: &mut Vec<Waker>) -> Option<Attachment> {
        self.held.attachment_over();
        self.arrived.clear();
        self.waiting = 0;
        if self.ended {
            // Nobody will ask another leader for it.
            self.settles.lost(why, wake);
            self.held.clear();
        }
        self.attachment.take()
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

    /// The connection in whose line to stand, if there is something to send and this does not stand there.
    fn line_up(&mut self) -> Option<Arc<Link>> {
        let attachment = self.attachment.as_ref()?;
        if self.queued || !attachment.decided || !self.settles.has_unsent() {
            return None;
        }
        self.queued = true;
        Some(Arc::clone(&attachment.link))
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
