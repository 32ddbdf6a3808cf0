//! What one side writes the other reads, whatever the values.

use bellwether_protocol::client::*;
use bellwether_protocol::error::{BrokerAddress, ErrorBody, ErrorCode, Outcome};
use bellwether_protocol::headers::{HeaderValue, Headers};
use bellwether_protocol::ids::*;
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::*;
use bellwether_protocol::peer::*;
use bellwether_protocol::{Frame, Limits};
use bytes::{Buf, Bytes, BytesMut};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed};
use uuid::Uuid;

/// Fixed seed: a failure here is the same everywhere.
fn fixed() -> Config {
    Config {
        cases: 512,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(0xbe11),
        failure_persistence: None,
        ..Config::default()
    }
}

fn position() -> impl Strategy<Value = u64> {
    prop_oneof![0..300_u64, 0..=i64::MAX as u64]
}

fn seq() -> impl Strategy<Value = Seq> {
    prop_oneof![1..300_u64, 1..=i64::MAX as u64].prop_map(Seq)
}

fn offset() -> impl Strategy<Value = Offset> {
    position().prop_map(Offset)
}

fn epoch() -> impl Strategy<Value = Epoch> {
    position().prop_map(Epoch)
}

fn named<T: TryFrom<String> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[a-zA-Zäß日/ .#-]{1,60}".prop_filter_map("a name", |name| T::try_from(name).ok())
}

fn queue() -> impl Strategy<Value = QueueId> {
    any::<u128>().prop_map(|id| QueueId(Uuid::from_u128(id)))
}

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn error() -> impl Strategy<Value = ErrorBody> {
    (any::<u16>(), any::<bool>(), ".{0,400}", option::of((any::<u32>(), ".{0,40}"))).prop_map(
        |(code, unknown, message, leader)| ErrorBody {
            code: ErrorCode::from_number(code),
            outcome: if unknown { Outcome::Unknown } else { Outcome::NotDone },
            message,
            leader: leader
                .map(|(broker, address)| BrokerAddress { broker: BrokerId(broker), address }),
        },
    )
}

fn header_value() -> impl Strategy<Value = HeaderValue> {
    let scalar = prop_oneof![
        Just(HeaderValue::Nil),
        any::<bool>().prop_map(HeaderValue::Bool),
        any::<u64>().prop_map(HeaderValue::UInt),
        (i64::MIN..0).prop_map(HeaderValue::Int),
        (-1e300..1e300).prop_map(HeaderValue::Float),
        ".{0,80}".prop_map(HeaderValue::Text),
        bytes(40).prop_map(HeaderValue::Binary),
    ];
    scalar.prop_recursive(4, 24, 5, |value| {
        prop_oneof![
            vec(value.clone(), 0..5).prop_map(HeaderValue::List),
            btree_map(".{0,20}", value, 0..5).prop_map(HeaderValue::Map),
        ]
    })
}

fn headers() -> impl Strategy<Value = Headers> {
    btree_map("[a-z.-]{0,40}", header_value(), 0..20).prop_map(Headers)
}

fn messages() -> impl Strategy<Value = MessageBlock> {
    let message = (option::weighted(0.3, headers()), bytes(400))
        .prop_map(|(headers, body)| (headers.map(|headers| headers.encode().unwrap()), body));
    vec(message, 1..40).prop_map(MessageBlock::from_messages)
}

fn ranges() -> impl Strategy<Value = Vec<OffsetRange>> {
    vec((0..1_000_u64, 1..1_000_u64), 1..50).prop_map(|gaps_and_counts| {
        let mut at = 0;
        let range = |(gap, count)| {
            let first = at + gap;
            at = first + count;
            OffsetRange::new(Offset(first), Offset(at))
        };
        gaps_and_counts.into_iter().map(range).collect()
    })
}

