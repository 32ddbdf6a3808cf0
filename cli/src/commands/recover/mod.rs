//! `bellwether recover`: when the in-sync set of a queue is gone for good. Shows what would be lost, asks, and has a copy lead.

pub mod preview;
mod tails;
#[cfg(test)]
mod tests;

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use bellwether_client::{BrokerId, Client, QueueName, Recover};
use clap::Args;
use serde_json::{Value, json};

use self::preview::{Preview, Prospect, given_up, preview, warning};
use super::ClientArgs;
use super::explain::facts::{Facts, gather};
use super::explain::{copy_json, print_copies};
use super::table::{grouped, print_json, print_line};
use crate::outcome::Failure;

/// Flags of `recover`.
#[derive(Args, Debug)]
pub struct RecoverArgs {
    queue: QueueName,
    /// Let a copy lead that may lack confirmed messages; without it only what would be lost is shown
    #[arg(long)]
    force: bool,
    /// The broker whose copy is to lead [default: the one that loses least]
    #[arg(long, value_name = "ID")]
    broker: Option<u32>,
    /// Do not ask, for scripts: what is lost is lost
    #[arg(long, requires = "force")]
    yes: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Carries the command out.
pub async fn run(args: RecoverArgs) -> Result<(), Failure> {
    let client = args.client.client().await?;
    let mut facts = gather(&client, args.queue.as_str(), true).await?;
    tails::count(&client, &mut facts).await;
    let preview = preview(&facts);
    let json = args.client.json;
    if !args.force {
        return show(&facts, &preview, json);
    }
    if !json {
        show(&facts, &preview, false)?;
    }
    if let Some(obstacle) = &preview.obstacle {
        return Err(Failure::NotDone(format!("queue {} is not recovered: {obstacle}", args.queue)));
    }
    let chosen = choose(&preview, args.broker.map(BrokerId))?;
    agree(&facts, chosen, args.yes)?;
    carry_out(&client, &facts, chosen, json).await
}

fn choose(preview: &Preview, broker: Option<BrokerId>) -> Result<&Prospect, Failure> {
    let chosen = match broker {
        None => preview.prospects.first(),
        Some(broker) => preview.prospects.iter().find(|prospect| prospect.broker == broker),
    };
    chosen.ok_or_else(|| {
        let able: Vec<BrokerId> =
            preview.prospects.iter().map(|prospect| prospect.broker).collect();
        Failure::NotDone(format!(
            "that broker has no copy that could lead; {} could",
            super::explain::words::brokers(&able)
        ))
    })
}

/// A person has to want it: on a terminal they are asked, a script has to say so.
fn agree(facts: &Facts, chosen: &Prospect, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        let words = "there is no terminal to ask at: say --yes if what would be lost may be lost";
        return Err(Failure::Usage(words.to_owned()));
    }
    if let Some(warning) = warning(facts, chosen.copy.member) {
        eprintln!("\n{warning}");
    }
    eprint!("Let broker {} lead queue {}? [y/N] ", chosen.broker, facts.condition.queue.name);
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::NotDone("nothing was done".to_owned()))
}

async fn carry_out(
    client: &Client,
    facts: &Facts,
    chosen: &Prospect,
    json: bool,
) -> Result<(), Failure> {
    let queue = facts.condition.queue.name.clone();
    let address = facts.address(chosen.broker).ok_or_else(|| {
        Failure::NotDone(format!("broker {} is not live any more", chosen.broker))
    })?;
    let order = Recover {
        queue: queue.clone(),
        version: facts.condition.version,
        last_epoch: chosen.copy.last_epoch,
        log_end: chosen.copy.log_end,
        given_up: given_up(facts, chosen.copy.member),
        lost: chosen.lost,
        more: chosen.more,
    };
    let now = client.recover(&address, order).await?;
    if json {
        return print_json(&json!({
            "queue": queue.as_str(), "leader": now.leader.map(|leader| leader.0),
            "epoch": now.epoch.0, "lost": chosen.lost, "more": chosen.more,
        }));
    }
    let cost = match (chosen.lost, chosen.more) {
        (0, false) => "nothing was lost".to_owned(),
        (lost, _) => format!(
            "{} confirmed messages are known to be lost, perhaps more; the queue is marked as tainted",
            grouped(lost)
        ),
    };
    print_line(&format!(
        "broker {} leads queue {queue} in epoch {}: {cost}. Other copies are made as brokers come.",
        chosen.broker, now.epoch
    ))
}

fn show(facts: &Facts, preview: &Preview, json: bool) -> Result<(), Failure> {
    if json {
        return print_json(&as_json(facts, preview));
    }
    print_line(&format!("What would be lost of queue {}:", facts.condition.queue.name))?;
    for prospect in &preview.prospects {
        print_line(&format!("  - {}", prospect.words(facts)))?;
    }
    if preview.prospects.is_empty() {
        print_line("  - everything: no live broker has a copy that could lead.")?;
    }
    match &preview.obstacle {
        Some(obstacle) => print_line(&format!("\nNot now: {obstacle}."))?,
        None => print_line(
            "\nNothing was done yet: --force has the first of these lead, --broker another.",
        )?,
    }
    print_line("")?;
    print_copies(facts)
}

fn as_json(facts: &Facts, preview: &Preview) -> Value {
    let prospects = preview.prospects.iter().map(|prospect| {
        json!({
            "broker": prospect.broker.0,
            "in_sync": prospect.in_sync,
            "lost": prospect.lost,
            "more": prospect.more,
            "exact": prospect.exact,
            "log_end": prospect.copy.log_end.0,
            "messages": prospect.copy.enqueued,
            "last_message_ms": prospect.copy.last_message_ms,
            "words": prospect.words(facts),
        })
    });
    json!({
        "queue": facts.condition.queue.name.as_str(),
        "version": facts.condition.version,
        "obstacle": preview.obstacle,
        "prospects": prospects.collect::<Vec<_>>(),
        "copies": facts.holders.iter().map(|holder| copy_json(facts, holder)).collect::<Vec<_>>(),
    })
}
