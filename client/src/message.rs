//! What an application publishes: a body, headers, and where it goes.

use bellwether_protocol::headers::{HeaderValue, Headers, InvalidHeaders};
use bellwether_protocol::names::{ExchangeName, InvalidName, RoutingKey};
use bytes::Bytes;

/// A message to publish. Anything that turns into [`Bytes`] is one with no headers, for the producer's own
/// exchange and routing key.
///
/// ```
/// use bellwether_client::Message;
/// # fn example() -> Result<(), bellwether_client::InvalidMessage> {
/// let message = Message::new("42 apples")
///     .to_exchange("orders")?
///     .with_key("fruit")?
///     .with_header("trace", "a1b2")?;
/// # let _ = message; Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub(crate) body: Bytes,
    /// Encoded.
    pub(crate) headers: Option<Bytes>,
    pub(crate) exchange: Option<ExchangeName>,
    pub(crate) routing_key: Option<RoutingKey>,
}

/// A name or headers that no broker would take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMessage {
    /// The name of the exchange or the routing key.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The headers.
    #[error(transparent)]
    Headers(#[from] InvalidHeaders),
}

impl Message {
    /// A message with this body.
    #[must_use]
    pub fn new(body: impl Into<Bytes>) -> Message {
        Message { body: body.into(), headers: None, exchange: None, routing_key: None }
    }

    /// Goes to this exchange, not to the producer's.
    ///
    /// # Errors
    /// When it is no name.
    pub fn to_exchange(mut self, exchange: impl AsRef<str>) -> Result<Message, InvalidMessage> {
        self.exchange = Some(ExchangeName::new(exchange)?);
        Ok(self)
    }

    /// Has this routing key, not the producer's. To the default exchange, that is the name of a queue.
    ///
    /// # Errors
    /// When it is no routing key.
    pub fn with_key(mut self, routing_key: impl AsRef<str>) -> Result<Message, InvalidMessage> {
        self.routing_key = Some(RoutingKey::new(routing_key)?);
        Ok(self)
    }

    /// Carries a header of text.
    ///
    /// # Errors
    /// When the headers become too large.
    pub fn with_header(
        self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Message, InvalidMessage> {
        let mut headers = match &self.headers {
            Some(encoded) => Headers::decode(encoded)?,
            None => Headers::default(),
        };
        headers.0.insert(name.into(), HeaderValue::Text(value.into()));
        self.with_headers(headers)
    }

    /// Carries headers that are encoded already, such as those of a [`BrowsedMessage`](crate::BrowsedMessage), byte for byte.
    ///
    /// # Errors
    /// When they are no headers, or too large.
    pub fn with_encoded_headers(mut self, headers: Bytes) -> Result<Message, InvalidMessage> {
        // What a broker would refuse is refused here, where it is known whose headers they are.
        Headers::decode(&headers)?.encode()?;
        self.headers = Some(headers);
        Ok(self)
    }

    /// Carries these headers.
    ///
    /// # Errors
    /// When they are too large or too deep.
    pub fn with_headers(mut self, headers: Headers) -> Result<Message, InvalidMessage> {
        self.headers = Some(headers.encode()?);
        Ok(self)
    }
}

impl Message {
    /// What counts against the size limit: encoded headers and body, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.headers.as_ref().map_or(0, Bytes::len) + self.body.len()
    }
}

impl<B: Into<Bytes>> From<B> for Message {
    fn from(body: B) -> Message {
        Message::new(body)
    }
}
