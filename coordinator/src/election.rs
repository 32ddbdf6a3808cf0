//! Who may lead a queue, and what an election, a resignation or a hand-over writes. Pure: state in, state out.

use bellwether_protocol::ids::{BrokerLife, Member};

use crate::records::{Election, Past, QueueState, Resignation, Trigger, shortened};

/// Not a member of the in-sync set, or one with another disk: it may lack confirmed messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member:?} is not in the in-sync set and may lack confirmed messages")]
pub struct NotInSync {
    pub member: Member,
}

/// Whether `member` may stand for election: it is in the ISR with the disk it has now. The caller sees to the rest: a
/// verified log, a connected session, and a reason (the leader's path gone, resigned, or provably dead).
#[must_use]
pub fn may_stand(state: &QueueState, member: Member) -> bool {
    state.isr.contains(&member)
}

/// What the winner of an election writes over `state`: the next epoch, itself as leader, and the ISR without the members
/// that are `dead`, but never fewer than `min_isr`.
///
/// # Errors
/// [`NotInSync`] when `me` may not stand.
pub fn elected(
    state: &QueueState,
    me: BrokerLife,
    member: Member,
    dead: impl Fn(&Member) -> bool,
) -> Result<QueueState, NotInSync> {
    assert_eq!(me.broker, member.broker, "a broker stands for itself");
    if !may_stand(state, member) {
        return Err(NotInSync { member });
    }
    let isr = without_dead(state, |other| *other != member && dead(other));
    Ok(QueueState { isr, ..next_epoch(state, me) })
}

/// The ISR of `state` without the members that are `dead`, but never fewer than `min_isr`.
// Rather keep a dead member: below min_isr nothing commits without it, so keeping it costs nothing, and dropping it would
// let one more lost disk end the queue with all its confirmed messages.
#[must_use]
pub fn without_dead(state: &QueueState, dead: impl Fn(&Member) -> bool) -> Vec<Member> {
    let alive = state.isr.iter().filter(|member| !dead(member)).count();
    let mut kept_dead = usize::from(state.min_isr).saturating_sub(alive);
    let mut isr = state.isr.clone();
    isr.retain(|member| {
        if !dead(member) {
            return true;
        }
        let keep = kept_dead > 0;
        kept_dead = kept_dead.saturating_sub(1);
        keep
    });
    isr
}

/// What a leader writes that resigns: nobody leads, and any member may stand at once. The epoch moves with the next election.
#[must_use]
pub fn resigned(state: &QueueState, why: &str) -> QueueState {
    let resignation = state.leader.map(|by| Resignation { by, why: shortened(why) });
    let past = Box::new(Past { resignation, ..Past::clone(&state.past) });
    QueueState { leader: None, past, ..state.clone() }
}

/// What is remembered of an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occasion {
    pub trigger: Trigger,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub took_ms: u64,
}

/// `next`, which names another leader than `before` does, with that noted down in it.
#[must_use]
pub fn noted(before: &QueueState, next: QueueState, occasion: Occasion) -> QueueState {
    let Some(to) = next.leader else { return next };
    let resignation = before.past.resignation.as_ref().filter(|_| before.leader.is_none());
    let election = Election {
        epoch: next.epoch,
        at_ms: occasion.at_ms,
        from: before.leader.or(resignation.map(|resignation| resignation.by)),
        to,
        trigger: occasion.trigger,
        why: resignation.map(|resignation| resignation.why.clone()),
        took_ms: occasion.took_ms,
    };
    QueueState { past: Box::new(next.past.clone().with(election)), ..next }
}

/// What a leader writes that hands over to an ISR member which holds everything: the next epoch, the ISR unchanged.
///
/// # Errors
/// [`NotInSync`] when `member` may not lead.
pub fn handed_over(
    state: &QueueState,
    to: BrokerLife,
    member: Member,
) -> Result<QueueState, NotInSync> {
    assert_eq!(to.broker, member.broker, "the life named is the member's");
    if !may_stand(state, member) {
        return Err(NotInSync { member });
    }
    Ok(next_epoch(state, to))
}

/// What copies said that gave up in an older epoch is not heard in a new one: they need not be remembered.
fn next_epoch(state: &QueueState, leader: BrokerLife) -> QueueState {
    QueueState {
        epoch: state.epoch.next(),
        leader: Some(leader),
        given_up: Vec::new(),
        ..state.clone()
    }
}

#[cfg(test)]
mod tests {
    use bellwether_protocol::ids::{BrokerId, Epoch, Incarnation, StoreId};
    use uuid::Uuid;

    use super::*;

