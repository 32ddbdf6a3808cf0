//! How frames between a client and a broker look. Numbers here are the protocol: they are never given
//! another meaning. Fields are only ever added at the end.

use bytes::{Bytes, BytesMut};

use super::{
    BrokerFrame, ClientFrame, Deliver, DeliveredRun, Publish, Settle, Settlement, Withheld, login,
};
use crate::frame::{Frame, FrameError, Limits, Problem, decode_frame, encode_frame};
use crate::ids::{OffsetRange, RequestId};
use crate::wire::{
    Items, Reader, Wire, put_struct_variant, put_uint, put_variant, wire_enum, wire_struct,
};

/// Most ranges that one settle may name. A client with more sends several.
pub const SETTLE_RANGES_MAX: usize = 10_000;

/// Most messages that one claim names: 1,048,576, as many as a queue ever has out.
pub const CLAIM_MESSAGES_MAX: u64 = 1 << 20;

wire_struct!(Publish { producer, first, resent, exchange, routing_key, messages });
wire_struct!(Settle { consumer, number, epoch, settlement, ranges });
wire_struct!(Deliver { consumer, epoch, runs });
wire_struct!(DeliveredRun {
    first,
    redelivered,
    returns,
    time_ms,
    exchange,
    routing_key,
    messages,
});

/// Kinds of clients' frames: 1 to 31, so that a frame that goes the wrong way is recognised.
mod client_kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const REQUEST: u8 = 2;
    pub(super) const PUBLISH: u8 = 3;
    pub(super) const SETTLE: u8 = 4;
    pub(super) const HEARTBEAT: u8 = 5;
    pub(super) const GOODBYE: u8 = 6;
    pub(super) const AUTHENTICATE: u8 = 7;
}

/// Kinds of brokers' frames: 32 to 63.
mod broker_kind {
    pub(super) const WELCOME: u8 = 32;
    pub(super) const RESPONSE: u8 = 33;
    pub(super) const FAILURE: u8 = 34;
    pub(super) const CONFIRMED: u8 = 35;
    pub(super) const PUBLISH_FAILED: u8 = 36;
    pub(super) const PUBLISH_CREDIT: u8 = 37;
    pub(super) const DELIVER: u8 = 38;
    pub(super) const SETTLED: u8 = 39;
    pub(super) const SETTLE_FAILED: u8 = 40;
    pub(super) const CONSUMER_CLOSED: u8 = 41;
    pub(super) const HEARTBEAT: u8 = 42;
    pub(super) const GOODBYE: u8 = 43;
    pub(super) const CHALLENGE: u8 = 44;
}

impl Frame for ClientFrame {
    fn encode(&self, out: &mut BytesMut) {
        encode_frame(out, |out| put_client_frame(self, out));
    }

    fn decode(frame: Bytes, limits: &Limits) -> Result<ClientFrame, FrameError> {
        decode_frame(frame, limits, |reader| {
            let mut items = Items::begin(reader)?;
            match items.next("kind")? {
                client_kind::REQUEST => take_request(items),
                kind => {
                    let frame = take_client_frame(&mut items, kind)?;
                    items.end()?;
                    Ok(frame)
                }
            }
        })
    }
}

fn put_client_frame(frame: &ClientFrame, out: &mut BytesMut) {
    match frame {
        ClientFrame::Hello(hello) => login::put_hello(out, client_kind::HELLO, hello),
        ClientFrame::Request { id, request } => {
            put_variant(out, client_kind::REQUEST, &[id, request]);
        }
        ClientFrame::UnreadableRequest { id, .. } => {
            put_variant(out, client_kind::REQUEST, &[id, &Vec::<u8>::new()]);
        }
        ClientFrame::Publish(publish) => put_struct_variant(out, client_kind::PUBLISH, publish),
        ClientFrame::Settle(settle) => put_struct_variant(out, client_kind::SETTLE, settle),
        ClientFrame::Heartbeat => put_variant(out, client_kind::HEARTBEAT, &[]),
        ClientFrame::Goodbye => put_variant(out, client_kind::GOODBYE, &[]),
        ClientFrame::Authenticate(data) => put_variant(out, client_kind::AUTHENTICATE, &[data]),
    }
}

