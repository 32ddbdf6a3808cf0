//! `bellwether exchange`: what messages are published to.

use bellwether_client::{ExchangeKind, ExchangeName};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::ClientArgs;
use super::table::{print_json, print_line, print_table, table};
use crate::outcome::Failure;

/// Flags of `exchange`.
#[derive(Args, Debug)]
pub struct ExchangeArgs {
    #[command(subcommand)]
    command: ExchangeCommand,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Subcommand, Debug)]
enum ExchangeCommand {
    /// Make an exchange; done also when it exists with the same kind
    Declare {
        /// The exchange's name
        name: ExchangeName,
        /// How it routes: direct, to the queues bound by exactly the routing key; fanout, to all that are bound
        #[arg(long, value_name = "KIND", default_value = "direct")]
        kind: Kind,
    },
    /// Delete an exchange and the bindings that start at it
    Delete {
        /// The exchange's name
        name: ExchangeName,
        /// Only when nothing is bound to it
        #[arg(long)]
        if_unused: bool,
    },
    /// List the exchanges that the user may do something with
    List,
}

/// How an exchange routes.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Direct,
    Fanout,
}

impl From<Kind> for ExchangeKind {
    fn from(kind: Kind) -> ExchangeKind {
        match kind {
            Kind::Direct => ExchangeKind::Direct,
            Kind::Fanout => ExchangeKind::Fanout,
        }
    }
}

/// What people call a kind.
pub fn name_of(kind: ExchangeKind) -> &'static str {
    match kind {
        ExchangeKind::Direct => "direct",
        ExchangeKind::Fanout => "fanout",
    }
}

/// The kind that people call so.
pub fn kind_named(name: &str) -> Result<ExchangeKind, String> {
    Kind::from_str(name, false)
        .map(ExchangeKind::from)
        .map_err(|_| format!("{name:?} is no kind of exchange that this version knows"))
}

/// Carries a command out.
pub async fn run(args: ExchangeArgs) -> Result<(), Failure> {
    let client = args.client.client().await?;
    let json = args.client.json;
    match args.command {
        ExchangeCommand::Declare { name, kind } => {
            let kind = kind.into();
            client.declare_exchange(&name, kind).await?;
            match json {
                true => print_json(&json!({ "exchange": name.as_str(), "kind": name_of(kind) })),
                false => print_line(&format!("exchange {name} ({}) is declared", name_of(kind))),
            }
        }
        ExchangeCommand::Delete { name, if_unused } => {
            client.delete_exchange_with(&name, if_unused).await?;
            match json {
                true => print_json(&json!({ "exchange": name.as_str(), "deleted": true })),
                false => print_line(&format!("exchange {name} is deleted")),
            }
        }
        ExchangeCommand::List => list(&client.exchanges().await?, json),
    }
}

fn list(exchanges: &[(ExchangeName, ExchangeKind)], json: bool) -> Result<(), Failure> {
    if json {
        let rows = exchanges
            .iter()
            .map(|(name, kind)| json!({ "exchange": name.as_str(), "kind": name_of(*kind) }));
        return print_json(&rows.collect());
    }
    let mut rows = table(&["exchange", "kind"]);
    for (name, kind) in exchanges {
        let shown = if name.is_default() { "(default)" } else { name.as_str() };
        rows.add_row([shown, name_of(*kind)]);
    }
    print_table(&rows)
}
