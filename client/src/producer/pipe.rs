//! What a producer's handle, its driver, its receipts and its connection share: the window behind one lock, and
//! the attachment that it is being sent on.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bellwether_protocol::client::{ClientFrame, Publish, Withheld};
use bellwether_protocol::error::{ErrorBody, ErrorCode, Outcome};
use bellwether_protocol::frame::Frame;
use bellwether_protocol::ids::{ProducerHandle, Seq, SeqRange};
use bytes::BytesMut;
use tokio::sync::Notify;

use super::window::{Address, Credit, Fate, Window};
use crate::error::{FlushError, PublishError};
use crate::link::{Lane, Link, LinkId, Source};
use crate::lock::Locked;
use crate::message::Message;

/// What a publish frame takes beside its messages, in bytes: numbers, and two names of at most 255 bytes.
const FRAME_HEAD_BYTES: u64 = 1024;

/// A producer's shared half.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// Refusals that may pass are reported at once, and not waited out.
    fail_fast: bool,
    state: Locked<State>,
    /// There is room again, or something was resolved.
    progress: Notify,
    /// The driver has something to do.
    news: Notify,
}

#[derive(Debug)]
struct State {
    window: Window,
    attachment: Option<Attachment>,
    /// Whether this stands in its connection's line.
    queued: bool,
    /// What stood in the way last; for people.
    obstacle: String,
    /// Why no more messages are taken.
    closed: Option<String>,
    /// Senders and flushers that wait for progress.
    waiting: usize,
    /// The broker has forgotten the producer's name: it needs another.
    forgotten: bool,
}

/// Where the window is being sent.
#[derive(Debug)]
struct Attachment {
    link: Arc<Link>,
    handle: ProducerHandle,
    /// Messages and bytes, counted from the attach.
    granted: (u64, u64),
    used: (u64, u64),
    /// Why the broker grants no more for now.
    withheld: Option<Withheld>,
    flow: Flow,
}

/// Whether an attachment is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// Messages go out.
    Open,
    /// Something was refused for now: after a pause everything unresolved is sent again, in order.
    Paused,
    /// Another attachment is needed.
    Over,
}

