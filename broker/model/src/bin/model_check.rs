//! `model-check`: searches every state of the protocol's model within bounds that it prints.

use std::process::ExitCode;
use std::time::Duration;

use bellwether_model::checked::{Found, search, search_without};
use bellwether_model::mutants::{self, Mutant};
use bellwether_model::rules::Bounds;
use bellwether_model::searches::ALL;
use clap::Parser;

/// Searches every state of the model of Bellwether's replication protocol within printed bounds, and says of each promise whether it holds.
#[derive(Parser)]
#[command(name = "model-check")]
struct Arguments {
    /// Only the searches with this word in their name
    #[arg(long)]
    only: Option<String>,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Give a search up after this long
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Take the guards of the protocol away one by one, and tell what comes of it
    #[arg(long)]
    mutants: bool,
    /// In place of a search's own bounds: name=value, separated by commas
    #[arg(long, value_delimiter = ',')]
    set: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.mutants {
        return mutants(&arguments);
    }
    let mut sound = true;
    let (mut states, mut seconds) = (0, 0.0);
    for bounds in ALL
        .iter()
        .filter(|bounds| arguments.only.as_ref().is_none_or(|only| bounds.name.contains(only)))
    {
        let bounds = changed(*bounds, &arguments.set);
        println!("{}\n  bounds: {}", bounds.name, bounds);
        let found = search(bounds, arguments.threads, Duration::from_secs(arguments.seconds));
        print(&found);
        sound &= found.holds();
        states += found.states;
        seconds += found.took.as_secs_f64();
    }
    println!(
        "{states} states in {seconds:.0} s: {}",
        if sound { "nothing violated" } else { "NOT SOUND" }
    );
    if sound { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

fn mutants(arguments: &Arguments) -> ExitCode {
    let mut alive = 0;
    let wanted =
        |mutant: &&Mutant| arguments.only.as_ref().is_none_or(|only| mutant.name.contains(only));
    for mutant in mutants::ALL.iter().filter(wanted) {
        let found = search_without(
            mutant.rules,
            mutant.bounds,
            mutant.promise,
            Duration::from_secs(arguments.seconds),
        );
        println!("{} ({} states, {:.1} s)", mutant.name, found.states, found.took.as_secs_f64());
        match found.verdict(mutant.promise).and_then(|verdict| verdict.story.as_ref()) {
            Some(story) => println!("  breaks {}\n{story}", mutant.promise),
            None => alive += 1,
        }
    }
    println!("{alive} mutants live");
    if alive == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

fn print(found: &Found) {
    let exhausted =
        if found.exhausted { "every one within the bounds" } else { "NOT ALL: out of patience" };
    println!(
        "  {} states ({exhausted}), depth {}, {:.1} s",
        found.states,
        found.depth,
        found.took.as_secs_f64()
    );
    for verdict in &found.verdicts {
        println!("  {} {}", if verdict.holds { "holds   " } else { "VIOLATED" }, verdict.property);
        if let Some(story) = &verdict.story {
            println!("{story}");
        }
    }
}

fn changed(mut bounds: Bounds, set: &[String]) -> Bounds {
    for change in set {
        let (name, value) = change.split_once('=').unwrap_or((change, "1"));
        let value: u8 = value.parse().unwrap_or(0);
        match name {
            "min_isr" => bounds.min_isr = value,
            "messages" => bounds.messages = value,
            "epochs" => bounds.epochs = value,
            "isr_changes" => bounds.isr_changes = value,
            "crashes" => bounds.crashes = value,
            "wipes" => bounds.wipes = value,
            "expiries" => bounds.expiries = value,
            "late_answers" => bounds.late_answers = value,
            "deliveries" => bounds.deliveries = value > 0,
            "settles" => bounds.settles = value,
            "moves" => bounds.moves = value,
            "deletes" => bounds.deletes = value > 0,
            "coarse" => bounds.coarse = value > 0,
            "calm" => bounds.calm = value > 0,
            other => eprintln!("there is no bound {other:?}"),
        }
    }
    bounds
}
