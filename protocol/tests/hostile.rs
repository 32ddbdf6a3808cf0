//! Whatever arrives, the decoder answers with a frame or a clear error: it never panics, and it never
//! makes room for more than has arrived.

mod samples;

use bellwether_protocol::client::{BrokerFrame, ClientFrame};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::frame::{HANDSHAKE_FRAME_BYTES_MAX, Problem};
use bellwether_protocol::message::{HEADERS_BYTES_MAX, MessageBlock};
use bellwether_protocol::peer::PeerFrame;
use bellwether_protocol::{CodecError, Frame, FrameCodec, FrameError, Limits, negotiate};
use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed};
use tokio_util::codec::Decoder;

fn fixed() -> Config {
    Config {
        cases: 20_000,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(0xbad),
        failure_persistence: None,
        ..Config::default()
    }
}

fn body(frame: &impl Frame) -> Bytes {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.freeze().slice(4..)
}

fn all_bodies() -> Vec<Bytes> {
    let mut bodies: Vec<Bytes> = samples::client_frames().iter().map(|(_, f)| body(f)).collect();
    bodies.extend(samples::broker_frames().iter().map(|(_, f)| body(f)));
    bodies.extend(samples::peer_frames().iter().map(|(_, f)| body(f)));
    bodies
}

/// All three, since anything may arrive anywhere. Panics are what this looks for.
fn read(bytes: &Bytes) -> [bool; 3] {
    [
        ClientFrame::decode(bytes.clone(), &Limits::CLIENT).is_ok(),
        BrokerFrame::decode(bytes.clone(), &Limits::CLIENT).is_ok(),
        PeerFrame::decode(bytes.clone(), &Limits::PEER).is_ok(),
    ]
}

proptest! {
    #![proptest_config(fixed())]

    #[test]
    fn arbitrary_bytes_are_a_frame_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read(&Bytes::from(bytes));
    }

    /// Closer to the target than random bytes: a real frame with a few bytes changed.
    #[test]
    fn a_frame_with_bytes_changed_is_a_frame_or_an_error(
        which in 0..1000_usize, changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6),
    ) {
        let bodies = all_bodies();
        let mut bytes = bodies[which % bodies.len()].to_vec();
        for (at, byte) in changes {
            let at = at as usize % bytes.len();
            bytes[at] = byte;
        }
        read(&Bytes::from(bytes));
    }

    #[test]
    fn arbitrary_pieces_never_confuse_the_codec(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20)) {
        let mut codec = FrameCodec::<ClientFrame>::new(Limits::HANDSHAKE);
        let mut arrived = BytesMut::new();
        'connection: for piece in pieces {
            arrived.extend_from_slice(&piece);
            loop {
                match codec.decode(&mut arrived) {
                    Ok(None) => break,
                    Ok(Some(_)) => {}
                    Err(_) => break 'connection,
                }
            }
        }
    }
}

#[test]
fn every_truncated_frame_is_an_error() {
    for frame in all_bodies() {
        for end in 0..frame.len() {
            assert_eq!(read(&frame.slice(..end)), [false; 3], "{end} bytes of {frame:x}");
        }
    }
}

#[test]
fn a_frame_arrives_byte_by_byte() {
    let (_, frame) = samples::client_frames().swap_remove(1);
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    let mut codec = FrameCodec::<ClientFrame>::new(Limits::CLIENT);
    let mut arrived = BytesMut::new();
    let (last, others) = out.split_last().unwrap();
    for byte in others {
        arrived.put_u8(*byte);
        assert!(codec.decode(&mut arrived).unwrap().is_none());
    }
    arrived.put_u8(*last);
    assert_eq!(codec.decode(&mut arrived).unwrap(), Some(frame));
}

/// Sixteen MiB announced, ten bytes sent, a thousand connections: that must not be sixteen GiB.
#[test]
fn an_announced_length_makes_no_room_by_itself() {
    let mut codec = FrameCodec::<ClientFrame>::new(Limits::CLIENT);
    let mut arrived = BytesMut::new();
    arrived.put_u32(16 * 1024 * 1024);
    arrived.put_slice(&[0x96; 10]);
    assert!(codec.decode(&mut arrived).unwrap().is_none());
    assert!(arrived.capacity() <= 64 * 1024, "{} bytes of room", arrived.capacity());
}

