//! What should change about who holds and who is to lead the queues: copies of brokers that leave go elsewhere, missing ones are
//! made, and copies and leaderships are spread evenly. Pure and deterministic: a picture in, new states out.
//!
//! It only changes the replica set of a state. Whoever is named there fetches a copy and joins the ISR, whoever is not named any more
//! leaves it when all of the others are in sync, and the first leads when it has settled: the leaders and followers see to that by
//! themselves, so that nothing depends on who does the planning, or on whether anybody does.

use std::collections::{BTreeMap, VecDeque};

use bellwether_protocol::ids::{BrokerId, QueueId};

use crate::coordinator::Version;
use crate::placement::lot;
use crate::records::QueueState;

/// What may be asked of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds copies and leads.
    Serves,
    /// It is not there, and may come back: what it holds waits for it.
    Away,
    /// It keeps its copies, and is to lead nothing.
    LeadsNothing,
    /// It is to hold nothing: on its way out, or away for too long.
    Leaves,
}

/// A broker that is live, or that some queue counts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerView {
    pub broker: BrokerId,
    pub rack: Option<String>,
    pub standing: Standing,
}

/// A queue as it is kept now.
#[derive(Clone, Copy, Debug)]
pub struct QueueView<'a> {
    pub queue: QueueId,
    /// Copies asked for.
    pub wanted: u8,
    /// Fewest in-sync copies asked for; the state may ask for fewer, while there are fewer copies than wanted.
    pub min_isr: u8,
    pub state: &'a QueueState,
    pub version: Version,
}

/// A state to write, and in words what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub queue: QueueId,
    pub version: Version,
    pub state: QueueState,
    pub why: Why,
}

/// What a change is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A copy goes from a broker that leaves to another.
    Replaces { from: BrokerId, to: BrokerId },
    /// There are fewer copies than wanted.
    Adds { to: BrokerId },
    /// One broker holds more than its share.
    EvensCopies { from: BrokerId, to: BrokerId },
    /// Two copies lay in one rack, and another rack had none.
    SpreadsRacks { from: BrokerId, to: BrokerId },
    /// Another is to lead.
    Leads { from: BrokerId, to: BrokerId },
    /// As many copies are in sync as the queue wanted for its confirms.
    RaisesMinIsr { to: u8 },
}

/// Brokers and queues at one moment.
#[derive(Debug)]
pub struct Picture<'a> {
    brokers: BTreeMap<BrokerId, BrokerView>,
    queues: Vec<QueueView<'a>>,
}

