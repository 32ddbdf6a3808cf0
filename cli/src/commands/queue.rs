//! `bellwether queue`: where messages wait.

use bellwether_client::{
    Binding, Client, Described, ExchangeName, QueueClass, QueueCounts, QueueName, QueueOptions,
    QueueSummary, RoutingKey, TaintNote,
};
use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ClientArgs;
use super::browse::{self, BrowseArgs};
use super::explain::{self, cleared_json, words::time};
use super::table::{grouped, listed, print_json, print_line, print_table, table};
use crate::outcome::Failure;

/// Flags of `queue`.
#[derive(Args, Debug)]
pub struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Subcommand, Debug)]
enum QueueCommand {
    /// Make a queue; done also when it exists with the same options
    Declare(DeclareArgs),
    /// Delete a queue, its messages and its bindings
    Delete {
        /// The queue's name
        name: QueueName,
        /// Only when it has no consumers
        #[arg(long)]
        if_unused: bool,
        /// Only when it has no messages
        #[arg(long)]
        if_empty: bool,
    },
    /// Remove the messages that wait in a queue; those that consumers hold stay
    Purge {
        /// The queue's name
        name: QueueName,
    },
    /// Show messages that wait in a queue, without taking them
    Browse(BrowseArgs),
    /// List the queues that the user may do something with: who leads, and who has an in-sync copy
    List,
    /// Show a queue: its replicas, its counts and its bindings
    Describe {
        /// The queue's name
        name: QueueName,
    },
    /// Say how a queue is and why: who leads or why nobody does, what is missing, what to do
    Explain {
        /// The queue's name
        name: QueueName,
    },
    /// Bind a queue to an exchange
    Bind(BindArgs),
    /// Remove a binding
    Unbind(BindArgs),
}

#[derive(Args, Debug)]
struct DeclareArgs {
    /// The queue's name
    name: QueueName,
    /// Copies wanted, each on a broker of its own: 1 to 7
    #[arg(long, value_name = "N", default_value_t = QueueOptions::default().replicas, value_parser = clap::value_parser!(u8).range(1..=7))]
    replicas: u8,
    /// Fewest in-sync copies for a confirm [default: a majority of the replicas]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=7))]
    min_isr: Option<u8>,
    /// Refuse when there are fewer live brokers than replicas
    #[arg(long)]
    strict: bool,
    /// How much it matters when a disk runs full: the less, the sooner its publishes are refused
    #[arg(long, value_enum, default_value_t = Class::Standard)]
    class: Class,
}

/// See [`QueueClass`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Refused below disk-free-warn
    Bulk,
    /// Refused below disk-free-min
    #[default]
    Standard,
    /// Refused below half of disk-free-min
    Vital,
}

impl From<QueueClass> for Class {
    fn from(class: QueueClass) -> Class {
        match class {
            QueueClass::Bulk => Class::Bulk,
            QueueClass::Standard => Class::Standard,
            QueueClass::Vital => Class::Vital,
        }
    }
}

impl From<Class> for QueueClass {
    fn from(class: Class) -> QueueClass {
        match class {
            Class::Bulk => QueueClass::Bulk,
            Class::Standard => QueueClass::Standard,
            Class::Vital => QueueClass::Vital,
        }
    }
}

#[derive(Args, Debug)]
struct BindArgs {
    /// The queue's name
    queue: QueueName,
    /// The exchange's name
    exchange: ExchangeName,
    /// The routing key; a fanout exchange needs none
    #[arg(long, value_name = "KEY", default_value = "")]
    key: RoutingKey,
}

/// Carries a command out.
pub async fn run(args: QueueArgs) -> Result<(), Failure> {
    let client = args.client.client().await?;
    let json = args.client.json;
    match args.command {
        QueueCommand::Declare(declare) => self::declare(&client, declare, json).await,
        QueueCommand::Delete { name, if_unused, if_empty } => {
            client.delete_with(&name, if_unused, if_empty).await?;
            said(
                json,
                &json!({ "queue": name.as_str(), "deleted": true }),
                &format!("queue {name} is deleted"),
            )
        }
        QueueCommand::Purge { name } => {
            let purged = client.purge(&name).await?;
            let words = match purged {
                1 => format!("1 message was removed from queue {name}"),
                many => format!("{} messages were removed from queue {name}", grouped(many)),
            };
            said(json, &json!({ "queue": name.as_str(), "purged": purged }), &words)
        }
        QueueCommand::Browse(args) => browse::run(&client, &args, json).await,
        QueueCommand::List => {
            let queues = client.queues().await?;
            list(&queues, json)
        }
        QueueCommand::Describe { name } => {
            let described = client.describe(&name).await?;
            let bindings = client.bindings(Some(name.as_str())).await?;
            let taint = client.queue_condition(&name).await?.taint;
            describe(&described, &bindings, taint, json)
        }
        QueueCommand::Explain { name } => explain::run(&client, name.as_str(), json).await,
        QueueCommand::Bind(BindArgs { queue, exchange, key }) => {
            client.bind(&exchange, &queue, &key).await?;
            let words = format!("queue {queue} is bound to exchange {exchange}{}", by(&key));
            said(json, &binding_json(&exchange, &queue, &key, true), &words)
        }
        QueueCommand::Unbind(BindArgs { queue, exchange, key }) => {
            client.unbind(&exchange, &queue, &key).await?;
            let words = format!("queue {queue} is not bound to exchange {exchange}{}", by(&key));
            said(json, &binding_json(&exchange, &queue, &key, false), &words)
        }
    }
}

fn said(as_json: bool, value: &Value, words: &str) -> Result<(), Failure> {
    if as_json { print_json(value) } else { print_line(words) }
}

