//! The task that keeps a consumer attached to its queue's leader, whoever that is, until the consumer is closed
//! or its queue is gone.

use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::client::{Request, Response};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::{ConsumerHandle, Epoch, QueueId};
use bellwether_protocol::names::QueueName;

use super::inbox::{Inbox, Work};
use crate::backoff::Backoff;
use crate::cluster::{At, Cluster, Found, Question};
use crate::error::{ConsumeError, Trouble};
use crate::link::Link;

/// Drives one consumer.
pub(super) struct Driver {
    pub(super) cluster: Arc<Cluster>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) queue: QueueName,
    pub(super) prefetch: u32,
    pub(super) prefetch_bytes: u64,
    /// The queue's identity, once it is known: one declared anew under the same name is another.
    pub(super) id: Option<QueueId>,
    /// A broker has said that there is no such queue, since it was last attached.
    pub(super) missed: bool,
}

impl Driver {
    /// Attaches for the first time.
    pub(super) async fn start(&mut self) -> Result<(), Trouble> {
        let link = self.attach(At::Anywhere).await?;
        self.id = self.identify(&link).await;
        Ok(())
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

    /// Lets settles be confirmed, then gives back what is unsettled.
    async fn leave(&self) {
        let settled = self.inbox.settled_all();
        if tokio::time::timeout(self.cluster.config.deadline, settled).await.is_err() {
            tracing::warn!(queue.name = %self.queue, "left with settles unconfirmed");
        }
        if let Some((link, consumer)) = self.inbox.detach("the consumer was closed") {
            link.tell(Request::DetachConsumer { consumer });
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
            let (link, epoch) = self.ask_to_attach(at).await?;
            if self.inbox.attached(epoch) {
                return Ok(link);
            }
            // An older epoch than was seen: a leader that does not know yet that it was deposed, or another queue.
            if let Some((link, consumer)) = self.inbox.detach("attached to a deposed leader") {
                link.tell(Request::DetachConsumer { consumer });
            }
            if let (Some(known), Some(found)) = (self.id, self.identify(&link).await)
                && known != found
            {
                // Known for sure, so it ends the stream here; whatever is told after this is too late.
                self.inbox.end(Trouble::Refused(declared_anew(&self.queue)).into());
                return Err(Trouble::Closed);
            }
            tokio::time::sleep(backoff.next()).await;
            at = At::Anywhere;
        }
    }

    async fn ask_to_attach(&self, at: At) -> Result<(Arc<Link>, Epoch), Trouble> {
        let attach = Attach { driver: self, handle: None };
        let found = self.cluster.ask_with(at, true, attach).await?;
        match found.response {
            Response::ConsumerAttached { epoch } => Ok((found.link, epoch)),
            other => {
                self.inbox.detach("attaching failed");
                Err(Trouble::Unknown(format!("the broker answered an attach with {other:?}")))
            }
        }
    }

    /// The identity of the queue, if its leader says it.
    async fn identify(&self, link: &Arc<Link>) -> Option<QueueId> {
        let at = At::Broker(link.broker_address());
        let request = Request::DescribeQueue { queue: self.queue.clone() };
        let asking = self.cluster.ask(request, at);
        match tokio::time::timeout(IDENTIFY_PATIENCE, asking).await {
            Ok(Ok(Found { response: Response::Queue { summary, .. }, .. })) => Some(summary.id),
            _ => None,
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
        }
    }

    fn withdraw(&mut self, link: &Arc<Link>, unanswered: bool) {
        self.driver.inbox.detach("attaching failed");
        if let Some(consumer) = self.handle.take().filter(|_| unanswered) {
            link.tell(Request::DetachConsumer { consumer });
        }
    }
}

/// How long to wait for a queue's identity. Without it only a queue that was deleted and declared anew is not
/// told from a deposed leader's.
const IDENTIFY_PATIENCE: Duration = Duration::from_secs(1);

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
