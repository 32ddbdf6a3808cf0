//! The payload of a batch: one record as bytes. Everything is big-endian.

use std::str::FromStr;

use bellwether_protocol::ids::{BrokerId, BrokerLife, Incarnation, Offset, OffsetRange, Seq};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::{ExchangeName, NAME_BYTES_MAX, ProducerName, RoutingKey};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::record::{Enqueue, ProducerMark, Record, RecordError, RecordKind, SettleKind};

/// ```text
/// | broker: u32 | incarnation: u64 | time_ms: u64 |
/// ```
const EPOCH_START_BYTES: usize = 20;

/// ```text
/// | time_ms: u64 | first: u64 | producer_length: u8 | exchange_length: u8 | routing_key_length: u8
/// | producer | exchange | routing_key | messages: the rest |
/// ```
/// Names are UTF-8. A producer of length 0 is none, and then `first` is 0. The messages are the
/// bytes that the producing client wrote; how many there are stands in the header.
const ENQUEUE_FIXED_BYTES: usize = 19;

/// ```text
/// | kind: u8 | ranges |
/// ```
const SETTLE_FIXED_BYTES: usize = 1;

/// ```text
/// | below: u64 | ranges |
/// ```
const PURGE_FIXED_BYTES: usize = 8;

/// Ranges, which end a payload. A return is nothing but them.
/// ```text
/// | number: u32 | number × (first: u64 | end: u64) |
/// ```
const RANGES_FIXED_BYTES: usize = 4;
const RANGE_BYTES: usize = 16;

// A name's length is one byte. A longer name needs another layout, not a cut-off length.
const _: () = assert!(NAME_BYTES_MAX <= u8::MAX as usize);

/// Bytes that [`encode`] will write.
pub(crate) fn length(record: &Record) -> usize {
    match record {
        Record::EpochStart { .. } => EPOCH_START_BYTES,
        Record::Enqueue(enqueue) => {
            let producer = enqueue.producer.as_ref().map_or(0, |mark| mark.name.as_str().len());
            ENQUEUE_FIXED_BYTES
                + producer
                + enqueue.exchange.as_str().len()
                + enqueue.routing_key.as_str().len()
                + enqueue.messages.bytes().len()
        }
        Record::Settle { ranges, .. } => SETTLE_FIXED_BYTES + ranges_length(ranges),
        Record::Return { ranges } => ranges_length(ranges),
        Record::Purge { held, .. } => PURGE_FIXED_BYTES + ranges_length(held),
    }
}

fn ranges_length(ranges: &[OffsetRange]) -> usize {
    RANGES_FIXED_BYTES + ranges.len() * RANGE_BYTES
}

pub(crate) fn encode(record: &Record, out: &mut BytesMut) {
    match record {
        Record::EpochStart { leader, time_ms } => {
            out.put_u32(leader.broker.0);
            out.put_u64(leader.incarnation.0);
            out.put_u64(*time_ms);
        }
        Record::Enqueue(enqueue) => encode_enqueue(enqueue, out),
        Record::Settle { kind, ranges } => {
            out.put_u8(*kind as u8);
            encode_ranges(ranges, out);
        }
        Record::Return { ranges } => encode_ranges(ranges, out),
        Record::Purge { below, held } => {
            out.put_u64(below.0);
            encode_ranges(held, out);
        }
    }
}

fn encode_enqueue(enqueue: &Enqueue, out: &mut BytesMut) {
    let Enqueue { producer, time_ms, exchange, routing_key, messages } = enqueue;
    let (name, first) = match producer {
        Some(mark) => (mark.name.as_str(), mark.first),
        None => ("", Seq(0)),
    };
    out.put_u64(*time_ms);
    out.put_u64(first.0);
    // No name is longer than a byte can say: see the assertion above.
    out.put_u8(name.len() as u8);
    out.put_u8(exchange.as_str().len() as u8);
    out.put_u8(routing_key.as_str().len() as u8);
    out.put_slice(name.as_bytes());
    out.put_slice(exchange.as_str().as_bytes());
    out.put_slice(routing_key.as_str().as_bytes());
    out.put_slice(messages.bytes());
}

fn encode_ranges(ranges: &[OffsetRange], out: &mut BytesMut) {
    out.put_u32(ranges.len() as u32);
    for range in ranges {
        out.put_u64(range.first.0);
        out.put_u64(range.end.0);
    }
}