impl Attachment {
    /// Says when credit stops and when it comes again.
    fn hear_of_credit(&mut self, withheld: Option<Withheld>) {
        let before = std::mem::replace(&mut self.withheld, withheld);
        let address = self.link.address();
        match (before, withheld) {
            (None, Some(why)) => {
                tracing::warn!(
                    broker.address = address,
                    ?why,
                    "the broker grants no more publish credit for now: messages wait"
                );
            }
            (Some(_), None) => {
                tracing::info!(broker.address = address, "the broker grants publish credit again");
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// What one frame may carry now.
    fn left(&self) -> Credit {
        let frame = u64::from(self.link.welcome().frame_bytes_max);
        Credit {
            messages: self.granted.0.saturating_sub(self.used.0),
            bytes: self.granted.1.saturating_sub(self.used.1),
            frame_bytes: frame.saturating_sub(FRAME_HEAD_BYTES),
        }
    }
}

/// What to do about a failure.
enum Remedy {
    /// It is final: the receipt says so.
    Tell,
    SendAgain,
    AttachAnew,
    TakeAnotherName,
}

/// What the driver should do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Go on.
    None,
    /// Send again, after a pause.
    Resend,
    /// Attach anew.
    Reattach,
    /// Closed, and everything is resolved.
    Finished,
}

impl Pipe {
    pub(super) fn new(window: Window, fail_fast: bool) -> Pipe {
        let state = State {
            window,
            attachment: None,
            queued: false,
            obstacle: "no broker was reached yet".to_owned(),
            closed: None,
            waiting: 0,
            forgotten: false,
        };
        Pipe { fail_fast, state: Locked::new(state), progress: Notify::new(), news: Notify::new() }
    }

    // What the application does.

    /// Takes a message when there is room for it; gives it its number.
    pub(super) fn try_send(
        self: &Arc<Self>,
        address: &Address,
        message: &Message,
    ) -> Option<Result<Seq, PublishError>> {
        let (seq, link) = {
            let mut state = self.state.lock();
            if let Some(reason) = &state.closed {
                return Some(Err(PublishError::Closed { reason: reason.clone() }));
            }
            if !state.window.has_room(message.size()) {
                return None;
            }
            let headers = message.headers.as_deref();
            let seq = state.window.push(address, headers, &message.body, Instant::now);
            (seq, state.line_up())
        };
        self.stand_in_line(link);
        Some(Ok(seq))
    }

    /// Resolves when something has changed since this was called, so that it is worth another try.
    pub(super) async fn progress(&self, done: impl Fn(&Window) -> bool) {
        let progress = self.progress.notified();
        tokio::pin!(progress);
        // Enabled before the look: a confirm in between is not missed.
        progress.as_mut().enable();
        let _counted = {
            let mut state = self.state.lock();
            if state.closed.is_some() || done(&state.window) {
                return;
            }
            state.waiting += 1;
            Waiting { pipe: self }
        };
        progress.await;
    }

    /// Waits for room for a message of this size.
    pub(super) async fn room(&self, bytes: usize) {
        self.progress(|window| window.has_room(bytes)).await;
    }

    /// Waits until everything that was sent before this call is resolved.
    pub(crate) async fn flushed(&self) -> Result<(), FlushError> {
        let target = self.state.lock().window.next();
        loop {
            {
                let mut state = self.state.lock();
                if state.window.lowest() >= target {
                    return state.window.take_failed().map_or(Ok(()), Err);
                }
            }
            self.flush_progress(target).await;
        }
    }

    async fn flush_progress(&self, target: u64) {
        let progress = self.progress.notified();
        tokio::pin!(progress);
        progress.as_mut().enable();
        let _counted = {
            let mut state = self.state.lock();
            if state.window.lowest() >= target {
                return;
            }
            state.waiting += 1;
            Waiting { pipe: self }
        };
        progress.await;
    }

    /// No more messages are taken; what is in the window is still sent.
    pub(crate) fn close(&self, reason: &str) {
        self.state.lock().closed.get_or_insert_with(|| reason.to_owned());
        self.news.notify_one();
        self.progress.notify_waiters();
    }

    pub(super) fn with_window<T>(&self, then: impl FnOnce(&mut Window) -> T) -> T {
        then(&mut self.state.lock().window)
    }

    // What the connection tells.

    pub(crate) fn confirmed(&self, ranges: &[SeqRange]) {
        let mut wake = Vec::new();
        let mut state = self.state.lock();
        for range in ranges {
            state.window.resolve(*range, &Fate::Confirmed, &mut wake);
        }
        self.resolved(state, wake);
    }

    pub(crate) fn failed(
        &self,
        link: LinkId,
        handle: ProducerHandle,
        range: SeqRange,
        error: &ErrorBody,
    ) {
        let mut wake = Vec::new();
        let mut state = self.state.lock();
        if !state.is_attached(link, handle) {
            // Of an attachment that was given up. These messages are sent again on another, which will say.
            return;
        }
        state.obstacle.clone_from(&error.message);
        let doubt = error.outcome == Outcome::Unknown;
        let bare = state.window.copies_failed(range, doubt);
        if bare.is_empty() {
            return;
        }
        let remedy = self.remedy(error);
        if matches!(remedy, Remedy::Tell | Remedy::TakeAnotherName) {
            let fate = Fate::Refused(PublishError::refused(error));
            for run in bare {
                state.window.resolve(run, &fate, &mut wake);
            }
        }
        match remedy {
            Remedy::Tell => {}
            // Later messages may be under way. Were this one sent again behind them, a queue would take it for a copy
            // of what it has. So nothing more goes out, and then all goes out again, in order.
            Remedy::SendAgain => state.turn(Flow::Paused),
            Remedy::AttachAnew => state.turn(Flow::Over),
            Remedy::TakeAnotherName => {
                state.forgotten = true;
                state.turn(Flow::Over);
            }
        }
        self.news.notify_one();
        self.resolved(state, wake);
    }

    fn remedy(&self, error: &ErrorBody) -> Remedy {
        match (error.outcome, error.code) {
            (_, ErrorCode::ProducerForgotten) => Remedy::TakeAnotherName,
            (_, ErrorCode::ShuttingDown | ErrorCode::NoSuchProducer) => Remedy::AttachAnew,
            (Outcome::Unknown, _)
            | (Outcome::NotDone, ErrorCode::OutOfSequence | ErrorCode::NotLeader) => {
                Remedy::SendAgain
            }
            (Outcome::NotDone, code) if code.is_worth_retrying() && !self.fail_fast => {
                Remedy::SendAgain
            }
            (Outcome::NotDone, _) => Remedy::Tell,
        }
    }

    pub(crate) fn credited(
        self: &Arc<Self>,
        link: LinkId,
        handle: ProducerHandle,
        granted: (u64, u64),
        withheld: Option<Withheld>,
    ) {
        let line = {
            let mut state = self.state.lock();
            if let Some(attachment) = state.attached_to(link, handle) {
                attachment.granted = granted;
                attachment.hear_of_credit(withheld);
            }
            state.line_up()
        };
        self.stand_in_line(line);
    }

    /// Why the broker that this is attached to grants no more credit for now.
    pub(super) fn withheld(&self) -> Option<Withheld> {
        self.state.lock().attachment.as_ref()?.withheld
    }

    // What the driver does.

    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    pub(super) fn work(&self) -> Work {
        let state = self.state.lock();
        if state.closed.is_some() && state.window.is_empty() {
            return Work::Finished;
        }
        match state.attachment.as_ref().map(|attachment| attachment.flow) {
            Some(Flow::Paused) => Work::Resend,
            Some(Flow::Over) => Work::Reattach,
            Some(Flow::Open) | None => Work::None,
        }
    }

    /// Sends everything unresolved again, on the attachment that has refused some of it.
    pub(super) fn resend(self: &Arc<Self>) {
        let line = {
            let mut state = self.state.lock();
            if let Some(attachment) = &mut state.attachment
                && attachment.flow == Flow::Paused
            {
                attachment.flow = Flow::Open;
                state.window.rewind();
            }
            state.line_up()
        };
        self.stand_in_line(line);
    }

    /// The number to attach with.
    pub(super) fn lowest(&self) -> Seq {
        Seq(self.state.lock().window.lowest())
    }

    /// From the broker's first credit on, sends everything unresolved, and what comes, on this attachment. Called
    /// before the broker is asked for it: its credit may be here before its answer is looked at.
    pub(super) fn attach(self: &Arc<Self>, link: &Arc<Link>, handle: ProducerHandle) {
        let mut state = self.state.lock();
        let attachment = Attachment {
            link: Arc::clone(link),
            handle,
            granted: (0, 0),
            used: (0, 0),
            withheld: None,
            flow: Flow::Open,
        };
        state.detach();
        state.attachment = Some(attachment);
        state.queued = false;
    }

    /// The attachment is over. Nothing is sent until there is another.
    pub(super) fn detach(&self) -> Option<(Arc<Link>, ProducerHandle)> {
        let mut state = self.state.lock();
        let gone = state.detach()?;
        if gone.link.is_closed() {
            state.obstacle = gone.link.why_closed();
        }
        Some((gone.link, gone.handle))
    }

    /// What stands in the way of the next attachment; for the errors of messages that expire meanwhile.
    pub(super) fn obstructed(&self, by: &str) {
        by.clone_into(&mut self.state.lock().obstacle);
    }

    /// What may be stored somewhere under the name that is given up is not sent again under another.
    pub(super) fn abandon_sent(&self, why: &str) {
        let mut wake = Vec::new();
        let mut state = self.state.lock();
        state.window.abandon_sent(why, &mut wake);
        self.resolved(state, wake);
    }

    /// Whether the broker has forgotten the producer's name. Asked once.
    pub(super) fn take_forgotten(&self) -> bool {
        std::mem::take(&mut self.state.lock().forgotten)
    }

    /// Resolves what has waited too long. When to look again.
    pub(super) fn expire(&self, now: Instant, patience: Duration) -> Instant {
        let mut wake = Vec::new();
        let mut state = self.state.lock();
        let State { window, obstacle, .. } = &mut *state;
        window.expire(now, patience, obstacle, &mut wake);
        let next = state.window.oldest().map_or(now + patience, |oldest| oldest + patience);
        self.resolved(state, wake);
        next
    }

    /// Resolves everything, and takes no more.
    pub(super) fn abandon(&self, why: &str) {
        let mut wake = Vec::new();
        let mut state = self.state.lock();
        state.closed.get_or_insert_with(|| why.to_owned());
        state.window.abandon(why, &mut wake);
        state.detach();
        self.resolved(state, wake);
        self.progress.notify_waiters();
    }

    fn resolved(&self, state: std::sync::MutexGuard<'_, State>, wake: Vec<Waker>) {
        let waiting = state.waiting > 0;
        let finished = state.closed.is_some() && state.window.is_empty();
        // Woken tasks take the lock at once: let go of it first.
        drop(state);
        wake.into_iter().for_each(Waker::wake);
        if waiting {
            self.progress.notify_waiters();
        }
        if finished {
            self.news.notify_one();
        }
    }

    fn stand_in_line(self: &Arc<Self>, link: Option<Arc<Link>>) {
        if let Some(link) = link {
            link.ready(Lane::Publishes, Arc::clone(self) as Arc<dyn Source>);
        }
    }
}

/// Counts a waiter for as long as it waits, also when it is dropped in the middle.
struct Waiting<'a> {
    pipe: &'a Pipe,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.pipe.state.lock().waiting -= 1;
    }
}

