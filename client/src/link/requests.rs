//! Open requests of a connection: which are out, which were written, and who waits for the answer.

use std::collections::HashMap;
use std::sync::Arc;

use bellwether_protocol::client::{ClientFrame, Request, Response};
use bellwether_protocol::error::ErrorBody;
use bellwether_protocol::ids::RequestId;
use tokio::sync::{Semaphore, oneshot};

use super::Link;
use crate::lock::Locked;

/// Requests that are out on one connection at once. More wait here, so that a storm of declares
/// holds neither this process's memory nor the broker's.
const REQUESTS_OPEN_MAX: usize = 256;

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Done.
    Response(Response),
    /// Refused, or nobody knows.
    Failure(ErrorBody),
    /// The connection was lost first.
    Lost {
        /// Whether the request may have reached the broker.
        sent: bool,
    },
}

#[derive(Debug)]
pub(super) struct Requests {
    slots: Semaphore,
    open: Locked<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    lost: bool,
    waiting: HashMap<RequestId, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    sent: bool,
    answer: oneshot::Sender<Answer>,
}

impl Default for Requests {
    fn default() -> Self {
        Requests { slots: Semaphore::new(REQUESTS_OPEN_MAX), open: Locked::default() }
    }
}

impl Requests {
    /// Notes that the writer has taken the frame: from here on it may reach the broker.
    pub(super) fn taken(&self, frame: &ClientFrame) {
        if let ClientFrame::Request { id, .. } = frame
            && let Some(waiting) = self.open.lock().waiting.get_mut(id)
        {
            waiting.sent = true;
        }
    }

    pub(super) fn answered(&self, id: RequestId, answer: Answer) {
        let waiting = self.open.lock().waiting.remove(&id);
        if let Some(waiting) = waiting
            && waiting.answer.send(answer).is_err()
        {
            tracing::trace!(request.id = id.0, "an answer came after its asker had left");
        }
    }

    pub(super) fn lost(&self) {
        let waiting = {
            let mut open = self.open.lock();
            open.lost = true;
            std::mem::take(&mut open.waiting)
        };
        for (id, waiting) in waiting {
            if waiting.answer.send(Answer::Lost { sent: waiting.sent }).is_err() {
                tracing::trace!(request.id = id.0, "the asker had left before the connection did");
            }
        }
    }

    fn register(&self) -> Option<(RequestId, oneshot::Receiver<Answer>)> {
        let (sender, receiver) = oneshot::channel();
        let mut open = self.open.lock();
        if open.lost {
            return None;
        }
        open.last += 1;
        let id = RequestId(open.last);
        open.waiting.insert(id, Waiting { sent: false, answer: sender });
        Some((id, receiver))
    }

    /// Whether the request was sent. Its answer, if one comes, is dropped.
    fn forget(&self, id: RequestId) -> bool {
        self.open.lock().waiting.remove(&id).is_some_and(|waiting| waiting.sent)
    }
}

/// A request whose answer is awaited; dropping it forgets the answer.
#[derive(Debug)]
pub(crate) struct Asked {
    link: Arc<Link>,
    id: Option<RequestId>,
    answer: oneshot::Receiver<Answer>,
}

impl Link {
    /// Sends a request and waits for its answer, or for the end of the connection.
    pub(crate) async fn ask(self: &Arc<Self>, request: Request) -> Answer {
        let slot = tokio::select! {
            slot = self.requests.slots.acquire() => slot,
            () = self.closed() => return Answer::Lost { sent: false },
        };
        let Ok(_slot) = slot else { return Answer::Lost { sent: false } };
        let Some((id, answer)) = self.requests.register() else {
            return Answer::Lost { sent: false };
        };
        let asked = Asked { link: Arc::clone(self), id: Some(id), answer };
        self.send(ClientFrame::Request { id, request });
        asked.answer().await
    }

    /// Sends a request whose answer nobody waits for.
    pub(crate) fn tell(&self, request: Request) {
        let id = {
            let mut open = self.requests.open.lock();
            open.last += 1;
            RequestId(open.last)
        };
        self.send(ClientFrame::Request { id, request });
    }
}

impl Asked {
    async fn answer(mut self) -> Answer {
        match (&mut self.answer).await {
            Ok(answer) => {
                self.id = None;
                answer
            }
            Err(_) => Answer::Lost { sent: true },
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let sent = self.link.requests.forget(id);
            tracing::trace!(request.id = id.0, request.sent = sent, "asker left before the answer");
        }
    }
}
