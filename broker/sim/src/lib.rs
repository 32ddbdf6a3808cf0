//! A simulator: the machines that ship, in a cluster where chance decides what fails and when. One seed is
//! one history, the same on every machine. Nothing in it waits: seconds of simulated time take milliseconds.
//!
//! What is real: the replication machine, the queue machine, the log. What is simulated: disks that stall, fail, and lose what was
//! not synced, connections that delay, freeze and break, an ensemble that loses answers and ends sessions, processes
//! that are killed, stopped and started, clients. A [`witness::Witness`] holds all of it against the promises.
//!
//! *Invariant:* no clock, file, socket or hash order has a say in what happens.

pub mod burials;
mod carrying;
pub mod clients;
pub mod coordinator;
pub mod counts;
pub mod disk;
mod faults;
mod forcing;
pub mod happenings;
mod hosting;
mod keeping;
mod links;
pub mod network;
pub mod nodes;
pub mod ports;
pub mod process;
pub mod random;
pub mod schedule;
mod serving;
mod stalling;
mod streaming;
mod visits;
pub mod witness;
pub mod words;
pub mod world;

use counts::Counts;
use witness::Violation;
use world::{Shape, World};

/// Simulated time with faults: 20 s, in microseconds.
const FAULTS_US: u64 = 20_000_000;

/// Simulated time to come to rest in: 30 s. Sessions end after 2 s, and whatever waits for something waits for that.
const DRAIN_US: u64 = 30_000_000;

/// Lines of a story that a failing test prints.
const STORY_LINES: usize = 400;

/// What became of one history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub seed: u64,
    pub shape: Shape,
    pub happened: u64,
    pub epochs: u64,
    pub confirmed: u64,
    pub deliveries: u64,
    pub redeliveries: u64,
    /// Messages that consumers kept when their leader changed.
    pub claims: u64,
    /// Leaders forced by an operator, and confirmed messages that were given up with that.
    pub forced: u64,
    pub lost: u64,
    /// What it exercised.
    pub counts: Counts,
    /// From the end of faults until everything was drained, in microseconds.
    pub drained_after_us: u64,
    pub violation: Option<Violation>,
}

/// Lives through the history of a seed.
#[must_use]
pub fn live_through(seed: u64) -> Outcome {
    let mut world = World::new(seed, false);
    let drained_after_us = run(&mut world);
    outcome(&world, drained_after_us)
}

/// The last lines of the story of a seed, and how everything stands at its end.
#[must_use]
pub fn story(seed: u64, lines_max: usize) -> Vec<String> {
    let mut world = World::new(seed, true);
    run(&mut world);
    let mut lines = world.story.take().unwrap_or_default();
    let shape = world.shape;
    let last = lines.split_off(lines.len().saturating_sub(lines_max));
    let mut story = vec![format!("seed {seed}: {shape:?}, the last {} lines", last.len())];
    story.extend(last);
    story.extend(world.condition());
    story
}

fn run(world: &mut World) -> u64 {
    world.run_until(FAULTS_US);
    if world.witness.violation.is_some() {
        return 0;
    }
    world.heal();
    let mut until = FAULTS_US;
    while until < FAULTS_US + DRAIN_US && !world.is_idle() && world.witness.violation.is_none() {
        until += 100_000;
        world.run_until(until);
    }
    if world.witness.violation.is_none() {
        let mut witness = std::mem::take(&mut world.witness);
        witness.drained(world.serving().map(|(life, process)| (life, &process.machine)));
        world.witness = witness;
    }
    until - FAULTS_US
}

fn outcome(world: &World, drained_after_us: u64) -> Outcome {
    Outcome {
        seed: world.seed,
        shape: world.shape,
        happened: world.happened,
        epochs: world.epoch(),
        confirmed: world.witness.confirmed(),
        deliveries: world.witness.deliveries,
        redeliveries: world.witness.redeliveries,
        claims: world.witness.claims,
        forced: world.witness.forced,
        lost: world.witness.lost,
        counts: world.counts.clone(),
        drained_after_us,
        violation: world.witness.violation.clone(),
    }
}

/// Lives through a seed's history and panics with its story if a promise was broken.
///
/// # Panics
/// When a promise was broken.
pub fn must_hold(seed: u64) -> Outcome {
    let outcome = live_through(seed);
    if let Some(violation) = &outcome.violation {
        let story = story(seed, STORY_LINES).join("\n");
        panic!(
            "{story}\nseed {seed}: promise {} was broken: {}",
            violation.promise, violation.what
        );
    }
    outcome
}
