//! `bellwether recover`: when the in-sync set of a queue is gone for good. Shows what would be lost, asks, and has a copy lead.

pub mod preview;
mod tails;
#[cfg(test)]
mod tests;

use std::io::{BufRead, IsTerminal as _, Write};

use bellwether_broker::words::in_shell;
use bellwether_client::{BrokerId, Client, QueueName, Recover};
use clap::Args;
use serde_json::{Value, json};

use self::preview::{Preview, Prospect, given_up, preview, warning};
use super::ClientArgs;
use super::explain::facts::{Facts, gather};
use super::explain::words::time;
use super::explain::{copy_json, print_copies};
use super::table::{grouped, print_json, print_line};
use crate::outcome::Failure;

/// Flags of `recover`.
#[derive(Args, Debug)]
pub struct RecoverArgs {
    /// The queue that has no leader any more
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
    /// What was lost when a leader was forced on the queue is dealt with: it counts as tainted no more
    #[arg(long, conflicts_with_all = ["force", "broker", "yes"])]
    clear_taint: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Carries the command out.
pub async fn run(args: RecoverArgs) -> Result<(), Failure> {
    let client = args.client.client().await?;
    if args.clear_taint {
        return clear_taint(&client, &args.queue, args.client.json).await;
    }
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
    let terminal = std::io::stdin();
    let terminal = terminal.is_terminal().then(|| terminal.lock());
    agree(&facts, chosen, args.yes, terminal, &mut std::io::stderr())?;
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

/// A person has to want it: on a terminal they are asked, a script has to say so. Whoever says so is warned all the same: what is
/// given up is nothing that a machine can make sure of.
fn agree(
    facts: &Facts,
    chosen: &Prospect,
    yes: bool,
    terminal: Option<impl BufRead>,
    words: &mut impl Write,
) -> Result<(), Failure> {
    let asked = match (yes, terminal) {
        (true, _) => None,
        (false, Some(terminal)) => Some(terminal),
        (false, None) => {
            let words =
                "there is no terminal to ask at: say --yes if what would be lost may be lost";
            return Err(Failure::Usage(words.to_owned()));
        }
    };
    if let Some(warning) = warning(facts, chosen.copy.member) {
        writeln!(words, "\n{warning}")?;
    }
    let Some(mut asked) = asked else { return Ok(()) };
    let name = &facts.condition.queue.name;
    write!(words, "Let broker {} lead queue {name}? [y/N] ", chosen.broker)?;
    words.flush()?;
    let mut answer = String::new();
    asked.read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::NotDone("nothing was done".to_owned()))
}

/// Somebody has dealt with what was lost.
async fn clear_taint(client: &Client, queue: &QueueName, json: bool) -> Result<(), Failure> {
    let condition = client.queue_condition(queue.as_str()).await?;
    let Some(taint) = condition.taint else {
        return Err(Failure::NotDone(format!(
            "queue {queue} is not tainted: no leader was forced on it"
        )));
    };
    if taint.cleared.is_none() {
        client.clear_taint(queue.as_str(), taint.epoch).await?;
    }
    if json {
        return print_json(&json!({
            "queue": queue.as_str(), "epoch": taint.epoch.0, "at_ms": taint.at_ms,
            "lost": taint.lost, "more": taint.more, "cleared": true,
        }));
    }
    let was = format!(
        "A leader was forced on queue {queue} at {}, and {} confirmed messages are known to be lost{}",
        time(taint.at_ms),
        grouped(taint.lost),
        if taint.more { ", perhaps more" } else { "" },
    );
    match &taint.cleared {
        Some(cleared) => print_line(&format!(
            "{was}: that was cleared by {} at {} already.",
            cleared.by,
            time(cleared.at_ms)
        )),
        None => print_line(&format!(
            "{was}: it counts as tainted no more. `bellwether elections {}` remembers it.",
            in_shell(queue.as_str())
        )),
    }
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
