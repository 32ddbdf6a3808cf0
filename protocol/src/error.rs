//! What a broker answers when it cannot do as asked: a stable code, its outcome, and words.

use crate::ids::{BrokerId, Offset};

/// What an error says about the thing that was asked for (promise G11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was not done and will not be.
    NotDone,
    /// The connection or the leadership was lost after the append: it may be done or not.
    Unknown,
}

/// An error as it crosses a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorBody {
    /// Stable code; clients decide by it.
    pub code: ErrorCode,
    /// Not done, or nobody knows. Kept beside the code so that an old client can act on a code that it does not know.
    pub outcome: Outcome,
    /// What was wrong, what is allowed, what to do. For people.
    pub message: String,
    /// Where to go instead, for [`ErrorCode::NotLeader`].
    pub leader: Option<BrokerAddress>,
}

/// Where clients reach a broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BrokerAddress {
    /// The broker.
    pub broker: BrokerId,
    /// `host:port` of its client listener.
    pub address: String,
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $retry:literal;)*) => {
        /// Stable error codes. 1xx connection, 2xx names and declarations, 3xx publishing,
        /// 4xx consuming, 5xx the cluster's condition, 6xx orders of operators and security.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
            /// A code of a later version.
            Other(u16),
        }

        impl ErrorCode {
            /// Every code this version knows.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name),*];

            /// The number on the wire.
            #[must_use]
            pub fn number(self) -> u16 {
                match self { $(ErrorCode::$name => $code,)* ErrorCode::Other(code) => code }
            }

            /// The code of a number on the wire.
            #[must_use]
            pub fn from_number(number: u16) -> ErrorCode {
                match number { $($code => ErrorCode::$name,)* code => ErrorCode::Other(code) }
            }

            /// Whether the same request may succeed later, perhaps elsewhere.
            #[must_use]
            pub fn is_worth_retrying(self) -> bool {
                match self { $(ErrorCode::$name => $retry,)* ErrorCode::Other(_) => false }
            }
        }
    };
}

