//! `bellwether cluster rebalance`: what the controller is about to move, and waiting until it has.

use std::time::{Duration, Instant};

use bellwether_client::{Client, Moved, PlannedMove};
use serde_json::json;

use super::stuck;
use super::table::{counted, print_json, print_line, print_table, table};
use crate::outcome::Failure;
use crate::progress;
use crate::signals::Signals;

/// How often it is looked what is left.
const LOOK: Duration = Duration::from_millis(500);
/// Nothing to be moved for so long is the end: a leadership follows its copy with a moment between.
const EVEN_FOR: Duration = Duration::from_secs(1);

/// Shows what is to be moved, and moves nothing that would not be moved anyway.
pub async fn show(client: &Client, json: bool) -> Result<(), Failure> {
    let (moves, more) = client.plan().await?;
    let status = client.cluster_status().await?;
    let stuck = stuck::lines(&stuck::ask(client, None).await?, &status, None);
    if json {
        let moves: Vec<_> = moves.iter().map(as_json).collect();
        return print_json(&json!({ "moves": moves, "more": more, "stuck": stuck }));
    }
    if !stuck.is_empty() {
        print_line("What should be elsewhere, and nobody can take:")?;
        for line in &stuck {
            print_line(&format!("  - {line}"))?;
        }
        if moves.is_empty() {
            return print_line("\nNothing else is to be moved");
        }
        print_line("")?;
    }
    if moves.is_empty() {
        return print_line("Copies and leaderships are spread evenly: nothing is to be moved");
    }
    let mut rows = table(&["queue", "what", "from", "to"]);
    for planned in &moves {
        let from = planned.from.map_or_else(|| "-".to_owned(), |broker| broker.to_string());
        rows.add_row([name_of(planned), what(planned).to_owned(), from, planned.to.to_string()]);
    }
    print_table(&rows)?;
    let words = words(&moves);
    print_line(&match more {
        true => format!("\n{words} and more; the controller moves one copy at a time, by itself"),
        false => format!("\n{words}; the controller moves one copy at a time, by itself"),
    })
}

/// Waits until there is nothing to be moved.
pub async fn wait_until_even(client: &Client, json: bool) -> Result<(), Failure> {
    let bar = progress::bar(&progress::board(), "to be moved", None);
    let mut signals = Signals::catch()?;
    let mut even_since = None;
    let mut most = 0;
    let mut told = stuck::Told::new(None);
    loop {
        let (moves, _) = client.plan().await?;
        let status = client.cluster_status().await?;
        let left = moves.len() as u64 + status.queues_under_replicated;
        most = most.max(left);
        bar.set_length(most);
        bar.set_position(most - left);
        if left > 0 {
            even_since = None;
            let words =
                if left == 1 { "1 move is".to_owned() } else { format!("{left} moves are") };
            told.tell(client, &status, &words, &bar).await?;
        } else if even_since.get_or_insert_with(Instant::now).elapsed() >= EVEN_FOR {
            bar.finish_and_clear();
            let stuck = stuck::lines(&stuck::ask(client, None).await?, &status, None);
            if !stuck.is_empty() {
                return Err(Failure::NotDone(format!(
                    "what can be moved is spread evenly, but some of it nobody can take:\n  - {}",
                    stuck.join("\n  - ")
                )));
            }
            let words = "copies and leaderships are spread evenly";
            return match json {
                true => print_json(&json!({ "message": words })),
                false => print_line(words),
            };
        }
        tokio::select! {
            () = signals.next() => {
                bar.finish_and_clear();
                eprintln!("The controller goes on without this command.");
                return Err(Failure::Interrupted);
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn words(moves: &[PlannedMove]) -> String {
    let count = |what| moves.iter().filter(|planned| planned.what == what).count() as u64;
    let copies = counted(count(Moved::Copy), "copy", "copies");
    format!("{copies} and {}", counted(count(Moved::Leadership), "leadership", "leaderships"))
}

fn what(planned: &PlannedMove) -> &'static str {
    match (planned.what, planned.from) {
        (Moved::Leadership, _) => "leadership",
        (Moved::Copy, Some(_)) => "copy",
        (Moved::Copy, None) => "missing copy",
    }
}

/// As users name it; with its virtual host where that is not the usual one.
fn name_of(planned: &PlannedMove) -> String {
    match planned.virtual_host.as_str() {
        "/" => planned.queue.to_string(),
        host => format!("{host}: {}", planned.queue),
    }
}

fn as_json(planned: &PlannedMove) -> serde_json::Value {
    json!({
        "virtual_host": planned.virtual_host.as_str(),
        "queue": planned.queue.as_str(),
        "what": what(planned),
        "from": planned.from.map(|broker| broker.0),
        "to": planned.to.0,
    })
}
