//! Every property can fail: without a guard of the protocol the checker finds the history that the guard is there for.

use std::time::Duration;

use bellwether_model::checked::search;
use bellwether_model::checked::search_without;
use bellwether_model::mutants::{ALL, Mutant};
use bellwether_model::promises::{DEPOSED, LAST_EPOCH_CONFIRMS};
use bellwether_model::rules::{Bounds, Rules};
use bellwether_model::searches::QUICK;

/// Long enough for a machine that does much else: a search ends by itself, and finds the same however long it takes.
const PATIENCE: Duration = Duration::from_secs(600);

fn story(mutant: &Mutant) -> String {
    let found = search_without(mutant.rules, mutant.bounds, mutant.promise, PATIENCE);
    let verdict = found.verdict(mutant.promise).and_then(|verdict| verdict.story.clone());
    verdict.unwrap_or_else(|| panic!("{} lives: {found:?}", mutant.name))
}

#[test]
fn without_any_of_its_guards_the_protocol_breaks_the_promise_that_the_guard_is_there_for() {
    for mutant in &ALL {
        let story = story(mutant);
        assert!(story.contains("In the end the coordinator holds"), "{}: {story}", mutant.name);
    }
}

#[test]
fn the_same_searches_find_nothing_with_the_guards_in_place() {
    for mutant in ALL.iter().filter(|mutant| mutant.bounds.moves == 0) {
        let found = search_without(Rules::sound(), mutant.bounds, mutant.promise, PATIENCE);
        let verdict = found.verdict(mutant.promise).expect("it is one of those that are judged");
        assert!(
            found.exhausted && verdict.holds,
            "{} within {}: {found:?}",
            mutant.promise,
            mutant.bounds
        );
    }
}

#[test]
fn a_story_says_who_did_what_and_leaves_out_what_does_not_matter() {
    let mutant = ALL
        .iter()
        .find(|mutant| mutant.name == "answer_old_epoch_after_standing")
        .expect("it is there");
    assert_eq!(mutant.promise, DEPOSED);
    let story = story(mutant);
    let steps = story
        .lines()
        .filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()))
        .count();
    assert_eq!(steps, 10, "{story}");
    assert!(
        story.contains("stands for epoch 2.") && story.contains("A confirms [e1 m1] in epoch 1."),
        "{story}"
    );
}

#[test]
fn nothing_is_violated_within_small_bounds() {
    for bounds in QUICK {
        let found = search(bounds, 2, PATIENCE);
        assert!(found.holds(), "{}: {found:?}", bounds.name);
    }
}

#[test]
fn a_search_that_gets_nowhere_does_not_pass_for_a_sound_one() {
    let bounds = Bounds { messages: 0, ..Bounds::named("nothing is published") };
    let found = search(bounds, 1, PATIENCE);
    assert!(!found.holds(), "no message was confirmed in the last epoch");
    assert!(!found.verdict(LAST_EPOCH_CONFIRMS).expect("it is judged").holds);
}