impl<'a> Picture<'a> {
    #[must_use]
    pub fn new(
        brokers: impl IntoIterator<Item = BrokerView>,
        queues: Vec<QueueView<'a>>,
    ) -> Picture<'a> {
        let brokers = brokers.into_iter().map(|view| (view.broker, view)).collect();
        Picture { brokers, queues }
    }

    /// The next copy to be made, if one should be: first for brokers that leave, then missing ones, then for racks, then for evenness.
    #[must_use]
    pub fn next_copy(&self) -> Option<Change> {
        let loads = self.loads(|state| &state.replicas);
        self.queues
            .iter()
            .find_map(|view| self.replace(view, &loads))
            .or_else(|| self.queues.iter().find_map(|view| self.add(view, &loads)))
            .or_else(|| self.queues.iter().find_map(|view| self.spread_racks(view, &loads)))
            .or_else(|| self.even_copies(&loads))
    }

    /// Up to `most` queues that another broker should lead.
    #[must_use]
    pub fn next_leaders(&self, most: usize) -> Vec<Change> {
        let mut loads = self.loads(|state| &state.replicas[..state.replicas.len().min(1)]);
        let is_to_give_up = |first: BrokerId| {
            matches!(self.standing(first), Standing::Leaves | Standing::LeadsNothing)
        };
        let mut firsts = self.queues.iter().filter_map(|view| view.state.replicas.first());
        if is_even(&loads) && !firsts.any(|first| is_to_give_up(*first)) {
            // As things are nearly always: what follows copies every replica set.
            return Vec::new();
        }
        let mut firsts: Vec<(QueueView<'a>, Vec<BrokerId>)> =
            self.queues.iter().map(|view| (*view, view.state.replicas.clone())).collect();
        for (view, replicas) in &mut firsts {
            let Some(first) = replicas.first().copied() else { continue };
            if is_to_give_up(first)
                && let Some(to) = self.best_leader(view, replicas, &loads)
            {
                prefer(replicas, to);
                *loads.entry(to).or_default() += 1;
            }
        }
        // Each path is a walk over all queues and changes at least one: more of them than changes are not wanted now.
        for _ in 0..most {
            let Some(path) = uneven_path(&firsts, &loads) else { break };
            for (at, to) in path {
                let from = firsts[at].1[0];
                prefer(&mut firsts[at].1, to);
                *loads.entry(from).or_default() -= 1;
                *loads.entry(to).or_default() += 1;
            }
        }
        firsts
            .into_iter()
            .filter(|(view, replicas)| *replicas != view.state.replicas)
            .take(most)
            .map(|(view, replicas)| {
                let why = Why::Leads { from: view.state.replicas[0], to: replicas[0] };
                change(&view, QueueState { replicas, ..view.state.clone() }, why)
            })
            .collect()
    }

    /// Queues whose copies have become as many as they wanted.
    #[must_use]
    pub fn min_isr_to_raise(&self) -> Vec<Change> {
        self.queues
            .iter()
            .filter(|view| view.state.min_isr < view.min_isr)
            .filter(|view| view.state.isr.len() >= usize::from(view.wanted))
            .map(|view| {
                let state = QueueState { min_isr: view.min_isr, ..view.state.clone() };
                change(view, state, Why::RaisesMinIsr { to: view.min_isr })
            })
            .collect()
    }

    fn standing(&self, broker: BrokerId) -> Standing {
        self.brokers.get(&broker).map_or(Standing::Away, |view| view.standing)
    }

    /// How many queues name each broker that serves.
    fn loads(&self, named: impl Fn(&'a QueueState) -> &'a [BrokerId]) -> BTreeMap<BrokerId, u32> {
        let serving = self.brokers.values().filter(|view| view.standing == Standing::Serves);
        let mut loads: BTreeMap<BrokerId, u32> = serving.map(|view| (view.broker, 0)).collect();
        for broker in self.queues.iter().flat_map(|view| named(view.state)) {
            if let Some(load) = loads.get_mut(broker) {
                *load += 1;
            }
        }
        loads
    }

    /// Who should hold a copy beside `others`: of a rack that has none yet, then with the least to do.
    fn best_holder(
        &self,
        view: &QueueView<'_>,
        others: &[BrokerId],
        loads: &BTreeMap<BrokerId, u32>,
    ) -> Option<BrokerId> {
        let candidates = loads.keys().filter(|broker| !others.contains(broker));
        let key = |broker: &BrokerId| {
            (self.shares_rack(*broker, others), loads[broker], lot(view.queue, *broker))
        };
        candidates.min_by_key(|broker| key(broker)).copied()
    }

    fn shares_rack(&self, broker: BrokerId, others: &[BrokerId]) -> bool {
        let rack = |broker: &BrokerId| self.brokers.get(broker).and_then(|v| v.rack.as_deref());
        let mine = rack(&broker);
        mine.is_some() && others.iter().any(|other| rack(other) == mine)
    }

    fn best_leader(
        &self,
        view: &QueueView<'_>,
        replicas: &[BrokerId],
        loads: &BTreeMap<BrokerId, u32>,
    ) -> Option<BrokerId> {
        let candidates = replicas.iter().filter(|broker| loads.contains_key(broker));
        candidates.min_by_key(|broker| (loads[broker], lot(view.queue, **broker))).copied()
    }

    fn replace(&self, view: &QueueView<'_>, loads: &BTreeMap<BrokerId, u32>) -> Option<Change> {
        let leaves = |broker: &BrokerId| self.standing(*broker) == Standing::Leaves;
        let at = view.state.replicas.iter().position(leaves)?;
        self.swap(view, at, loads, |from, to| Why::Replaces { from, to })
    }

    fn add(&self, view: &QueueView<'_>, loads: &BTreeMap<BrokerId, u32>) -> Option<Change> {
        let replicas = &view.state.replicas;
        if replicas.len() >= usize::from(view.wanted) {
            return None;
        }
        let to = self.best_holder(view, replicas, loads)?;
        let mut state = view.state.clone();
        state.replicas.push(to);
        Some(change(view, state, Why::Adds { to }))
    }

    /// One of two copies of the same rack goes to a rack that has none: the last of them, for the first leads.
    fn spread_racks(
        &self,
        view: &QueueView<'_>,
        loads: &BTreeMap<BrokerId, u32>,
    ) -> Option<Change> {
        let replicas = &view.state.replicas;
        let without = |at: usize| {
            let mut others = replicas.clone();
            others.remove(at);
            others
        };
        let at =
            (0..replicas.len()).rev().find(|at| self.shares_rack(replicas[*at], &without(*at)))?;
        let to = self.best_holder(view, &without(at), loads)?;
        if to == replicas[at] || self.shares_rack(to, &without(at)) {
            return None;
        }
        self.swap(view, at, loads, |from, to| Why::SpreadsRacks { from, to })
    }

    fn even_copies(&self, loads: &BTreeMap<BrokerId, u32>) -> Option<Change> {
        let (light, least) = loads.iter().min_by_key(|(_, load)| **load)?;
        // From the one with most that has one to give: the fullest may share every queue with the emptiest.
        let mut heavy: Vec<_> = loads.iter().filter(|(_, load)| **load >= least + 2).collect();
        heavy.sort_by_key(|(broker, load)| (std::cmp::Reverse(**load), **broker));
        heavy.into_iter().find_map(|(from, _)| {
            self.queues.iter().find_map(|view| {
                let replicas = &view.state.replicas;
                let at = replicas.iter().position(|broker| broker == from)?;
                let mut others = replicas.clone();
                others.remove(at);
                let worse = self.shares_rack(*light, &others) && !self.shares_rack(*from, &others);
                if others.contains(light) || worse {
                    return None;
                }
                let mut state = view.state.clone();
                state.replicas[at] = *light;
                Some(change(view, state, Why::EvensCopies { from: *from, to: *light }))
            })
        })
    }

    fn swap(
        &self,
        view: &QueueView<'_>,
        at: usize,
        loads: &BTreeMap<BrokerId, u32>,
        why: impl Fn(BrokerId, BrokerId) -> Why,
    ) -> Option<Change> {
        let from = view.state.replicas[at];
        let mut others = view.state.replicas.clone();
        others.remove(at);
        let mut taken = others.clone();
        taken.push(from);
        let to = self.best_holder(view, &others, loads).filter(|to| !taken.contains(to))?;
        let mut state = view.state.clone();
        state.replicas[at] = to;
        Some(change(view, state, why(from, to)))
    }
}

fn change(view: &QueueView<'_>, state: QueueState, why: Why) -> Change {
    Change { queue: view.queue, version: view.version, state, why }
}

/// What all would come to, if every copy succeeded and nothing else happened: the first `most` changes, in their order.
#[must_use]
pub fn foresee(
    brokers: &[BrokerView],
    queues: &[QueueView<'_>],
    most: usize,
) -> Vec<(QueueId, Why)> {
    let mut states: Vec<QueueState> = queues.iter().map(|view| view.state.clone()).collect();
    let places: BTreeMap<QueueId, usize> =
        queues.iter().enumerate().map(|(at, view)| (view.queue, at)).collect();
    let mut steps = Vec::new();
    while steps.len() < most {
        let views = queues.iter().zip(&states);
        let views = views.map(|(view, state)| QueueView { state, ..*view }).collect();
        let picture = Picture::new(brokers.to_vec(), views);
        let next = match picture.next_copy() {
            Some(copy) => vec![copy],
            None => picture.next_leaders(most - steps.len()),
        };
        if next.is_empty() {
            break;
        }
        for change in next {
            states[places[&change.queue]] = change.state;
            steps.push((change.queue, change.why));
        }
    }
    steps
}

/// `broker`, which is one of them, goes first.
fn prefer(replicas: &mut [BrokerId], broker: BrokerId) {
    if let Some(at) = replicas.iter().position(|one| *one == broker) {
        replicas[..=at].rotate_right(1);
    }
}

/// No broker leads two more than another.
fn is_even(loads: &BTreeMap<BrokerId, u32>) -> bool {
    loads.values().max().zip(loads.values().min()).is_none_or(|(most, least)| most - least < 2)
}

/// Which queues have to be led by whom, so that a broker that leads two more than another leads one less and the other one more:
/// directly, or through others.
fn uneven_path(
    firsts: &[(QueueView<'_>, Vec<BrokerId>)],
    loads: &BTreeMap<BrokerId, u32>,
) -> Option<Vec<(usize, BrokerId)>> {
    if is_even(loads) {
        return None;
    }
    // From each broker, to whom else a queue that it is to lead could go.
    let mut ways: BTreeMap<(BrokerId, BrokerId), usize> = BTreeMap::new();
    for (at, (_, replicas)) in firsts.iter().enumerate() {
        for to in replicas.iter().skip(1).filter(|to| loads.contains_key(to)) {
            ways.entry((replicas[0], *to)).or_insert(at);
        }
    }
    let mut heavy: Vec<BrokerId> = loads.keys().copied().collect();
    heavy.sort_by_key(|broker| (std::cmp::Reverse(loads[broker]), *broker));
    heavy.into_iter().find_map(|from| shortest_way(from, loads, &ways))
}

fn shortest_way(
    from: BrokerId,
    loads: &BTreeMap<BrokerId, u32>,
    ways: &BTreeMap<(BrokerId, BrokerId), usize>,
) -> Option<Vec<(usize, BrokerId)>> {
    let mut came: BTreeMap<BrokerId, (BrokerId, usize)> = BTreeMap::new();
    let mut open = VecDeque::from([from]);
    while let Some(broker) = open.pop_front() {
        if loads[&broker] + 2 <= loads[&from] {
            let mut path = Vec::new();
            let mut to = broker;
            while to != from {
                let (before, queue) = came[&to];
                path.push((queue, to));
                to = before;
            }
            return Some(path);
        }
        for ((_, to), queue) in ways.range((broker, BrokerId(0))..=(broker, BrokerId(u32::MAX))) {
            if *to != from && !came.contains_key(to) {
                came.insert(*to, (broker, *queue));
                open.push_back(*to);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bellwether_protocol::ids::{Epoch, Member, StoreId};
    use uuid::Uuid;

    use super::*;

    fn serving(broker: u32) -> BrokerView {
        BrokerView { broker: BrokerId(broker), rack: None, standing: Standing::Serves }
    }

    fn with(broker: u32, standing: Standing) -> BrokerView {
        BrokerView { standing, ..serving(broker) }
    }

    fn kept_on(replicas: &[u32]) -> QueueState {
        let member = |broker: &u32| Member {
            broker: BrokerId(*broker),
            store: StoreId(Uuid::from_u128(u128::from(*broker))),
        };
        QueueState {
            epoch: Epoch(1),
            leader: None,
            isr: replicas.iter().map(member).collect(),
            min_isr: 2,
            replicas: replicas.iter().copied().map(BrokerId).collect(),
            given_up: Vec::new(),
            past: Default::default(),
            unknown: Default::default(),
        }
    }

    fn views(states: &[QueueState]) -> Vec<QueueView<'_>> {
        let numbered = states.iter().enumerate();
        let view = numbered.map(|(n, state)| QueueView {
            queue: QueueId(Uuid::from_u128(n as u128)),
            wanted: 3,
            min_isr: 2,
            state,
            version: Version(7),
        });
        view.collect()
    }

    fn replicas(change: &Change) -> Vec<u32> {
        change.state.replicas.iter().map(|broker| broker.0).collect()
    }

    /// Makes one change after the other until there is none; says how many.
    fn settle(brokers: &[BrokerView], states: &mut [QueueState]) -> usize {
        for changes in 0..1_000 {
            let picture = Picture::new(brokers.to_vec(), views(states));
            let mut next = picture.next_leaders(100);
            next.extend(picture.next_copy());
            if next.is_empty() {
                return changes;
            }
            // A queue may be among both: the second would then be refused, for its version has moved.
            let mut done: Vec<u128> = Vec::new();
            for change in next {
                let at = change.queue.0.as_u128();
                if !done.contains(&at) {
                    done.push(at);
                    states[at as usize] = change.state;
                }
            }
        }
        panic!("it goes on for ever");
    }

    fn spread(states: &[QueueState], brokers: u32, named: fn(&QueueState) -> &[BrokerId]) -> usize {
        let count = |broker: u32| {
            states.iter().filter(|state| named(state).contains(&BrokerId(broker))).count()
        };
        let counts: Vec<usize> = (1..=brokers).map(count).collect();
        counts.iter().max().unwrap() - counts.iter().min().unwrap()
    }

    fn in_rack(broker: u32, rack: &str) -> BrokerView {
        BrokerView { rack: Some(rack.to_owned()), ..serving(broker) }
    }

    #[test]
    fn of_two_copies_in_one_rack_one_goes_to_a_rack_that_has_none() {
        let mut states = [kept_on(&[1, 2, 3])];
        let two_racks = [in_rack(1, "a"), in_rack(2, "a"), in_rack(3, "b")];
        let picture = Picture::new(two_racks.clone(), views(&states));
        assert_eq!(picture.next_copy(), None, "there is no third rack");
        let brokers = [&two_racks[..], &[in_rack(4, "c"), in_rack(5, "b")]].concat();
        let change = Picture::new(brokers.clone(), views(&states)).next_copy().unwrap();
        assert_eq!(replicas(&change), [1, 4, 3]);
        assert_eq!(change.why, Why::SpreadsRacks { from: BrokerId(2), to: BrokerId(4) });
        assert_eq!(settle(&brokers, &mut states), 1);
    }

    #[test]
    fn what_is_foreseen_is_what_is_done() {
        let mut states: Vec<QueueState> = (0..9).map(|_| kept_on(&[1, 2, 3])).collect();
        let brokers = [1, 2, 3, 4].map(serving);
        let steps = foresee(&brokers, &views(&states), 1_000);
        let before = states.clone();
        settle(&brokers, &mut states);
        let copies = steps.iter().filter(|(_, why)| matches!(why, Why::EvensCopies { .. })).count();
        let moved = |(old, new): (&QueueState, &QueueState)| {
            new.replicas.iter().filter(|broker| !old.replicas.contains(broker)).count()
        };
        assert_eq!(copies, before.iter().zip(&states).map(moved).sum::<usize>());
        assert_eq!(foresee(&brokers, &views(&states), 1_000), []);
        assert_eq!(foresee(&brokers, &views(&before), 3).len(), 3);
    }

    #[test]
    fn nothing_is_done_where_all_is_even() {
        let states = [kept_on(&[1, 2, 3]), kept_on(&[2, 3, 1]), kept_on(&[3, 1, 2])];
        let picture = Picture::new([1, 2, 3].map(serving), views(&states));
        assert_eq!((picture.next_copy(), picture.next_leaders(10)), (None, vec![]));
    }

    #[test]
    fn the_copies_of_a_broker_that_leaves_go_to_one_that_serves() {
        let states = [kept_on(&[1, 2, 3])];
        let brokers = [
            serving(1),
            with(2, Standing::Leaves),
            serving(3),
            with(4, Standing::LeadsNothing),
            serving(5),
        ];
        let change = Picture::new(brokers, views(&states)).next_copy().expect("it leaves");
        assert_eq!(replicas(&change), [1, 5, 3]);
        assert_eq!(change.why, Why::Replaces { from: BrokerId(2), to: BrokerId(5) });
        assert_eq!((change.version, &change.state.isr), (Version(7), &states[0].isr));
    }

    #[test]
    fn a_broker_that_is_away_keeps_its_copies_and_its_turn() {
        let states = [kept_on(&[1, 2, 3])];
        let brokers = [with(1, Standing::Away), serving(2), serving(3), serving(4)];
        let picture = Picture::new(brokers, views(&states));
        assert_eq!((picture.next_leaders(10), picture.next_copy()), (vec![], None));
    }

    #[test]
    fn without_another_broker_nobody_is_replaced() {
        let states = [kept_on(&[1, 2, 3])];
        let brokers = [serving(1), with(2, Standing::Leaves), serving(3)];
        assert_eq!(Picture::new(brokers, views(&states)).next_copy(), None);
    }

    #[test]
    fn a_new_broker_takes_its_share_of_copies_and_leaderships() {
        let mut states: Vec<QueueState> =
            (0..12).map(|n| kept_on(&[[1, 2, 3], [2, 3, 1], [3, 1, 2]][n % 3])).collect();
        let brokers = [1, 2, 3, 4].map(serving);
        settle(&brokers, &mut states);
        assert!(spread(&states, 4, |state| &state.replicas) <= 1, "{states:?}");
        assert!(spread(&states, 4, |state| &state.replicas[..1]) <= 1, "{states:?}");
        assert!(states.iter().all(|state| state.replicas.len() == 3));
    }

    #[test]
    fn a_broker_that_is_drained_is_to_lead_nothing_and_the_others_evenly() {
        let mut states: Vec<QueueState> = (0..9).map(|_| kept_on(&[1, 2, 3])).collect();
        settle(&[with(1, Standing::LeadsNothing), serving(2), serving(3)], &mut states);
        let leads = |broker| states.iter().filter(|s| s.replicas[0] == BrokerId(broker)).count();
        assert_eq!(leads(1), 0);
        assert!(leads(2).abs_diff(leads(3)) <= 1);
        assert!(states.iter().all(|state| state.replicas.contains(&BrokerId(1))), "it keeps them");
    }

    /// Broker 1 leads two more than broker 3, but shares no queue with it.
    #[test]
    fn leaderships_are_evened_through_a_third_broker_where_two_share_no_queue() {
        let mut states = vec![kept_on(&[1, 2]), kept_on(&[1, 2]), kept_on(&[2, 3])];
        let mut picture = views(&states);
        picture.iter_mut().for_each(|view| view.wanted = 2);
        let changes = Picture::new([1, 2, 3].map(serving), picture).next_leaders(10);
        for change in changes {
            states[change.queue.0.as_u128() as usize] = change.state;
        }
        assert_eq!(spread(&states, 3, |state| &state.replicas[..1]), 0, "{states:?}");
    }

    #[test]
    fn missing_copies_are_made_when_brokers_come_and_min_isr_follows_when_they_are_in_sync() {
        let mut state = kept_on(&[1]);
        state.min_isr = 1;
        let states = [state];
        let change = Picture::new([1, 2, 3].map(serving), views(&states)).next_copy().unwrap();
        assert!(matches!(change.why, Why::Adds { .. }) && change.state.replicas.len() == 2);
        let mut whole = kept_on(&[1, 2, 3]);
        whole.min_isr = 1;
        for (isr, raised) in [(2, None), (3, Some(2))] {
            let mut states = [whole.clone()];
            states[0].isr.truncate(isr);
            let raise = Picture::new([1, 2, 3].map(serving), views(&states)).min_isr_to_raise();
            assert_eq!(raise.first().map(|change| change.state.min_isr), raised);
        }
    }

    #[test]
    fn copies_go_to_another_rack_before_they_go_to_an_idle_broker() {
        let racked =
            |broker, rack: &str| BrokerView { rack: Some(rack.to_owned()), ..serving(broker) };
        let states = [kept_on(&[1, 2, 3]), kept_on(&[5, 1, 2])];
        let brokers = [
            racked(1, "a"),
            racked(2, "b"),
            BrokerView { standing: Standing::Leaves, ..racked(3, "c") },
            racked(4, "a"),
            racked(5, "c"),
        ];
        let change = Picture::new(brokers, views(&states)).next_copy().unwrap();
        assert_eq!(replicas(&change), [1, 2, 5], "broker 4 is idle, but of the rack of broker 1");
    }
}
