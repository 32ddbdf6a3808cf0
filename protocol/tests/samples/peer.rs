//! What brokers send to each other.

use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::*;
use bellwether_protocol::names::*;
use bellwether_protocol::peer::*;
use bytes::Bytes;

use super::{cluster, life, member, messages, name, queue, store, unconfirmed};

pub fn peer_frames() -> Vec<(&'static str, PeerFrame)> {
    let (queue, epoch) = (queue(), Epoch(4));
    let (at, end) = (Offset(2000), Offset(2001));
    let piece = Bytes::from_static(b"batch");
    let mut frames = vec![
        (
            "Hello",
            PeerFrame::Hello(PeerHello {
                version_min: 1,
                version_max: 1,
                cluster: cluster(),
                life: life(),
                store: store(),
                purpose: Purpose::Stream,
                ready: true,
                promise_ms: 300,
            }),
        ),
        (
            "Goodbye",
            PeerFrame::Goodbye(ErrorBody::not_done(ErrorCode::NotAllowed, "another cluster")),
        ),
        ("Heartbeat", PeerFrame::Heartbeat),
        (
            "Subscribe",
            PeerFrame::Subscribe(vec![Subscription {
                queue,
                epoch,
                member: member(),
                last_epoch: Some(Epoch(3)),
                log_end: at,
                number: 6,
            }]),
        ),
        ("Unsubscribe", PeerFrame::Unsubscribe(vec![(queue, epoch)])),
        ("NotLeading", PeerFrame::NotLeading { queue, epoch, seen: Epoch(5) }),
        (
            "EpochEnd",
            PeerFrame::EpochEnd { queue, epoch, last_epoch: Some(Epoch(3)), end: at, number: 6 },
        ),
        ("SnapshotNeeded", PeerFrame::SnapshotNeeded { queue, epoch }),
        (
            "Append",
            PeerFrame::Append(vec![AppendRun {
                queue,
                epoch,
                high_watermark: at,
                batches: piece.clone(),
            }]),
        ),
        (
            "AppendPart",
            PeerFrame::AppendPart {
                queue,
                epoch,
                high_watermark: at,
                last: true,
                bytes: piece.clone(),
            },
        ),
        ("Committed", PeerFrame::Committed(vec![(queue, epoch, at)])),
        ("Durable", PeerFrame::Durable(vec![(queue, epoch, end)])),
        ("PromiseAsk", PeerFrame::PromiseAsk { number: 9 }),
        ("Promise", PeerFrame::Promise { number: 9 }),
        ("PositionAsk", PeerFrame::PositionAsk(vec![queue])),
        (
            "Positions",
            PeerFrame::Positions(
                vec![Position {
                    queue,
                    member: member(),
                    seen: epoch,
                    last_epoch: Epoch(3),
                    log_end: at,
                }],
                Vec::new(),
            ),
        ),
        (
            "PositionsWithout",
            PeerFrame::Positions(
                Vec::new(),
                vec![NoPosition { queue, member: member(), stopped: true }],
            ),
        ),
        ("StateChanged", PeerFrame::StateChanged(vec![queue])),
    ];
    frames.extend(forwards(queue));
    frames.extend(snapshots(queue, epoch));
    frames
}

fn forwards(queue: QueueId) -> Vec<(&'static str, PeerFrame)> {
    let failed = ForwardResult::Failed(unconfirmed());
    vec![
        (
            "Forward",
            PeerFrame::Forward(Forward {
                token: 11,
                queue,
                producer: Some(name("billing-1")),
                previous: Seq(0),
                chained: false,
                first: Seq(1),
                resent: false,
                exchange: ExchangeName::default(),
                routing_key: name("orders"),
                messages: messages(),
            }),
        ),
        (
            "ForwardPart",
            PeerFrame::ForwardPart { last: false, bytes: Bytes::from_static(b"piece") },
        ),
        ("Forwarded", PeerFrame::Forwarded(vec![(11, ForwardResult::Committed), (12, failed)])),
    ]
}

fn snapshots(queue: QueueId, epoch: Epoch) -> Vec<(&'static str, PeerFrame)> {
    vec![
        ("SnapshotAsk", PeerFrame::SnapshotAsk { queue, epoch }),
        (
            "SnapshotStart",
            PeerFrame::SnapshotStart {
                at: Offset(2000),
                high_watermark: Offset(2000),
                state_bytes: 5,
                epochs: vec![(Epoch(1), Offset(0)), (Epoch(3), Offset(700))],
            },
        ),
        ("SnapshotPart", PeerFrame::SnapshotPart(Bytes::from_static(b"state"))),
        ("SnapshotEnd", PeerFrame::SnapshotEnd),
    ]
}
