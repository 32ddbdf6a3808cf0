//! What came of an order to lead, by what the coordinator holds since. Pure. An order that was carried out is never said to be not done,
//! whatever has happened to the queue after it (promise G11).

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::{QueueState, Taint};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The state is what it was when the order was given: it may be carried out yet.
    Pending,
    Done,
    NotDone,
    /// It does not show any more.
    Unknown,
}

/// The order: over this state, of this version, that one was asked for.
pub(super) struct Asked<'a> {
    pub before: &'a QueueState,
    pub version: Version,
    pub proposal: &'a QueueState,
}

impl Asked<'_> {
    /// What came of it, when the state is `now` by now.
    pub(super) fn came_of(&self, now: &QueueState, version: Version) -> Verdict {
        if version <= self.version {
            return Verdict::Pending;
        }
        if now == self.proposal {
            return Verdict::Done;
        }
        if version.0 == self.version.0 + 1 {
            // One change was made, and it was another: it named the same version as the order did, and only one can apply.
            return Verdict::NotDone;
        }
        let begins_epoch = self.proposal.epoch > self.before.epoch;
        match &self.proposal.past.taint {
            Some(taint) if begins_epoch => forced(taint, now),
            Some(_) | None => self.went_on_alone(now),
        }
    }

    /// A leader that takes the others out of the in-sync set leaves no trace but that: others may have come back in since.
    fn went_on_alone(&self, now: &QueueState) -> Verdict {
        let set = |state: &QueueState| (state.epoch, state.isr.clone(), state.min_isr);
        if set(now) == set(self.proposal) { Verdict::Done } else { Verdict::Unknown }
    }
}

/// That a leader was forced is never forgotten, but for a later one that was.
fn forced(asked: &Taint, now: &QueueState) -> Verdict {
    let done = |is_so| if is_so { Verdict::Done } else { Verdict::NotDone };
    match &now.past.taint {
        Some(taint) if taint.epoch > asked.epoch => {
            let elected = now.past.elections.iter().find(|election| election.epoch == asked.epoch);
            elected.map_or(Verdict::Unknown, |election| done(election.to == asked.by))
        }
        Some(taint) => done((taint.epoch, taint.by) == (asked.epoch, asked.by)),
        None => Verdict::NotDone,
    }
}

#[cfg(test)]
mod tests {
    use bellwether_coordinator::records::{Election, Past, Trigger, UnknownFields};
    use bellwether_protocol::ids::{
        BrokerId, BrokerLife, Epoch, Incarnation, Member, Offset, StoreId,
    };
    use uuid::Uuid;

    use super::*;

    fn life(broker: u32) -> BrokerLife {
        BrokerLife { broker: BrokerId(broker), incarnation: Incarnation(1) }
    }

    fn state(epoch: u64, leader: u32, isr: &[u32]) -> QueueState {
        let member = |broker: &u32| Member {
            broker: BrokerId(*broker),
            store: StoreId(Uuid::from_u128(u128::from(*broker))),
        };
        QueueState {
            epoch: Epoch(epoch),
            leader: Some(life(leader)),
            isr: isr.iter().map(member).collect(),
            min_isr: if isr.len() == 1 { 1 } else { 2 },
            replicas: [1, 2, 3].map(BrokerId).to_vec(),
            given_up: Vec::new(),
            past: Box::default(),
            unknown: UnknownFields::new(),
        }
    }

    fn tainted(state: QueueState, epoch: u64, by: u32) -> QueueState {
        let (epoch, by) = (Epoch(epoch), life(by));
        let taint =
            Taint { epoch, by, at_ms: 1, end: Offset(5), lost: 3, more: true, cleared: None };
        QueueState { past: Box::new(Past { taint: Some(taint), ..*state.past }), ..state }
    }

