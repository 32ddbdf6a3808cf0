//! How frames between brokers look. Kinds are 64 and up, so that a client on the wrong port is recognised.

use bytes::{Bytes, BytesMut};

use super::{
    AppendRun, Forward, ForwardResult, NoPosition, PeerFrame, PeerHello, Position, Purpose,
    Subscription,
};
use crate::error::ErrorBody;
use crate::frame::{Frame, FrameError, Limits, Problem, decode_frame, encode_frame};
use crate::ids::{BrokerLife, Member};
use crate::wire::{
    Items, Reader, Wire, put_nil, put_struct_variant, put_variant, wire_enum, wire_struct,
};

wire_struct!(BrokerLife { broker, incarnation });
wire_struct!(Member { broker, store });
wire_struct!(PeerHello {
    version_min,
    version_max,
    cluster,
    life,
    store,
    purpose,
    ready,
    promise_ms
});
wire_struct!(Subscription { queue, epoch, member, last_epoch, log_end, number });
wire_struct!(AppendRun { queue, epoch, high_watermark, batches });
wire_struct!(Position { queue, member, seen, last_epoch, log_end });
wire_struct!(NoPosition { queue, member, stopped });
wire_struct!(Forward {
    token,
    queue,
    producer,
    previous,
    chained,
    first,
    resent,
    exchange,
    routing_key,
    messages,
});

mod kind {
    pub(super) const HELLO: u8 = 64;
    pub(super) const GOODBYE: u8 = 65;
    pub(super) const HEARTBEAT: u8 = 66;
    pub(super) const SUBSCRIBE: u8 = 67;
    pub(super) const UNSUBSCRIBE: u8 = 68;
    pub(super) const NOT_LEADING: u8 = 69;
    pub(super) const EPOCH_END: u8 = 70;
    pub(super) const SNAPSHOT_NEEDED: u8 = 71;
    pub(super) const APPEND: u8 = 72;
    pub(super) const APPEND_PART: u8 = 73;
    pub(super) const COMMITTED: u8 = 74;
    pub(super) const DURABLE: u8 = 75;
    pub(super) const PROMISE_ASK: u8 = 76;
    pub(super) const PROMISE: u8 = 77;
    pub(super) const POSITION_ASK: u8 = 78;
    pub(super) const POSITIONS: u8 = 79;
    pub(super) const STATE_CHANGED: u8 = 80;
    pub(super) const FORWARD: u8 = 81;
    pub(super) const FORWARD_PART: u8 = 82;
    pub(super) const FORWARDED: u8 = 83;
    pub(super) const SNAPSHOT_ASK: u8 = 84;
    pub(super) const SNAPSHOT_START: u8 = 85;
    pub(super) const SNAPSHOT_PART: u8 = 86;
    pub(super) const SNAPSHOT_END: u8 = 87;
}

impl Frame for PeerFrame {
    fn encode(&self, out: &mut BytesMut) {
        encode_frame(out, |out| put_frame(self, out));
    }

    fn decode(frame: Bytes, limits: &Limits) -> Result<PeerFrame, FrameError> {
        decode_frame(frame, limits, |reader| {
            let mut items = Items::begin(reader)?;
            let frame = match items.next("kind")? {
                kind @ kind::SNAPSHOT_ASK.. => take_snapshot_frame(&mut items, kind)?,
                kind => take_stream_frame(&mut items, kind)?,
            };
            items.end()?;
            Ok(frame)
        })
    }
}

