//! Names that users choose. Checked once, where they come in; after that the type is the proof.

use std::fmt;
use std::sync::Arc;

/// Longest name, in bytes of UTF-8, as in AMQP 0-9-1.
pub const NAME_BYTES_MAX: usize = 255;

/// A name that was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing but the default exchange and a routing key may be empty.
    #[error("a {what} may not be empty; give it 1 to {NAME_BYTES_MAX} bytes of UTF-8")]
    Empty {
        /// What was named.
        what: &'static str,
    },
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("a {what} of {bytes} bytes is too long; {NAME_BYTES_MAX} bytes of UTF-8 are allowed")]
    TooLong {
        /// What was named.
        what: &'static str,
        /// How long it was.
        bytes: usize,
    },
    /// Control characters would make logs and tables lie.
    #[error("a {what} may not contain control characters; {name:?} does")]
    ControlCharacter {
        /// What was named.
        what: &'static str,
        /// The name as it was given.
        name: String,
    },
}

fn check(what: &'static str, name: &str, may_be_empty: bool) -> Result<(), InvalidName> {
    if name.is_empty() && !may_be_empty {
        return Err(InvalidName::Empty { what });
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(InvalidName::TooLong { what, bytes: name.len() });
    }
    if name.chars().any(char::is_control) {
        return Err(InvalidName::ControlCharacter { what, name: name.to_owned() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, may_be_empty: $empty:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `name` and takes it.
            ///
            /// # Errors
            /// [`InvalidName`] says what is wrong with it and what is allowed.
            pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
                check($what, name.as_ref(), $empty)?;
                Ok(Self(Arc::from(name.as_ref())))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidName;
            fn try_from(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(name: String) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;
            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name!(
    /// A name space for queues and exchanges; `/` unless another is named.
    VirtualHost, "virtual host name", may_be_empty: false
);
name!(
    /// A queue's name, unique in its virtual host.
    QueueName, "queue name", may_be_empty: false
);
name!(
    /// An exchange's name, unique in its virtual host. The empty name is the default exchange,
    /// to which every queue is bound by its own name.
    ExchangeName, "exchange name", may_be_empty: true
);
name!(
    /// What an exchange routes by.
    RoutingKey, "routing key", may_be_empty: true
);
name!(
    /// A producer's name: with a sequence number it makes a retry safe.
    ProducerName, "producer name", may_be_empty: false
);
name!(
    /// The name by which somebody logs in.
    UserName, "user name", may_be_empty: false
);

impl Default for VirtualHost {
    fn default() -> Self {
        Self(Arc::from("/"))
    }
}

impl Default for ExchangeName {
    fn default() -> Self {
        Self(Arc::from(""))
    }
}

impl ExchangeName {
    /// Whether this is the default exchange.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.0.is_empty()
    }
}
