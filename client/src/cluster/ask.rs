//! Asks the cluster for something until it is answered: any broker, or a queue's leader wherever that is now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_protocol::client::{Request, Response};
use bellwether_protocol::error::{BrokerAddress, ErrorBody, ErrorCode, Outcome};
use bellwether_protocol::ids::BrokerId;

use super::Cluster;
use crate::backoff::Backoff;
use crate::error::Trouble;
use crate::link::{Answer, ConnectFailure, Link};

/// Redirects that are followed without a pause. More mean that brokers disagree about the leader, which
/// takes a moment to settle.
const HOPS_MAX: u32 = 3;

/// How long the way to a broker that was named as leader may take before others are asked again: it may be the
/// frozen or dead one that they have not given up yet. The connection comes about all the same if it is just slow.
const REDIRECT_PATIENCE: Duration = Duration::from_millis(200);

/// Where to ask first.
#[derive(Clone, Debug)]
pub(crate) enum At {
    /// Wherever there is a connection.
    Anywhere,
    /// At this broker: the leader, when it was last heard of.
    Broker(BrokerAddress),
}

/// A request that may need something made ready on the connection it goes out on.
pub(crate) trait Question {
    /// The request for this connection.
    fn put(&mut self, link: &Arc<Link>) -> Request;

    /// It came to nothing on this connection. When it is `unanswered` the broker may still do it.
    fn withdraw(&mut self, link: &Arc<Link>, unanswered: bool);
}

impl Question for Request {
    fn put(&mut self, _: &Arc<Link>) -> Request {
        self.clone()
    }

    fn withdraw(&mut self, _: &Arc<Link>, _: bool) {}
}

/// An answer, and who gave it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) link: Arc<Link>,
    pub(crate) response: Response,
}

/// What one attempt came to.
enum Attempt {
    Done(Found),
    Trouble(Trouble),
    /// Nothing was done; go there at once.
    Redirected(BrokerAddress),
    /// Nothing was done; ask again after a pause, somewhere else than here.
    Again {
        avoid: Option<BrokerId>,
        why: String,
    },
    /// Perhaps done, and the answer is lost.
    Lost {
        avoid: Option<BrokerId>,
        why: String,
    },
}

impl Cluster {
    /// Asks for something that may safely be done twice, until the deadline.
    pub(crate) async fn ask(&self, request: Request, at: At) -> Result<Found, Trouble> {
        self.ask_with(at, true, request).await
    }

    /// The same for what may not be done twice: when the answer is lost, that is the answer.
    pub(crate) async fn ask_once(&self, request: Request) -> Result<Found, Trouble> {
        self.ask_with(At::Anywhere, false, request).await
    }

    /// Asks this broker and no other, once: for what only it can say or do.
    pub(crate) async fn ask_there(
        &self,
        broker: &BrokerAddress,
        request: Request,
        patience: Duration,
    ) -> Result<Response, Trouble> {
        let started = Instant::now();
        let too_late = |last: String| Trouble::TooLate { waited: started.elapsed(), last };
        let link = match tokio::time::timeout(patience, self.to(broker)).await {
            Ok(Ok(link)) => link,
            Ok(Err(failure)) => {
                return Err(match &*failure {
                    ConnectFailure::Refused { error, .. } if !error.code.is_worth_retrying() => {
                        Trouble::Refused(error.clone())
                    }
                    failure => too_late(failure.to_string()),
                });
            }
            Err(_) => return Err(too_late(format!("{} does not answer", broker.address))),
        };
        if link.broker() != broker.broker {
            let at = format!("{} is broker {} now", broker.address, link.broker());
            return Err(too_late(at));
        }
        match tokio::time::timeout(patience, link.ask(request)).await {
            Ok(Answer::Response(response)) => Ok(response),
            Ok(Answer::Failure(error)) if error.outcome == Outcome::Unknown => {
                Err(Trouble::Unknown(error.message))
            }
            Ok(Answer::Failure(error)) => Err(Trouble::Refused(error)),
            Ok(Answer::Lost { sent: false }) => Err(too_late(link.why_closed())),
            Ok(Answer::Lost { sent: true }) => Err(Trouble::Unknown(link.why_closed())),
            Err(_) => Err(Trouble::Unknown(format!("{} does not answer", broker.address))),
        }
    }

    /// Asks with a question that is put anew for each connection it goes out on.
    pub(crate) async fn ask_with(
        &self,
        at: At,
        repeatable: bool,
        question: impl Question,
    ) -> Result<Found, Trouble> {
        let started = Instant::now();
        let mut asking = Asking {
            cluster: self,
            repeatable,
            question,
            perhaps_done: false,
            last: "no broker was asked yet".to_owned(),
        };
        tokio::select! {
            answered = tokio::time::timeout(self.config.deadline, asking.run(at)) => {
                if let Ok(answered) = answered {
                    return answered;
                }
            }
            () = self.closed() => {
                return Err(asking.given_up(Trouble::Closed, "the client was closed"));
            }
        }
        let waited = started.elapsed();
        let last = asking.last.clone();
        let why = format!("no answer within {waited:.1?}");
        Err(asking.given_up(Trouble::TooLate { waited, last }, &why))
    }
}