fn put_frame(frame: &PeerFrame, out: &mut BytesMut) {
    match frame {
        PeerFrame::Hello(hello) => put_struct_variant(out, kind::HELLO, hello),
        PeerFrame::Goodbye(error) => put_variant(out, kind::GOODBYE, &[error]),
        PeerFrame::Heartbeat => put_variant(out, kind::HEARTBEAT, &[]),
        PeerFrame::Subscribe(subscriptions) => put_variant(out, kind::SUBSCRIBE, &[subscriptions]),
        PeerFrame::Unsubscribe(queues) => put_variant(out, kind::UNSUBSCRIBE, &[queues]),
        PeerFrame::NotLeading { queue, epoch, seen } => {
            put_variant(out, kind::NOT_LEADING, &[queue, epoch, seen]);
        }
        PeerFrame::EpochEnd { queue, epoch, last_epoch, end, number } => {
            put_variant(out, kind::EPOCH_END, &[queue, epoch, last_epoch, end, number]);
        }
        PeerFrame::SnapshotNeeded { queue, epoch } => {
            put_variant(out, kind::SNAPSHOT_NEEDED, &[queue, epoch]);
        }
        PeerFrame::Append(runs) => put_variant(out, kind::APPEND, &[runs]),
        PeerFrame::AppendPart { queue, epoch, high_watermark, last, bytes } => {
            put_variant(out, kind::APPEND_PART, &[queue, epoch, high_watermark, last, bytes]);
        }
        PeerFrame::Committed(marks) => put_variant(out, kind::COMMITTED, &[marks]),
        PeerFrame::Durable(ends) => put_variant(out, kind::DURABLE, &[ends]),
        PeerFrame::PromiseAsk { number } => put_variant(out, kind::PROMISE_ASK, &[number]),
        PeerFrame::Promise { number } => put_variant(out, kind::PROMISE, &[number]),
        PeerFrame::PositionAsk(queues) => put_variant(out, kind::POSITION_ASK, &[queues]),
        PeerFrame::Positions(positions, without) => {
            let fields: [&dyn Wire; 2] = [positions, without];
            put_variant(out, kind::POSITIONS, &fields[..if without.is_empty() { 1 } else { 2 }]);
        }
        PeerFrame::StateChanged(queues) => put_variant(out, kind::STATE_CHANGED, &[queues]),
        PeerFrame::Forward(forward) => put_struct_variant(out, kind::FORWARD, forward),
        PeerFrame::ForwardPart { last, bytes } => {
            put_variant(out, kind::FORWARD_PART, &[last, bytes]);
        }
        PeerFrame::Forwarded(results) => put_variant(out, kind::FORWARDED, &[results]),
        PeerFrame::SnapshotAsk { queue, epoch } => {
            put_variant(out, kind::SNAPSHOT_ASK, &[queue, epoch]);
        }
        PeerFrame::SnapshotStart { at, high_watermark, state_bytes, epochs } => {
            put_variant(out, kind::SNAPSHOT_START, &[at, high_watermark, state_bytes, epochs]);
        }
        PeerFrame::SnapshotPart(bytes) => put_variant(out, kind::SNAPSHOT_PART, &[bytes]),
        PeerFrame::SnapshotEnd => put_variant(out, kind::SNAPSHOT_END, &[]),
    }
}

