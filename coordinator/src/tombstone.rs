//! Which stores a tombstone waits for. Pure rules: record in, record out.
//!
//! Local data of a queue goes only on its tombstone, never on "not found" (promise G8). So a tombstone may go only when no store can
//! come back with a copy any more: it lists every data folder of the cluster, for a copy may lie where the queue was once, and each
//! store strikes itself off. Nobody strikes another one off, but for a broker that an operator retired. A store whose broker runs with
//! another one is not struck off, either: the one that took its place answers for it.

mod replaced;

use std::collections::{BTreeMap, BTreeSet};

use bellwether_protocol::ids::{BrokerId, StoreId};

use crate::records::{
    FORMER_STORES_MAX, HoldingStore, StoreRecord, TombstoneRecord, UnknownFields,
};
pub use replaced::{LostStores, REPLACED_FOR, ReplacedStores, lost, without_given_up};

/// The data folders of the cluster, as far as they are known.
#[derive(Clone, Debug, Default)]
pub struct Stores {
    /// The one that each broker has, or had when it was last there.
    pub present: BTreeMap<BrokerId, StoreId>,
    /// Those that it had before and that may come back: the one that was taken out last week, and is put in again tomorrow.
    pub former: BTreeMap<BrokerId, Vec<StoreId>>,
    /// Brokers that are counted on somewhere, registered or not.
    pub counted: BTreeSet<BrokerId>,
}

impl Stores {
    /// All that may hold a copy of a queue that is deleted now.
    #[must_use]
    pub fn that_may_hold(&self) -> Vec<HoldingStore> {
        let brokers: BTreeSet<BrokerId> =
            self.present.keys().chain(&self.counted).copied().collect();
        let stores = |broker: BrokerId| {
            let former = self.former.get(&broker).into_iter().flatten().copied().map(Some);
            let stores = [self.present.get(&broker).copied()].into_iter().chain(former);
            stores.map(move |store| HoldingStore { broker, store, unknown: UnknownFields::new() })
        };
        brokers.into_iter().flat_map(stores).collect()
    }
}

/// What is written down of a broker that registers with `store`: the one that it had before is remembered, and one that comes back is none
/// of the past.
#[must_use]
pub fn registered(before: Option<StoreRecord>, broker: BrokerId, store: StoreId) -> StoreRecord {
    let Some(before) = before else {
        return StoreRecord { broker, store, former: Vec::new(), unknown: UnknownFields::new() };
    };
    let StoreRecord { store: last, mut former, unknown, .. } = before;
    former.push(last);
    former.retain(|one| *one != store);
    let mut seen = BTreeSet::new();
    former.retain(|one| seen.insert(*one));
    let beyond = former.len().saturating_sub(FORMER_STORES_MAX);
    former.drain(..beyond);
    StoreRecord { broker, store, former, unknown }
}

/// What becomes of a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing changes.
    Stays,
    /// It is written anew.
    Changes(TombstoneRecord),
    /// It waits for nobody any more.
    Goes,
}

/// Whether a listed store is that of `broker`, which has `store` now.
#[must_use]
pub fn names(listed: (BrokerId, Option<StoreId>), broker: BrokerId, store: StoreId) -> bool {
    listed.0 == broker && listed.1.is_none_or(|listed| listed == store)
}

/// `store` of `broker` durably holds nothing of the queue, and says so itself.
#[must_use]
pub fn struck_off(record: &TombstoneRecord, broker: BrokerId, store: StoreId) -> Fate {
    rewritten(record, |listed| {
        (!names((listed.broker, listed.store), broker, store)).then(|| listed.clone())
    })
}

/// What a controller makes of it: a former version's gets its list, brokers that are `gone` for good are not waited for, and where a
/// broker runs with another store than the listed one, which is `given_up`, that one is waited for.
#[must_use]
pub fn attended(
    record: &TombstoneRecord,
    stores: &Stores,
    gone: impl Fn(BrokerId) -> bool,
    given_up: impl Fn(BrokerId, StoreId) -> bool,
) -> Fate {
    if record.stores.is_none() {
        let stores = Some(stores.that_may_hold());
        return Fate::Changes(TombstoneRecord { stores, ..record.clone() });
    }
    rewritten(record, |listed| {
        if gone(listed.broker) {
            return None;
        }
        let store = match (listed.store, stores.present.get(&listed.broker)) {
            (Some(lost), Some(present)) if lost != *present && given_up(listed.broker, lost) => {
                Some(*present)
            }
            (as_before, _) => as_before,
        };
        Some(HoldingStore { store, ..listed.clone() })
    })
}

