//! One frame of each kind, request and answer, by the name under which golden.txt and docs/protocol.md show it.

use std::sync::LazyLock;

use bellwether_protocol::client::*;
use bellwether_protocol::error::{BrokerAddress, ErrorBody, ErrorCode};
use bellwether_protocol::headers::{HeaderValue, Headers};
use bellwether_protocol::ids::*;
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::*;
use bellwether_protocol::peer::*;
use bellwether_protocol::scram::{Credentials, MECHANISM, Password};
use bytes::Bytes;
use uuid::Uuid;

pub fn name<T: std::str::FromStr<Err = InvalidName>>(text: &str) -> T {
    text.parse().unwrap()
}

fn queue() -> QueueId {
    QueueId(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff))
}

fn cluster() -> ClusterId {
    ClusterId(Uuid::from_u128(0xc0c0_c0c0_c0c0_40c0_80c0_c0c0_c0c0_c0c0))
}

fn store() -> StoreId {
    StoreId(Uuid::from_u128(0x5151_5151_5151_4151_8151_5151_5151_5151))
}

fn life() -> BrokerLife {
    BrokerLife { broker: BrokerId(1), incarnation: Incarnation(0x0123_4567_89ab_cdef) }
}

fn member() -> Member {
    Member { broker: BrokerId(2), store: store() }
}

fn address(broker: u32) -> BrokerAddress {
    BrokerAddress { broker: BrokerId(broker), address: format!("127.0.0.1:{}", 7670 + broker) }
}

fn messages() -> MessageBlock {
    let mut headers = Headers::default();
    headers.0.insert("trace".into(), HeaderValue::Text("t-1".into()));
    let headers = headers.encode().unwrap();
    MessageBlock::from_messages([
        (None, Bytes::from_static(b"hello")),
        (Some(headers), Bytes::from_static(b"world")),
    ])
}

fn not_leader() -> ErrorBody {
    ErrorBody {
        leader: Some(address(2)),
        ..ErrorBody::not_done(ErrorCode::NotLeader, "queue \"orders\" is led by broker 2")
    }
}

fn unconfirmed() -> ErrorBody {
    ErrorBody::unknown(ErrorCode::Unconfirmed, "the leader was lost")
}

fn summary() -> QueueSummary {
    QueueSummary {
        name: name("orders"),
        id: queue(),
        replicas: vec![BrokerId(1), BrokerId(2), BrokerId(3)],
        in_sync: vec![BrokerId(1), BrokerId(2)],
        min_isr: 2,
        leader: Some(BrokerId(1)),
        epoch: Epoch(4),
    }
}

fn counts() -> QueueCounts {
    QueueCounts {
        enqueued: 1000,
        ready: 10,
        delivered: 5,
        settled: 980,
        purged: 5,
        consumers: 1,
        bytes: 15_360,
        high_watermark: Offset(2000),
        log_end: Offset(2001),
    }
}

/// Derived once: on purpose that takes its time.
static CREDENTIALS: LazyLock<Credentials> = LazyLock::new(|| {
    let salted = Password::new("pencil").unwrap().salted(b"0123456789abcdef", 4096).unwrap();
    Credentials::of(&salted, b"0123456789abcdef".to_vec(), 4096)
});

fn credentials() -> Credentials {
    CREDENTIALS.clone()
}

fn permissions() -> Permissions {
    Permissions { configure: String::new(), write: "invoices".into(), read: "orders-.*".into() }
}

fn request(request: Request) -> ClientFrame {
    ClientFrame::Request { id: RequestId(7), request }
}

fn response(response: Response) -> BrokerFrame {
    BrokerFrame::Response { id: RequestId(7), response }
}

