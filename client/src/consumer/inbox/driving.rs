//! What the driver does: it attaches, claims what was held before, and gives up.

use std::sync::Arc;

use bellwether_protocol::client::{CLAIM_MESSAGES_MAX, Claim, ConsumerAttached, SETTLE_RANGES_MAX};
use bellwether_protocol::error::BrokerAddress;
use bellwether_protocol::ids::ConsumerHandle;

use super::{Attached, Attachment, Inbox, Work};
use crate::consumer::ranges::Ranges;
use crate::consumer::settles::Verdict;
use crate::error::ConsumeError;
use crate::link::Link;

impl Inbox {
    pub(in crate::consumer) async fn news(&self) {
        self.news.notified().await;
    }

    pub(in crate::consumer) fn work(&self) -> Work {
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

    pub(in crate::consumer) fn take_hint(&self) -> Option<BrokerAddress> {
        self.state.lock().hint.take()
    }

    /// Takes deliveries of this attachment. Called before the broker is asked for it: its first messages may be here
    /// before its answer is looked at.
    pub(in crate::consumer) fn attach(&self, link: &Arc<Link>, handle: ConsumerHandle) {
        let mut wake = Vec::new();
        let mut state = self.state.lock();
        state.forget_attachment("attached anew", &mut wake);
        let link = Arc::clone(link);
        state.attachment = Some(Attachment { link, handle, epoch: None, decided: false });
        state.queued = false;
        self.wake_after(state, wake);
    }

    /// What this consumer has of earlier leaders and would keep; settles whose answers did not come included.
    pub(in crate::consumer) fn claim(&self) -> Option<Claim> {
        let state = self.state.lock();
        let (queue, epoch) = state.known?;
        let mut all: Ranges = state.settles.pending().collect();
        for range in state.held.earlier() {
            if all.len() == SETTLE_RANGES_MAX {
                break;
            }
            all.insert(range);
        }
        let mut ranges = all.into_vec();
        // What lies beyond comes again.
        ranges.truncate(SETTLE_RANGES_MAX);
        let mut messages = 0;
        ranges.retain(|range| {
            messages += range.count();
            messages <= CLAIM_MESSAGES_MAX
        });
        (!ranges.is_empty()).then_some(Claim { queue, epoch, ranges })
    }

    /// The broker's answer.
    pub(in crate::consumer) fn attached(self: &Arc<Self>, answer: ConsumerAttached) -> Attached {
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
        let verdict =
            Verdict { held: held.into_iter().collect(), settled: settled.into_iter().collect() };
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
    pub(in crate::consumer) fn detach(&self, why: &str) -> Option<(Arc<Link>, ConsumerHandle)> {
        let mut wake = Vec::new();
        let mut state = self.state.lock();
        let gone = state.forget_attachment(why, &mut wake);
        self.wake_after(state, wake);
        let gone = gone?;
        gone.link.forget_consumer(gone.handle);
        Some((gone.link, gone.handle))
    }

    /// Ends the attachment for good.
    pub(in crate::consumer) fn leave(&self) -> Option<(Arc<Link>, ConsumerHandle)> {
        self.state.lock().ended = true;
        self.detach("the consumer was closed")
    }

    /// The stream ends with this.
    pub(in crate::consumer) fn end(&self, error: ConsumeError) {
        let mut state = self.state.lock();
        if !state.ended {
            state.end = Some(error);
            state.ended = true;
        }
        self.lose(state, "the consumer has ended");
    }
}
