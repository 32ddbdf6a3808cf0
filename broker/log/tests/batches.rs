//! What goes through a batch comes out the same, and nothing else is taken for one.

use bellwether_log::{
    BATCH_BYTES_MAX, Batch, BatchError, Enqueue, HEADER_BYTES, ProducerMark, Record, SettleKind,
};
use bellwether_protocol::ids::{
    BrokerId, BrokerLife, Epoch, Incarnation, Offset, OffsetRange, QueueId, Seq,
};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::{ExchangeName, ProducerName, RoutingKey};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

const QUEUE: QueueId = QueueId(uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_0011_2233_4455_6677));

/// Messages without headers, with these bodies.
fn block(bodies: &[Vec<u8>]) -> MessageBlock {
    let mut bytes = Vec::new();
    for body in bodies {
        bytes.extend([0x92, 0xc0, 0xc4, u8::try_from(body.len()).unwrap()]);
        bytes.extend(body);
    }
    MessageBlock::from_trusted(bodies.len() as u32, Bytes::from(bytes))
}

fn enqueue(producer: Option<(&str, u64)>, bodies: &[Vec<u8>]) -> Record {
    Record::Enqueue(Enqueue {
        producer: producer.map(|(name, first)| ProducerMark {
            name: ProducerName::new(name).unwrap(),
            first: Seq(first),
        }),
        time_ms: 1_700_000_000_000,
        exchange: ExchangeName::new("orders").unwrap(),
        routing_key: RoutingKey::new("eu").unwrap(),
        messages: block(bodies),
    })
}

fn ranges() -> impl Strategy<Value = Vec<OffsetRange>> {
    proptest::collection::vec((0..1000_u64, 1..1000_u64), 0..8).prop_map(|steps| {
        let mut at = 0;
        let range = |(gap, length)| {
            let first = at + gap;
            at = first + length;
            OffsetRange::new(Offset(first), Offset(at))
        };
        steps.into_iter().map(range).collect()
    })
}

fn record() -> impl Strategy<Value = Record> {
    let bodies = || proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..6);
    prop_oneof![
        (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(broker, life, time_ms)| {
            let leader = BrokerLife { broker: BrokerId(broker), incarnation: Incarnation(life) };
            Record::EpochStart { leader, time_ms }
        }),
        (proptest::option::of(("[a-zé]{1,9}", 1..u64::MAX - 9)), bodies()).prop_map(
            |(producer, bodies)| {
                enqueue(producer.as_ref().map(|(name, first)| (name.as_str(), *first)), &bodies)
            }
        ),
        (any::<bool>(), ranges()).prop_map(|(ack, ranges)| Record::Settle {
            kind: if ack { SettleKind::Ack } else { SettleKind::Reject },
            ranges
        }),
        ranges().prop_map(|ranges| Record::Return { ranges }),
        (any::<u64>(), ranges())
            .prop_map(|(below, held)| Record::Purge { below: Offset(below), held }),
    ]
}

/// Puts the right checksum on bytes that were tampered with.
fn sealed(mut bytes: Vec<u8>) -> Bytes {
    let checksum = crc32c::crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_be_bytes());
    Bytes::from(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, rng_seed: proptest::test_runner::RngSeed::Fixed(7), failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_record_comes_out_as_it_went_in(
        record in record(), epoch in any::<u64>(), base in 0..u64::MAX - 10
    ) {
        let batch = Batch::encode(QUEUE, Epoch(epoch), Offset(base), &record);
        prop_assert_eq!(batch.end().0 - base, u64::from(record.count()));
        prop_assert_eq!(Batch::length(batch.bytes()), Some(batch.bytes().len()));

        let mut stream = BytesMut::from(&batch.bytes()[..]);
        stream.extend_from_slice(b"next");
        let mut stream = stream.freeze();
        let decoded = Batch::decode(&mut stream).unwrap();
        prop_assert_eq!(&stream[..], b"next");
        prop_assert_eq!(&decoded, &batch);
        prop_assert_eq!(decoded.record().unwrap(), record);
    }

    #[test]
    fn a_flipped_bit_is_never_believed(record in record(), at in any::<prop::sample::Index>()) {
        let batch = Batch::encode(QUEUE, Epoch(3), Offset(17), &record);
        let mut bytes = batch.bytes().to_vec();
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Batch::decode(&mut Bytes::from(bytes)).is_err());
    }

    #[test]
    fn a_torn_batch_says_what_it_lacks(record in record(), at in any::<prop::sample::Index>()) {
        let batch = Batch::encode(QUEUE, Epoch(3), Offset(17), &record);
        let have = at.index(batch.bytes().len());
        let torn = batch.bytes().slice(..have);
        let short = Err(BatchError::Short {
            need: if have < 4 { HEADER_BYTES } else { batch.bytes().len() },
            have,
        });
        let mut rest = torn.clone();
        prop_assert_eq!(Batch::decode(&mut rest), short);
        prop_assert_eq!(rest, torn);
    }

    #[test]
    fn arbitrary_bytes_are_an_error_and_not_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(Batch::decode(&mut Bytes::from(bytes)));
    }

    /// The checksum guards against accidents, not against a peer that writes nonsense under a right one.
    #[test]
    fn nonsense_under_a_right_checksum_is_an_error_and_not_a_panic(
        kind in 0..7_u8, count in 0..3_u32, payload in proptest::collection::vec(any::<u8>(), 0..120)
    ) {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend(payload);
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bytes[8] = 1;
        bytes[9] = kind;
        bytes[44..48].copy_from_slice(&count.to_be_bytes());
        if let Ok(batch) = Batch::decode(&mut sealed(bytes)) {
            drop(batch.record());
        }
    }

    #[test]
    fn a_part_holds_the_same_messages_at_the_same_offsets(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 1..9),
        from in any::<prop::sample::Index>(), length in any::<prop::sample::Index>(),
    ) {
        let whole = Batch::encode(QUEUE, Epoch(2), Offset(100), &enqueue(Some(("p", 40)), &bodies));
        let from = from.index(bodies.len());
        let length = 1 + length.index(bodies.len() - from);
        let first = Offset(100 + from as u64);
        let part = whole.part(OffsetRange::new(first, first.plus(length as u64))).unwrap();
        let expected = enqueue(Some(("p", 40 + from as u64)), &bodies[from..from + length]);
        prop_assert_eq!(part, Batch::encode(QUEUE, Epoch(2), first, &expected));
    }
}

