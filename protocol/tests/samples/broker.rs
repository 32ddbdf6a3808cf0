//! What brokers send to clients.

use bellwether_protocol::client::*;
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::*;
use bellwether_protocol::names::*;

use super::{
    address, cluster, credentials, life, member, messages, name, not_leader, permissions, queue,
    unconfirmed,
};

fn summary() -> QueueSummary {
    QueueSummary {
        name: name("orders"),
        id: queue(),
        replicas: vec![BrokerId(1), BrokerId(2), BrokerId(3)],
        in_sync: vec![BrokerId(1), BrokerId(2)],
        min_isr: 2,
        leader: Some(BrokerId(1)),
        epoch: Epoch(4),
        class: QueueClass::Standard,
        tainted: false,
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

fn response(response: Response) -> BrokerFrame {
    BrokerFrame::Response { id: RequestId(7), response }
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

fn responses() -> Vec<(&'static str, Response)> {
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
                tombstones: Vec::new(),
            }),
        ),
        (
            "ClusterWithTombstones",
            Response::Cluster(ClusterStatus {
                cluster: cluster(),
                brokers: Vec::new(),
                coordinator_connected: true,
                session_timeout_ms: 6000,
                queues: 30,
                queues_without_leader: 0,
                queues_under_replicated: 1,
                absent: Vec::new(),
                controller: Some(BrokerId(1)),
                tombstones: vec![(BrokerId(2), 7)],
            }),
        ),
        (
            "Definitions",
            Response::Definitions(vec![(
                name("orders"),
                QueueOptions { min_isr: Some(2), ..QueueOptions::default() },
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
        ("Credentials", Response::Credentials(vec![(name("billing"), credentials())])),
        (
            "Browsed",
            Response::Browsed(Browsed {
                queue: queue(),
                epoch: Epoch(4),
                runs: vec![DeliveredRun {
                    first: Offset(10),
                    redelivered: true,
                    returns: 2,
                    time_ms: 1_700_000_000_000,
                    exchange: ExchangeName::default(),
                    routing_key: name("orders"),
                    messages: messages(),
                }],
                next: Offset(12),
                high_watermark: Offset(2000),
            }),
        ),
        (
            "Counted",
            Response::Counted(vec![Number { of: NumberOf::Queues, used: 12, most: 100_000 }]),
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
            "Stuck",
            Response::Stuck(Stuck {
                takers: vec![BrokerId(1), BrokerId(2)],
                queues: vec![StuckQueues {
                    what: Moved::Copy,
                    missing: false,
                    copies: 3,
                    queues: Troubled { count: 12, first: vec![(name("/"), name("orders"))] },
                }],
            }),
        ),
        ("QueuesTainted", Response::Queues(vec![QueueSummary { tainted: true, ..summary() }])),
        (
            "ConsumerAttached",
            Response::ConsumerAttached(ConsumerAttached {
                epoch: Epoch(4),
                queue: queue(),
                held: vec![OffsetRange::new(Offset(20), Offset(21))],
                settled: vec![OffsetRange::new(Offset(21), Offset(22))],
            }),
        ),
        ("Condition", Response::Condition(Box::new(condition()))),
        ("ConditionCleared", Response::Condition(Box::new(cleared()))),
        ("Replica", Response::Replica(Box::new(replica()))),
        ("ConditionWithTerm", Response::Condition(Box::new(condition_with_term()))),
        ("ReplicaCounted", Response::Replica(Box::new(replica_counted()))),
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
                disk_low: false,
            })),
        ),
        (
            "AttentionDiskLow",
            Response::Attention(Box::new(Attention {
                disk_low: true,
                ..Attention::calm(BrokerId(1))
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
            term: None,
        }),
        taint: Some(TaintNote {
            epoch: Epoch(4),
            by: life(),
            at_ms: 1_700_000_000_000,
            end: Offset(110),
            lost: 8,
            more: true,
            cleared: None,
        }),
        drained: vec![(BrokerId(2), Drain::Leaderships)],
    }
}

fn cleared() -> QueueCondition {
    let mut condition = condition();
    let by = "user ops".into();
    condition.taint.as_mut().expect("it is tainted").cleared =
        Some(TaintCleared { at_ms: 1_700_000_360_000, by });
    condition
}

fn condition_with_term() -> QueueCondition {
    let mut condition = condition();
    if let Some(note) = &mut condition.committed {
        note.term = Some((Epoch(3), Offset(60)));
    }
    condition
}

fn replica_counted() -> ReplicaStatus {
    let mut replica = replica();
    if let Some(copy) = &mut replica.copy {
        (copy.epoch_start, copy.enqueued_below) = (Some(Offset(90)), Some(70));
    }
    replica
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
            epoch_start: None,
            enqueued_below: None,
        }),
    }
}
