//! Handing the protocol to the checker, and what came of a search.

use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path, Property};

use crate::promises;
use crate::protocol::{Protocol, Step};
use crate::rules::{Bounds, Rules};
use crate::story;
use crate::symmetry::representative;
use crate::world::World;

/// The protocol as the checker wants it. Worlds that differ by the names of the brokers alone are one to it.
#[derive(Clone, Debug)]
pub struct Checked {
    pub protocol: Protocol,
}

impl Model for Checked {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![representative(&World::begin())]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        self.protocol.enabled(world, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let next = representative(&self.protocol.take(world, step));
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Checked>> {
        promises::all(self)
    }
}

/// A property and what was found of it.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub property: &'static str,
    pub holds: bool,
    /// How it comes to be violated, or why it is not.
    pub story: Option<String>,
}

/// What a search has come to.
#[derive(Clone, Debug)]
pub struct Found {
    pub states: usize,
    /// Steps of the longest of the shortest ways to a state.
    pub depth: usize,
    pub took: Duration,
    /// Every state within the bounds was looked at.
    pub exhausted: bool,
    pub verdicts: Vec<Verdict>,
}

impl Found {
    #[must_use]
    pub fn verdict(&self, property: &str) -> Option<&Verdict> {
        self.verdicts.iter().find(|verdict| verdict.property == property)
    }

    #[must_use]
    pub fn holds(&self) -> bool {
        self.exhausted && self.verdicts.iter().all(|verdict| verdict.holds)
    }
}

/// Searches every state within the bounds, for at most that long.
#[must_use]
pub fn search(bounds: Bounds, threads: usize, patience: Duration) -> Found {
    let protocol = Protocol { rules: Rules::sound(), bounds };
    run(Checked { protocol }, threads, patience, HasDiscoveries::AnyFailures)
}

/// Looks for a history that breaks this promise without a rule.
#[must_use]
pub fn search_without(
    rules: Rules,
    bounds: Bounds,
    promise: &'static str,
    patience: Duration,
) -> Found {
    let protocol = Protocol { rules, bounds };
    run(Checked { protocol }, 1, patience, HasDiscoveries::AnyOf([promise].into()))
}

fn run(checked: Checked, threads: usize, patience: Duration, until: HasDiscoveries) -> Found {
    let began = Instant::now();
    let properties = checked.properties();
    let search = checked
        .clone()
        .checker()
        .threads(threads)
        .timeout(patience)
        .finish_when(until)
        .spawn_bfs()
        .join();
    let discoveries = search.discoveries();
    let verdict = |property: &Property<Checked>| {
        let path = discoveries.get(property.name);
        let wanted = property.expectation == Expectation::Sometimes;
        Verdict {
            property: property.name,
            holds: path.is_some() == wanted,
            story: path.filter(|_| !wanted).map(|path| checked.tell(property, path.clone())),
        }
    };
    let verdicts: Vec<Verdict> = properties.iter().map(verdict).collect();
    let took = began.elapsed();
    let exhausted = took < patience;
    Found {
        states: search.unique_state_count(),
        depth: search.max_depth(),
        took,
        exhausted,
        verdicts,
    }
}

impl Checked {
    /// The story of a violation, without what does not belong to it.
    fn tell(&self, property: &Property<Checked>, path: Path<World, Step>) -> String {
        let mut steps = self.named(path);
        if let Some(short) = self.replay(property, &steps) {
            steps.truncate(short.len());
        }
        // Whatever can be left out without leaving the end out is left out, the last first: it may be that nothing needs it.
        let mut at = steps.len();
        while at > 0 {
            at -= 1;
            let mut without = steps.clone();
            without.remove(at);
            if let Some(story) = self.replay(property, &without) {
                steps.truncate(0);
                steps.extend(story.into_iter().map(|(step, _)| step));
                at = at.min(steps.len());
            }
        }
        let steps = self.replay(property, &steps).unwrap_or_default();
        story::told(&World::begin(), &steps)
    }

    /// The steps of a path on which every broker keeps its name.
    fn named(&self, path: Path<World, Step>) -> Vec<Step> {
        let (mut world, mut steps, mut possible) = (World::begin(), Vec::new(), Vec::new());
        for (next, _) in path.into_vec().into_iter().skip(1) {
            possible.clear();
            self.protocol.enabled(&world, &mut possible);
            let leads_there =
                |step: &&Step| representative(&self.protocol.take(&world, **step)) == next;
            let step = possible.iter().find(leads_there).copied();
            let step = step.expect("what is possible does not depend on names");
            world = self.protocol.take(&world, step);
            steps.push(step);
        }
        steps
    }

    /// The worlds that these steps lead to, up to the first that violates the property; `None` if a step is not possible or none does.
    fn replay(&self, property: &Property<Checked>, steps: &[Step]) -> Option<Vec<(Step, World)>> {
        let (mut world, mut story, mut possible) = (World::begin(), Vec::new(), Vec::new());
        for step in steps {
            possible.clear();
            self.protocol.enabled(&world, &mut possible);
            if !possible.contains(step) {
                return None;
            }
            world = self.protocol.take(&world, *step);
            story.push((*step, world));
            if !(property.condition)(self, &world) {
                return Some(story);
            }
        }
        None
    }
}
