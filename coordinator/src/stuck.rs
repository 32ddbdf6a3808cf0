//! What cannot be moved or made, because no broker may take it: copies of brokers that leave, copies that are missing, and
//! leaderships. By the rules that the balance plans with, so that what is said here is what it will not do. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_protocol::ids::{BrokerId, QueueId};

use crate::balance::{BrokerView, QueueView, Standing};

/// What of a queue is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A copy is with a broker that is to hold nothing, and every broker that takes copies has one.
    LeavingCopy,
    /// There are fewer copies than wanted, and every broker that takes copies has one.
    MissingCopy,
    /// Its leader is to lead nothing, and no other copy is with a broker that leads.
    Leadership,
}

/// One queue with something that nobody can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck {
    pub queue: QueueId,
    pub what: What,
    /// Copies that it was declared with.
    pub copies: u8,
}

/// Brokers that take copies and lead: live, and drained of nothing.
#[must_use]
pub fn takers(brokers: &[BrokerView]) -> BTreeSet<BrokerId> {
    let serving = brokers.iter().filter(|view| view.standing == Standing::Serves);
    serving.map(|view| view.broker).collect()
}

/// Everything that is stuck, in the order of `queues`; of one queue first its copies.
#[must_use]
pub fn stuck(brokers: &[BrokerView], queues: &[QueueView<'_>]) -> Vec<Stuck> {
    let standings: BTreeMap<BrokerId, Standing> =
        brokers.iter().map(|view| (view.broker, view.standing)).collect();
    let standing = |broker: &BrokerId| standings.get(broker).copied().unwrap_or(Standing::Away);
    let takers = takers(brokers);
    let mut all = Vec::new();
    for view in queues {
        let replicas = &view.state.replicas;
        let of = |what| Stuck { queue: view.queue, what, copies: view.wanted };
        let leaving = replicas.iter().filter(|one| standing(one) == Standing::Leaves).count();
        let missing = usize::from(view.wanted).saturating_sub(replicas.len());
        let room = takers.iter().filter(|taker| !replicas.contains(taker)).count();
        // Those that leave go first, as in the plan.
        if leaving > room {
            all.push(of(What::LeavingCopy));
        } else if leaving + missing > room {
            all.push(of(What::MissingCopy));
        }
        let leader = view.state.leader.map(|life| standing(&life.broker));
        let elsewhere = replicas.iter().any(|one| takers.contains(one));
        let is_stuck = match leader {
            Some(Standing::LeadsNothing) => !elsewhere,
            // With a new copy there is a new leader.
            Some(Standing::Leaves) => !elsewhere && room == 0,
            Some(Standing::Serves | Standing::Away) | None => false,
        };
        if is_stuck {
            all.push(of(What::Leadership));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use bellwether_protocol::ids::{BrokerLife, Epoch, Incarnation};
    use uuid::Uuid;

    use super::*;
    use crate::balance::foresee;
    use crate::coordinator::Version;
    use crate::records::{Past, QueueState, UnknownFields};

    fn broker(id: u32, standing: Standing) -> BrokerView {
        BrokerView { broker: BrokerId(id), rack: None, standing }
    }

    /// Led by the first of the brokers.
    fn state(replicas: &[u32]) -> QueueState {
        QueueState {
            epoch: Epoch(1),
            leader: Some(BrokerLife { broker: BrokerId(replicas[0]), incarnation: Incarnation(1) }),
            isr: Vec::new(),
            min_isr: 1,
            replicas: replicas.iter().copied().map(BrokerId).collect(),
            given_up: Vec::new(),
            past: Box::new(Past::default()),
            unknown: UnknownFields::new(),
        }
    }

    /// What is stuck of one queue.
    #[track_caller]
    fn judged(brokers: &[BrokerView], wanted: u8, replicas: &[u32]) -> Vec<What> {
        let state = state(replicas);
        let queue = QueueId(Uuid::from_u128(7));
        let view = QueueView { queue, wanted, min_isr: 1, state: &state, version: Version(0) };
        stuck(brokers, &[view]).into_iter().map(|one| one.what).collect()
    }

    use Standing::{Away, LeadsNothing, Leaves, Serves};

    #[test]
    fn a_copy_that_every_other_broker_has_one_of_has_nowhere_to_go() {
        let three = [broker(1, Serves), broker(2, Serves), broker(3, Leaves)];
        assert_eq!(judged(&three, 3, &[1, 2, 3]), [What::LeavingCopy]);
        assert_eq!(judged(&three, 2, &[1, 3]), []);
        let four = [&three[..], &[broker(4, Serves)]].concat();
        assert_eq!(judged(&four, 3, &[1, 2, 3]), []);
    }

    #[test]
    fn whoever_is_away_or_drained_takes_nothing() {
        for standing in [Away, LeadsNothing, Leaves] {
            let brokers =
                [broker(1, Serves), broker(2, Serves), broker(3, Leaves), broker(4, standing)];
            assert_eq!(judged(&brokers, 3, &[1, 2, 3]), [What::LeavingCopy], "{standing:?}");
        }
    }

    #[test]
    fn a_copy_that_was_asked_for_and_never_made_is_told_from_one_that_cannot_leave() {
        let two = [broker(1, Serves), broker(2, Serves)];
        assert_eq!(judged(&two, 3, &[1, 2]), [What::MissingCopy]);
        assert_eq!(judged(&two, 2, &[1]), []);
        let three = [broker(1, Serves), broker(2, Leaves), broker(3, Serves)];
        assert_eq!(judged(&three, 3, &[1, 2]), [What::MissingCopy], "3 takes the copy of 2");
    }

    #[test]
    fn one_that_is_away_and_waited_for_is_no_missing_copy() {
        let brokers = [broker(1, Serves), broker(2, Serves), broker(3, Away)];
        assert_eq!(judged(&brokers, 3, &[1, 2, 3]), []);
    }

    #[test]
    fn a_leadership_is_stuck_where_no_other_copy_may_lead() {
        let brokers = [broker(1, LeadsNothing), broker(2, Serves), broker(3, Away)];
        assert_eq!(judged(&brokers, 1, &[1]), [What::Leadership]);
        assert_eq!(judged(&brokers, 2, &[1, 3]), [What::Leadership]);
        assert_eq!(judged(&brokers, 2, &[1, 2]), []);
        let alone = [broker(1, Leaves)];
        assert_eq!(judged(&alone, 1, &[1]), [What::LeavingCopy, What::Leadership]);
    }

    #[test]
    fn a_copy_that_leaves_is_stuck_exactly_when_the_plan_does_not_replace_it() {
        let standings = [Serves, Away, LeadsNothing, Leaves];
        for (one, two, three) in triples(&standings) {
            let brokers = [broker(1, one), broker(2, two), broker(3, three)];
            for replicas in [&[1][..], &[1, 2], &[1, 2, 3]] {
                let state = state(replicas);
                let queue = QueueId(Uuid::from_u128(7));
                let wanted = u8::try_from(replicas.len()).unwrap();
                let view =
                    QueueView { queue, wanted, min_isr: 1, state: &state, version: Version(0) };
                let stuck = judged(&brokers, wanted, replicas).contains(&What::LeavingCopy);
                let replaced = foresee(&brokers, &[view], 10)
                    .iter()
                    .filter(|(_, why)| matches!(why, crate::balance::Why::Replaces { .. }))
                    .count();
                let leaves = replicas
                    .iter()
                    .filter(|id| brokers[**id as usize - 1].standing == Leaves)
                    .count();
                assert_eq!(stuck, replaced < leaves, "{brokers:?} {replicas:?}");
            }
        }
    }

    fn triples(all: &[Standing]) -> Vec<(Standing, Standing, Standing)> {
        let mut triples = Vec::new();
        for one in all {
            for two in all {
                triples.extend(all.iter().map(|three| (*one, *two, *three)));
            }
        }
        triples
    }
}
