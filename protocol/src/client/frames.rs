//! The frames that cross the socket, and what the most frequent carry.

use super::{LoginData, LoginStart, Request, Response};
use crate::error::{BrokerAddress, ErrorBody};
use crate::ids::{
    BrokerId, ClusterId, ConsumerHandle, Epoch, Offset, OffsetRange, ProducerHandle, RequestId,
    Seq, SeqRange,
};
use crate::message::MessageBlock;
use crate::names::{ExchangeName, RoutingKey, VirtualHost};

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFrame {
    /// First of all.
    Hello(Hello),
    /// Asks for something; answered by one [`BrokerFrame::Response`] or [`BrokerFrame::Failure`].
    Request {
        /// Chosen by the client, unique among its open requests.
        id: RequestId,
        /// What is asked for.
        request: Request,
    },
    /// A request of which only the id could be read: a name that is not allowed, say, or a request of
    /// a later version. Only the decoder makes it; the broker answers with a [`BrokerFrame::Failure`].
    UnreadableRequest {
        /// The request's.
        id: RequestId,
        /// What is wrong with it.
        error: ErrorBody,
    },
    /// Messages with one address and consecutive sequence numbers.
    Publish(Publish),
    /// Settles deliveries.
    Settle(Settle),
    /// Nothing to say, still here.
    Heartbeat,
    /// The client is leaving: the broker returns what it holds and closes.
    Goodbye,
    /// Answers [`BrokerFrame::Challenge`].
    Authenticate(LoginData),
}

/// What a broker sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerFrame {
    /// Answers [`Hello`].
    Welcome(Welcome),
    /// Answers the request of this id.
    Response {
        /// The request's.
        id: RequestId,
        /// What came of it.
        response: Response,
    },
    /// Refuses the request of this id.
    Failure {
        /// The request's.
        id: RequestId,
        /// Why.
        error: ErrorBody,
    },
    /// Every queue these were routed to has committed them.
    Confirmed {
        /// Whose.
        producer: ProducerHandle,
        /// Which; ascending.
        ranges: Vec<SeqRange>,
    },
    /// These were not stored, or nobody knows: `error.outcome` says which.
    PublishFailed {
        /// Whose.
        producer: ProducerHandle,
        /// Which.
        range: SeqRange,
        /// Why.
        error: ErrorBody,
    },
    /// The producer may have published this much in all since it was attached.
    PublishCredit {
        /// Whose.
        producer: ProducerHandle,
        /// Messages, counted from the attach.
        messages: u64,
        /// Bytes of their blocks, counted from the attach.
        bytes: u64,
        /// Why there will be no more for now; none: more comes as messages are answered.
        withheld: Option<Withheld>,
    },
    /// Messages for a consumer.
    Deliver(Deliver),
    /// Settles up to and with this number are committed.
    Settled {
        /// Whose.
        consumer: ConsumerHandle,
        /// The highest committed [`Settle::number`]; those below are committed or were refused before.
        up_to: u64,
    },
    /// One settle that was not done, or nobody knows.
    SettleFailed {
        /// Whose.
        consumer: ConsumerHandle,
        /// The [`Settle::number`].
        number: u64,
        /// Why.
        error: ErrorBody,
    },
    /// The consumer is gone: its queue was deleted, stopped, or is led elsewhere now.
    ConsumerClosed {
        /// Which.
        consumer: ConsumerHandle,
        /// Why, and where to go.
        error: ErrorBody,
    },
    /// Nothing to say, still here.
    Heartbeat,
    /// The last frame: why the broker closes the connection.
    Goodbye(ErrorBody),
    /// The next message of a login that takes more than one; in place of [`Welcome`], which comes later.
    Challenge(LoginData),
}

/// Why a producer gets no more credit for now, however much of what it sent is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Withheld {
    /// The broker holds as much in memory as it may: credit comes when consumers have drained.
    Memory,
    /// A reason of a later version.
    Other(u64),
}

/// The first frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest version the client speaks.
    pub version_min: u16,
    /// Highest version the client speaks.
    pub version_max: u16,
    /// Shown to operators.
    pub client_name: String,
    /// The client wants to hear something this often, in milliseconds; 0: never.
    pub heartbeat_ms: u32,
    /// The virtual host that all names on this connection lie in.
    pub virtual_host: VirtualHost,
    /// Who the client is; none: nobody in particular.
    pub login: Option<LoginStart>,
}

/// The broker's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The highest version both speak.
    pub version: u16,
    /// The cluster.
    pub cluster: ClusterId,
    /// The broker.
    pub broker: BrokerId,
    /// The broker wants to hear something this often, in milliseconds; it closes after twice that.
    pub heartbeat_ms: u32,
    /// Longest frame, in bytes, that either side may send from now on.
    pub frame_bytes_max: u32,
    /// Largest message in bytes.
    pub message_bytes_max: u32,
    /// Addresses of the live brokers, this one included.
    pub brokers: Vec<BrokerAddress>,
    /// The last message of the login: the broker's proof that it knows the user's credentials.
    pub proof: Option<LoginData>,
}

/// Messages with one address and consecutive sequence numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// By whom.
    pub producer: ProducerHandle,
    /// Number of the first message.
    pub first: Seq,
    /// Whether any of them may have been sent before.
    pub resent: bool,
    /// To which exchange.
    pub exchange: ExchangeName,
    /// By which key.
    pub routing_key: RoutingKey,
    /// The messages.
    pub messages: MessageBlock,
}

/// What becomes of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settlement {
    /// Dealt with: gone for good.
    Ack,
    /// Not wanted: gone for good.
    Reject,
    /// Back to its place in the queue, its delivery count one higher.
    Return,
}

/// Settles deliveries of one consumer. All or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// Whose deliveries.
    pub consumer: ConsumerHandle,
    /// Chosen by the client: each one higher than the last, from one.
    pub number: u64,
    /// The epoch that the deliveries carried.
    pub epoch: Epoch,
    /// What becomes of them.
    pub settlement: Settlement,
    /// Which; ascending, no overlap. Offsets in a range that this consumer does not hold are an error.
    pub ranges: Vec<OffsetRange>,
}

/// Messages for a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deliver {
    /// For whom.
    pub consumer: ConsumerHandle,
    /// The term of leadership they are delivered in; drop what is older than what was seen.
    pub epoch: Epoch,
    /// The messages, in runs.
    pub runs: Vec<DeliveredRun>,
}

/// Messages with consecutive offsets and one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveredRun {
    /// Offset of the first message.
    pub first: Offset,
    /// Whether they may have been delivered before.
    pub redelivered: bool,
    /// How often they were returned before.
    pub returns: u32,
    /// When the queue's leader took them, in milliseconds since 1970.
    pub time_ms: u64,
    /// Where they were published to.
    pub exchange: ExchangeName,
    /// By which key.
    pub routing_key: RoutingKey,
    /// The messages.
    pub messages: MessageBlock,
}
