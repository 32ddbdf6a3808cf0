//! Which brokers hold the copies of a new queue: evenly by what they hold already, in distinct racks where racks are
//! named. Pure and deterministic: load in, brokers out.

use std::collections::HashSet;

use bellwether_protocol::ids::{BrokerId, QueueId};

/// What a live broker carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerLoad {
    pub broker: BrokerId,
    pub rack: Option<String>,
    /// Queues that it holds a copy of.
    pub replicas: u32,
    /// Queues whose replica set names it first.
    pub leaders: u32,
    /// It may lead. Not if it is being drained of its leaderships: it goes on holding copies.
    pub may_lead: bool,
}

/// Chooses up to `replicas` of the live brokers for `queue`; fewer when there are fewer. The first is preferred as leader, the
/// others follow in the order in which they would stand for election. One that may not lead comes after all that may, and is the
/// first only where nobody else is left.
#[must_use]
pub fn place(queue: QueueId, live: &[BrokerLoad], replicas: u8) -> Vec<BrokerId> {
    let mut left: Vec<&BrokerLoad> = live.iter().collect();
    let mut racks: HashSet<&str> = HashSet::new();
    let mut chosen: Vec<&BrokerLoad> = Vec::with_capacity(usize::from(replicas));
    while chosen.len() < usize::from(replicas) {
        // A rack that holds no copy yet goes before an idle broker: evenness heals with the next queue, a rack lost with
        // all the copies does not.
        let key = |load: &BrokerLoad| {
            let taken = load.rack.as_deref().is_some_and(|rack| racks.contains(rack));
            // Of the chosen one at least is to lead.
            let leads_not = chosen.is_empty() && !load.may_lead;
            (leads_not, taken, load.replicas, load.leaders, lot(queue, load.broker))
        };
        let Some(best) = (0..left.len()).min_by_key(|at| key(left[*at])) else { break };
        let best = left.swap_remove(best);
        racks.extend(best.rack.as_deref());
        chosen.push(best);
    }
    chosen
        .sort_by_key(|load| (!load.may_lead, load.leaders, load.replicas, lot(queue, load.broker)));
    chosen.into_iter().map(|load| load.broker).collect()
}

/// Draws between equals, differently for each queue: brokers that place at the same time from the same picture do not
/// all choose the same one.
pub(crate) fn lot(queue: QueueId, broker: BrokerId) -> (u64, BrokerId) {
    let (high, low) = queue.0.as_u64_pair();
    let mut hash =
        high ^ low.rotate_left(32) ^ u64::from(broker.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The finisher of SplitMix64.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash ^ (hash >> 31), broker)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn idle(broker: u32) -> BrokerLoad {
        BrokerLoad { broker: BrokerId(broker), rack: None, replicas: 0, leaders: 0, may_lead: true }
    }

    fn only_follows(broker: u32) -> BrokerLoad {
        BrokerLoad { may_lead: false, ..idle(broker) }
    }

    fn in_rack(broker: u32, rack: &str, replicas: u32) -> BrokerLoad {
        BrokerLoad { rack: Some(rack.to_owned()), replicas, ..idle(broker) }
    }

    fn id(n: u128) -> QueueId {
        // Spread as random uuids are.
        QueueId(Uuid::from_u128(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)))
    }

    /// Places `queues` one after the other, each seeing the load of those before.
    fn placed(live: &mut [BrokerLoad], queues: u128, replicas: u8) {
        for n in 0..queues {
            let chosen = place(id(n), live, replicas);
            for load in live.iter_mut().filter(|load| chosen.contains(&load.broker)) {
                load.replicas += 1;
                load.leaders += u32::from(chosen[0] == load.broker);
            }
        }
    }

    #[test]
    fn replicas_and_leaders_are_spread_evenly() {
        for (brokers, replicas) in [(3, 3), (5, 3), (7, 2), (4, 1)] {
            let mut live: Vec<BrokerLoad> = (1..=brokers).map(idle).collect();
            placed(&mut live, 210, replicas);
            let spread = |count: fn(&BrokerLoad) -> u32| {
                live.iter().map(count).max().unwrap() - live.iter().map(count).min().unwrap()
            };
            assert!(spread(|load| load.replicas) <= 1, "{live:?}");
            assert!(spread(|load| load.leaders) <= 2, "{live:?}");
        }
    }

    #[test]
    fn distinct_racks_go_before_idle_brokers() {
        let live = [in_rack(1, "a", 0), in_rack(2, "a", 0), in_rack(3, "b", 9), in_rack(4, "c", 9)];
        let mut chosen = place(id(1), &live, 3);
        chosen.sort();
        assert!(chosen.contains(&BrokerId(3)) && chosen.contains(&BrokerId(4)), "{chosen:?}");
        assert_eq!(place(id(1), &live, 4).len(), 4, "racks are a wish, not a condition");
    }

    #[test]
    fn a_broker_drained_of_leaderships_holds_copies_and_leads_only_where_nobody_else_can() {
        let busy = |broker| BrokerLoad { replicas: 90, leaders: 90, ..idle(broker) };
        for n in 0..30 {
            let live = [only_follows(1), busy(2), only_follows(3)];
            let chosen = place(id(n), &live, 3);
            assert_eq!((chosen.len(), chosen[0]), (3, BrokerId(2)), "{chosen:?}");
            // However few copies there are to be, and however much it has already.
            assert_eq!(place(id(n), &live, 1), [BrokerId(2)]);
            assert_eq!(place(id(n), &live, 2)[0], BrokerId(2));
            let live = [only_follows(1), idle(2), idle(3)];
            let chosen = place(id(n), &live, 3);
            assert_eq!(chosen[2], BrokerId(1), "it stands last: {chosen:?}");
            assert_eq!(place(id(n), &[only_follows(1), only_follows(3)], 2).len(), 2);
        }
        // Nor does a rack of its own make it the leader.
        let apart = BrokerLoad { may_lead: false, ..in_rack(1, "b", 0) };
        let live = [apart, in_rack(2, "a", 5), in_rack(3, "a", 5)];
        let chosen = place(id(1), &live, 2);
        assert!(chosen[0] != BrokerId(1) && chosen[1] == BrokerId(1), "{chosen:?}");
    }

    #[test]
    fn fewer_brokers_than_replicas_give_what_there_is_and_no_broker_twice() {
        assert_eq!(place(id(1), &[idle(4)], 3), [BrokerId(4)]);
        assert_eq!(place(id(1), &[], 3), []);
    }

    #[test]
    fn the_same_picture_gives_the_same_answer_and_the_order_of_brokers_does_not_matter() {
        let live: Vec<BrokerLoad> = (1..=5).map(idle).collect();
        let reversed: Vec<BrokerLoad> = live.iter().rev().cloned().collect();
        assert_eq!(place(id(7), &live, 3), place(id(7), &reversed, 3));
    }

    #[test]
    fn brokers_that_place_from_the_same_picture_do_not_all_choose_the_same_leader() {
        let live: Vec<BrokerLoad> = (1..=3).map(idle).collect();
        let leaders: HashSet<BrokerId> = (0..30).map(|n| place(id(n), &live, 3)[0]).collect();
        assert_eq!(leaders.len(), 3);
    }
}
