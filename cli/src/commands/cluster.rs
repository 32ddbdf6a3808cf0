//! `bellwether cluster`: who is there, and how the queues are.

use bellwether_client::ClusterStatus;
use clap::{Args, Subcommand};
use serde_json::json;

use super::ClientArgs;
use super::table::{grouped, print_json, print_line, print_table, table};
use crate::outcome::Failure;

/// Flags of `cluster`.
#[derive(Args, Debug)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Subcommand, Debug)]
enum ClusterCommand {
    /// Show the live brokers, what they lead, and how the queues are
    Status,
}

/// Carries a command out.
pub async fn run(args: ClusterArgs) -> Result<(), Failure> {
    let ClusterCommand::Status = args.command;
    let status = args.client.client().await?.cluster_status().await?;
    if args.client.json { print_json(&as_json(&status)) } else { print(&status) }
}

fn as_json(status: &ClusterStatus) -> serde_json::Value {
    let brokers = status.brokers.iter().map(|broker| {
        json!({
            "id": broker.address.broker.0,
            "address": broker.address.address,
            "incarnation": broker.incarnation,
            "version": broker.version,
            "leads": broker.leads,
        })
    });
    json!({
        "cluster": status.cluster.to_string(),
        "brokers": brokers.collect::<Vec<_>>(),
        "coordinator_connected": status.coordinator_connected,
        "session_timeout_ms": status.session_timeout_ms,
        "queues": status.queues,
        "queues_without_leader": status.queues_without_leader,
        "queues_under_replicated": status.queues_under_replicated,
    })
}

fn print(status: &ClusterStatus) -> Result<(), Failure> {
    let connected = if status.coordinator_connected { "connected" } else { "NOT CONNECTED" };
    print_line(&format!("Cluster {}", status.cluster))?;
    print_line(&format!(
        "Coordinator: {connected}, session time-out {} ms",
        status.session_timeout_ms
    ))?;
    print_line(&format!(
        "Queues: {}, without a leader {}, under-replicated {}\n",
        grouped(status.queues),
        grouped(status.queues_without_leader),
        grouped(status.queues_under_replicated),
    ))?;
    let mut rows = table(&["broker", "address", "leads", "version", "incarnation"]);
    for broker in &status.brokers {
        rows.add_row([
            broker.address.broker.to_string(),
            broker.address.address.clone(),
            grouped(broker.leads),
            broker.version.clone(),
            broker.incarnation.clone(),
        ]);
    }
    print_table(&rows)
}
