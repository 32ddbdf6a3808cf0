//! What clients send.

use bellwether_protocol::client::*;
use bellwether_protocol::ids::*;
use bellwether_protocol::names::*;
use bellwether_protocol::scram::MECHANISM;

use super::{credentials, member, messages, name, permissions};

fn request(request: Request) -> ClientFrame {
    ClientFrame::Request { id: RequestId(7), request }
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

fn requests() -> Vec<(&'static str, Request)> {
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
            "DeclareBulkQueue",
            Request::DeclareQueue {
                queue: queue.clone(),
                options: QueueOptions { class: QueueClass::Bulk, ..QueueOptions::default() },
            },
        ),
        (
            "DeclareQueue",
            Request::DeclareQueue {
                queue: queue.clone(),
                options: QueueOptions { min_isr: Some(2), ..QueueOptions::default() },
            },
        ),
        (
            "DeleteQueue",
            Request::DeleteQueue { queue: queue.clone(), if_unused: true, if_empty: false },
        ),
        ("PurgeQueue", Request::PurgeQueue { queue: queue.clone() }),
        (
            "Browse",
            Request::Browse(Browse {
                queue: queue.clone(),
                from: Offset(10),
                until: Some(Offset(2000)),
                messages_max: 100,
                bytes_max: 65_536,
            }),
        ),
        ("CountObjects", Request::CountObjects),
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
                    queue: super::queue(),
                    epoch: Epoch(3),
                    ranges: vec![OffsetRange::new(Offset(20), Offset(22))],
                }),
            },
        ),
        ("DetachConsumer", Request::DetachConsumer { consumer: ConsumerHandle(1) }),
        ("Plan", Request::Plan),
        ("Stuck", Request::Stuck { suppose: Some((BrokerId(2), Drain::Copies)), limit: 5 }),
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
        ("SetTags", set_tags(false)),
        ("SetTagsForced", set_tags(true)),
        ("ListCredentials", Request::ListCredentials),
        ("DeleteUser", Request::DeleteUser { user: name("billing"), force: false }),
        ("DeleteUserForced", Request::DeleteUser { user: name("billing"), force: true }),
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
        ("ReplicaStatus", replica_status(None)),
        ("ReplicaStatusBelow", replica_status(Some(Offset(80)))),
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
        ("Retire", Request::Retire { broker: BrokerId(2) }),
        ("ClearTaint", Request::ClearTaint { queue: name("orders"), epoch: Epoch(3) }),
    ]
}

fn set_tags(force: bool) -> Request {
    Request::SetTags { user: name("billing"), tags: vec![UserTag::Administrator], force }
}

fn replica_status(below: Option<Offset>) -> Request {
    Request::ReplicaStatus { queue: name("orders"), count: true, below }
}