fn take_client_frame(items: &mut Items<'_>, kind: u8) -> Result<ClientFrame, FrameError> {
    Ok(match kind {
        client_kind::HELLO => ClientFrame::Hello(login::take_hello(items)?),
        client_kind::PUBLISH => ClientFrame::Publish(check_publish(items.fields()?)?),
        client_kind::SETTLE => ClientFrame::Settle(check_settle(items.fields()?)?),
        client_kind::HEARTBEAT => ClientFrame::Heartbeat,
        client_kind::GOODBYE => ClientFrame::Goodbye,
        client_kind::AUTHENTICATE => ClientFrame::Authenticate(items.next("Authenticate.data")?),
        kind => return Err(unknown("client frame", kind)),
    })
}

/// A request with an id is answered even when the rest cannot be read: a name that is not allowed, or
/// a request of a later version, costs the client that request and not its connection.
fn take_request(mut items: Items<'_>) -> Result<ClientFrame, FrameError> {
    let id: RequestId = items.next("Request.id")?;
    let mut value = items.next_with("Request.request", Reader::whole)?;
    items.end()?;
    Ok(match value.finish::<super::Request>() {
        Ok(request) => ClientFrame::Request { id, request },
        Err(error) => ClientFrame::UnreadableRequest { id, error: error.into() },
    })
}

fn check_publish(publish: Publish) -> Result<Publish, FrameError> {
    if publish.first.0 == 0 {
        let problem = Problem::NoSuch { what: "sequence number: they start at one", value: 0 };
        return Err(FrameError::Field { place: "Publish.first", problem });
    }
    Ok(publish)
}

fn check_settle(settle: Settle) -> Result<Settle, FrameError> {
    check_ranges(&settle.ranges).map_err(|error| error.at("Settle.ranges"))?;
    Ok(settle)
}

pub(super) fn check_ranges(ranges: &[OffsetRange]) -> Result<(), FrameError> {
    if ranges.is_empty() {
        return Err(Problem::None.into());
    }
    if ranges.len() > SETTLE_RANGES_MAX {
        let (value, max) = (ranges.len() as u64, SETTLE_RANGES_MAX as u64);
        return Err(Problem::Limit { what: "ranges", value, max }.into());
    }
    if ranges.windows(2).any(|pair| pair[1].first < pair[0].end) {
        return Err(Problem::Order.into());
    }
    Ok(())
}

impl Frame for BrokerFrame {
    fn encode(&self, out: &mut BytesMut) {
        encode_frame(out, |out| put_broker_frame(self, out));
    }

    fn decode(frame: Bytes, limits: &Limits) -> Result<BrokerFrame, FrameError> {
        decode_frame(frame, limits, |reader| {
            let mut items = Items::begin(reader)?;
            let frame = take_broker_frame(&mut items)?;
            items.end()?;
            Ok(frame)
        })
    }
}

