//! The tree as released versions wrote it, one fixture a format: every document is still read, and written back as it was, also with
//! fields beside those that this version knows.

use serde_json::{Map, Value};

use super::*;
use crate::coordinator::Path;
use crate::paths::{self, Place};
use crate::users::{LoginRecord, UserRecord};

/// What this version makes of a document.
fn written_again(place: &Place, document: &[u8]) -> Vec<u8> {
    macro_rules! again {
        ($record:ident) => {
            $record::parse(document).unwrap().to_bytes().to_vec()
        };
    }
    match place {
        Place::Cluster => again!(ClusterRecord),
        Place::BrokerId(_) | Place::LiveBroker(_) => again!(BrokerRecord),
        Place::Drained(_) => again!(DrainRecord),
        Place::Store(_) => again!(StoreRecord),
        Place::Name(..) => again!(NameRecord),
        Place::Queue(_) => again!(QueueDefinition),
        Place::QueueState(_) => again!(QueueState),
        Place::Exchange(..) => again!(ExchangeRecord),
        Place::Bindings(_) => again!(BindingsRecord),
        Place::Deleted(_) => again!(TombstoneRecord),
        Place::Controller => again!(ControllerRecord),
        Place::Settings => again!(SettingsRecord),
        Place::User(_) => again!(UserRecord),
        Place::Login => again!(LoginRecord),
    }
}

fn documents(fixture: &str) -> Vec<(Place, Value)> {
    let tree: Map<String, Value> = serde_json::from_str(fixture).unwrap();
    let document = |(path, document): (String, Value)| {
        let place = paths::parse(&Path(path.clone()));
        (place.unwrap_or_else(|| panic!("{path} names nothing")), document)
    };
    tree.into_iter().map(document).collect()
}

/// The first that was released, and what came to it since without another format.
const FORMAT_1: [&str; 2] = [
    include_str!("../../fixtures/tree-format-1.json"),
    include_str!("../../fixtures/tree-format-1-stores.json"),
];

#[test]
fn every_document_of_format_1_is_written_back_as_it_was() {
    let documents: Vec<_> = FORMAT_1.iter().flat_map(|fixture| documents(fixture)).collect();
    assert_eq!(documents.len(), 14 + 4);
    for (place, document) in documents {
        let again = written_again(&place, document.to_string().as_bytes());
        assert_eq!(serde_json::from_slice::<Value>(&again).unwrap(), document, "{place:?}");
    }
}

/// Whoever adds a field to a record and forgets to keep the rest of it would, in a rolling upgrade, undo what later versions wrote.
#[test]
fn fields_of_a_later_version_survive_in_every_document() {
    for (place, mut document) in FORMAT_1.iter().flat_map(|fixture| documents(fixture)) {
        let fields = document.as_object_mut().unwrap();
        fields.insert("later".to_owned(), serde_json::json!({ "nested": [1, { "deep": null }] }));
        let again = written_again(&place, document.to_string().as_bytes());
        assert_eq!(serde_json::from_slice::<Value>(&again).unwrap(), document, "{place:?}");
    }
}
