//! Lives through new histories for as long as told, and stops at the first that breaks a promise.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bellwether_sim::counts::Counts;
use clap::Parser;

/// Simulates clusters under faults, one history a seed.
#[derive(Parser)]
struct Arguments {
    /// How long to go on, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The first seed; the others follow one by one. Default: from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// Only this many histories.
    #[arg(long)]
    histories: Option<u64>,
    /// Tell the story of the first history, whether a promise was broken or not.
    #[arg(long)]
    tell: bool,
    /// Lines of the story of a history that failed.
    #[arg(long, default_value_t = 400)]
    story_lines: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first = arguments
        .seed
        .unwrap_or_else(|| clock().map_or(1, |since| since.as_nanos() as u64 & 0xffff_ffff));
    if arguments.tell {
        for line in bellwether_sim::story(first, arguments.story_lines) {
            println!("{line}");
        }
        return ExitCode::SUCCESS;
    }
    let until = Instant::now() + Duration::from_secs(arguments.seconds);
    let mut counts = Counts::default();
    let (mut lived, mut confirmed, mut epochs, mut forced, mut lost) = (0, 0, 0, 0, 0);
    println!("simulating from seed {first} on");
    while Instant::now() < until && arguments.histories.is_none_or(|most| lived < most) {
        let outcome = bellwether_sim::live_through(first + lived);
        if let Some(violation) = &outcome.violation {
            for line in bellwether_sim::story(outcome.seed, arguments.story_lines) {
                println!("{line}");
            }
            println!("{outcome:?}");
            println!(
                "promise {} was broken: {}\nagain: sim-soak --seed {} --histories 1",
                violation.promise, violation.what, outcome.seed
            );
            return ExitCode::FAILURE;
        }
        lived += 1;
        confirmed += outcome.confirmed;
        epochs += outcome.epochs;
        forced += outcome.forced;
        lost += outcome.lost;
        counts.add(&outcome.counts);
    }
    println!("{counts}");
    println!(
        "{lived} histories, {epochs} epochs, {confirmed} messages confirmed, {lost} of them given up with {forced} forced leaders: every promise held"
    );
    ExitCode::SUCCESS
}