fn put_broker_frame(frame: &BrokerFrame, out: &mut BytesMut) {
    use broker_kind as kind;
    match frame {
        BrokerFrame::Welcome(welcome) => login::put_welcome(out, kind::WELCOME, welcome),
        BrokerFrame::Response { id, response } => put_variant(out, kind::RESPONSE, &[id, response]),
        BrokerFrame::Failure { id, error } => put_variant(out, kind::FAILURE, &[id, error]),
        BrokerFrame::Confirmed { producer, ranges } => {
            put_variant(out, kind::CONFIRMED, &[producer, ranges]);
        }
        BrokerFrame::PublishFailed { producer, range, error } => {
            put_variant(out, kind::PUBLISH_FAILED, &[producer, range, error]);
        }
        BrokerFrame::PublishCredit { producer, messages, bytes, withheld: None } => {
            put_variant(out, kind::PUBLISH_CREDIT, &[producer, messages, bytes]);
        }
        BrokerFrame::PublishCredit { producer, messages, bytes, withheld } => {
            put_variant(out, kind::PUBLISH_CREDIT, &[producer, messages, bytes, withheld]);
        }
        BrokerFrame::Deliver(deliver) => put_struct_variant(out, kind::DELIVER, deliver),
        BrokerFrame::Settled { consumer, up_to } => {
            put_variant(out, kind::SETTLED, &[consumer, up_to]);
        }
        BrokerFrame::SettleFailed { consumer, number, error } => {
            put_variant(out, kind::SETTLE_FAILED, &[consumer, number, error]);
        }
        BrokerFrame::ConsumerClosed { consumer, error } => {
            put_variant(out, kind::CONSUMER_CLOSED, &[consumer, error]);
        }
        BrokerFrame::Heartbeat => put_variant(out, kind::HEARTBEAT, &[]),
        BrokerFrame::Goodbye(error) => put_variant(out, kind::GOODBYE, &[error]),
        BrokerFrame::Challenge(data) => put_variant(out, kind::CHALLENGE, &[data]),
    }
}

fn take_broker_frame(items: &mut Items<'_>) -> Result<BrokerFrame, FrameError> {
    use broker_kind as kind;
    Ok(match items.next("kind")? {
        kind::WELCOME => BrokerFrame::Welcome(login::take_welcome(items)?),
        kind::RESPONSE => BrokerFrame::Response {
            id: items.next("Response.id")?,
            response: items.next("Response.response")?,
        },
        kind::FAILURE => BrokerFrame::Failure {
            id: items.next("Failure.id")?,
            error: items.next("Failure.error")?,
        },
        kind::CONFIRMED => BrokerFrame::Confirmed {
            producer: items.next("Confirmed.producer")?,
            ranges: items.next("Confirmed.ranges")?,
        },
        kind::PUBLISH_FAILED => BrokerFrame::PublishFailed {
            producer: items.next("PublishFailed.producer")?,
            range: items.next("PublishFailed.range")?,
            error: items.next("PublishFailed.error")?,
        },
        kind::PUBLISH_CREDIT => BrokerFrame::PublishCredit {
            producer: items.next("PublishCredit.producer")?,
            messages: items.next("PublishCredit.messages")?,
            bytes: items.next("PublishCredit.bytes")?,
            withheld: items.next_or_default("PublishCredit.withheld")?,
        },
        kind::DELIVER => BrokerFrame::Deliver(items.fields()?),
        kind::SETTLED => BrokerFrame::Settled {
            consumer: items.next("Settled.consumer")?,
            up_to: items.next("Settled.up_to")?,
        },
        kind::SETTLE_FAILED => BrokerFrame::SettleFailed {
            consumer: items.next("SettleFailed.consumer")?,
            number: items.next("SettleFailed.number")?,
            error: items.next("SettleFailed.error")?,
        },
        kind::CONSUMER_CLOSED => BrokerFrame::ConsumerClosed {
            consumer: items.next("ConsumerClosed.consumer")?,
            error: items.next("ConsumerClosed.error")?,
        },
        kind::HEARTBEAT => BrokerFrame::Heartbeat,
        kind::GOODBYE => BrokerFrame::Goodbye(items.next("Goodbye.error")?),
        kind::CHALLENGE => BrokerFrame::Challenge(items.next("Challenge.data")?),
        kind => return Err(unknown("broker frame", kind)),
    })
}

pub(super) fn unknown(what: &'static str, kind: u8) -> FrameError {
    FrameError::UnknownKind { what, kind: kind.into() }
}

impl Wire for Withheld {
    fn put(&self, out: &mut BytesMut) {
        put_uint(
            out,
            match self {
                Withheld::Memory => 1,
                Withheld::Other(reason) => *reason,
            },
        );
    }

    /// A reason that is not known is a reason all the same.
    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        Ok(match u64::take(reader)? {
            1 => Withheld::Memory,
            reason => Withheld::Other(reason),
        })
    }
}

wire_enum!(Settlement "settlement" { Ack = 1, Reject = 2, Return = 3 });