    fn member(broker: u32) -> Member {
        Member { broker: BrokerId(broker), store: StoreId(Uuid::from_u128(u128::from(broker))) }
    }

    fn life(broker: u32) -> BrokerLife {
        BrokerLife { broker: BrokerId(broker), incarnation: Incarnation(100 + u64::from(broker)) }
    }

    fn state(isr: &[u32], min_isr: u8) -> QueueState {
        QueueState {
            epoch: Epoch(4),
            leader: Some(life(1)),
            isr: isr.iter().map(|broker| member(*broker)).collect(),
            min_isr,
            replicas: [1, 2, 3].map(BrokerId).to_vec(),
            given_up: Vec::new(),
            past: Default::default(),
            unknown: [("colour".to_owned(), "red".into())].into_iter().collect(),
        }
    }

    fn dead(brokers: &[u32]) -> impl Fn(&Member) -> bool + '_ {
        |member| brokers.contains(&member.broker.0)
    }

    #[test]
    fn the_winner_leads_the_next_epoch_without_the_dead() {
        let new = elected(&state(&[1, 2, 3], 2), life(2), member(2), dead(&[1])).unwrap();
        assert_eq!((new.epoch, new.leader), (Epoch(5), Some(life(2))));
        assert_eq!(new.isr, [member(2), member(3)]);
        assert_eq!(new.unknown, state(&[], 2).unknown, "fields of a later version survive");
    }

    #[test]
    fn a_dead_member_stays_when_the_in_sync_set_would_fall_below_min_isr() {
        let new = elected(&state(&[1, 2], 2), life(2), member(2), dead(&[1])).unwrap();
        assert_eq!(new.isr, [member(1), member(2)]);
        let new = elected(&state(&[1, 2, 3], 2), life(3), member(3), dead(&[1, 2])).unwrap();
        assert_eq!(new.isr, [member(1), member(3)], "just one of the dead is kept");
        let new = elected(&state(&[3], 2), life(3), member(3), dead(&[1, 2])).unwrap();
        assert_eq!(new.isr, [member(3)], "and nobody is invented");
    }

    #[test]
    fn nobody_stands_from_outside_the_in_sync_set_or_with_an_emptied_disk() {
        let state = state(&[1, 2], 1);
        let emptied = Member { store: StoreId(Uuid::from_u128(99)), ..member(2) };
        assert_eq!(
            elected(&state, life(3), member(3), dead(&[1])),
            Err(NotInSync { member: member(3) })
        );
        assert_eq!(
            elected(&state, life(2), emptied, dead(&[1])),
            Err(NotInSync { member: emptied })
        );
        assert_eq!(handed_over(&state, life(2), emptied), Err(NotInSync { member: emptied }));
    }

    #[test]
    fn an_election_is_noted_with_who_led_before_and_why_that_ended() {
        let occasion = |trigger| Occasion { trigger, at_ms: 7, took_ms: 3 };
        let old = state(&[1, 2, 3], 2);
        let next = elected(&old, life(2), member(2), dead(&[1])).unwrap();
        let next = noted(&old, next, occasion(Trigger::ProcessGone));
        let last = next.past.elections.last().unwrap();
        assert_eq!((last.from, last.to, last.epoch), (Some(life(1)), life(2), Epoch(5)));
        let vacant = resigned(&next, "its disk failed");
        let again = elected(&vacant, life(3), member(3), dead(&[])).unwrap();
        let again = noted(&vacant, again, occasion(Trigger::Resigned));
        let last = again.past.elections.last().unwrap();
        assert_eq!((last.from, last.why.as_deref()), (Some(life(2)), Some("its disk failed")));
        assert_eq!((again.past.elections.len(), again.past.resignation), (2, None));
    }

    #[test]
    fn one_who_stands_never_counts_itself_dead() {
        let new = elected(&state(&[1, 2, 3], 1), life(2), member(2), |_| true).unwrap();
        assert_eq!(new.isr, [member(2)]);
    }

    #[test]
    fn resigning_and_handing_over_leave_the_in_sync_set_alone() {
        let old = state(&[1, 2, 3], 2);
        let gone = resigned(&old, "its disk failed");
        let why = gone.past.resignation.as_ref().map(|r| (r.by, r.why.as_str()));
        assert_eq!(why, Some((life(1), "its disk failed")));
        assert_eq!(
            QueueState { past: Box::default(), ..gone },
            QueueState { leader: None, ..old.clone() }
        );
        let new = handed_over(&old, life(3), member(3)).unwrap();
        assert_eq!(new, QueueState { epoch: Epoch(5), leader: Some(life(3)), ..old });
    }
}
