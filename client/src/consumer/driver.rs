//! The task that keeps a consumer attached to its queue's leader, whoever that is, until the consumer is closed
//! or its queue is gone.

use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::client::{ConsumerAttached, Request, Response};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::ConsumerHandle;
use bellwether_protocol::names::QueueName;

use super::inbox::{Attached, Inbox, Work};
use crate::backoff::Backoff;
use crate::cluster::{At, Cluster, Question};
use crate::error::{ConsumeError, Trouble};
use crate::link::Link;

/// Drives one consumer.
pub(super) struct Driver {
    pub(super) cluster: Arc<Cluster>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) queue: QueueName,
    pub(super) prefetch: u32,
    pub(super) prefetch_bytes: u64,
    /// A broker has said that there is no such queue, since it was last attached.
    pub(super) missed: bool,
}

impl Driver {
    /// Attaches for the first time.
    pub(super) async fn start(&mut self) -> Result<(), Trouble> {
        self.attach(At::Anywhere).await.map(|_| ())
    }

    /// Keeps the consumer attached until it is closed or has ended.
    pub(super) async fn run(mut self) {
        let cluster = Arc::clone(&self.cluster);
        tokio::select! {
            () = self.keep_attached() => {}
            () = cluster.closed() => self.inbox.end(ConsumeError::Closed),
        }
    }

    async fn keep_attached(&mut self) {
        loop {
            match self.inbox.work() {
                Work::None => self.inbox.news().await,
                Work::Ended => return,
                Work::Closed => return self.leave().await,
                Work::Reattach => self.reattach().await,
            }
        }
    }

    /// Lets settles be confirmed, by the next leader if need be, then gives back what is unsettled.
    async fn leave(&self) {
        let settled = self.settle_what_is_pending();
        if tokio::time::timeout(self.cluster.config.deadline, settled).await.is_err() {
            tracing::warn!(queue.name = %self.queue, "left with settles unconfirmed");
        }
        if let Some((link, consumer)) = self.inbox.leave() {
            link.tell(Request::DetachConsumer { consumer });
        }
    }

    async fn settle_what_is_pending(&self) {
        while !self.inbox.settled_or_lost().await {
            if let Err(obstacle) = self.attach(At::Anywhere).await {
                return tracing::warn!(queue.name = %self.queue, ?obstacle, "settles stay unconfirmed");
            }
        }
    }

    /// Finds the leader again, for as long as it takes.
    async fn reattach(&mut self) {
        let at = self.inbox.take_hint().map_or(At::Anywhere, At::Broker);
        let attached = tokio::select! {
            attached = self.attach(at) => attached,
            () = closed(&self.inbox) => return,
        };
        match attached {
            Ok(link) => {
                self.missed = false;
                tracing::debug!(queue.name = %self.queue, broker.id = %link.broker(), "subscribed again");
            }
            Err(Trouble::TooLate { last, .. } | Trouble::Unknown(last)) => {
                tracing::warn!(queue.name = %self.queue, obstacle = last, "no leader found yet");
            }
            // A broker that has just come back may not know yet what it should. Ending the stream of a queue that is
            // there would stop an application for nothing, so it has to be said twice.
            Err(Trouble::Refused(error))
                if error.code == ErrorCode::NoSuchQueue && !self.missed =>
            {
                self.missed = true;
                tokio::select! {
                    () = tokio::time::sleep(SECOND_LOOK) => {}
                    () = closed(&self.inbox) => {}
                }
            }
            Err(trouble @ (Trouble::Refused(_) | Trouble::Closed)) => {
                self.inbox.end(trouble.into());
            }
        }
    }

    async fn attach(&self, at: At) -> Result<Arc<Link>, Trouble> {
        let mut backoff = Backoff::default();
        let mut at = at;
        loop {
            let (link, attached) = self.ask_to_attach(at).await?;
            let attached = self.inbox.attached(attached);
            if attached == Attached::Done {
                return Ok(link);
            }
            if let Some((link, consumer)) = self.inbox.detach("attached elsewhere") {
                link.tell(Request::DetachConsumer { consumer });
            }
            if attached == Attached::AnotherQueue {
                // Known for sure, so it ends the stream here; whatever is told after this is too late.
                self.inbox.end(Trouble::Refused(declared_anew(&self.queue)).into());
                return Err(Trouble::Closed);
            }
            // A leader that does not know yet that it was deposed.
            tokio::time::sleep(backoff.next()).await;
            at = At::Anywhere;
        }
    }

    async fn ask_to_attach(&self, at: At) -> Result<(Arc<Link>, ConsumerAttached), Trouble> {
        let attach = Attach { driver: self, handle: None };
        let found = self.cluster.ask_with(at, true, attach).await?;
        match found.response {
            Response::ConsumerAttached(attached) => Ok((found.link, attached)),
            other => {
                self.inbox.detach("attaching failed");
                Err(Trouble::Unknown(format!("the broker answered an attach with {other:?}")))
            }
        }
    }
}

/// The question for an attachment.
struct Attach<'a> {
    driver: &'a Driver,
    handle: Option<ConsumerHandle>,
}

impl Question for Attach<'_> {
    fn put(&mut self, link: &Arc<Link>) -> Request {
        let consumer = link.register_consumer(Arc::clone(&self.driver.inbox));
        self.handle = Some(consumer);
        self.driver.inbox.attach(link, consumer);
        Request::AttachConsumer {
            consumer,
            queue: self.driver.queue.clone(),
            prefetch: self.driver.prefetch,
            prefetch_bytes: self.driver.prefetch_bytes,
            claim: self.driver.inbox.claim(),
        }
    }

    fn withdraw(&mut self, link: &Arc<Link>, unanswered: bool) {
        self.driver.inbox.detach("attaching failed");
        if let Some(consumer) = self.handle.take().filter(|_| unanswered) {
            link.tell(Request::DetachConsumer { consumer });
        }
    }
}

/// How long after "no such queue" it is asked for again.
const SECOND_LOOK: Duration = Duration::from_millis(300);

fn declared_anew(queue: &QueueName) -> ErrorBody {
    let message = format!("queue {queue} was deleted, and another was declared under its name");
    ErrorBody::not_done(ErrorCode::NoSuchQueue, message)
}

async fn closed(inbox: &Inbox) {
    while inbox.work() != Work::Closed {
        inbox.news().await;
    }
}
