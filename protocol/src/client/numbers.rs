//! How many things there are in the cluster, of what is limited in number.

use bytes::BytesMut;

use crate::frame::FrameError;
use crate::wire::{Reader, Wire, put_uint, wire_struct};

/// How many there are of something, and how many are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// Of what.
    pub of: NumberOf,
    /// So many are there, as the broker that answers sees it.
    pub used: u64,
    /// So many that broker allows.
    pub most: u64,
}

/// What is limited in number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NumberOf {
    /// Queues of all virtual hosts.
    Queues,
    /// Deleted queues that the disk of a broker may still hold.
    DeletedQueues,
    /// Exchanges of all virtual hosts.
    Exchanges,
    /// Bindings of all virtual hosts.
    Bindings,
    /// Bindings of one queue.
    BindingsOfQueue,
    /// Something of a later version.
    Other(u64),
}

impl NumberOf {
    /// In words.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            NumberOf::Queues => "queues",
            NumberOf::DeletedQueues => "deleted queues",
            NumberOf::Exchanges => "exchanges",
            NumberOf::Bindings => "bindings",
            NumberOf::BindingsOfQueue => "bindings of one queue",
            NumberOf::Other(_) => "things that this version does not know",
        }
    }

    /// The setting that limits it.
    #[must_use]
    pub fn setting(self) -> &'static str {
        match self {
            NumberOf::Queues => "queues-max",
            NumberOf::DeletedQueues => "deleted-queues-max",
            NumberOf::Exchanges => "exchanges-max",
            NumberOf::Bindings => "bindings-max",
            NumberOf::BindingsOfQueue => "bindings-per-queue-max",
            NumberOf::Other(_) => "a setting of a later version",
        }
    }
}

wire_struct!(Number { of, used, most });

impl Wire for NumberOf {
    fn put(&self, out: &mut BytesMut) {
        put_uint(
            out,
            match self {
                NumberOf::Queues => 1,
                NumberOf::DeletedQueues => 2,
                NumberOf::Exchanges => 3,
                NumberOf::Bindings => 4,
                NumberOf::BindingsOfQueue => 5,
                NumberOf::Other(number) => *number,
            },
        );
    }

    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        Ok(match u64::take(reader)? {
            1 => NumberOf::Queues,
            2 => NumberOf::DeletedQueues,
            3 => NumberOf::Exchanges,
            4 => NumberOf::Bindings,
            5 => NumberOf::BindingsOfQueue,
            number => NumberOf::Other(number),
        })
    }
}
