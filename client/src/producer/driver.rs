//! The task that keeps a producer attached: to the leader of its queue at first, to any broker after a loss,
//! until the producer is closed and everything is resolved.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_protocol::client::{Request, Response};
use bellwether_protocol::ids::ProducerHandle;
use bellwether_protocol::names::{ProducerName, QueueName};

use super::pipe::{Pipe, Work};
use crate::backoff::Backoff;
use crate::cluster::{At, Cluster, Question};
use crate::error::Trouble;
use crate::link::Link;

/// Drives one producer.
pub(super) struct Driver {
    pub(super) cluster: Arc<Cluster>,
    pub(super) pipe: Arc<Pipe>,
    pub(super) name: ProducerName,
    /// Whether the application chose the name; if not, a forgotten one is replaced.
    pub(super) named: bool,
    pub(super) deadline: Duration,
    /// The queue that most messages go to: publishing at its leader saves a hop.
    pub(super) home: Option<QueueName>,
}

impl Driver {
    /// Attaches for the first time.
    pub(super) async fn start(&self) -> Result<Arc<Link>, Trouble> {
        let at = self.home_address().await;
        self.attach(at).await
    }

    /// Keeps the producer attached, beginning on this connection, until it is finished.
    pub(super) async fn run(mut self, link: Arc<Link>) {
        let (pipe, cluster) = (Arc::clone(&self.pipe), Arc::clone(&self.cluster));
        let deadline = self.deadline;
        tokio::select! {
            () = self.keep_attached(link) => {}
            () = expire(&pipe, deadline) => {}
            () = cluster.closed() => pipe.abandon("the client was closed"),
        }
    }

    async fn keep_attached(&mut self, mut link: Arc<Link>) {
        loop {
            let work = self.tend(&link).await;
            if let Some((link, producer)) = self.pipe.detach() {
                link.tell(Request::DetachProducer { producer });
            }
            if work == Work::Finished {
                return self.pipe.abandon("the producer was closed");
            }
            if self.pipe.take_forgotten() && !self.take_another_name() {
                return;
            }
            match self.reattach().await {
                Some(new) => link = new,
                None => return,
            }
        }
    }

    /// Stays with an attachment until it is over.
    async fn tend(&self, link: &Link) -> Work {
        let mut backoff = Backoff::default();
        let mut lowest = self.pipe.lowest();
        loop {
            match self.pipe.work() {
                Work::None => {}
                Work::Resend => {
                    if self.pipe.lowest() > lowest {
                        lowest = self.pipe.lowest();
                        backoff.reset();
                    }
                    tokio::select! {
                        () = tokio::time::sleep(backoff.next()) => self.pipe.resend(),
                        () = link.closed() => return Work::Reattach,
                    }
                }
                work @ (Work::Reattach | Work::Finished) => return work,
            }
            tokio::select! {
                () = self.pipe.news() => {}
                () = link.closed() => return Work::Reattach,
            }
        }
    }

    /// After a broker has forgotten the name: what may be stored is not sent again, because nothing would know it
    /// for a copy; what was never stored goes on under a new name, if the name was ours to choose.
    fn take_another_name(&mut self) -> bool {
        if self.named {
            self.pipe
                .abandon("its name is forgotten by the broker; start a producer of another name");
            return false;
        }
        self.pipe.abandon_sent("sent before its producer was forgotten by the broker");
        self.name = random_name(&self.cluster.config.name);
        true
    }

    /// Attaches anew, for as long as it takes: messages expire one by one meanwhile. `None`: finished.
    async fn reattach(&self) -> Option<Arc<Link>> {
        let attaching = async {
            loop {
                match self.attach(At::Anywhere).await {
                    Ok(link) => return Some(link),
                    Err(Trouble::TooLate { last, .. } | Trouble::Unknown(last)) => {
                        self.pipe.obstructed(&last);
                    }
                    Err(Trouble::Refused(error)) => {
                        self.pipe.abandon(&error.message);
                        return None;
                    }
                    Err(Trouble::Closed) => {
                        self.pipe.abandon("the client was closed");
                        return None;
                    }
                }
            }
        };
        let finished = async {
            while self.pipe.work() != Work::Finished {
                self.pipe.news().await;
            }
        };
        tokio::select! {
            attached = attaching => attached,
            () = finished => None,
        }
    }

    async fn attach(&self, at: At) -> Result<Arc<Link>, Trouble> {
        let attach = Attach { driver: self, handle: None };
        let found = self.cluster.ask_with(at, true, attach).await?;
        match found.response {
            Response::ProducerAttached => Ok(found.link),
            other => {
                self.pipe.detach();
                Err(Trouble::Unknown(format!("the broker answered an attach with {other:?}")))
            }
        }
    }

    /// The leader of the queue that most messages go to, if it is quickly found.
    async fn home_address(&self) -> At {
        let Some(queue) = self.home.clone() else { return At::Anywhere };
        let asking = self.cluster.ask(Request::DescribeQueue { queue }, At::Anywhere);
        match tokio::time::timeout(HOME_PATIENCE, asking).await {
            Ok(Ok(found)) => At::Broker(found.link.broker_address()),
            Ok(Err(_)) | Err(_) => At::Anywhere,
        }
    }
}

/// The question for an attachment.
struct Attach<'a> {
    driver: &'a Driver,
    handle: Option<ProducerHandle>,
}

impl Question for Attach<'_> {
    fn put(&mut self, link: &Arc<Link>) -> Request {
        let pipe = &self.driver.pipe;
        let producer = link.register_producer(Arc::clone(pipe));
        self.handle = Some(producer);
        pipe.attach(link, producer);
        let name = Some(self.driver.name.clone());
        Request::AttachProducer { producer, name, next: pipe.lowest() }
    }

    fn withdraw(&mut self, link: &Arc<Link>, unanswered: bool) {
        self.driver.pipe.detach();
        if let Some(producer) = self.handle.take().filter(|_| unanswered) {
            link.tell(Request::DetachProducer { producer });
        }
    }
}

/// How long to look for the leader. Any broker will do.
const HOME_PATIENCE: Duration = Duration::from_millis(500);

/// A name that nobody has used: with it the broker knows a retry for what it is.
pub(super) fn random_name(client: &str) -> ProducerName {
    let number: u128 = rand::random();
    let shown: String = client.chars().filter(|letter| !letter.is_control()).take(40).collect();
    ProducerName::new(format!("{shown}-{number:032x}"))
        .expect("forty letters and a number are short, without control characters and not empty")
}

/// Resolves what has waited too long, for ever.
async fn expire(pipe: &Pipe, patience: Duration) {
    loop {
        let now = Instant::now();
        // Never in a tight circle, however many batches expire one behind the other.
        let next = pipe.expire(now, patience).max(now + Duration::from_millis(5));
        tokio::time::sleep_until(next.into()).await;
    }
}