fn rewritten(
    record: &TombstoneRecord,
    next: impl Fn(&HoldingStore) -> Option<HoldingStore>,
) -> Fate {
    let Some(before) = &record.stores else { return Fate::Stays };
    let mut after: Vec<HoldingStore> = Vec::with_capacity(before.len());
    for store in before.iter().filter_map(next) {
        // Two that one took the place of are one.
        if !after.iter().any(|one| one.broker == store.broker && one.store == store.store) {
            after.push(store);
        }
    }
    if after.is_empty() {
        Fate::Goes
    } else if after == *before {
        Fate::Stays
    } else {
        Fate::Changes(TombstoneRecord { stores: Some(after), ..record.clone() })
    }
}

#[cfg(test)]
mod tests {
    use bellwether_protocol::ids::QueueId;
    use bellwether_protocol::names::{QueueName, VirtualHost};
    use uuid::Uuid;

    use super::*;

    fn store(n: u128) -> StoreId {
        StoreId(Uuid::from_u128(n))
    }

    fn holding(broker: u32, store: Option<StoreId>) -> HoldingStore {
        HoldingStore { broker: BrokerId(broker), store, unknown: UnknownFields::new() }
    }

    fn tombstone(stores: Option<Vec<HoldingStore>>) -> TombstoneRecord {
        TombstoneRecord {
            queue: QueueId(Uuid::from_u128(9)),
            virtual_host: VirtualHost::default(),
            name: QueueName::new("orders").unwrap(),
            stores,
            unknown: [("colour".to_owned(), "red".into())].into_iter().collect(),
        }
    }

    fn of_three() -> TombstoneRecord {
        tombstone(Some((1..=3).map(|n| holding(n, Some(store(n.into())))).collect()))
    }

    fn listed(fate: Fate) -> Vec<(u32, Option<StoreId>)> {
        let Fate::Changes(record) = fate else { panic!("{fate:?}") };
        assert_eq!(record.unknown, of_three().unknown, "fields of a later version survive");
        record.stores.unwrap().into_iter().map(|one| (one.broker.0, one.store)).collect()
    }

    fn nobody(_: BrokerId) -> bool {
        false
    }

    fn none(_: BrokerId, _: StoreId) -> bool {
        false
    }

    /// Also where the queue has no copy now: one that was moved away from there may lie on the disk of a broker that is off.
    #[test]
    fn every_store_of_the_cluster_may_hold_a_copy_and_of_a_broker_never_registered_whichever_it_has()
     {
        let stores = Stores {
            present: [(BrokerId(1), store(1)), (BrokerId(4), store(4))].into(),
            counted: [BrokerId(1), BrokerId(3)].into(),
            ..Stores::default()
        };
        let expected = [holding(1, Some(store(1))), holding(3, None), holding(4, Some(store(4)))];
        assert_eq!(stores.that_may_hold(), expected);
    }

    /// The disk of broker 1 was swapped, and then the queue was deleted. Listed with the new one alone, the old disk would come back to
    /// a cluster that has no word of the queue, and could not be told from one whose ensemble was restored.
    #[test]
    fn a_disk_that_was_taken_out_before_the_delete_is_listed_beside_the_one_in_its_place() {
        let before = registered(None, BrokerId(1), store(1));
        let record = registered(Some(before), BrokerId(1), store(11));
        assert_eq!((record.store, &record.former[..]), (store(11), &[store(1)][..]));
        let stores = Stores {
            present: [(BrokerId(1), record.store)].into(),
            former: [(BrokerId(1), record.former.clone())].into(),
            counted: BTreeSet::new(),
        };
        let listed = stores.that_may_hold();
        assert_eq!(listed, [holding(1, Some(store(11))), holding(1, Some(store(1)))]);
        let record = tombstone(Some(listed));
        let Fate::Changes(record) = struck_off(&record, BrokerId(1), store(11)) else {
            panic!("it waits for the old one")
        };
        assert_eq!(struck_off(&record, BrokerId(1), store(11)), Fate::Stays);
        assert_eq!(struck_off(&record, BrokerId(1), store(1)), Fate::Goes, "when it is put back");
    }

