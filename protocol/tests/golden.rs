//! The bytes of every frame stand in golden.txt. A change of them is a change of the protocol: old
//! and new brokers and clients would no longer understand each other.

mod samples;

use std::collections::BTreeMap;
use std::fmt::Write;

use bellwether_protocol::client::{BrokerFrame, ClientFrame, QueueClass, QueueOptions, Request};
use bellwether_protocol::peer::PeerFrame;
use bellwether_protocol::{Frame, Limits};
use bytes::{Buf, Bytes, BytesMut};

const GOLDEN: &str = include_str!("golden.txt");

/// By direction and name; the value is hex.
fn golden() -> BTreeMap<&'static str, &'static str> {
    GOLDEN
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(": ").expect("a line of golden.txt is `direction Name: hex`"))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn bytes(hex: &str) -> Bytes {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn encoded(frame: &impl Frame) -> Bytes {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.freeze()
}

fn keeps_its_bytes<F: Frame + PartialEq + std::fmt::Debug>(
    direction: &str,
    frames: &[(&'static str, F)],
) {
    let golden = golden();
    for (name, frame) in frames {
        let line = format!("{direction} {name}");
        let now = hex(&encoded(frame));
        let Some(expected) = golden.get(line.as_str()) else {
            panic!("golden.txt lacks this line:\n{line}: {now}");
        };
        assert_eq!(*expected, now, "{line}: the bytes have changed");
        let mut arrived = bytes(expected);
        assert_eq!(arrived.get_u32() as usize, arrived.len(), "{line}: length");
        assert_eq!(F::decode(arrived, &Limits::CLIENT).as_ref(), Ok(frame), "{line}");
    }
}

#[test]
fn the_bytes_of_every_frame_stay_what_they_are() {
    keeps_its_bytes::<ClientFrame>("client", &samples::client_frames());
    keeps_its_bytes::<BrokerFrame>("broker", &samples::broker_frames());
    keeps_its_bytes::<PeerFrame>("peer", &samples::peer_frames());
    let frames = samples::client_frames().len()
        + samples::broker_frames().len()
        + samples::peer_frames().len();
    assert_eq!(golden().len(), frames, "golden.txt shows a frame of which there is no sample");
}

/// What clients of before queues had classes send.
#[test]
fn a_queue_declared_without_a_class_is_a_standard_one() {
    let mut arrived = bytes("000000109302079304a66f7264657273930302c2");
    arrived.advance(4);
    match ClientFrame::decode(arrived, &Limits::CLIENT).unwrap() {
        ClientFrame::Request { request: Request::DeclareQueue { options, .. }, .. } => {
            let class = QueueClass::Standard;
            assert_eq!(
                options,
                QueueOptions { replicas: 3, min_isr: Some(2), strict: false, class }
            );
        }
        other => panic!("{other:?}"),
    }
}

/// Every language has a MessagePack library: what it reads must be one array and nothing behind it.
#[test]
fn every_frame_is_one_array_to_any_messagepack_library() {
    for (line, hex) in golden() {
        let bytes = bytes(hex);
        let mut decoder = rmp_serde::Deserializer::new(std::io::Cursor::new(&bytes[4..]));
        let _: serde::de::IgnoredAny = serde::Deserialize::deserialize(&mut decoder).unwrap();
        assert_eq!(decoder.position() as usize, bytes.len() - 4, "{line}");
        assert!(matches!(bytes[4], 0x90..=0x9f | 0xdc | 0xdd), "{line} is no array");
    }
}
