//! What crosses the simulated sockets between clients and brokers, and message bodies that say who they are.

use bellwether_log::{Batch, Record};
use bellwether_protocol::client::Settlement;
use bellwether_protocol::error::ErrorBody;
use bellwether_protocol::ids::{Epoch, Offset, OffsetRange, Seq};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::ProducerName;
use bytes::Bytes;

/// A message's identity over the whole history; its body says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// `[nil, bin8 of 8 bytes]`
const HEAD: [u8; 4] = [0x92, 0xc0, 0xc4, 8];
const MESSAGE_BYTES: usize = HEAD.len() + 8;

#[must_use]
pub fn block_of(ids: &[MessageId]) -> MessageBlock {
    let mut bytes = Vec::with_capacity(ids.len() * MESSAGE_BYTES);
    for id in ids {
        bytes.extend(HEAD);
        bytes.extend(id.0.to_be_bytes());
    }
    MessageBlock::from_trusted(ids.len() as u32, Bytes::from(bytes))
}

/// The messages of an enqueue with their offsets; nothing for another record.
#[must_use]
pub fn messages_of(batch: &Batch) -> Vec<(Offset, MessageId)> {
    let Ok(Record::Enqueue(enqueue)) = batch.record() else { return Vec::new() };
    let messages = enqueue.messages.bytes().chunks_exact(MESSAGE_BYTES);
    messages
        .enumerate()
        .map(|(index, message)| {
            let body = message[HEAD.len()..].first_chunk().expect("a body is eight bytes long");
            (batch.base().plus(index as u64), MessageId(u64::from_be_bytes(*body)))
        })
        .collect()
}

/// A client, unique in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u32);

/// What a client asks of a broker.
#[derive(Clone, Debug)]
pub enum Request {
    Publish(Publish),
    Attach {
        consumer: u64,
        prefetch: u32,
        /// What it had of an earlier leader.
        claim: Vec<OffsetRange>,
    },
    Detach {
        consumer: u64,
    },
    Settle {
        consumer: u64,
        number: u64,
        epoch: Epoch,
        settlement: Settlement,
        ranges: Vec<OffsetRange>,
    },
    Purge,
}

#[derive(Clone, Debug)]
pub struct Publish {
    pub token: u64,
    pub producer: Option<ProducerName>,
    pub previous: Seq,
    pub chained: bool,
    pub first: Seq,
    pub resent: bool,
    pub ids: Vec<MessageId>,
}

/// What a broker answers.
#[derive(Clone, Debug)]
pub enum Reply {
    Published {
        token: u64,
        result: Result<(), ErrorBody>,
    },
    Attached {
        consumer: u64,
        epoch: Epoch,
        held: Vec<OffsetRange>,
        settled: Vec<OffsetRange>,
    },
    Deliver {
        consumer: u64,
        epoch: Epoch,
        messages: Vec<(Offset, MessageId)>,
    },
    Settled {
        consumer: u64,
        number: u64,
    },
    /// The settle was not done, or nobody knows.
    SettleFailed {
        consumer: u64,
        number: u64,
        error: ErrorBody,
    },
    /// The consumer is not attached (any more).
    Closed {
        consumer: u64,
    },
    /// The connection to the broker is lost: nothing more comes of what was asked there.
    Lost,
}