pub fn client_frames() -> Vec<(&'static str, ClientFrame)> {
    let mut frames = vec![
        (
            "Hello",
            ClientFrame::Hello(Hello {
                version_min: 1,
                version_max: 1,
                client_name: "billing".into(),
                heartbeat_ms: 10_000,
                virtual_host: VirtualHost::default(),
                login: None,
            }),
        ),
        (
            "HelloWithLogin",
            ClientFrame::Hello(Hello {
                version_min: 1,
                version_max: 1,
                client_name: "billing".into(),
                heartbeat_ms: 10_000,
                virtual_host: VirtualHost::default(),
                login: Some(LoginStart {
                    mechanism: MECHANISM.into(),
                    initial_response: LoginData::from("n,,n=user,r=rOprNGfwEbeRWgbNEkqO".to_owned()),
                }),
            }),
        ),
        (
            "Authenticate",
            ClientFrame::Authenticate(LoginData::from(
                "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
                    .to_owned(),
            )),
        ),
        (
            "Publish",
            ClientFrame::Publish(Publish {
                producer: ProducerHandle(1),
                first: Seq(1),
                resent: false,
                exchange: ExchangeName::default(),
                routing_key: name("orders"),
                messages: messages(),
            }),
        ),
        (
            "Settle",
            ClientFrame::Settle(Settle {
                consumer: ConsumerHandle(1),
                number: 3,
                epoch: Epoch(4),
                settlement: Settlement::Ack,
                ranges: vec![
                    OffsetRange::new(Offset(10), Offset(20)),
                    OffsetRange::new(Offset(21), Offset(22)),
                ],
            }),
        ),
        ("Heartbeat", ClientFrame::Heartbeat),
        ("Goodbye", ClientFrame::Goodbye),
    ];
    frames.extend(requests().into_iter().map(|(name, asked)| (name, request(asked))));
    frames
}

pub fn requests() -> Vec<(&'static str, Request)> {
    let (exchange, queue, routing_key): (ExchangeName, QueueName, RoutingKey) =
        (name("events"), name("orders"), name("order.new"));
    vec![
        (
            "DeclareExchange",
            Request::DeclareExchange { exchange: exchange.clone(), kind: ExchangeKind::Fanout },
        ),
        ("DeleteExchange", Request::DeleteExchange { exchange: exchange.clone(), if_unused: true }),
        ("ListExchanges", Request::ListExchanges),
        (
            "DeclareQueue",
            Request::DeclareQueue {
                queue: queue.clone(),
                options: QueueOptions { replicas: 3, min_isr: Some(2), strict: false },
            },
        ),
        (
            "DeleteQueue",
            Request::DeleteQueue { queue: queue.clone(), if_unused: true, if_empty: false },
        ),
        ("PurgeQueue", Request::PurgeQueue { queue: queue.clone() }),
        ("ListQueues", Request::ListQueues { after: None, limit: 100 }),
        ("DescribeQueue", Request::DescribeQueue { queue: queue.clone() }),
        (
            "Bind",
            Request::Bind {
                exchange: exchange.clone(),
                queue: queue.clone(),
                routing_key: routing_key.clone(),
            },
        ),
        ("Unbind", Request::Unbind { exchange, queue: queue.clone(), routing_key }),
        ("ListBindings", Request::ListBindings { queue: Some(queue.clone()) }),
        ("ClusterStatus", Request::ClusterStatus),
        (
            "AttachProducer",
            Request::AttachProducer {
                producer: ProducerHandle(1),
                name: Some(name("billing-1")),
                next: Seq(1),
            },
        ),
        ("DetachProducer", Request::DetachProducer { producer: ProducerHandle(1) }),
        (
            "AttachConsumer",
            Request::AttachConsumer {
                consumer: ConsumerHandle(1),
                queue,
                prefetch: 200,
                prefetch_bytes: 0,
                claim: Some(Claim {
                    queue: self::queue(),
                    epoch: Epoch(3),
                    ranges: vec![OffsetRange::new(Offset(20), Offset(22))],
                }),
            },
        ),
        ("DetachConsumer", Request::DetachConsumer { consumer: ConsumerHandle(1) }),
        ("Plan", Request::Plan),
        ("ListDefinitions", Request::ListDefinitions { after: Some(name("orders")), limit: 100 }),
        ("ListSettings", Request::ListSettings),
        (
            "ChangeSetting",
            Request::ChangeSetting { key: "heartbeat".into(), value: Some("20s".into()) },
        ),
        (
            "AddUser",
            Request::AddUser {
                user: name("billing"),
                credentials: credentials(),
                tags: vec![UserTag::Monitoring],
            },
        ),
        ("SetPassword", Request::SetPassword { user: name("billing"), credentials: credentials() }),
        ("DeleteUser", Request::DeleteUser { user: name("billing") }),
        ("ListUsers", Request::ListUsers),
        (
            "SetPermissions",
            Request::SetPermissions {
                user: name("billing"),
                virtual_host: VirtualHost::default(),
                permissions: Some(permissions()),
            },
        ),
        ("Drain", Request::Drain { broker: BrokerId(2), drain: Some(Drain::Copies) }),
        ("QueueCondition", Request::QueueCondition { queue: name("orders") }),
        ("ReplicaStatus", Request::ReplicaStatus { queue: name("orders"), count: true }),
        ("Elections", Request::Elections { queue: Some(name("orders")), limit: 20 }),
        (
            "Recover",
            Request::Recover(Recover {
                queue: name("orders"),
                version: 7,
                last_epoch: Some(Epoch(3)),
                log_end: Offset(120),
                given_up: vec![member()],
                lost: 5,
                more: true,
            }),
        ),
        ("Attention", Request::Attention { limit: 10 }),
    ]
}