/// Reads the record of `kind` that takes `count` offsets.
pub(crate) fn decode(kind: RecordKind, count: u32, bytes: Bytes) -> Result<Record, RecordError> {
    let mut payload = Payload { kind, rest: bytes };
    let record = match kind {
        RecordKind::EpochStart => {
            payload.needs(EPOCH_START_BYTES)?;
            let broker = BrokerId(payload.rest.get_u32());
            let incarnation = Incarnation(payload.rest.get_u64());
            let time_ms = payload.rest.get_u64();
            Record::EpochStart { leader: BrokerLife { broker, incarnation }, time_ms }
        }
        RecordKind::Enqueue => Record::Enqueue(payload.enqueue(count)?),
        RecordKind::Settle => {
            payload.needs(SETTLE_FIXED_BYTES)?;
            let kind = match payload.rest.get_u8() {
                1 => SettleKind::Ack,
                2 => SettleKind::Reject,
                _ => return Err(payload.error("neither an ack nor a reject")),
            };
            Record::Settle { kind, ranges: payload.ranges()? }
        }
        RecordKind::Return => Record::Return { ranges: payload.ranges()? },
        RecordKind::Purge => {
            payload.needs(PURGE_FIXED_BYTES)?;
            let below = Offset(payload.rest.get_u64());
            Record::Purge { below, held: payload.ranges()? }
        }
    };
    if payload.rest.has_remaining() {
        return Err(payload.error("bytes behind its end"));
    }
    Ok(record)
}

/// What has not been read yet.
struct Payload {
    kind: RecordKind,
    rest: Bytes,
}

impl Payload {
    fn enqueue(&mut self, count: u32) -> Result<Enqueue, RecordError> {
        self.needs(ENQUEUE_FIXED_BYTES)?;
        let time_ms = self.rest.get_u64();
        let first = Seq(self.rest.get_u64());
        let [producer, exchange, routing_key] =
            [self.rest.get_u8(), self.rest.get_u8(), self.rest.get_u8()];
        let producer = match producer {
            0 if first == Seq(0) => None,
            0 => return Err(self.error("a sequence number without a producer")),
            length => {
                if first.0.checked_add(u64::from(count)).is_none() {
                    return Err(self.error("sequence numbers past the last there can be"));
                }
                let name = self.name::<ProducerName>(length, "not a producer name")?;
                Some(ProducerMark { name, first })
            }
        };
        let exchange = self.name::<ExchangeName>(exchange, "not an exchange name")?;
        let routing_key = self.name::<RoutingKey>(routing_key, "not a routing key")?;
        // Their form was checked where they came in, and the checksum says that they are still the same.
        let messages = MessageBlock::from_trusted(count, std::mem::take(&mut self.rest));
        Ok(Enqueue { producer, time_ms, exchange, routing_key, messages })
    }

    fn name<N: FromStr>(&mut self, length: u8, what: &'static str) -> Result<N, RecordError> {
        self.needs(usize::from(length))?;
        let bytes = self.rest.split_to(usize::from(length));
        let text = std::str::from_utf8(&bytes).map_err(|_| self.error(what))?;
        text.parse().map_err(|_| self.error(what))
    }

    /// Ranges to the end of the payload. How many there are is believed only if as many bytes are there.
    fn ranges(&mut self) -> Result<Vec<OffsetRange>, RecordError> {
        self.needs(RANGES_FIXED_BYTES)?;
        let number = self.rest.get_u32() as usize;
        if number.checked_mul(RANGE_BYTES) != Some(self.rest.remaining()) {
            return Err(self.error("another number of ranges than it says"));
        }
        let mut ranges = Vec::with_capacity(number);
        let mut behind = Offset(0);
        for _ in 0..number {
            let range = OffsetRange::new(Offset(self.rest.get_u64()), Offset(self.rest.get_u64()));
            if range.first < behind || range.count() == 0 {
                return Err(self.error("ranges that are empty, overlap or go back"));
            }
            behind = range.end;
            ranges.push(range);
        }
        Ok(ranges)
    }

    fn needs(&self, bytes: usize) -> Result<(), RecordError> {
        if self.rest.remaining() < bytes { Err(self.error("too short")) } else { Ok(()) }
    }

    fn error(&self, what: &'static str) -> RecordError {
        RecordError { kind: self.kind as u8, what }
    }
}
