//! The JSON forms of exchanges and bindings.

use bellwether_protocol::client::ExchangeKind;
use bellwether_protocol::names::{ExchangeName, RoutingKey};
use serde::{Deserialize, Serialize};

use super::document;
use crate::records::{Binding, BindingsRecord, ExchangeRecord, Later, UnknownFields};

#[derive(Serialize, Deserialize)]
struct ExchangeJson {
    kind: String,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct BindingsJson {
    bindings: Vec<BindingJson>,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct BindingJson {
    exchange: String,
    routing_key: String,
    #[serde(flatten)]
    unknown: UnknownFields,
}

document!(ExchangeRecord as ExchangeJson, "exchange record");
document!(BindingsRecord as BindingsJson, "bindings record");

impl From<&ExchangeRecord> for ExchangeJson {
    fn from(record: &ExchangeRecord) -> Self {
        let kind = match record.kind {
            ExchangeKind::Direct => "direct",
            ExchangeKind::Fanout => "fanout",
        };
        Self { kind: kind.to_owned(), unknown: record.unknown.clone() }
    }
}

impl TryFrom<ExchangeJson> for ExchangeRecord {
    type Error = String;
    fn try_from(json: ExchangeJson) -> Result<Self, String> {
        let kind = match json.kind.as_str() {
            "direct" => ExchangeKind::Direct,
            "fanout" => ExchangeKind::Fanout,
            other => return Err(format!("exchange kind {other:?} is not known")),
        };
        Ok(Self { kind, unknown: json.unknown })
    }
}

impl From<&BindingsRecord> for BindingsJson {
    fn from(record: &BindingsRecord) -> Self {
        let binding = |binding: &Binding| BindingJson {
            exchange: binding.exchange.to_string(),
            routing_key: binding.routing_key.to_string(),
            unknown: record.later.of(binding),
        };
        Self {
            bindings: record.bindings.iter().map(binding).collect(),
            unknown: record.unknown.clone(),
        }
    }
}

impl TryFrom<BindingsJson> for BindingsRecord {
    type Error = String;
    fn try_from(json: BindingsJson) -> Result<Self, String> {
        let mut later = Later::default();
        let binding = |json: BindingJson| {
            let binding = Binding {
                exchange: ExchangeName::new(json.exchange).map_err(|error| error.to_string())?,
                routing_key: RoutingKey::new(json.routing_key)
                    .map_err(|error| error.to_string())?,
            };
            later.keep(binding.clone(), json.unknown);
            Ok(binding)
        };
        let bindings = json.bindings.into_iter().map(binding).collect::<Result<_, String>>()?;
        Ok(Self { bindings, later, unknown: json.unknown })
    }
}