    #[test]
    fn a_store_that_comes_back_is_the_present_one_again_and_the_past_is_bounded() {
        let mut record = registered(None, BrokerId(1), store(1));
        for n in [1, 2, 1, 2, 2] {
            record = registered(Some(record), BrokerId(1), store(n));
        }
        assert_eq!((record.store, &record.former[..]), (store(2), &[store(1)][..]));
        for n in 3..100 {
            record = registered(Some(record), BrokerId(1), store(n));
        }
        assert_eq!(record.former.len(), FORMER_STORES_MAX);
        assert_eq!(record.former.last(), Some(&store(98)), "the earliest are forgotten");
    }

    #[test]
    fn each_store_strikes_itself_off_and_the_last_takes_the_tombstone_with_it() {
        let mut record = of_three();
        assert_eq!(struck_off(&record, BrokerId(4), store(4)), Fate::Stays);
        for n in [2, 1] {
            let fate = struck_off(&record, BrokerId(n), store(n.into()));
            let Fate::Changes(next) = fate else { panic!("{fate:?}") };
            assert_eq!(struck_off(&next, BrokerId(n), store(n.into())), Fate::Stays);
            record = next;
        }
        assert_eq!(struck_off(&record, BrokerId(3), store(3)), Fate::Goes);
    }

    /// Its disk was swapped: what the other one holds is not for this one to say, until that is given up.
    #[test]
    fn a_store_does_not_strike_off_another_one_of_its_broker() {
        let record = of_three();
        assert_eq!(struck_off(&record, BrokerId(2), store(22)), Fate::Stays);
        let stores = Stores { present: [(BrokerId(2), store(22))].into(), ..Stores::default() };
        assert_eq!(attended(&record, &stores, nobody, none), Fate::Stays);
        let fate = attended(&record, &stores, nobody, |broker, lost| {
            (broker, lost) == (BrokerId(2), store(2))
        });
        // Not struck off, either: a copy may have begun on the new one before the queue was deleted.
        let expected = [(1, Some(store(1))), (2, Some(store(22))), (3, Some(store(3)))];
        assert_eq!(listed(fate), expected);
    }

    #[test]
    fn one_that_was_never_registered_strikes_itself_off_with_whichever_store_it_has() {
        let record = tombstone(Some(vec![holding(1, Some(store(1))), holding(3, None)]));
        let fate = struck_off(&record, BrokerId(3), store(77));
        assert_eq!(listed(fate), [(1, Some(store(1)))]);
    }

    #[test]
    fn a_broker_that_is_away_is_waited_for_and_a_retired_one_is_not() {
        let record = of_three();
        let stores = Stores {
            present: (1..=3).map(|n| (BrokerId(n), store(n.into()))).collect(),
            ..Stores::default()
        };
        assert_eq!(attended(&record, &stores, nobody, none), Fate::Stays);
        let fate = attended(&record, &stores, |broker| broker == BrokerId(3), none);
        assert_eq!(listed(fate), [(1, Some(store(1))), (2, Some(store(2)))]);
        assert_eq!(attended(&record, &stores, |_| true, none), Fate::Goes);
    }

    #[test]
    fn a_tombstone_without_a_list_is_given_one_before_anybody_strikes_anything_off() {
        let former = tombstone(None);
        assert_eq!(struck_off(&former, BrokerId(1), store(1)), Fate::Stays);
        let stores = Stores {
            present: [(BrokerId(1), store(1))].into(),
            counted: [BrokerId(2)].into(),
            ..Stores::default()
        };
        // Not even for a retired one in the same step: what is written first is who may hold a copy.
        let fate = attended(&former, &stores, |_| true, none);
        assert_eq!(listed(fate), [(1, Some(store(1))), (2, None)]);
    }
}
