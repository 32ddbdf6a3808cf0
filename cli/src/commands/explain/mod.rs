//! `bellwether queue explain`: whether a queue has a leader or not, and why.

pub mod facts;
#[cfg(test)]
pub mod given;
#[cfg(test)]
mod tests;
pub mod words;

use bellwether_client::{Client, CopyRole, CopyStatus, TaintNote};
use serde_json::{Value, json};

use self::facts::{Facts, Said, gather};
use self::words::{Explanation, explain, time};
use super::table::{grouped, listed, print_json, print_line, print_table, table};
use crate::outcome::Failure;

/// Carries the command out.
pub async fn run(client: &Client, queue: &str, as_json: bool) -> Result<(), Failure> {
    let facts = gather(client, queue, false).await?;
    let explanation = explain(&facts);
    if as_json {
        return print_json(&json(&facts, &explanation));
    }
    print_line(&explanation.sentence)?;
    for line in &explanation.missing {
        print_line(&format!("  - {line}"))?;
    }
    if !explanation.advice.is_empty() {
        print_line("\nWhat to do:")?;
    }
    for line in &explanation.advice {
        print_line(&format!("  - {line}"))?;
    }
    print_line("")?;
    print_state(&facts)?;
    print_line("")?;
    print_copies(&facts)
}

fn print_state(facts: &Facts) -> Result<(), Failure> {
    let condition = &facts.condition;
    let heard = if condition.fresh { "" } else { " (as last heard)" };
    let mut rows = comfy_table::Table::new();
    rows.load_preset(comfy_table::presets::NOTHING);
    let leader = condition.leader.map_or_else(|| "-".to_owned(), |life| life.to_string());
    let mut row = |what: &str, value: String| {
        rows.add_row([what, &value]);
    };
    row("state", format!("version {}{heard}", condition.version));
    row("epoch", condition.queue.epoch.to_string());
    row("leader", leader);
    row("in sync", listed(&condition.queue.in_sync));
    row(
        "replicas",
        format!("{} of {} wanted", listed(&condition.queue.replicas), condition.replicas_wanted),
    );
    row("min-isr", format!("{} of {} wanted", condition.queue.min_isr, condition.min_isr_wanted));
    row("live brokers", listed(condition.live.iter().map(|live| live.life.broker)));
    if let Some(note) = &condition.committed {
        row(
            "noted",
            format!(
                "committed up to {} with {} messages at {}",
                note.end,
                grouped(note.enqueued),
                time(note.at_ms)
            ),
        );
    }
    print_table(&rows)
}

/// The copies as a table, one line each.
pub fn print_copies(facts: &Facts) -> Result<(), Failure> {
    let mut rows =
        table(&["broker", "copy", "in sync", "last epoch", "log end", "on disk", "committed"]);
    for holder in &facts.holders {
        let counted = facts.condition.isr.iter().find(|member| member.broker == holder.broker);
        let in_sync = match (counted, holder.copy()) {
            (None, _) => "no",
            (Some(member), Some(copy)) if *member != copy.member => "another copy",
            (Some(_), _) => "yes",
        };
        let dash = || "-".to_owned();
        let (what, rest) = match &holder.said {
            Said::Down => ("NOT LIVE", [dash(), dash(), dash(), dash()]),
            Said::Silent(_) => ("SILENT", [dash(), dash(), dash(), dash()]),
            Said::NoCopy => ("none", [dash(), dash(), dash(), dash()]),
            Said::Copy(copy) => (role(copy), numbers(copy)),
        };
        let [epoch, end, durable, committed] = rest;
        rows.add_row([
            holder.broker.to_string(),
            what.to_owned(),
            in_sync.to_owned(),
            epoch,
            end,
            durable,
            committed,
        ]);
    }
    print_table(&rows)
}

fn numbers(copy: &CopyStatus) -> [String; 4] {
    let epoch = copy.last_epoch.map_or_else(|| "-".to_owned(), |epoch| epoch.to_string());
    [epoch, copy.log_end.to_string(), copy.durable.to_string(), copy.high_watermark.to_string()]
}