error_codes! {
    /// The bytes are not a frame of this protocol. The connection is closed.
    MalformedFrame = 100, false;
    /// A frame longer than the limit. The connection is closed.
    FrameTooLarge = 101, false;
    /// No protocol version that both sides know. The connection is closed.
    UnsupportedVersion = 102, false;
    /// A frame that is not allowed now, for instance before the handshake. The connection is closed.
    UnexpectedFrame = 103, false;
    /// Nothing arrived for two heartbeats. The connection is closed.
    HeartbeatMissed = 104, true;
    /// The broker is stopping. Connect to another.
    ShuttingDown = 105, true;
    /// A limit of this connection, named in the message, is used up.
    ConnectionLimit = 106, true;
    /// Wrong password, unknown user, or the user was deleted or given another password. The connection is closed.
    LoginRefused = 107, false;
    /// This broker wants a login, or none of this kind; the message says which kinds there are. The connection is closed.
    LoginRequired = 108, false;
    /// The broker does not know the users yet, or there were too many failed logins. The connection is closed.
    LoginUnavailable = 109, true;
    /// A frame that has begun did not become whole in time. The connection is closed.
    FrameTimeout = 110, true;
    /// More connections, from everywhere or from this address, than are allowed; the message says which. Connect later, or to another broker.
    TooManyConnections = 111, true;
    /// More connections that have not said hello than are allowed. Connect later.
    TooManyHandshakes = 112, true;
    /// More is attached to the whole broker than is allowed; the message says what. Attach on another broker.
    BrokerLimit = 113, true;
    /// A name that is not allowed.
    InvalidName = 200, false;
    /// An option that is not allowed.
    InvalidOption = 201, false;
    /// No queue of that name.
    NoSuchQueue = 202, false;
    /// No exchange of that name.
    NoSuchExchange = 203, false;
    /// It exists with other options; the message says which differ.
    OptionsDiffer = 204, false;
    /// It is still in use, and the request said "if unused" or "if empty".
    InUse = 205, false;
    /// Reserved, such as the default exchange.
    NotAllowed = 206, false;
    /// Fewer live brokers than replicas asked for, and the request was strict.
    TooFewBrokers = 207, true;
    /// The user may not do this; the message says which permission is missing.
    AccessRefused = 208, false;
    /// No user of that name.
    NoSuchUser = 209, false;
    /// There is a user of that name.
    UserExists = 210, false;
    /// There is as much of it in the cluster as a setting allows: queues, exchanges or bindings. The message says which, how many there are, and what to do.
    LimitReached = 211, false;
    /// A message over the size limit.
    MessageTooLarge = 300, false;
    /// No such producer on this connection.
    NoSuchProducer = 301, false;
    /// The producer's state was forgotten, so that a retry can no longer be told from a new message.
    ProducerForgotten = 302, false;
    /// A sequence number that leaves out an earlier, unconfirmed one. Send again from the lowest unconfirmed.
    OutOfSequence = 303, true;
    /// The disk is nearly full: publishes are refused, settles and deletes go on.
    DiskFull = 304, true;
    /// Appended, and then the leadership was lost. Perhaps stored. Send again with the same sequence number.
    Unconfirmed = 305, true;
    /// More was published than the broker granted.
    CreditExceeded = 306, false;
    /// No such consumer on this connection.
    NoSuchConsumer = 400, false;
    /// The delivery was made in an older epoch, or was already settled or returned. Not done; it will come again if it is unsettled.
    Stale = 401, false;
    /// The settle was appended, and then the leadership was lost. Perhaps settled.
    Unsettled = 402, true;
    /// This broker does not lead the queue; `leader` says who does, if known.
    NotLeader = 500, true;
    /// Fewer than min_isr in-sync replicas.
    NotEnoughReplicas = 501, true;
    /// The coordinator cannot be reached, and this needs it.
    CoordinatorUnavailable = 502, true;
    /// The queue stopped itself; the message says why (promise G12).
    QueueStopped = 503, false;
    /// It took longer than its deadline; it may still be done.
    TimedOut = 504, true;
    /// No such setting, or none that can be changed while brokers run, or a value that it cannot have; the message says which.
    SettingRefused = 620, false;
    /// A defect of the broker. Please report it.
    Internal = 599, true;
    /// An order to lead: something is not any more as it was shown. Look again.
    Changed = 600, false;
    /// An order to lead: the leader, or an in-sync copy that was given up, can be used after all. With it nothing is lost.
    InSyncCopyLives = 601, false;
    /// An order to lead: the copy of this broker cannot lead; the message says why.
    CopyUnusable = 602, false;
    /// An order to lead: the queue needs none.
    NothingToRecover = 603, false;
    /// This port speaks TLS, and what arrived is not TLS. The connection is closed.
    TlsExpected = 610, false;
    /// What arrived is TLS, and this port does not speak TLS. The connection is closed.
    TlsUnexpected = 611, false;
    /// The certificate is not the one of whoever speaks. The connection is closed.
    WrongCertificate = 612, false;
}

impl ErrorBody {
    /// An error that says "not done".
    #[must_use]
    pub fn not_done(code: ErrorCode, message: impl Into<String>) -> ErrorBody {
        ErrorBody { code, outcome: Outcome::NotDone, message: message.into(), leader: None }
    }

    /// An error that says "nobody knows".
    #[must_use]
    pub fn unknown(code: ErrorCode, message: impl Into<String>) -> ErrorBody {
        ErrorBody { code, outcome: Outcome::Unknown, message: message.into(), leader: None }
    }
}

/// Offsets and words for a broken invariant; a queue stops with it (promise G12).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at offset {at}")]
pub struct BrokenInvariant {
    /// What was found.
    pub what: String,
    /// Where.
    pub at: Offset,
}
