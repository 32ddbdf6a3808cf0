//! What a consumer's stream, its deliveries, its driver and its connection share: messages that have arrived,
//! offsets that are held, and settles on their way.

mod application;
mod connection;
mod driving;

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard};
use std::task::Waker;
use std::time::Duration;

use bellwether_protocol::error::BrokerAddress;
use bellwether_protocol::ids::{ConsumerHandle, Epoch, Offset, QueueId};
use bellwether_protocol::message::Message;
use tokio::sync::Notify;

use super::delivery::Origin;
use super::holds::Holds;
use super::settles::Settles;
use crate::error::ConsumeError;
use crate::link::{Lane, Link, Source};
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

    /// The attachment is over. Who leads next will say what of the unsettled this consumer keeps; the rest comes again.
    fn lose(&self, mut state: MutexGuard<'_, State>, why: &str) {
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

    fn wake_after(&self, state: MutexGuard<'_, State>, wake: Vec<Waker>) {
        let quiet = state.settles.is_empty();
        // Woken tasks take the lock at once: let go of it first.
        drop(state);
        wake.into_iter().for_each(Waker::wake);
        if quiet {
            self.quiet.notify_waiters();
        }
    }

    fn stand_in_line(self: &Arc<Self>, link: Option<Arc<Link>>) {
        if let Some(link) = link {
            link.ready(Lane::Settles, Arc::clone(self) as Arc<dyn Source>);
        }
    }
}

impl State {
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