#[test]
fn a_frame_over_the_limit_is_refused_before_it_arrives() {
    let mut codec = FrameCodec::<ClientFrame>::new(Limits::HANDSHAKE);
    let mut arrived = BytesMut::new();
    arrived.put_u32(HANDSHAKE_FRAME_BYTES_MAX as u32 + 1);
    let error = codec.decode(&mut arrived).unwrap_err();
    let CodecError::Frame(error @ FrameError::TooLarge { .. }) = error else { panic!("{error}") };
    assert_eq!(ErrorBody::from(error).code, ErrorCode::FrameTooLarge);

    codec.set_limits(Limits::CLIENT);
    assert!(codec.decode(&mut arrived).unwrap().is_none(), "allowed after the handshake");
}

#[test]
fn a_huge_count_is_refused_by_what_is_there() {
    // A Settle with four thousand million ranges, in twelve bytes.
    let settle = [0x96, 4, 1, 3, 4, 1, 0xdd, 0xff, 0xff, 0xff, 0xff, 0x92];
    let error = ClientFrame::decode(Bytes::copy_from_slice(&settle), &Limits::CLIENT).unwrap_err();
    let expected = Problem::Truncated { need: 0xffff_ffff, have: 1 };
    assert_eq!(error, FrameError::Field { place: "Settle.ranges", problem: expected });

    // As many messages as there are bytes: each takes four at least.
    let mut publish = vec![0x97, 3, 1, 1, 0xc2, 0xa0, 0xa0, 0xdd, 0, 0, 1, 0];
    publish.extend([0xc0; 256]);
    let error = ClientFrame::decode(Bytes::from(publish), &Limits::CLIENT).unwrap_err();
    let expected = Problem::Truncated { need: 1024, have: 256 };
    assert_eq!(error, FrameError::Field { place: "Publish.messages", problem: expected });
}

#[test]
fn more_ranges_than_allowed_are_refused() {
    let mut settle = vec![0x96, 4, 1, 3, 4, 1, 0xdd, 0, 0, 0x80, 0];
    for range in 0..0x8000_u32 {
        settle.extend([0x92, 0xce]);
        settle.extend((2 * range).to_be_bytes());
        settle.push(0xce);
        settle.extend((2 * range + 1).to_be_bytes());
    }
    let error = ClientFrame::decode(Bytes::from(settle), &Limits::CLIENT).unwrap_err();
    let problem = Problem::Limit { what: "ranges", value: 0x8000, max: 10_000 };
    assert_eq!(error, FrameError::Field { place: "Settle.ranges", problem });
}

#[test]
fn deep_nesting_is_refused_wherever_it_stands() {
    // Where unknown fields are skipped.
    let mut heartbeat = vec![0x92, 5];
    heartbeat.extend([0x91; 100_000]);
    heartbeat.push(0xc0);
    let error = ClientFrame::decode(Bytes::from(heartbeat), &Limits::CLIENT).unwrap_err();
    let problem = Problem::TooDeep { depth_max: 16 };
    assert_eq!(error, FrameError::Field { place: "an unknown field", problem });

    // In headers.
    let mut message = vec![0x92];
    message.extend([0x81, 0xa1, b'h'].repeat(50_000));
    message.extend([0xc0, 0xc4, 0x00]);
    let error = MessageBlock::validate(Bytes::from(message), 1).unwrap_err();
    let problem = Problem::TooDeep { depth_max: 8 };
    assert_eq!(error, FrameError::Field { place: "a message's headers", problem });
}

#[test]
fn headers_are_a_map_of_strings_to_values() {
    let message = |headers: &[u8]| {
        let mut message = vec![0x92];
        message.extend(headers);
        message.extend([0xc4, 0x00]);
        MessageBlock::validate(Bytes::from(message), 1)
    };
    message(&[0xc0]).unwrap();
    message(&[0x80]).unwrap();
    message(&[0x81, 0xa1, b'h', 0x93, 0xc0, 0xc3, 0xff]).unwrap();
    message(&[0x91, 0xc0]).expect_err("a list");
    message(&[0x81, 0x01, 0x01]).expect_err("a number for a name");
    message(&[0x81, 0xa1, 0xff, 0x01]).expect_err("a name that is not UTF-8");
    message(&[0x81, 0xa1, b'h', 0xa1, 0xff]).expect_err("a text that is not UTF-8");
    message(&[0x81, 0xa1, b'h', 0xd4, 0x01, 0x00]).expect_err("an extension");

    let mut large = vec![0x81, 0xa1, b'h', 0xc6];
    large.extend((HEADERS_BYTES_MAX as u32).to_be_bytes());
    large.extend(vec![0; HEADERS_BYTES_MAX]);
    message(&large).expect_err("more headers than allowed");
}

