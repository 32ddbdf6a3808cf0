//! Which change of the in-sync set a leader should ask for next. A pure decision over what it knows of its members.

use bellwether_protocol::ids::{BrokerId, Member, Offset};

/// How one copy does, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberHealth {
    pub member: Member,
    /// In the committed ISR.
    pub in_sync: bool,
    /// Provably dead, or not caught up within the lag limit, or its store is gone.
    pub gone: bool,
    /// Not in the ISR, but fit for it: of the replica set, durable under this epoch up to the high watermark and past the epoch start.
    pub fit: bool,
    /// What it reported durable under this epoch.
    pub durable: Option<Offset>,
}

impl MemberHealth {
    fn is_well(&self) -> bool {
        self.in_sync && !self.gone
    }
}

/// The next ISR to ask for, or `None` when the present one is the best there can be.
///
/// Members that are gone leave, as long as `min_isr` remain. When fewer would remain, those that are gone are
/// swapped for fit ones in one step; without any, they stay: below `min_isr` nothing commits without them, and
/// dropping them would let one lost disk end the queue. Only when nobody has to leave, one fit copy joins.
///
/// Who is not of the replica set (any more) leaves when all of it are in sync: not before, for until then it is one of those
/// that hold everything.
#[must_use]
pub fn next_isr(
    me: Member,
    members: &[MemberHealth],
    min_isr: usize,
    replicas: &[BrokerId],
) -> Option<Vec<Member>> {
    let is_well = |broker: &BrokerId| {
        me.broker == *broker || members.iter().any(|m| m.member.broker == *broker && m.is_well())
    };
    let whole = replicas.len() >= min_isr && replicas.iter().all(is_well);
    let stays = |m: &MemberHealth| m.is_well() && (!whole || replicas.contains(&m.member.broker));
    let committed: Vec<Member> =
        std::iter::once(me).chain(members.iter().filter(|m| m.in_sync).map(|m| m.member)).collect();
    let well: Vec<Member> =
        std::iter::once(me).chain(members.iter().filter(|m| stays(m)).map(|m| m.member)).collect();
    let fit: Vec<Member> =
        members.iter().filter(|m| m.fit && !m.in_sync).map(|m| m.member).collect();

    let mut next = well.clone();
    if well.len() == committed.len() {
        next.extend(fit.first());
    } else if well.len() < min_isr {
        next.extend(fit);
        for gone in members.iter().filter(|m| m.in_sync && m.gone).map(|m| m.member) {
            let replaced = next.iter().any(|member| member.broker == gone.broker);
            if next.len() < min_isr && !replaced {
                next.push(gone);
            }
        }
    }
    let place =
        |member: &Member| replicas.iter().position(|b| *b == member.broker).unwrap_or(usize::MAX);
    next.sort_by_key(place);
    let changed =
        next.len() != committed.len() || next.iter().any(|member| !committed.contains(member));
    (changed && next.len() >= min_isr.min(committed.len())).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_protocol::ids::StoreId;

    fn copy(broker: u32, store: u128) -> Member {
        Member { broker: BrokerId(broker), store: StoreId(uuid::Uuid::from_u128(store)) }
    }

    fn health(member: Member, in_sync: bool, gone: bool, fit: bool) -> MemberHealth {
        MemberHealth { member, in_sync, gone, fit, durable: None }
    }

    const ORDER: [BrokerId; 3] = [BrokerId(1), BrokerId(2), BrokerId(3)];

    #[test]
    fn a_dead_member_leaves_while_enough_remain() {
        let members =
            [health(copy(2, 2), true, true, false), health(copy(3, 3), true, false, false)];
        assert_eq!(next_isr(copy(1, 1), &members, 2, &ORDER), Some(vec![copy(1, 1), copy(3, 3)]));
    }

    #[test]
    fn nobody_leaves_below_min_isr() {
        let members = [health(copy(2, 2), true, true, false)];
        assert_eq!(next_isr(copy(1, 1), &members, 2, &ORDER), None);
    }

    #[test]
    fn a_dead_member_is_swapped_for_a_fit_one_when_it_could_not_just_leave() {
        let members =
            [health(copy(2, 2), true, true, false), health(copy(3, 3), false, false, true)];
        assert_eq!(next_isr(copy(1, 1), &members, 2, &ORDER), Some(vec![copy(1, 1), copy(3, 3)]));
    }

    #[test]
    fn a_broker_with_a_new_disk_takes_its_own_place_when_there_are_but_two_replicas() {
        let members =
            [health(copy(2, 2), true, true, false), health(copy(2, 22), false, false, true)];
        assert_eq!(next_isr(copy(1, 1), &members, 2, &ORDER), Some(vec![copy(1, 1), copy(2, 22)]));
    }

    #[test]
    fn a_fit_copy_joins_only_when_nobody_has_to_leave() {
        let joins =
            [health(copy(2, 2), true, false, false), health(copy(3, 3), false, false, true)];
        assert_eq!(
            next_isr(copy(1, 1), &joins, 2, &ORDER),
            Some(vec![copy(1, 1), copy(2, 2), copy(3, 3)])
        );
        let whole =
            [health(copy(2, 2), true, false, false), health(copy(3, 3), true, false, false)];
        assert_eq!(next_isr(copy(1, 1), &whole, 2, &ORDER), None);
    }

    #[test]
    fn who_is_not_of_the_replica_set_leaves_only_when_all_of_it_are_in_sync() {
        let moved = [BrokerId(4), BrokerId(1), BrokerId(2)];
        let old = health(copy(3, 3), true, false, false);
        let kept = health(copy(2, 2), true, false, false);
        let joining = [kept, old, health(copy(4, 4), false, false, true)];
        assert_eq!(
            next_isr(copy(1, 1), &joining, 2, &moved),
            Some(vec![copy(4, 4), copy(1, 1), copy(2, 2), copy(3, 3)]),
            "first the new one joins"
        );
        let all = [kept, old, health(copy(4, 4), true, false, false)];
        assert_eq!(
            next_isr(copy(1, 1), &all, 2, &moved),
            Some(vec![copy(4, 4), copy(1, 1), copy(2, 2)])
        );
        let lost = [kept, old, health(copy(4, 4), true, true, false)];
        assert_eq!(
            next_isr(copy(1, 1), &lost, 2, &moved),
            Some(vec![copy(1, 1), copy(2, 2), copy(3, 3)]),
            "the new one died: the old one is one of those that hold everything"
        );
    }

    #[test]
    fn with_min_isr_three_of_three_both_dead_members_wait_for_both_replacements_or_swap_one() {
        let members = [
            health(copy(2, 2), true, true, false),
            health(copy(3, 3), true, true, false),
            health(copy(3, 33), false, false, true),
        ];
        assert_eq!(
            next_isr(copy(1, 1), &members, 3, &ORDER),
            Some(vec![copy(1, 1), copy(2, 2), copy(3, 33)])
        );
    }
}
