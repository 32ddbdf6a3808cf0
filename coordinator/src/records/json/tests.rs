//! Every record comes back as it was, and what cannot be read is named.

use bellwether_protocol::client::QueueClass;
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
        committed: Some(Committed {
            end: Offset(9),
            enqueued: 7,
            settled: 2,
            at_ms: 5,
            term: Some((Epoch(3), Offset(6))),
        }),
        taint: Some(Taint {
            epoch: Epoch(3),
            by: life,
            at_ms: 6,
            end: Offset(4),
            lost: 5,
            more: true,
            cleared: Some(Cleared { at_ms: 7, by: "user ops".to_owned() }),
        }),
        later: None,
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
        peer_tls: true,
        disk_stalls: true,
        unknown: unknown.clone(),
    };
    assert_eq!(BrokerRecord::parse(&broker.to_bytes()), Ok(broker.clone()));
    let racked_nowhere = BrokerRecord { rack: None, peer_tls: false, disk_stalls: false, ..broker };
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
        class: QueueClass::Vital,
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
    let bindings = BindingsRecord {
        bindings: vec![binding],
        later: Later::default(),
        unknown: unknown.clone(),
    };
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
    let store = StoreRecord {
        broker: BrokerId(2),
        store: StoreId(uuid(6)),
        former: vec![StoreId(uuid(7))],
        unknown,
    };
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

/// A state as a later version might write it, with fields of its own in every entry.
const OF_A_LATER_VERSION: &str = r#"{
    "epoch": 4, "leader": null, "min_isr": 1, "replicas": [1, 2], "tier": { "cold": true },
    "isr": [
        { "broker": 1, "store": "00000000-0000-0000-0000-000000000001", "zone": "a" },
        { "broker": 2, "store": "00000000-0000-0000-0000-000000000002", "zone": { "of": ["b", null] } }
    ],
    "given_up": [{ "broker": 3, "store": "00000000-0000-0000-0000-000000000003", "since": 7 }],
    "elections": [
        { "epoch": 3, "at_ms": 1, "to": "1.0000000000000001", "trigger": "declared", "took_ms": 0, "votes": 2 },
        { "epoch": 4, "at_ms": 2, "from": "1.0000000000000001", "to": "2.0000000000000002", "trigger": "forced", "took_ms": 3, "votes": 0 }
    ],
    "resigned": { "by": "2.0000000000000002", "why": "its disk failed", "disk": "sdb" },
    "committed": { "end": 9, "enqueued": 7, "settled": 2, "at_ms": 5, "bytes": 700 },
    "tainted": { "epoch": 4, "by": "2.0000000000000002", "at_ms": 6, "end": 4, "lost": 5, "more": true, "ticket": "OPS-7" }
}"#;

fn json(state: &QueueState) -> serde_json::Value {
    serde_json::from_slice(&state.to_bytes()).unwrap()
}

#[test]
fn fields_of_a_later_version_survive_inside_of_entries_that_stay() {
    let later: serde_json::Value = serde_json::from_str(OF_A_LATER_VERSION).unwrap();
    let read = QueueState::parse(OF_A_LATER_VERSION.as_bytes()).unwrap();
    assert_eq!(json(&read), later);

    // An in-sync set shrinks: what was said of the others stays with them, also when their order changes.
    let shrunk = QueueState { isr: vec![read.isr[1]], ..read.clone() };
    assert_eq!(json(&shrunk)["isr"], serde_json::json!([later["isr"][1]]));
    let joined = Member { broker: BrokerId(5), store: StoreId(uuid(5)) };
    let grown = QueueState { isr: vec![joined, read.isr[1], read.isr[0]], ..read.clone() };
    let isr = &json(&grown)["isr"];
    assert_eq!((&isr[1], &isr[2]), (&later["isr"][1], &later["isr"][0]));
    assert_eq!(isr[0].get("zone"), None, "nothing was said of this one");
    // The same broker with another store is another member.
    let renewed = Member { store: StoreId(uuid(9)), ..read.isr[0] };
    assert_eq!(
        json(&QueueState { isr: vec![renewed], ..read.clone() })["isr"][0].get("zone"),
        None
    );

    // The next election: those before stay as they were, and what is over goes whole.
    let next = past().elections.remove(1);
    let elected = QueueState { past: Box::new(read.past.clone().with(next)), ..read.clone() };
    let elected = json(&elected);
    assert_eq!(elected["elections"][0], later["elections"][0]);
    assert_eq!(elected["elections"][1], later["elections"][1]);
    assert_eq!(elected.get("resigned"), None);
    assert_eq!(elected["tier"], later["tier"]);
}

