//! Who is forgotten when there are too many producers. Promise G7, and the history that broke it: a user who may write to a queue opened a
//! hundred thousand producer names; the queue forgot those of all others, whose retries were then refused, or, at a client that began anew,
//! stored twice.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bellwether_protocol::names::UserName;
use proptest::prelude::*;

use super::*;

/// As many are remembered in these histories.
const MOST: usize = 12;

fn owned(user: usize, name: usize) -> ProducerName {
    let name = ProducerName::new(format!("p{name}")).unwrap();
    match user {
        // One who did not log in.
        0 => name,
        user => name.owned_by(&UserName::new(format!("user/{user}")).unwrap()),
    }
}

/// A table, and how many records have used it.
#[derive(Clone, Default)]
struct Table {
    producers: Producers,
    used: u64,
}

impl Table {
    fn publishes(&mut self, user: usize, name: usize) {
        let known = Known { last: Seq(1), used: Offset(self.used), time_ms: self.used };
        self.producers.remember(owned(user, name), known);
        self.producers.forget_beyond(MOST, self.used);
        self.used += 1;
    }

    fn knows(&self, user: usize, name: usize) -> bool {
        self.producers.last(&owned(user, name)).is_some()
    }

    fn restored(&self) -> Table {
        let all = self.producers.iter().map(|(name, known)| (name.clone(), known));
        let producers = Producers::restore(self.producers.forgotten(), all).unwrap();
        Table { producers, used: self.used }
    }
}

#[test]
fn who_opens_names_without_end_makes_the_queue_forget_nobodys_but_its_own() {
    let mut table = Table::default();
    for name in 0..4 {
        table.publishes(1, name);
    }
    for name in 0..10 * MOST {
        table.publishes(2, name);
    }
    assert!((0..4).all(|name| table.knows(1, name)), "unused for longest, and remembered");
    assert!(table.knows(2, 10 * MOST - 1) && !table.knows(2, 0));
    assert_eq!(table.producers.len(), MOST);
}

/// The same from those who did not log in, who are one owner together.
#[test]
fn names_without_a_user_have_one_share_together() {
    let mut table = Table::default();
    for name in 0..5 {
        table.publishes(3, name);
    }
    for name in 0..10 * MOST {
        table.publishes(0, name);
    }
    assert!((0..5).all(|name| table.knows(3, name)));
}

#[test]
fn of_users_with_as_many_the_one_unused_for_longest_is_forgotten() {
    let mut table = Table::default();
    for user in 1..=MOST {
        table.publishes(user, 0);
    }
    table.publishes(1, 0);
    table.publishes(MOST + 1, 0);
    assert!(table.knows(1, 0) && !table.knows(2, 0) && table.knows(3, 0));
}

/// What would be forgotten next by a plain rule: walks over all owners.
fn victim(model: &BTreeMap<(usize, usize), u64>) -> (usize, usize) {
    let mut by_user: BTreeMap<usize, Vec<(u64, usize)>> = BTreeMap::new();
    for ((user, name), used) in model {
        by_user.entry(*user).or_default().push((*used, *name));
    }
    let oldest = |names: &Vec<(u64, usize)>| *names.iter().min().expect("nobody has none");
    let largest = by_user.iter().max_by_key(|(_, names)| (names.len(), Reverse(oldest(names).0)));
    let (user, names) = largest.expect("there are too many");
    (*user, oldest(names).1)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400, rng_seed: proptest::test_runner::RngSeed::Fixed(2026),
        failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn a_user_within_an_equal_share_loses_nothing_and_replicas_forget_the_same(
        steps in proptest::collection::vec((0..5_usize, 0..9_usize, any::<bool>()), 1..200),
    ) {
        let (mut table, mut follower) = (Table::default(), Table::default());
        let mut model: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        for (user, name, restarts) in steps {
            let before = model.clone();
            model.insert((user, name), table.used);
            table.publishes(user, name);
            follower.publishes(user, name);
            if model.len() > MOST {
                let (loser, lost) = victim(&model);
                let has = |user| model.keys().filter(|(owner, _)| *owner == user).count();
                let users = (0..5).filter(|user| has(*user) > 0).count();
                prop_assert!(has(loser) * users > MOST, "user {loser} had no more than its share");
                model.remove(&(loser, lost));
            }
            for (user, name) in before.keys().chain(model.keys()) {
                prop_assert_eq!(table.knows(*user, *name), model.contains_key(&(*user, *name)));
            }
            if restarts {
                // From a checkpoint, which says nothing of shares.
                follower = follower.restored();
            }
            prop_assert!(table.producers == follower.producers);
            prop_assert!(table.producers.iter().eq(follower.producers.iter()));
        }
    }
}