fn take_stream_frame(items: &mut Items<'_>, kind: u8) -> Result<PeerFrame, FrameError> {
    Ok(match kind {
        kind::HELLO => PeerFrame::Hello(items.fields()?),
        kind::GOODBYE => PeerFrame::Goodbye(items.next("Goodbye.error")?),
        kind::HEARTBEAT => PeerFrame::Heartbeat,
        kind::SUBSCRIBE => PeerFrame::Subscribe(items.next("Subscribe.subscriptions")?),
        kind::UNSUBSCRIBE => PeerFrame::Unsubscribe(items.next("Unsubscribe.queues")?),
        kind::NOT_LEADING => PeerFrame::NotLeading {
            queue: items.next("NotLeading.queue")?,
            epoch: items.next("NotLeading.epoch")?,
            seen: items.next("NotLeading.seen")?,
        },
        kind::EPOCH_END => PeerFrame::EpochEnd {
            queue: items.next("EpochEnd.queue")?,
            epoch: items.next("EpochEnd.epoch")?,
            last_epoch: items.next("EpochEnd.last_epoch")?,
            end: items.next("EpochEnd.end")?,
            number: items.next("EpochEnd.number")?,
        },
        kind::SNAPSHOT_NEEDED => PeerFrame::SnapshotNeeded {
            queue: items.next("SnapshotNeeded.queue")?,
            epoch: items.next("SnapshotNeeded.epoch")?,
        },
        kind::APPEND => PeerFrame::Append(items.next("Append.runs")?),
        kind::APPEND_PART => PeerFrame::AppendPart {
            queue: items.next("AppendPart.queue")?,
            epoch: items.next("AppendPart.epoch")?,
            high_watermark: items.next("AppendPart.high_watermark")?,
            last: items.next("AppendPart.last")?,
            bytes: items.next("AppendPart.bytes")?,
        },
        kind::COMMITTED => PeerFrame::Committed(items.next("Committed.marks")?),
        kind::DURABLE => PeerFrame::Durable(items.next("Durable.ends")?),
        kind::PROMISE_ASK => PeerFrame::PromiseAsk { number: items.next("PromiseAsk.number")? },
        kind::PROMISE => PeerFrame::Promise { number: items.next("Promise.number")? },
        kind::POSITION_ASK => PeerFrame::PositionAsk(items.next("PositionAsk.queues")?),
        kind::POSITIONS => PeerFrame::Positions(
            items.next("Positions.positions")?,
            items.next_or_default("Positions.without")?,
        ),
        kind::STATE_CHANGED => PeerFrame::StateChanged(items.next("StateChanged.queues")?),
        kind::FORWARD => PeerFrame::Forward(check_forward(items.fields()?)?),
        kind::FORWARD_PART => PeerFrame::ForwardPart {
            last: items.next("ForwardPart.last")?,
            bytes: items.next("ForwardPart.bytes")?,
        },
        kind::FORWARDED => PeerFrame::Forwarded(items.next("Forwarded.results")?),
        kind => return Err(unknown(kind)),
    })
}

fn take_snapshot_frame(items: &mut Items<'_>, kind: u8) -> Result<PeerFrame, FrameError> {
    Ok(match kind {
        kind::SNAPSHOT_ASK => PeerFrame::SnapshotAsk {
            queue: items.next("SnapshotAsk.queue")?,
            epoch: items.next("SnapshotAsk.epoch")?,
        },
        kind::SNAPSHOT_START => PeerFrame::SnapshotStart {
            at: items.next("SnapshotStart.at")?,
            high_watermark: items.next("SnapshotStart.high_watermark")?,
            state_bytes: items.next("SnapshotStart.state_bytes")?,
            epochs: items.next("SnapshotStart.epochs")?,
        },
        kind::SNAPSHOT_PART => PeerFrame::SnapshotPart(items.next("SnapshotPart.bytes")?),
        kind::SNAPSHOT_END => PeerFrame::SnapshotEnd,
        kind => return Err(unknown(kind)),
    })
}

fn unknown(kind: u8) -> FrameError {
    FrameError::UnknownKind { what: "peer frame", kind: kind.into() }
}

fn check_forward(forward: Forward) -> Result<Forward, FrameError> {
    if forward.first.0 == 0 {
        let problem = Problem::NoSuch { what: "sequence number: they start at one", value: 0 };
        return Err(FrameError::Field { place: "Forward.first", problem });
    }
    Ok(forward)
}

wire_enum!(Purpose "purpose" { Stream = 1, Snapshot = 2 });

/// Nil: committed.
impl Wire for ForwardResult {
    fn put(&self, out: &mut BytesMut) {
        match self {
            ForwardResult::Committed => put_nil(out),
            ForwardResult::Failed(error) => error.put(out),
        }
    }

    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        if reader.nil() {
            return Ok(ForwardResult::Committed);
        }
        ErrorBody::take(reader).map(ForwardResult::Failed)
    }
}
