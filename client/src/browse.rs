//! Looking at the messages of a queue without taking them.

use bellwether_protocol::client::{
    BROWSE_BYTES_MAX, BROWSE_MESSAGES_MAX, Browse, Browsed, DeliveredRun, Request, Response,
};
use bellwether_protocol::error::{BrokerAddress, ErrorBody, ErrorCode};
use bellwether_protocol::headers::{Headers, InvalidHeaders};
use bellwether_protocol::ids::{Offset, QueueId};
use bellwether_protocol::message::Message;
use bellwether_protocol::names::{ExchangeName, QueueName, RoutingKey};
use bytes::Bytes;

use crate::client::{Client, unexpected};
use crate::cluster::At;
use crate::error::{QueryError, Trouble};

/// A message that was looked at, and stays in its queue.
#[derive(Clone)]
pub struct BrowsedMessage {
    offset: u64,
    redelivered: bool,
    returns: u32,
    time_ms: u64,
    exchange: ExchangeName,
    routing_key: RoutingKey,
    message: Message,
}

impl std::fmt::Debug for BrowsedMessage {
    /// Never shows a body.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrowsedMessage")
            .field("offset", &self.offset)
            .field("redelivered", &self.redelivered)
            .field("bytes", &self.message.body.len())
            .finish()
    }
}

impl BrowsedMessage {
    /// What the producer wrote.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.message.body
    }

    /// The headers that the producer added; empty when there are none.
    ///
    /// # Errors
    /// When they are not readable, which a broker would have refused.
    pub fn headers(&self) -> Result<Headers, InvalidHeaders> {
        self.message.headers.as_ref().map_or_else(|| Ok(Headers::default()), Headers::decode)
    }

    /// The headers as they were encoded, if there are any: see [`crate::Message::with_encoded_headers`].
    #[must_use]
    pub fn encoded_headers(&self) -> Option<&Bytes> {
        self.message.headers.as_ref()
    }

    /// Its place in the queue.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether it may have been delivered before.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// How often it was returned.
    #[must_use]
    pub fn returns(&self) -> u32 {
        self.returns
    }

    /// When the queue's leader took it, in milliseconds since 1970.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The exchange it was published to.
    #[must_use]
    pub fn exchange(&self) -> &str {
        self.exchange.as_str()
    }

    /// The key it was published with.
    #[must_use]
    pub fn routing_key(&self) -> &str {
        self.routing_key.as_str()
    }
}

/// Looks at a queue page by page, as it was at one moment: up to the high watermark of the first page. Made by [`Client::browse`].
///
/// Every message below that mark that stays unsettled is shown, once and in order, also when the leader changes meanwhile; one that
/// is settled meanwhile may be shown or not. Nothing is taken, and nothing counts as a delivery.
///
/// ```no_run
/// # async fn example(client: bellwether_client::Client) -> Result<(), bellwether_client::QueryError> {
/// let mut browser = client.browse("orders")?;
/// while let Some(page) = browser.next_page().await? {
///     for message in page {
///         println!("{}: {} bytes", message.offset(), message.body().len());
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Browser {
    client: Client,
    queue: QueueName,
    next: Offset,
    page_messages: u32,
    page_bytes: u32,
    /// From the first page on.
    cut: Option<Cut>,
    /// Who answered last.
    leader: Option<BrokerAddress>,
}

/// What the first page fixes.
#[derive(Clone, Copy, Debug)]
struct Cut {
    queue: QueueId,
    until: Offset,
}

impl Client {
    /// Looks at the messages of a queue without taking them.
    ///
    /// # Errors
    /// When it is no name of a queue. Whether there is one shows with the first page.
    pub fn browse(&self, queue: impl AsRef<str>) -> Result<Browser, QueryError> {
        Ok(Browser {
            client: self.clone(),
            queue: QueueName::new(queue)?,
            next: Offset(0),
            page_messages: BROWSE_MESSAGES_MAX,
            page_bytes: BROWSE_BYTES_MAX,
            cut: None,
            leader: None,
        })
    }
}