#[test]
fn only_an_enqueue_has_parts_and_only_those_it_holds() {
    let range = |first, end| OffsetRange::new(Offset(first), Offset(end));
    let enqueue = Batch::encode(QUEUE, Epoch(1), Offset(5), &enqueue(None, &[vec![], vec![1]]));
    for missing in [range(4, 6), range(6, 8), range(6, 6), range(7, 6)] {
        assert!(enqueue.part(missing).is_err(), "{missing:?}");
    }
    let record = Record::Return { ranges: vec![range(0, 3)] };
    assert!(Batch::encode(QUEUE, Epoch(1), Offset(5), &record).part(range(5, 6)).is_err());
}

#[test]
fn messages_are_not_copied_when_a_batch_is_decoded() {
    let mut bytes =
        Batch::encode(QUEUE, Epoch(1), Offset(0), &enqueue(None, &[vec![7; 100]])).bytes().clone();
    let within = bytes.as_ptr_range();
    let Record::Enqueue(decoded) = Batch::decode(&mut bytes).unwrap().record().unwrap() else {
        panic!("an enqueue went in");
    };
    assert!(within.contains(&decoded.messages.bytes().as_ptr()));
}

#[test]
fn a_length_over_the_limit_is_refused_before_anything_is_waited_for() {
    for length in [0, HEADER_BYTES - 1, BATCH_BYTES_MAX + 1, u32::MAX as usize] {
        let mut bytes = Bytes::from((length as u32).to_be_bytes().to_vec());
        assert_eq!(Batch::decode(&mut bytes), Err(BatchError::Length(length)));
    }
}

/// The bytes on every disk and between all versions. They change only with the batch version.
#[test]
fn the_layout_is_the_one_that_is_drawn() {
    let range = |first, end| OffsetRange::new(Offset(first), Offset(end));
    let record = Record::Settle { kind: SettleKind::Ack, ranges: vec![range(1, 3), range(9, 10)] };
    let batch = Batch::encode(QUEUE, Epoch(5), Offset(0x1122), &record);
    let header = "00000055 a3c835aa 01 03 0000 0123456789abcdef0011223344556677
                  0000000000000005 0000000000001122 00000001";
    let payload = "01 00000002 0000000000000001 0000000000000003 0000000000000009 000000000000000a";
    assert_eq!(hex(batch.bytes()), unspaced(&format!("{header}{payload}")));

    let batch =
        Batch::encode(QUEUE, Epoch(5), Offset(0x1122), &enqueue(Some(("p", 7)), &[vec![9]]));
    let payload = "0000018bcfe56800 0000000000000007 01 06 02 70 6f7264657273 6575 92c0c40109";
    assert_eq!(hex(&batch.bytes()[HEADER_BYTES..]), unspaced(payload));

    let leader = BrokerLife { broker: BrokerId(3), incarnation: Incarnation(0xfeed) };
    let batch =
        Batch::encode(QUEUE, Epoch(5), Offset(0), &Record::EpochStart { leader, time_ms: 255 });
    let payload = "00000003 000000000000feed 00000000000000ff";
    assert_eq!(hex(&batch.bytes()[HEADER_BYTES..]), unspaced(payload));

    let record = Record::Purge { below: Offset(12), held: vec![] };
    let batch = Batch::encode(QUEUE, Epoch(5), Offset(12), &record);
    assert_eq!(hex(&batch.bytes()[HEADER_BYTES..]), unspaced("000000000000000c 00000000"));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unspaced(text: &str) -> String {
    text.split_whitespace().collect()
}