pub fn responses() -> Vec<(&'static str, Response)> {
    vec![
        ("Done", Response::Done),
        (
            "Declared",
            Response::Declared {
                created: true,
                queue: summary(),
                warning: Some("2 replicas instead of 3".into()),
            },
        ),
        ("Purged", Response::Purged { messages: 300 }),
        (
            "Exchanges",
            Response::Exchanges(vec![
                (name("events"), ExchangeKind::Fanout),
                (name("orders"), ExchangeKind::Direct),
            ]),
        ),
        ("Queues", Response::Queues(vec![summary()])),
        ("Queue", Response::Queue { summary: summary(), counts: counts() }),
        (
            "Bindings",
            Response::Bindings(vec![Binding {
                exchange: name("events"),
                queue: name("orders"),
                routing_key: name("order.new"),
            }]),
        ),
        (
            "Cluster",
            Response::Cluster(ClusterStatus {
                cluster: cluster(),
                brokers: vec![BrokerStatus {
                    address: address(1),
                    incarnation: "0123456789abcdef".into(),
                    version: "0.1.0".into(),
                    leads: 12,
                    copies: 30,
                    drain: None,
                }],
                coordinator_connected: true,
                session_timeout_ms: 6000,
                queues: 30,
                queues_without_leader: 0,
                queues_under_replicated: 1,
                absent: vec![AbsentBroker {
                    broker: BrokerId(2),
                    copies: 30,
                    drain: Some(Drain::Copies),
                }],
                controller: Some(BrokerId(1)),
            }),
        ),
        (
            "Definitions",
            Response::Definitions(vec![(
                name("orders"),
                QueueOptions { replicas: 3, min_isr: Some(2), strict: false },
            )]),
        ),
        ("Settings", Response::Settings(vec![("heartbeat".into(), "20s".into())])),
        (
            "Users",
            Response::Users(vec![UserSummary {
                user: name("billing"),
                tags: vec![UserTag::Monitoring],
                permissions: vec![(VirtualHost::default(), permissions())],
            }]),
        ),
        ("ProducerAttached", Response::ProducerAttached),
        (
            "Plan",
            Response::Plan {
                moves: vec![PlannedMove {
                    virtual_host: name("/"),
                    queue: name("orders"),
                    what: Moved::Copy,
                    from: Some(BrokerId(1)),
                    to: BrokerId(4),
                }],
                more: false,
            },
        ),
        (
            "ConsumerAttached",
            Response::ConsumerAttached(ConsumerAttached {
                epoch: Epoch(4),
                queue: self::queue(),
                held: vec![OffsetRange::new(Offset(20), Offset(21))],
                settled: vec![OffsetRange::new(Offset(21), Offset(22))],
            }),
        ),
        ("Condition", Response::Condition(Box::new(condition()))),
        ("Replica", Response::Replica(Box::new(replica()))),
        (
            "Elections",
            Response::Elections(vec![ElectionReport {
                virtual_host: VirtualHost::default(),
                queue: name("orders"),
                epoch: Epoch(4),
                at_ms: 1_700_000_000_000,
                from: None,
                to: life(),
                trigger: "resigned".into(),
                why: Some("its disk failed".into()),
                took_ms: 34,
            }]),
        ),
        ("Recovered", Response::Recovered(summary())),
        (
            "Attention",
            Response::Attention(Box::new(Attention {
                broker: BrokerId(1),
                store_failed: false,
                disk_full: true,
                stopped: vec![StoppedCopy {
                    virtual_host: VirtualHost::default(),
                    queue: name("orders"),
                    why: "its log is damaged".into(),
                }],
                stopped_count: 1,
                without_leader: Troubled {
                    count: 1,
                    first: vec![(VirtualHost::default(), name("orders"))],
                },
                tainted: Troubled::default(),
                below_min_isr: Troubled::default(),
                under_replicated: Troubled::default(),
            })),
        ),
    ]
}

