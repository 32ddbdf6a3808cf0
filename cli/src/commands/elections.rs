//! `bellwether elections`: the last changes of leaders.

use bellwether_client::{BrokerLife, ElectionReport, QueueName};
use clap::Args;
use serde_json::json;

use super::ClientArgs;
use super::explain::words::time;
use super::table::{grouped, print_json, print_table, table};
use crate::outcome::Failure;

/// Flags of `elections`.
#[derive(Args, Debug)]
pub struct ElectionsArgs {
    /// Only those of this queue
    queue: Option<QueueName>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    client: ClientArgs,
}

/// Carries the command out.
pub async fn run(args: ElectionsArgs) -> Result<(), Failure> {
    let client = args.client.client().await?;
    let queue = args.queue.as_ref().map(QueueName::as_str);
    let elections = client.elections(queue, args.limit).await?;
    if args.client.json {
        return print_json(&elections.iter().map(as_json).collect());
    }
    let mut rows = table(&["when", "queue", "epoch", "from", "to", "trigger", "took"]);
    for election in &elections {
        let from = election.from.map_or_else(|| "-".to_owned(), |life| life.broker.to_string());
        rows.add_row([
            time(election.at_ms),
            election.queue.to_string(),
            election.epoch.to_string(),
            from,
            election.to.broker.to_string(),
            trigger(election),
            format!("{} ms", grouped(election.took_ms)),
        ]);
    }
    print_table(&rows)
}

fn trigger(election: &ElectionReport) -> String {
    match &election.why {
        Some(why) => format!("{}: {why}", election.trigger),
        None => election.trigger.clone(),
    }
}

fn as_json(election: &ElectionReport) -> serde_json::Value {
    let life = |life: BrokerLife| json!({ "broker": life.broker.0, "incarnation": life.incarnation.to_string() });
    json!({
        "queue": election.queue.as_str(),
        "virtual_host": election.virtual_host.as_str(),
        "epoch": election.epoch.0,
        "at_ms": election.at_ms,
        "from": election.from.map(life),
        "to": life(election.to),
        "trigger": election.trigger,
        "why": election.why,
        "took_ms": election.took_ms,
    })
}