impl Browser {
    /// Begins at this offset. Default: at the first message.
    #[must_use]
    pub fn starting_at(mut self, offset: u64) -> Self {
        self.next = Offset(offset);
        self
    }

    /// At most so many messages in a page. A broker may give fewer, and gives a mebibyte of them at most.
    #[must_use]
    pub fn page_messages(mut self, messages: u32) -> Self {
        self.page_messages = messages.clamp(1, BROWSE_MESSAGES_MAX);
        self
    }

    /// The queue, as the first page found it.
    #[must_use]
    pub fn queue_id(&self) -> Option<QueueId> {
        self.cut.map(|cut| cut.queue)
    }

    /// Up to where is looked: the high watermark of the first page.
    #[must_use]
    pub fn until(&self) -> Option<u64> {
        self.cut.map(|cut| cut.until.0)
    }

    /// Where it goes on.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.next.0
    }

    /// The next messages, at least one; `None`: there are no more.
    ///
    /// # Errors
    /// [`QueryError`]: also when the queue was deleted and declared anew meanwhile, or lost messages because a leader was forced on it.
    pub async fn next_page(&mut self) -> Result<Option<Vec<BrowsedMessage>>, QueryError> {
        while self.cut.is_none_or(|cut| self.next < cut.until) {
            let Browsed { queue, epoch: _, runs, next, high_watermark } = self.ask().await?;
            let cut = *self.cut.get_or_insert(Cut { queue, until: high_watermark });
            self.check(cut, queue, high_watermark, next)?;
            self.next = next;
            if !runs.is_empty() {
                return Ok(Some(runs.into_iter().flat_map(messages_of).collect()));
            }
        }
        Ok(None)
    }

    async fn ask(&mut self) -> Result<Browsed, Trouble> {
        let request = Request::Browse(Browse {
            queue: self.queue.clone(),
            from: self.next,
            until: self.cut.map(|cut| cut.until),
            messages_max: self.page_messages,
            bytes_max: self.page_bytes,
        });
        let at = self.leader.take().map_or(At::Anywhere, At::Broker);
        let found = self.client.find(request, at).await?;
        self.leader = Some(found.link.broker_address());
        match found.response {
            Response::Browsed(browsed) => Ok(browsed),
            other => Err(unexpected(&other)),
        }
    }

    fn check(
        &self,
        cut: Cut,
        queue: QueueId,
        high_watermark: Offset,
        next: Offset,
    ) -> Result<(), Trouble> {
        let name = &self.queue;
        if queue != cut.queue {
            let words = format!("queue {name} was deleted and declared anew while it was browsed");
            return Err(Trouble::Refused(ErrorBody::not_done(ErrorCode::NoSuchQueue, words)));
        }
        if high_watermark < cut.until {
            let words = format!(
                "queue {name} was committed up to {} when browsing began and is now up to {high_watermark}: a leader was forced on it that lacks the rest; browse it anew",
                cut.until
            );
            return Err(Trouble::Refused(ErrorBody::not_done(ErrorCode::QueueStopped, words)));
        }
        if next <= self.next && next < cut.until {
            let words = format!("the broker's page of queue {name} does not get on from {next}");
            return Err(Trouble::Refused(ErrorBody::not_done(ErrorCode::Internal, words)));
        }
        Ok(())
    }
}

fn messages_of(run: DeliveredRun) -> impl Iterator<Item = BrowsedMessage> {
    let DeliveredRun { first, redelivered, returns, time_ms, exchange, routing_key, messages } =
        run;
    messages.iter().zip(first.0..).map(move |(message, offset)| BrowsedMessage {
        offset,
        redelivered,
        returns,
        time_ms,
        exchange: exchange.clone(),
        routing_key: routing_key.clone(),
        message,
    })
}