fn login() -> impl Strategy<Value = Option<LoginStart>> {
    let start = ("[A-Z0-9-]{1,20}", any::<Vec<u8>>()).prop_map(|(mechanism, data)| LoginStart {
        mechanism,
        initial_response: LoginData(data.into()),
    });
    proptest::option::of(start)
}

fn client_frame() -> impl Strategy<Value = ClientFrame> {
    let consumer = any::<u32>().prop_map(ConsumerHandle);
    let producer = any::<u32>().prop_map(ProducerHandle);
    prop_oneof![
        (any::<u16>(), any::<u16>(), ".{0,60}", any::<u32>(), named(), login()).prop_map(
            |(version_min, version_max, client_name, heartbeat_ms, virtual_host, login)| {
                ClientFrame::Hello(Hello {
                    version_min,
                    version_max,
                    client_name,
                    heartbeat_ms,
                    virtual_host,
                    login,
                })
            }
        ),
        any::<Vec<u8>>().prop_map(|data| ClientFrame::Authenticate(LoginData(data.into()))),
        (producer, seq(), any::<bool>(), named(), named(), messages()).prop_map(
            |(producer, first, resent, exchange, routing_key, messages)| {
                ClientFrame::Publish(Publish {
                    producer,
                    first,
                    resent,
                    exchange,
                    routing_key,
                    messages,
                })
            }
        ),
        (consumer, any::<u64>(), epoch(), 0..3, ranges()).prop_map(
            |(consumer, number, epoch, settlement, ranges)| {
                let settlement =
                    [Settlement::Ack, Settlement::Reject, Settlement::Return][settlement as usize];
                ClientFrame::Settle(Settle { consumer, number, epoch, settlement, ranges })
            }
        ),
        (any::<u64>(), named(), any::<u8>(), option::of(any::<u8>()), any::<bool>()).prop_map(
            |(id, queue, replicas, min_isr, strict)| {
                let options = QueueOptions { replicas, min_isr, strict, class: QueueClass::Vital };
                let request = Request::DeclareQueue { queue, options };
                ClientFrame::Request { id: RequestId(id), request }
            }
        ),
    ]
}

fn broker_frame() -> impl Strategy<Value = BrokerFrame> {
    let seq_range = (1..1_u64 << 40, 0..1_u64 << 20)
        .prop_map(|(first, more)| SeqRange { first: Seq(first), last: Seq(first + more) });
    let run = (offset(), any::<(bool, u32, u64)>(), named(), named(), messages()).prop_map(
        |(first, (redelivered, returns, time_ms), exchange, routing_key, messages)| DeliveredRun {
            first,
            redelivered,
            returns,
            time_ms,
            exchange,
            routing_key,
            messages,
        },
    );
    prop_oneof![
        (any::<u32>(), vec(seq_range.clone(), 0..50)).prop_map(|(producer, ranges)| {
            BrokerFrame::Confirmed { producer: ProducerHandle(producer), ranges }
        }),
        (any::<u32>(), seq_range, error()).prop_map(|(producer, range, error)| {
            BrokerFrame::PublishFailed { producer: ProducerHandle(producer), range, error }
        }),
        (any::<u32>(), epoch(), vec(run, 0..5)).prop_map(|(consumer, epoch, runs)| {
            BrokerFrame::Deliver(Deliver { consumer: ConsumerHandle(consumer), epoch, runs })
        }),
        (any::<u64>(), error())
            .prop_map(|(id, error)| BrokerFrame::Failure { id: RequestId(id), error }),
        error().prop_map(BrokerFrame::Goodbye),
    ]
}

