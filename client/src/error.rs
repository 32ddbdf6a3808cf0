//! What each operation can answer when it did not succeed: one enum an operation, and each says whether
//! the thing asked for is certainly not done or whether nobody knows (promise G11).

use std::time::Duration;

use bellwether_protocol::error::ErrorBody;

pub use bellwether_protocol::error::{ErrorCode, Outcome};
pub use bellwether_protocol::names::InvalidName;
use bellwether_protocol::scram::InvalidPassword;

/// Why an exchange with the cluster came to nothing. What the operations' own errors are made from.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// A broker refused it for good: not done.
    Refused(ErrorBody),
    /// It was sent, and no answer came or the answer was that nobody knows.
    Unknown(String),
    /// The deadline passed, and it was certainly not done.
    TooLate { waited: Duration, last: String },
    /// The client was closed.
    Closed,
}

macro_rules! operation_error {
    (
        $(#[$doc:meta])* $name:ident {
            $($(#[$variant_doc:meta])* $variant:ident = $($code:ident)|+;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
        #[non_exhaustive]
        pub enum $name {
            $(
                $(#[$variant_doc])*
                #[error("{message}")]
                $variant {
                    /// The broker's words.
                    message: String,
                },
            )*
            /// A name that no broker would take. Not done.
            #[error(transparent)]
            InvalidName(#[from] InvalidName),
            /// A broker refused it, and will refuse it again. Not done.
            #[error("{message} (code {})", code.number())]
            Refused {
                /// The broker's code.
                code: ErrorCode,
                /// The broker's words.
                message: String,
            },
            /// No broker could do it before the deadline. Not done; try again later.
            #[error("not done within {waited:.1?}; the last obstacle: {last}")]
            Unavailable {
                /// How long it was tried.
                waited: Duration,
                /// What stood in the way last.
                last: String,
            },
            /// It was sent, and the answer was lost. It may be done or not: look before you ask again.
            #[error("it may be done or not: {message}")]
            Unknown {
                /// What happened.
                message: String,
            },
            /// The client was closed before it was done.
            #[error("the client is closed")]
            Closed,
        }

        impl $name {
            /// Whether it is certainly not done, or nobody knows.
            #[must_use]
            pub fn outcome(&self) -> Outcome {
                match self {
                    $($name::$variant { .. } => Outcome::NotDone,)*
                    $name::InvalidName(_)
                    | $name::Refused { .. }
                    | $name::Unavailable { .. }
                    | $name::Closed => Outcome::NotDone,
                    $name::Unknown { .. } => Outcome::Unknown,
                }
            }
        }

        impl From<Trouble> for $name {
            fn from(trouble: Trouble) -> Self {
                match trouble {
                    $(Trouble::Refused(ErrorBody { code: $(ErrorCode::$code)|+, message, .. }) => {
                        $name::$variant { message }
                    })*
                    Trouble::Refused(ErrorBody { code, message, .. }) => {
                        $name::Refused { code, message }
                    }
                    Trouble::Unknown(message) => $name::Unknown { message },
                    Trouble::TooLate { waited, last } => $name::Unavailable { waited, last },
                    Trouble::Closed => $name::Closed,
                }
            }
        }
    };
}

operation_error! {
    /// Why [`Client::declare`](crate::Client::declare) or [`Client::declare_exchange`](crate::Client::declare_exchange) failed.
    DeclareError {
        /// It exists with other options; the message says which differ. Not done.
        OptionsDiffer = OptionsDiffer;
        /// An option that is not allowed. Not done.
        InvalidOption = InvalidOption;
        /// Fewer live brokers than replicas asked for, and the request was strict. Not done.
        TooFewBrokers = TooFewBrokers;
        /// Reserved, such as the default exchange. Not done.
        NotAllowed = NotAllowed;
    }
}

operation_error! {
    /// Why [`Client::delete`](crate::Client::delete) or [`Client::delete_exchange`](crate::Client::delete_exchange) failed.
    DeleteError {
        /// There is none of that name. Not done.
        NotFound = NoSuchQueue | NoSuchExchange;
        /// It is still in use, and the request said "if unused" or "if empty". Not done.
        InUse = InUse;
        /// Reserved, such as the default exchange. Not done.
        NotAllowed = NotAllowed;
        /// The queue stopped itself; the message says why. Not done.
        QueueStopped = QueueStopped;
    }
}

operation_error! {
    /// Why [`Client::recover`](crate::Client::recover) failed.
    RecoverError {
        /// Something is not any more as it was shown. Not done; look again.
        Changed = Changed;
        /// The leader, or an in-sync copy, can be used after all. Not done, and with it nothing is lost.
        InSyncCopyLives = InSyncCopyLives;
        /// The copy of that broker cannot lead; the message says why. Not done.
        CopyUnusable = CopyUnusable;
        /// The queue needs no such thing. Not done.
        NothingToRecover = NothingToRecover;
        /// No queue of that name. Not done.
        NoSuchQueue = NoSuchQueue;
    }
}

operation_error! {
    /// Why [`Client::purge`](crate::Client::purge) failed.
    PurgeError {
        /// No queue of that name. Not done.
        NoSuchQueue = NoSuchQueue;
        /// The queue stopped itself; the message says why. Not done.
        QueueStopped = QueueStopped;
    }
}

operation_error! {
    /// Why [`Client::bind`](crate::Client::bind) or [`Client::unbind`](crate::Client::unbind) failed.
    BindError {
        /// No queue of that name. Not done.
        NoSuchQueue = NoSuchQueue;
        /// No exchange of that name. Not done.
        NoSuchExchange = NoSuchExchange;
        /// Reserved, such as the default exchange. Not done.
        NotAllowed = NotAllowed;
    }
}

operation_error! {
    /// Why [`Client::drain`](crate::Client::drain) failed.
    DrainError {
        /// There is no such broker. Not done.
        NoSuchBroker = InvalidOption;
    }
}

operation_error! {
    /// Why [`Client::settings`](crate::Client::settings) or [`Client::change_setting`](crate::Client::change_setting) failed.
    SettingError {
        /// No such setting, or none that can be changed while brokers run, or a value that it cannot have. Not done.
        Unsuitable = SettingRefused;
    }
}

operation_error! {
    /// Why a user was not changed: [`Client::add_user`](crate::Client::add_user) and its like.
    UserError {
        /// No user of that name. Not done.
        NoSuchUser = NoSuchUser;
        /// There is a user of that name. Not done.
        Exists = UserExists;
        /// A pattern that is none. Not done.
        InvalidPattern = InvalidOption;
        /// Only administrators may. Not done.
        AccessRefused = AccessRefused;
        /// No administrator would be left. Not done.
        LastAdministrator = NotAllowed;
    }
}

operation_error! {
    /// Why a question about the cluster was not answered: [`Client::describe`](crate::Client::describe),
    /// [`Client::queues`](crate::Client::queues) and the other lists.
    QueryError {
        /// No queue of that name.
        NoSuchQueue = NoSuchQueue;
        /// The queue stopped itself; the message says why.
        QueueStopped = QueueStopped;
    }
}

operation_error! {
    /// Why a producer could not be started.
    ProducerError {
        /// The name is in use on this connection, or a limit of it is used up.
        Limit = ConnectionLimit | BrokerLimit;
    }
}

operation_error! {
    /// Why a consumer could not be started, or why its stream has ended.
    ConsumeError {
        /// No queue of that name, or it was deleted.
        NoSuchQueue = NoSuchQueue;
        /// The queue stopped itself; the message says why (promise G12).
        QueueStopped = QueueStopped;
    }
}

/// Why [`Client::connect`](crate::Client::connect) failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The list of addresses is empty.
    #[error("no broker address was given; name at least one as host:port")]
    NoAddress,
    /// An address that is not `host:port`.
    #[error("{address:?} is not an address; write host:port")]
    InvalidAddress {
        /// What was given.
        address: String,
    },
    /// A name that no broker would take.
    #[error(transparent)]
    InvalidName(#[from] InvalidName),
    /// A password that no user can have.
    #[error(transparent)]
    InvalidPassword(#[from] InvalidPassword),
    /// A broker refused the connection, and will refuse it again: for instance no common protocol version.
    #[error("{address} refused the connection: {message} (code {})", code.number())]
    Refused {
        /// Which broker.
        address: String,
        /// Its code.
        code: ErrorCode,
        /// Its words.
        message: String,
    },
    /// Certificates or keys of this client that cannot be used. Nothing was tried.
    #[error("TLS: {message}")]
    InvalidTls {
        /// What is wrong, and with which file.
        message: String,
    },
    /// There is no secure connection: a certificate was refused, by this side or the other, or the broker does not speak TLS.
    #[error("no secure connection with {address}: {message}")]
    Insecure {
        /// Which broker.
        address: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// No broker could be reached before the deadline.
    #[error("no broker could be reached within {waited:.1?}; the last obstacle: {last}")]
    Unreachable {
        /// How long it was tried.
        waited: Duration,
        /// What stood in the way last.
        last: String,
    },
}

impl ConnectError {
    /// Always "not done".
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome::NotDone
    }
}

/// Why a message was not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The message is over the size limit, and was not sent. Not done.
    #[error("a message of {bytes} bytes is over the limit of {bytes_max} bytes; it was not sent")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// The broker's limit.
        bytes_max: usize,
    },
    /// No queue of that name. Not done.
    #[error("{message}")]
    NoSuchQueue {
        /// The broker's words.
        message: String,
    },
    /// No exchange of that name. Not done.
    #[error("{message}")]
    NoSuchExchange {
        /// The broker's words.
        message: String,
    },
    /// The broker has forgotten this producer, so that a retry can no longer be told from a new message. Not done.
    #[error("{message}; start a producer of another name")]
    Forgotten {
        /// The broker's words.
        message: String,
    },
    /// Refused for another reason. Not done.
    #[error("{message} (code {})", code.number())]
    Refused {
        /// The broker's code.
        code: ErrorCode,
        /// The broker's words.
        message: String,
    },
    /// The deadline passed, and the message was not stored. Not done.
    #[error("not stored within {waited:.1?}; the last obstacle: {last}")]
    Unavailable {
        /// How long it was tried.
        waited: Duration,
        /// What stood in the way last.
        last: String,
    },
    /// It was sent, and no confirm came before the deadline. Perhaps stored. Nobody knows.
    #[error("perhaps stored, perhaps not: {message}")]
    Unconfirmed {
        /// What happened.
        message: String,
    },
    /// The producer was closed, or has failed, before the message was sent. Not done.
    #[error("the producer is closed: {reason}")]
    Closed {
        /// Why.
        reason: String,
    },
}

impl PublishError {
    /// Whether the message is certainly not stored, or nobody knows.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            PublishError::TooLarge { .. }
            | PublishError::NoSuchQueue { .. }
            | PublishError::NoSuchExchange { .. }
            | PublishError::Forgotten { .. }
            | PublishError::Refused { .. }
            | PublishError::Unavailable { .. }
            | PublishError::Closed { .. } => Outcome::NotDone,
            PublishError::Unconfirmed { .. } => Outcome::Unknown,
        }
    }

    /// What a broker's refusal says about messages that it names.
    pub(crate) fn refused(error: &ErrorBody) -> PublishError {
        let message = error.message.clone();
        match error.code {
            ErrorCode::NoSuchQueue => PublishError::NoSuchQueue { message },
            ErrorCode::NoSuchExchange => PublishError::NoSuchExchange { message },
            ErrorCode::ProducerForgotten => PublishError::Forgotten { message },
            code => PublishError::Refused { code, message },
        }
    }
}

/// Some messages sent before a flush were not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} not confirmed; the first: {first}", if *failed == 1 { "1 message was".to_owned() } else { format!("{failed} messages were") })]
pub struct FlushError {
    /// How many since the last flush.
    pub failed: u64,
    /// The error of the first of them.
    pub first: PublishError,
}

impl FlushError {
    /// The first failure's.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.first.outcome()
    }
}

/// Why a delivery was not settled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError {
    /// The delivery was made in an older epoch or on a lost connection, or was already settled.
    /// Not done; the message comes again if it is unsettled.
    #[error("{stale} stale: {message}")]
    Stale {
        /// How many deliveries are stale. Others that were settled in the same call are settled.
        stale: u64,
        /// What happened.
        message: String,
    },
    /// It was sent, and the connection or the leadership was lost. Perhaps settled; if not, the message comes again.
    #[error("perhaps settled, perhaps not: {message}")]
    Unsettled {
        /// What happened.
        message: String,
    },
    /// The broker refused it. Not done.
    #[error("{message} (code {})", code.number())]
    Refused {
        /// The broker's code.
        code: ErrorCode,
        /// The broker's words.
        message: String,
    },
    /// No confirm came before the deadline. Perhaps settled.
    #[error("no confirm of the settle within {waited:.1?}; perhaps settled, perhaps not")]
    TimedOut {
        /// How long it was waited for.
        waited: Duration,
    },
}

impl SettleError {
    /// Whether the deliveries are certainly not settled, or nobody knows.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            SettleError::Stale { .. } | SettleError::Refused { .. } => Outcome::NotDone,
            SettleError::Unsettled { .. } | SettleError::TimedOut { .. } => Outcome::Unknown,
        }
    }

    /// What a broker's answer says about one settle frame.
    pub(crate) fn refused(error: &ErrorBody) -> SettleError {
        let message = error.message.clone();
        match (error.outcome, error.code) {
            (Outcome::Unknown, _) => SettleError::Unsettled { message },
            (Outcome::NotDone, ErrorCode::Stale) => SettleError::Stale { stale: 1, message },
            (Outcome::NotDone, code) => SettleError::Refused { code, message },
        }
    }
}