fn by(key: &RoutingKey) -> String {
    if key.as_str().is_empty() { String::new() } else { format!(" by {key}") }
}

fn binding_json(
    exchange: &ExchangeName,
    queue: &QueueName,
    key: &RoutingKey,
    bound: bool,
) -> Value {
    json!({ "exchange": exchange.as_str(), "queue": queue.as_str(), "routing_key": key.as_str(), "bound": bound })
}

async fn declare(client: &Client, args: DeclareArgs, json: bool) -> Result<(), Failure> {
    let options = QueueOptions {
        replicas: args.replicas,
        min_isr: args.min_isr,
        strict: args.strict,
        class: args.class.into(),
    };
    let declared = client.declare_with(&args.name, options).await?;
    if let Some(warning) = &declared.warning {
        eprintln!("warning: {warning}");
    }
    if json {
        let mut value = summary_json(&declared.queue);
        value["created"] = json!(declared.created);
        value["warning"] = json!(declared.warning);
        return print_json(&value);
    }
    let replicas = listed(&declared.queue.replicas);
    let how = if declared.created { "is declared" } else { "was there already" };
    print_line(&format!(
        "queue {} {how}: replicas on brokers {replicas}, min-isr {}",
        args.name, declared.queue.min_isr
    ))
}

fn summary_json(queue: &QueueSummary) -> Value {
    let numbers = |brokers: &[bellwether_client::BrokerId]| {
        brokers.iter().map(|broker| broker.0).collect::<Vec<_>>()
    };
    json!({
        "queue": queue.name.as_str(),
        "id": queue.id.to_string(),
        "replicas": numbers(&queue.replicas),
        "in_sync": numbers(&queue.in_sync),
        "min_isr": queue.min_isr,
        "class": queue.class.to_string(),
        "leader": queue.leader.map(|leader| leader.0),
        "epoch": queue.epoch.0,
    })
}

fn list(queues: &[QueueSummary], json: bool) -> Result<(), Failure> {
    if json {
        let with_taint = |queue: &QueueSummary| {
            let mut value = summary_json(queue);
            value["tainted"] = queue.tainted.into();
            value
        };
        return print_json(&queues.iter().map(with_taint).collect());
    }
    let mut rows = table(&["queue", "leader", "in sync", "replicas", "min-isr", "epoch"]);
    for queue in queues {
        let mark = if queue.tainted { " (tainted)" } else { "" };
        rows.add_row([
            format!("{}{mark}", queue.name),
            listed(queue.leader),
            listed(&queue.in_sync),
            listed(&queue.replicas),
            queue.min_isr.to_string(),
            queue.epoch.to_string(),
        ]);
    }
    print_table(&rows)
}

/// Bytes of what waits. Leaders do not count them, and say 0 then: of messages that are there it would not be true.
fn bytes(counts: &QueueCounts) -> Option<u64> {
    (counts.bytes > 0 || counts.ready + counts.delivered == 0).then_some(counts.bytes)
}

fn describe(
    described: &Described,
    bindings: &[Binding],
    taint: Option<TaintNote>,
    json: bool,
) -> Result<(), Failure> {
    let Described { queue, counts } = described;
    if json {
        let mut value = summary_json(queue);
        value["counts"] = json!({
            "enqueued": counts.enqueued, "ready": counts.ready, "delivered": counts.delivered,
            "settled": counts.settled, "purged": counts.purged, "consumers": counts.consumers,
            "bytes": bytes(counts), "high_watermark": counts.high_watermark.0, "log_end": counts.log_end.0,
        });
        let bound = bindings.iter().map(|binding| {
            json!({ "exchange": binding.exchange.as_str(), "routing_key": binding.routing_key.as_str() })
        });
        value["bindings"] = bound.collect();
        value["tainted"] = taint.as_ref().map(|taint| json!({
            "epoch": taint.epoch.0, "at_ms": taint.at_ms, "lost": taint.lost, "more": taint.more, "cleared": cleared_json(taint),
        })).into();
        return print_json(&value);
    }
    let mut rows = comfy_table::Table::new();
    rows.load_preset(comfy_table::presets::NOTHING);
    for (what, value) in [
        ("queue", queue.name.to_string()),
        ("id", queue.id.to_string()),
        ("leader", listed(queue.leader)),
        ("epoch", queue.epoch.to_string()),
        ("in sync", listed(&queue.in_sync)),
        ("replicas", listed(&queue.replicas)),
        ("min-isr", queue.min_isr.to_string()),
        ("ready", grouped(counts.ready)),
        ("delivered", grouped(counts.delivered)),
        ("settled", grouped(counts.settled)),
        ("purged", grouped(counts.purged)),
        ("enqueued", grouped(counts.enqueued)),
        ("consumers", grouped(u64::from(counts.consumers))),
        ("bytes", bytes(counts).map_or_else(|| "not counted".to_owned(), grouped)),
        ("high watermark", counts.high_watermark.to_string()),
        ("log end", counts.log_end.to_string()),
    ] {
        rows.add_row([what, &value]);
    }
    if let Some(taint) = taint {
        let (at, lost) = (time(taint.at_ms), grouped(taint.lost));
        let more = if taint.more { ", perhaps more" } else { "" };
        let words =
            format!("a leader was forced on it at {at}: {lost} confirmed messages lost{more}");
        match &taint.cleared {
            None => rows.add_row(["TAINTED", &words]),
            Some(cleared) => rows.add_row([
                "was tainted",
                &format!("{words}; cleared by {} at {}", cleared.by, time(cleared.at_ms)),
            ]),
        };
    }
    for binding in bindings {
        rows.add_row(["bound to", &format!("{}{}", binding.exchange, by(&binding.routing_key))]);
    }
    print_table(&rows)
}