/// A question on its way round the brokers.
struct Asking<'a, Q> {
    cluster: &'a Cluster,
    repeatable: bool,
    question: Q,
    /// Whether a broker has it, or had it, without an answer.
    perhaps_done: bool,
    last: String,
}

impl<Q: Question> Asking<'_, Q> {
    /// What to say instead of an answer.
    fn given_up(&self, not_done: Trouble, why: &str) -> Trouble {
        match self.perhaps_done {
            true => Trouble::Unknown(format!("{why}; {}", self.last)),
            false => not_done,
        }
    }

    async fn run(&mut self, at: At) -> Result<Found, Trouble> {
        let mut backoff = Backoff::default();
        let (mut at, mut avoid, mut hops) = (at, None, 0);
        loop {
            let attempt = self.attempt(&at, avoid).await;
            at = At::Anywhere;
            match attempt {
                Attempt::Done(found) => return Ok(found),
                Attempt::Trouble(trouble) => return Err(trouble),
                Attempt::Redirected(leader) => {
                    self.last =
                        format!("brokers disagree about the leader; {} was named", leader.address);
                    at = At::Broker(leader);
                    hops += 1;
                    if hops <= HOPS_MAX {
                        continue;
                    }
                }
                Attempt::Again { avoid: whom, why } => (avoid, self.last) = (whom, why),
                Attempt::Lost { why, .. } if !self.repeatable => return Err(Trouble::Unknown(why)),
                Attempt::Lost { avoid: whom, why } => {
                    self.perhaps_done = true;
                    (avoid, self.last) = (whom, why);
                }
            }
            hops = 0;
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn attempt(&mut self, at: &At, avoid: Option<BrokerId>) -> Attempt {
        let link = match self.way_to(at, avoid).await {
            Ok(link) => link,
            Err(attempt) => return attempt,
        };
        let request = self.question.put(&link);
        let question = &mut self.question;
        let mut undoing = Undo { link: &link, question, unanswered: true, armed: true };
        // Until the answer is here, a deadline that passes finds a request that may be done.
        let before = std::mem::replace(&mut self.perhaps_done, true);
        let answer = link.ask(request).await;
        self.perhaps_done = before;
        undoing.unanswered = matches!(answer, Answer::Lost { .. });
        let attempt = judge(&link, answer);
        undoing.armed = !matches!(attempt, Attempt::Done(_));
        drop(undoing);
        attempt
    }

    async fn way_to(&mut self, at: &At, avoid: Option<BrokerId>) -> Result<Arc<Link>, Attempt> {
        let connected = match at {
            At::Anywhere => self.cluster.any(avoid).await,
            At::Broker(broker) => {
                match tokio::time::timeout(REDIRECT_PATIENCE, self.cluster.to(broker)).await {
                    Ok(connected) => connected,
                    Err(_) => {
                        self.cluster.suspect(&broker.address);
                        let why = format!("{} was named as leader and is silent", broker.address);
                        return Err(Attempt::Again { avoid: Some(broker.broker), why });
                    }
                }
            }
        };
        connected.map_err(|failure| match &*failure {
            ConnectFailure::Refused { error, .. } if !error.code.is_worth_retrying() => {
                Attempt::Trouble(Trouble::Refused(error.clone()))
            }
            failure => Attempt::Again { avoid: None, why: failure.to_string() },
        })
    }
}

/// Undoes the preparation also when the asker is dropped at its deadline.
struct Undo<'a, Q: Question> {
    link: &'a Arc<Link>,
    question: &'a mut Q,
    unanswered: bool,
    armed: bool,
}

impl<Q: Question> Drop for Undo<'_, Q> {
    fn drop(&mut self) {
        if self.armed {
            self.question.withdraw(self.link, self.unanswered);
        }
    }
}

fn judge(link: &Arc<Link>, answer: Answer) -> Attempt {
    match answer {
        Answer::Response(response) => Attempt::Done(Found { link: Arc::clone(link), response }),
        Answer::Failure(error) => judge_failure(link, error),
        Answer::Lost { sent: false } => {
            Attempt::Again { avoid: Some(link.broker()), why: link.why_closed() }
        }
        Answer::Lost { sent: true } => {
            Attempt::Lost { avoid: Some(link.broker()), why: link.why_closed() }
        }
    }
}

fn judge_failure(link: &Arc<Link>, error: ErrorBody) -> Attempt {
    match error {
        ErrorBody { outcome: Outcome::Unknown, message, .. } => {
            Attempt::Lost { avoid: None, why: message }
        }
        ErrorBody { code: ErrorCode::NotLeader, leader: Some(leader), .. }
            if leader.broker != link.broker() =>
        {
            Attempt::Redirected(leader)
        }
        ErrorBody { code: ErrorCode::NotLeader | ErrorCode::ShuttingDown, message, .. } => {
            Attempt::Again { avoid: Some(link.broker()), why: message }
        }
        error if error.code.is_worth_retrying() && error.code != ErrorCode::TooFewBrokers => {
            Attempt::Again { avoid: None, why: error.message }
        }
        error => Attempt::Trouble(Trouble::Refused(error)),
    }
}
