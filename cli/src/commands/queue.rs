//! `bellwether queue`: where messages wait.

use bellwether_client::{
    Binding, Client, Described, ExchangeName, QueueName, QueueOptions, QueueSummary, RoutingKey,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ClientArgs;
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
        name: QueueName,
        /// Only when it has no consumers
        #[arg(long)]
        if_unused: bool,
        /// Only when it has no messages
        #[arg(long)]
        if_empty: bool,
    },
    /// Remove the messages that wait in a queue
    Purge { name: QueueName },
    /// List the queues
    List,
    /// Show a queue: its replicas, its counts and its bindings
    Describe { name: QueueName },
    /// Bind a queue to an exchange
    Bind(BindArgs),
    /// Remove a binding
    Unbind(BindArgs),
}

#[derive(Args, Debug)]
struct DeclareArgs {
    name: QueueName,
    /// Copies wanted
    #[arg(long, value_name = "N", default_value_t = QueueOptions::default().replicas, value_parser = clap::value_parser!(u8).range(1..=7))]
    replicas: u8,
    /// Fewest in-sync copies for a confirm [default: a majority of the replicas]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=7))]
    min_isr: Option<u8>,
    /// Refuse when there are fewer live brokers than replicas
    #[arg(long)]
    strict: bool,
}

#[derive(Args, Debug)]
struct BindArgs {
    queue: QueueName,
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
            let words = format!("{} messages were removed from queue {name}", grouped(purged));
            said(json, &json!({ "queue": name.as_str(), "purged": purged }), &words)
        }
        QueueCommand::List => list(&client.queues().await?, json),
        QueueCommand::Describe { name } => {
            let described = client.describe(&name).await?;
            let bindings = client.bindings(Some(name.as_str())).await?;
            describe(&described, &bindings, json)
        }
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
    let options =
        QueueOptions { replicas: args.replicas, min_isr: args.min_isr, strict: args.strict };
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
        "leader": queue.leader.map(|leader| leader.0),
        "epoch": queue.epoch.0,
    })
}

fn list(queues: &[QueueSummary], json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&queues.iter().map(summary_json).collect());
    }
    let mut rows = table(&["queue", "leader", "in sync", "replicas", "min-isr", "epoch"]);
    for queue in queues {
        rows.add_row([
            queue.name.to_string(),
            listed(queue.leader),
            listed(&queue.in_sync),
            listed(&queue.replicas),
            queue.min_isr.to_string(),
            queue.epoch.to_string(),
        ]);
    }
    print_table(&rows)
}

fn describe(described: &Described, bindings: &[Binding], json: bool) -> Result<(), Failure> {
    let Described { queue, counts } = described;
    if json {
        let mut value = summary_json(queue);
        value["counts"] = json!({
            "enqueued": counts.enqueued, "ready": counts.ready, "delivered": counts.delivered,
            "settled": counts.settled, "purged": counts.purged, "consumers": counts.consumers,
            "bytes": counts.bytes, "high_watermark": counts.high_watermark.0, "log_end": counts.log_end.0,
        });
        let bound = bindings.iter().map(|binding| {
            json!({ "exchange": binding.exchange.as_str(), "routing_key": binding.routing_key.as_str() })
        });
        value["bindings"] = bound.collect();
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
        ("bytes", grouped(counts.bytes)),
        ("high watermark", counts.high_watermark.to_string()),
        ("log end", counts.log_end.to_string()),
    ] {
        rows.add_row([what, &value]);
    }
    for binding in bindings {
        rows.add_row(["bound to", &format!("{}{}", binding.exchange, by(&binding.routing_key))]);
    }
    print_table(&rows)
}