fn condition() -> QueueCondition {
    QueueCondition {
        queue: summary(),
        version: 7,
        fresh: true,
        leader: Some(life()),
        isr: vec![member()],
        replicas_wanted: 3,
        min_isr_wanted: 2,
        live: vec![LiveBroker { life: life(), address: "127.0.0.1:7671".into() }],
        resigned: Some(Resigned { by: life(), why: "its disk failed".into() }),
        committed: Some(CommittedNote {
            end: Offset(120),
            enqueued: 100,
            settled: 40,
            at_ms: 1_700_000_000_000,
        }),
        taint: Some(TaintNote {
            epoch: Epoch(4),
            by: life(),
            at_ms: 1_700_000_000_000,
            end: Offset(110),
            lost: 8,
            more: true,
        }),
        drained: vec![(BrokerId(2), Drain::Leaderships)],
    }
}

fn replica() -> ReplicaStatus {
    ReplicaStatus {
        broker: BrokerId(2),
        copy: Some(CopyStatus {
            member: member(),
            role: CopyRole::Serves,
            why: None,
            starved: true,
            last_epoch: Some(Epoch(4)),
            log_start: Offset(1),
            log_end: Offset(120),
            durable: Offset(119),
            high_watermark: Offset(118),
            heard_committed: Offset(118),
            enqueued: 100,
            counted: true,
            last_message_ms: Some(1_700_000_000_000),
            others: vec![CopyHealth {
                member: member(),
                in_sync: true,
                gone: true,
                durable: Some(Offset(117)),
            }],
        }),
    }
}

pub fn broker_frames() -> Vec<(&'static str, BrokerFrame)> {
    let (producer, consumer) = (ProducerHandle(1), ConsumerHandle(1));
    let mut frames = vec![
        (
            "Welcome",
            BrokerFrame::Welcome(Welcome {
                version: 1,
                cluster: cluster(),
                broker: BrokerId(1),
                heartbeat_ms: 10_000,
                frame_bytes_max: 16_842_752,
                message_bytes_max: 16_777_216,
                brokers: vec![address(1), address(2)],
                proof: None,
            }),
        ),
        (
            "WelcomeWithProof",
            BrokerFrame::Welcome(Welcome {
                version: 1,
                cluster: cluster(),
                broker: BrokerId(1),
                heartbeat_ms: 10_000,
                frame_bytes_max: 16_842_752,
                message_bytes_max: 16_777_216,
                brokers: vec![address(1)],
                proof: Some(LoginData::from(
                    "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_owned(),
                )),
            }),
        ),
        (
            "Challenge",
            BrokerFrame::Challenge(LoginData::from(
                "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
                    .to_owned(),
            )),
        ),
        ("Failure", BrokerFrame::Failure { id: RequestId(7), error: not_leader() }),
        (
            "Confirmed",
            BrokerFrame::Confirmed {
                producer,
                ranges: vec![
                    SeqRange { first: Seq(1), last: Seq(100) },
                    SeqRange { first: Seq(102), last: Seq(102) },
                ],
            },
        ),
        (
            "PublishFailed",
            BrokerFrame::PublishFailed {
                producer,
                range: SeqRange { first: Seq(101), last: Seq(101) },
                error: unconfirmed(),
            },
        ),
        (
            "PublishCredit",
            BrokerFrame::PublishCredit {
                producer,
                messages: 10_000,
                bytes: 67_108_864,
                withheld: None,
            },
        ),
        (
            "PublishCreditWithheld",
            BrokerFrame::PublishCredit {
                producer,
                messages: 10_000,
                bytes: 67_108_864,
                withheld: Some(Withheld::Memory),
            },
        ),
        (
            "Deliver",
            BrokerFrame::Deliver(Deliver {
                consumer,
                epoch: Epoch(4),
                runs: vec![DeliveredRun {
                    first: Offset(10),
                    redelivered: false,
                    returns: 0,
                    time_ms: 1_700_000_000_000,
                    exchange: ExchangeName::default(),
                    routing_key: name("orders"),
                    messages: messages(),
                }],
            }),
        ),
        ("Settled", BrokerFrame::Settled { consumer, up_to: 3 }),
        (
            "SettleFailed",
            BrokerFrame::SettleFailed {
                consumer,
                number: 4,
                error: ErrorBody::not_done(ErrorCode::Stale, "delivered in epoch 3, now 4"),
            },
        ),
        ("ConsumerClosed", BrokerFrame::ConsumerClosed { consumer, error: not_leader() }),
        ("Heartbeat", BrokerFrame::Heartbeat),
        ("Goodbye", BrokerFrame::Goodbye(ErrorBody::not_done(ErrorCode::ShuttingDown, "stopping"))),
    ];
    frames.extend(responses().into_iter().map(|(name, answer)| (name, response(answer))));
    frames
}

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
            PeerFrame::Positions(vec![Position {
                queue,
                member: member(),
                seen: epoch,
                last_epoch: Epoch(3),
                log_end: at,
            }]),
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