fn role(copy: &CopyStatus) -> &'static str {
    match copy.role {
        CopyRole::Waits => "waits",
        CopyRole::Follows => "follows",
        CopyRole::Stands => "stands",
        CopyRole::Leads => "leads, not serving",
        CopyRole::Serves if copy.starved => "leads, refusing",
        CopyRole::Serves => "leads",
        CopyRole::Fetches => "fetches",
        CopyRole::Stopped => "STOPPED",
    }
}

fn json(facts: &Facts, explanation: &Explanation) -> Value {
    let condition = &facts.condition;
    json!({
        "queue": condition.queue.name.as_str(),
        "id": condition.queue.id.to_string(),
        "verdict": explanation.verdict.as_str(),
        "sentence": explanation.sentence,
        "missing": explanation.missing,
        "advice": explanation.advice,
        "state": {
            "fresh": condition.fresh,
            "version": condition.version,
            "epoch": condition.queue.epoch.0,
            "leader": condition.leader.map(|life| life.to_string()),
            "isr": condition.isr.iter().map(|member| json!({ "broker": member.broker.0, "store": member.store.to_string() })).collect::<Vec<_>>(),
            "replicas": condition.queue.replicas.iter().map(|broker| broker.0).collect::<Vec<_>>(),
            "replicas_wanted": condition.replicas_wanted,
            "min_isr": condition.queue.min_isr,
            "min_isr_wanted": condition.min_isr_wanted,
            "resigned": condition.resigned.as_ref().map(|resigned| json!({ "by": resigned.by.to_string(), "why": resigned.why })),
            "committed": condition.committed.map(|note| json!({ "end": note.end.0, "enqueued": note.enqueued, "settled": note.settled, "at_ms": note.at_ms, "epoch": note.term.map(|(epoch, _)| epoch.0), "epoch_start": note.term.map(|(_, start)| start.0) })),
            "tainted": condition.taint.as_ref().map(|taint| json!({
                "epoch": taint.epoch.0, "by": taint.by.to_string(), "at_ms": taint.at_ms, "end": taint.end.0,
                "lost": taint.lost, "more": taint.more, "cleared": cleared_json(taint),
            })),
        },
        "live": condition.live.iter().map(|live| live.life.broker.0).collect::<Vec<_>>(),
        "copies": facts.holders.iter().map(|holder| copy_json(facts, holder)).collect::<Vec<_>>(),
    })
}

/// Who has dealt with a taint, and when.
pub fn cleared_json(taint: &TaintNote) -> Value {
    let cleared = taint.cleared.as_ref();
    cleared.map(|cleared| json!({ "at_ms": cleared.at_ms, "by": cleared.by })).into()
}

/// One broker and its copy.
pub fn copy_json(facts: &Facts, holder: &facts::Holder) -> Value {
    let what = match &holder.said {
        Said::Down => "not live",
        Said::Silent(_) => "silent",
        Said::NoCopy => "none",
        Said::Copy(copy) => role(copy),
    };
    let mut value = json!({ "broker": holder.broker.0, "copy": what });
    if let Said::Silent(why) = &holder.said {
        value["why"] = why.as_str().into();
    }
    if let Some(copy) = holder.copy() {
        value["in_sync"] = facts.in_sync(copy.member).into();
        value["store"] = copy.member.store.to_string().into();
        value["why"] = copy.why.clone().into();
        value["last_epoch"] = copy.last_epoch.map(|epoch| epoch.0).into();
        value["log_end"] = copy.log_end.0.into();
        value["durable"] = copy.durable.0.into();
        value["high_watermark"] = copy.high_watermark.0.into();
        value["heard_committed"] = copy.heard_committed.0.into();
        value["enqueued"] = copy.enqueued.into();
        value["counted"] = copy.counted.into();
    }
    value
}