#[test]
fn fields_of_a_later_version_are_skipped() {
    // These leave fields out that this version knows; the same frames with them are among the others.
    let whole = |name: &str| !matches!(name, "Hello" | "Welcome" | "PublishCredit");
    for (name, frame) in samples::client_frames().into_iter().filter(|(name, _)| whole(name)) {
        let later = with_another_field(&body(&frame));
        assert_eq!(ClientFrame::decode(later, &Limits::CLIENT), Ok(frame), "{name}");
    }
    for (name, frame) in samples::broker_frames().into_iter().filter(|(name, _)| whole(name)) {
        let later = with_another_field(&body(&frame));
        assert_eq!(BrokerFrame::decode(later, &Limits::CLIENT), Ok(frame), "{name}");
    }
    for (name, frame) in samples::peer_frames().into_iter().filter(|(name, _)| *name != "Positions")
    {
        let later = with_another_field(&body(&frame));
        assert_eq!(PeerFrame::decode(later, &Limits::PEER), Ok(frame), "{name}");
    }
}

/// Adds `{"new": [1, 2.0, ext]}` at the end of the frame's array.
fn with_another_field(frame: &Bytes) -> Bytes {
    let mut later = BytesMut::from(&frame[..]);
    assert!((0x90..0x9f).contains(&later[0]), "a short array");
    later[0] += 1;
    later.put_slice(&[0x81, 0xa3, b'n', b'e', b'w', 0x93, 0x01, 0xca, 0x40, 0, 0, 0, 0xd4, 1, 1]);
    later.freeze()
}

#[test]
fn a_message_may_carry_fields_of_a_later_version() {
    let bytes =
        Bytes::from_static(&[0x93, 0xc0, 0xc4, 0x01, b'x', 0x91, 0x07, 0x92, 0xc0, 0xc4, 0]);
    let block = MessageBlock::validate(bytes, 2).unwrap();
    assert_eq!(block.iter().next().unwrap().body, "x");
    assert_eq!(block.slice(1, 1).iter().next().unwrap().body, "");
}

#[test]
fn an_unknown_kind_is_named() {
    let frame = Bytes::from_static(&[0x91, 31]);
    let error = ClientFrame::decode(frame, &Limits::CLIENT).unwrap_err();
    assert_eq!(error.to_string(), "client frame 31 is not known to this version");
    assert_eq!(error.code(), ErrorCode::MalformedFrame);
}

#[test]
fn a_frame_that_goes_the_wrong_way_is_an_error() {
    for (name, frame) in samples::broker_frames() {
        assert!(ClientFrame::decode(body(&frame), &Limits::CLIENT).is_err(), "{name}");
    }
}

/// The connection of a client that made one mistake in one request lives on.
#[test]
fn a_request_that_cannot_be_read_is_answered_by_its_id() {
    let unreadable = |request: &[u8]| {
        let mut frame = vec![0x93, 2, 7];
        frame.extend(request);
        match ClientFrame::decode(Bytes::from(frame), &Limits::CLIENT) {
            Ok(ClientFrame::UnreadableRequest { id, error }) => {
                assert_eq!(id.0, 7);
                error
            }
            other => panic!("{other:?}"),
        }
    };
    let empty_name = unreadable(&[0x92, 6, 0xa0]);
    assert_eq!(empty_name.code, ErrorCode::InvalidName);
    assert!(empty_name.message.contains("PurgeQueue.queue"), "{}", empty_name.message);
    let unknown = unreadable(&[0x91, 99]);
    assert_eq!(unknown.message, "request 99 is not known to this version");
    unreadable(&[0xc0]);
}

#[test]
fn the_highest_common_version_is_chosen() {
    assert_eq!(negotiate(1..=3, 2..=5), Ok(3));
    assert_eq!(negotiate(1..=9, 1..=1), Ok(1));
    let from_the_future = negotiate(7..=9, 1..=2).unwrap_err();
    assert_eq!(from_the_future.code, ErrorCode::UnsupportedVersion);
    assert!(from_the_future.message.contains("7 to 9"), "{}", from_the_future.message);
    assert!(negotiate(1..=1, 2..=2).is_err());
    #[allow(clippy::reversed_empty_ranges, reason = "a hello can say so")]
    let nonsense = negotiate(5..=1, 1..=2);
    assert!(nonsense.is_err());
}

#[test]
fn a_message_over_the_limit_is_named_with_both_sizes() {
    let block = MessageBlock::from_messages([
        (None, Bytes::from(vec![0; 60])),
        (None, Bytes::from(vec![0; 101])),
    ]);
    assert_eq!(block.check_sizes(101), Ok(()));
    let error = block.check_sizes(100).unwrap_err();
    assert_eq!(error.code, ErrorCode::MessageTooLarge);
    assert_eq!(error.message, "a message of 101 bytes is over the limit of 100 bytes");
}