    fn elected(state: QueueState, epoch: u64, to: u32) -> QueueState {
        let election = Election {
            epoch: Epoch(epoch),
            at_ms: 1,
            from: None,
            to: life(to),
            trigger: Trigger::Forced,
            why: None,
            took_ms: 1,
        };
        QueueState { past: Box::new(state.past.with(election)), ..state }
    }

    /// Broker 3 is ordered to lead epoch 2.
    fn forced_on_three(now: &QueueState, version: i32) -> Verdict {
        let before = state(1, 1, &[1, 2]);
        let proposal = tainted(state(2, 3, &[3]), 2, 3);
        Asked { before: &before, version: Version(7), proposal: &proposal }
            .came_of(now, Version(version))
    }

    #[test]
    fn what_was_asked_for_is_done_and_any_other_first_change_is_not() {
        assert_eq!(forced_on_three(&state(1, 1, &[1, 2]), 7), Verdict::Pending);
        assert_eq!(forced_on_three(&tainted(state(2, 3, &[3]), 2, 3), 8), Verdict::Done);
        assert_eq!(forced_on_three(&state(2, 2, &[1, 2]), 8), Verdict::NotDone);
        assert_eq!(forced_on_three(&state(1, 1, &[1]), 8), Verdict::NotDone);
    }

    /// The brokers that were given up came back, fetched everything and were in sync again before it was looked: the order was said to be
    /// not done, and the operator gave it again.
    #[test]
    fn an_order_that_was_carried_out_is_done_whoever_is_in_sync_since() {
        assert_eq!(forced_on_three(&tainted(state(2, 3, &[1, 2, 3]), 2, 3), 10), Verdict::Done);
        assert_eq!(forced_on_three(&tainted(state(4, 1, &[1, 2]), 2, 3), 12), Verdict::Done);
    }

    #[test]
    fn an_order_that_another_election_came_before_is_not_done() {
        assert_eq!(forced_on_three(&state(3, 3, &[2, 3]), 10), Verdict::NotDone);
        assert_eq!(forced_on_three(&tainted(state(2, 2, &[2]), 2, 2), 9), Verdict::NotDone);
        // The taint is of an order before this one.
        assert_eq!(forced_on_three(&tainted(state(2, 2, &[2]), 1, 1), 9), Verdict::NotDone);
    }

    #[test]
    fn behind_a_later_order_the_elections_tell_as_far_as_they_are_remembered() {
        let later = tainted(state(3, 1, &[1]), 3, 1);
        assert_eq!(forced_on_three(&elected(later.clone(), 2, 3), 9), Verdict::Done);
        assert_eq!(forced_on_three(&elected(later.clone(), 2, 2), 9), Verdict::NotDone);
        assert_eq!(forced_on_three(&later, 9), Verdict::Unknown);
    }

    /// A leader goes on alone in its epoch, which it may have begun by an order, too: that taint is none of this one.
    #[test]
    fn what_came_of_a_leader_that_goes_on_alone_is_unknown_once_more_has_happened() {
        let plain = |state| state;
        let by_force = |state| tainted(state, 1, 1);
        for made in [plain as fn(QueueState) -> QueueState, by_force] {
            let before = made(state(1, 1, &[1, 2]));
            let proposal = made(state(1, 1, &[1]));
            let asked = Asked { before: &before, version: Version(7), proposal: &proposal };
            assert_eq!(asked.came_of(&before, Version(7)), Verdict::Pending);
            assert_eq!(asked.came_of(&proposal, Version(8)), Verdict::Done);
            let other = QueueState { replicas: vec![BrokerId(1)], ..before.clone() };
            assert_eq!(asked.came_of(&other, Version(8)), Verdict::NotDone);
            assert_eq!(asked.came_of(&before, Version(9)), Verdict::Unknown);
            assert_eq!(asked.came_of(&made(state(1, 1, &[1, 3])), Version(9)), Verdict::Unknown);
            let moved = QueueState { replicas: vec![BrokerId(1)], ..proposal.clone() };
            assert_eq!(asked.came_of(&moved, Version(9)), Verdict::Done);
        }
    }
}