#[test]
fn fields_of_a_later_version_survive_in_who_has_cleared_a_taint() {
    let mut later: serde_json::Value = serde_json::from_str(OF_A_LATER_VERSION).unwrap();
    later["tainted"]["cleared"] =
        serde_json::json!({ "at_ms": 8, "by": "user ops", "ticket": "OPS-8" });
    let read = QueueState::parse(later.to_string().as_bytes()).unwrap();
    assert_eq!(json(&read), later);
}

#[test]
fn an_entry_that_is_replaced_takes_with_it_what_was_said_of_it() {
    let read = QueueState::parse(OF_A_LATER_VERSION.as_bytes()).unwrap();
    let noted = Committed { end: Offset(10), enqueued: 8, settled: 2, at_ms: 6, term: None };
    let past = Box::new(Past { committed: Some(noted), ..Past::clone(&read.past) });
    let again = json(&QueueState { past, ..read.clone() });
    assert_eq!(again["committed"].get("bytes"), None, "700 bytes were those of the note before");
    assert_eq!(again["tainted"]["ticket"], "OPS-7");

    // A taint that is cleared is still the same.
    let cleared = Cleared { at_ms: 7, by: "user ops".to_owned() };
    let past = Past::clone(&read.past).with_taint_cleared(cleared.clone()).unwrap();
    assert_eq!(past.clone().with_taint_cleared(cleared), None, "once");
    let state = QueueState { past: Box::new(past), ..read };
    let again = json(&state);
    assert_eq!(again["tainted"]["ticket"], "OPS-7");
    assert_eq!(again["tainted"]["cleared"], serde_json::json!({ "at_ms": 7, "by": "user ops" }));
    let told = state.past.elections.last().unwrap();
    assert_eq!((&told.trigger, told.epoch), (&Trigger::TaintCleared, Epoch(4)));
    let why = "by user ops; known to be lost were 5 confirmed messages, perhaps more";
    assert_eq!(told.why.as_deref(), Some(why));
    assert!(state.past.open_taint().is_none() && state.past.resignation.is_some());
    assert_eq!(QueueState::parse(&state.to_bytes()), Ok(state));
}

#[test]
fn fields_of_a_later_version_survive_in_bindings_and_in_the_stores_of_a_tombstone() {
    let bindings = serde_json::json!({ "bindings": [
        { "exchange": "e", "routing_key": "a", "weight": 2 },
        { "exchange": "e", "routing_key": "b" },
    ] });
    let mut record = BindingsRecord::parse(bindings.to_string().as_bytes()).unwrap();
    record.bindings.remove(1);
    let again: serde_json::Value = serde_json::from_slice(&record.to_bytes()).unwrap();
    assert_eq!(again, serde_json::json!({ "bindings": [bindings["bindings"][0]] }));

    let queue = uuid(7).to_string();
    let tombstone = serde_json::json!({
        "queue": queue, "virtual_host": "/", "name": "orders",
        "stores": [{ "broker": 1, "at": 5 }, { "broker": 2, "store": queue, "at": { "ms": 6 } }],
    });
    let record = TombstoneRecord::parse(tombstone.to_string().as_bytes()).unwrap();
    let fate = crate::tombstone::struck_off(&record, BrokerId(1), StoreId(uuid(1)));
    let crate::tombstone::Fate::Changes(record) = fate else { panic!("{fate:?}") };
    let again: serde_json::Value = serde_json::from_slice(&record.to_bytes()).unwrap();
    assert_eq!(again["stores"], serde_json::json!([tombstone["stores"][1]]));
}