fn peer_frame() -> impl Strategy<Value = PeerFrame> {
    let run = (queue(), epoch(), offset(), bytes(2000)).prop_map(
        |(queue, epoch, high_watermark, batches)| AppendRun {
            queue,
            epoch,
            high_watermark,
            batches,
        },
    );
    let result =
        prop_oneof![Just(ForwardResult::Committed), error().prop_map(ForwardResult::Failed)];
    prop_oneof![
        vec(run, 0..10).prop_map(PeerFrame::Append),
        vec((queue(), epoch(), offset()), 0..100).prop_map(PeerFrame::Durable),
        vec((queue(), epoch(), offset()), 0..100).prop_map(PeerFrame::Committed),
        vec((any::<u64>(), result), 0..10).prop_map(PeerFrame::Forwarded),
        (any::<u64>(), queue(), option::of(named()), position(), any::<bool>(), seq(), messages())
            .prop_map(|(token, queue, producer, previous, chained, first, messages)| {
                PeerFrame::Forward(Forward {
                    token,
                    queue,
                    producer,
                    previous: Seq(previous),
                    chained,
                    first,
                    resent: !chained,
                    exchange: ExchangeName::default(),
                    routing_key: RoutingKey::new("orders").unwrap(),
                    messages,
                })
            }),
        (offset(), offset(), any::<u64>(), vec((epoch(), offset()), 0..20)).prop_map(
            |(at, high_watermark, state_bytes, epochs)| PeerFrame::SnapshotStart {
                at,
                high_watermark,
                state_bytes,
                epochs,
            }
        ),
    ]
}

fn comes_back<F: Frame + PartialEq + std::fmt::Debug>(frame: &F) -> Result<(), TestCaseError> {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    let length = out.get_u32() as usize;
    prop_assert_eq!(length, out.len());
    let back = F::decode(out.freeze(), &Limits::CLIENT);
    prop_assert_eq!(back.as_ref(), Ok(frame));
    Ok(())
}

proptest! {
    #![proptest_config(fixed())]

    #[test]
    fn a_broker_reads_what_a_client_wrote(frame in client_frame()) {
        comes_back(&frame)?;
    }

    #[test]
    fn a_client_reads_what_a_broker_wrote(frame in broker_frame()) {
        comes_back(&frame)?;
    }

    #[test]
    fn a_peer_reads_what_a_peer_wrote(frame in peer_frame()) {
        comes_back(&frame)?;
    }

    #[test]
    fn headers_come_back(headers in headers()) {
        let encoded = headers.encode().unwrap();
        prop_assert_eq!(Headers::decode(&encoded), Ok(headers));
    }

    /// A consumer gets parts of what a producer sent in one piece.
    #[test]
    fn a_slice_of_a_block_holds_the_messages_it_says(
        block in messages(), first in 0..40_u32, count in 0..40_u32,
    ) {
        let first = first.min(block.count());
        let count = count.min(block.count() - first);
        let slice = block.slice(first, count);
        let expected: Vec<_> =
            block.iter().skip(first as usize).take(count as usize).collect();
        prop_assert_eq!(slice.iter().collect::<Vec<_>>(), expected);
        let checked = MessageBlock::validate(slice.bytes().clone(), count);
        prop_assert_eq!(checked.as_ref(), Ok(&slice));
    }
}

#[test]
fn a_body_shares_the_memory_it_arrived_in() {
    let messages = MessageBlock::from_messages([(None, Bytes::from(vec![7; 1024]))]);
    let publish = Publish {
        producer: ProducerHandle(1),
        first: Seq(1),
        resent: false,
        exchange: ExchangeName::default(),
        routing_key: RoutingKey::new("orders").unwrap(),
        messages,
    };
    let mut out = BytesMut::new();
    ClientFrame::Publish(publish).encode(&mut out);
    let arrived = out.freeze();
    let inside = arrived.as_ptr_range();
    let Ok(ClientFrame::Publish(publish)) =
        ClientFrame::decode(arrived.slice(4..), &Limits::CLIENT)
    else {
        panic!("no publish")
    };
    let message = publish.messages.iter().next().unwrap();
    assert!(inside.contains(&publish.messages.bytes().as_ptr()));
    assert!(inside.contains(&message.body.as_ptr()));
}
