//! Every record comes back as it was, and what cannot be read is named.

use bellwether_protocol::client::{Drain, ExchangeKind};
use bellwether_protocol::ids::{
    BrokerId, BrokerLife, ClusterId, Epoch, Incarnation, Member, Offset, QueueId, StoreId,
};
use bellwether_protocol::names::{ExchangeName, QueueName, RoutingKey, VirtualHost};
use uuid::Uuid;

use crate::records::*;

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn state() -> QueueState {
    QueueState {
        epoch: Epoch(3),
        leader: Some(BrokerLife { broker: BrokerId(1), incarnation: Incarnation(0xabc) }),
        isr: vec![Member { broker: BrokerId(1), store: StoreId(uuid(1)) }],
        min_isr: 2,
        replicas: vec![BrokerId(1), BrokerId(2)],
        given_up: Vec::new(),
        past: Box::default(),
        unknown: UnknownFields::new(),
    }
}

fn past() -> Past {
    let life = BrokerLife { broker: BrokerId(2), incarnation: Incarnation(9) };
    let election = |trigger| Election {
        epoch: Epoch(3),
        at_ms: 1_700_000_000_000,
        from: Some(life),
        to: life,
        trigger,
        why: Some("its disk failed".to_owned()),
        took_ms: 34,
    };
    Past {
        elections: vec![
            Election { from: None, why: None, ..election(Trigger::Declared) },
            election(Trigger::Resigned),
            election(Trigger::Other("by lot".to_owned())),
        ],
        resignation: Some(Resignation { by: life, why: "its disk failed".to_owned() }),
        committed: Some(Committed { end: Offset(9), enqueued: 7, settled: 2, at_ms: 5 }),
        taint: Some(Taint {
            epoch: Epoch(3),
            by: life,
            at_ms: 6,
            end: Offset(4),
            lost: 5,
            more: true,
            cleared: Some(Cleared { at_ms: 7, by: "user ops".to_owned() }),
        }),
    }
}

#[test]
fn a_state_remembers_the_last_elections_and_no_more() {
    let mut kept = Past::default();
    for epoch in 1..=20 {
        let election = past().elections.remove(1);
        kept = kept.with(Election { epoch: Epoch(epoch), ..election });
    }
    let epochs: Vec<u64> = kept.elections.iter().map(|election| election.epoch.0).collect();
    assert_eq!(epochs, (13..=20).collect::<Vec<_>>());
}