impl State {
    /// The connection in whose line to stand, if there is something to send and this does not stand there.
    fn line_up(&mut self) -> Option<Arc<Link>> {
        let attachment = self.attachment.as_ref()?;
        let left = attachment.left();
        let open = attachment.flow == Flow::Open && left.messages > 0 && left.bytes > 0;
        if self.queued || !open || !self.window.has_unsent() {
            return None;
        }
        self.queued = true;
        Some(Arc::clone(&attachment.link))
    }

    fn attached_to(&mut self, link: LinkId, handle: ProducerHandle) -> Option<&mut Attachment> {
        self.attachment
            .as_mut()
            .filter(|attachment| attachment.link.id() == link && attachment.handle == handle)
    }

    fn is_attached(&mut self, link: LinkId, handle: ProducerHandle) -> bool {
        self.attached_to(link, handle).is_some()
    }

    /// From bad to worse, never back.
    fn turn(&mut self, flow: Flow) {
        if let Some(attachment) = self.attachment.as_mut().filter(|here| here.flow != Flow::Over) {
            attachment.flow = flow;
        }
    }

    fn detach(&mut self) -> Option<Attachment> {
        let gone = self.attachment.take()?;
        gone.link.forget_producer(gone.handle);
        self.window.detached();
        Some(gone)
    }
}

impl Source for Pipe {
    fn pull(&self, link: LinkId, budget: usize, out: &mut BytesMut) -> bool {
        let mut state = self.state.lock();
        let State { window, attachment, queued, .. } = &mut *state;
        let Some(attachment) = attachment.as_mut().filter(|here| here.link.id() == link) else {
            return false;
        };
        let start = out.len();
        while attachment.flow == Flow::Open && out.len() - start < budget {
            let Some(piece) = window.next_piece(attachment.left()) else {
                *queued = false;
                return false;
            };
            attachment.used.0 += u64::from(piece.messages.count());
            attachment.used.1 += piece.messages.len() as u64;
            ClientFrame::Publish(Publish {
                producer: attachment.handle,
                first: piece.first,
                resent: piece.resent,
                exchange: piece.address.exchange,
                routing_key: piece.address.routing_key,
                messages: piece.messages,
            })
            .encode(out);
        }
        *queued = attachment.flow == Flow::Open;
        *queued
    }
}