#[test]
fn an_operator_reads_the_state_of_a_queue_without_a_manual() {
    let text = String::from_utf8(state().to_bytes().to_vec()).unwrap();
    assert_eq!(
        text,
        r#"{"epoch":3,"leader":"1.0000000000000abc","isr":[{"broker":1,"store":"00000000-0000-0000-0000-000000000001"}],"min_isr":2,"replicas":[1,2]}"#
    );
    let resigned = QueueState { leader: None, ..state() }.to_bytes();
    assert!(std::str::from_utf8(&resigned).unwrap().contains(r#""leader":null"#));
}

#[test]
fn fields_of_a_later_version_survive_a_change_by_this_one() {
    let later =
        br#"{"epoch":3,"leader":null,"isr":[],"min_isr":1,"replicas":[],"tier":{"cold":true},"note":"x"}"#;
    let mut state = QueueState::parse(later).unwrap();
    state.epoch = state.epoch.next();
    let again: serde_json::Value = serde_json::from_slice(&state.to_bytes()).unwrap();
    assert_eq!(again["epoch"], 4);
    assert_eq!(again["tier"]["cold"], true);
    assert_eq!(again["note"], "x");
}

#[test]
fn every_record_comes_back_as_it_was() {
    let unknown: UnknownFields = [("later".to_owned(), 7.into())].into_iter().collect();
    let cluster =
        ClusterRecord { cluster: ClusterId(uuid(5)), format: 1, unknown: unknown.clone() };
    assert_eq!(ClusterRecord::parse(&cluster.to_bytes()), Ok(cluster));
    let broker = BrokerRecord {
        life: BrokerLife { broker: BrokerId(2), incarnation: Incarnation(u64::MAX) },
        store: StoreId(uuid(6)),
        client_address: "h:1".into(),
        peer_address: "h:2".into(),
        host: "h".into(),
        version: "0.1.0".into(),
        rack: Some("a".into()),
        unknown: unknown.clone(),
    };
    assert_eq!(BrokerRecord::parse(&broker.to_bytes()), Ok(broker.clone()));
    let racked_nowhere = BrokerRecord { rack: None, ..broker };
    assert_eq!(BrokerRecord::parse(&racked_nowhere.to_bytes()), Ok(racked_nowhere));
    for (drain, retired) in
        [(Drain::Leaderships, false), (Drain::Copies, false), (Drain::Copies, true)]
    {
        let record = DrainRecord { drain, retired, unknown: unknown.clone() };
        assert_eq!(DrainRecord::parse(&record.to_bytes()), Ok(record));
    }
    let settings = SettingsRecord {
        settings: [("heartbeat".to_owned(), "20s".to_owned())].into_iter().collect(),
        unknown: unknown.clone(),
    };
    assert_eq!(SettingsRecord::parse(&settings.to_bytes()), Ok(settings));
    let controller = ControllerRecord {
        life: BrokerLife { broker: BrokerId(2), incarnation: Incarnation(7) },
        unknown: unknown.clone(),
    };
    assert_eq!(ControllerRecord::parse(&controller.to_bytes()), Ok(controller));
    let name = NameRecord { queue: QueueId(uuid(7)), unknown: unknown.clone() };
    assert_eq!(NameRecord::parse(&name.to_bytes()), Ok(name));
    let definition = QueueDefinition {
        queue: QueueId(uuid(7)),
        virtual_host: VirtualHost::default(),
        name: QueueName::new("\"quoted\" / ü").unwrap(),
        replicas_wanted: 3,
        min_isr: 2,
        unknown: unknown.clone(),
    };
    assert_eq!(QueueDefinition::parse(&definition.to_bytes()), Ok(definition.clone()));
    assert_eq!(QueueState::parse(&state().to_bytes()), Ok(state()));
    let gave_up = QueueState {
        given_up: vec![Member { broker: BrokerId(3), store: StoreId(uuid(3)) }],
        ..state()
    };
    assert_eq!(QueueState::parse(&gave_up.to_bytes()), Ok(gave_up));
    let remembers = QueueState { past: Box::new(past()), ..state() };
    assert_eq!(QueueState::parse(&remembers.to_bytes()), Ok(remembers));
    for kind in [ExchangeKind::Direct, ExchangeKind::Fanout] {
        let exchange = ExchangeRecord { kind, unknown: unknown.clone() };
        assert_eq!(ExchangeRecord::parse(&exchange.to_bytes()), Ok(exchange));
    }
    let binding = Binding {
        exchange: ExchangeName::new("e").unwrap(),
        routing_key: RoutingKey::new("").unwrap(),
    };
    let bindings = BindingsRecord { bindings: vec![binding], unknown: unknown.clone() };
    assert_eq!(BindingsRecord::parse(&bindings.to_bytes()), Ok(bindings));
    let QueueDefinition { queue, virtual_host, name, .. } = definition;
    let tombstone =
        TombstoneRecord { queue, virtual_host, name, stores: None, unknown: unknown.clone() };
    assert_eq!(TombstoneRecord::parse(&tombstone.to_bytes()), Ok(tombstone.clone()));
    let holding =
        |broker, store| HoldingStore { broker: BrokerId(broker), store, unknown: unknown.clone() };
    for stores in [vec![], vec![holding(1, Some(StoreId(uuid(1)))), holding(2, None)]] {
        let tombstone = TombstoneRecord { stores: Some(stores), ..tombstone.clone() };
        assert_eq!(TombstoneRecord::parse(&tombstone.to_bytes()), Ok(tombstone));
    }
    let store = StoreRecord { broker: BrokerId(2), store: StoreId(uuid(6)), unknown };
    assert_eq!(StoreRecord::parse(&store.to_bytes()), Ok(store));
}

#[test]
fn what_cannot_be_read_is_named_with_the_reason() {
    let reason = |bytes: &[u8]| QueueState::parse(bytes).unwrap_err().to_string();
    assert!(reason(b"").starts_with("this is no queue state that this version can read: EOF"));
    assert!(
        reason(br#"{"epoch":1,"isr":[],"min_isr":1,"replicas":[],"leader":"one"}"#)
            .contains("leader \"one\" is no life")
    );
    assert!(
        reason(br#"{"leader":null,"isr":[],"min_isr":1,"replicas":[]}"#)
            .contains("missing field `epoch`")
    );
    let exchange = ExchangeRecord::parse(br#"{"kind":"topic"}"#).unwrap_err();
    assert_eq!(exchange.reason, "exchange kind \"topic\" is not known");
    let name = br#"{"queue":"00000000-0000-0000-0000-000000000001","virtual_host":"","name":"q"}"#;
    assert!(
        TombstoneRecord::parse(name)
            .unwrap_err()
            .reason
            .contains("virtual host name may not be empty")
    );
}
