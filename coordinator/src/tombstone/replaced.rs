//! Data folders that others took the place of: for how long they are waited for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use bellwether_protocol::ids::{BrokerId, Incarnation, StoreId};

use super::Stores;
use crate::records::StoreRecord;

/// After a broker has been running with another data folder for so long, without a restart, its former one is not waited for any more. A disk that was
/// not mounted is noticed before.
pub const REPLACED_FOR: Duration = Duration::from_secs(600);

/// Data folders whose brokers run with others, in which life, and since when that was seen. For the controller to keep.
///
/// The time counts anew in each life of the broker: between two looks it may have been there with the former disk.
#[derive(Debug, Default)]
pub struct ReplacedStores(HashMap<(BrokerId, StoreId), (Incarnation, Instant)>);

/// The lives in which brokers run with others than these stores.
pub type LostStores = HashMap<(BrokerId, StoreId), Incarnation>;

impl ReplacedStores {
    /// Only these are so now.
    pub fn note(&mut self, lost: &LostStores, now: Instant) {
        self.0.retain(|store, (life, _)| lost.get(store) == Some(life));
        for (store, life) in lost {
            self.0.entry(*store).or_insert((*life, now));
        }
    }

    /// Whether it has been so for too long to be waited for.
    #[must_use]
    pub fn is_given_up(&self, store: (BrokerId, StoreId), now: Instant) -> bool {
        let since = self.0.get(&store);
        since.is_some_and(|(_, since)| now.saturating_duration_since(*since) >= REPLACED_FOR)
    }
}

/// Of the stores that tombstones list, and of the former ones, those whose brokers are live with others. One that is off may be so because
/// its disk is being put back.
pub fn lost(
    listed: impl Iterator<Item = (BrokerId, Option<StoreId>)>,
    stores: &Stores,
    live: &BTreeMap<BrokerId, Incarnation>,
) -> LostStores {
    let former = stores
        .former
        .iter()
        .flat_map(|(broker, former)| former.iter().map(|store| (*broker, Some(*store))));
    let all = listed.chain(former).filter_map(|(broker, store)| Some((broker, store?)));
    let lost = all.filter_map(|(broker, store)| {
        let life = live.get(&broker)?;
        let is_another = stores.present.get(&broker).is_some_and(|present| *present != store);
        is_another.then_some(((broker, store), *life))
    });
    lost.collect()
}

/// What is to be written down of a broker whose former stores are partly given up; `None`: nothing changes. One that a tombstone still
/// lists stays, so that what is deleted meanwhile lists it, too.
#[must_use]
pub fn without_given_up(
    record: &StoreRecord,
    given_up: impl Fn(BrokerId, StoreId) -> bool,
    listed: &HashSet<(BrokerId, Option<StoreId>)>,
) -> Option<StoreRecord> {
    let broker = record.broker;
    let stays =
        |store: &StoreId| listed.contains(&(broker, Some(*store))) || !given_up(broker, *store);
    let former: Vec<StoreId> = record.former.iter().copied().filter(stays).collect();
    (former.len() < record.former.len()).then(|| StoreRecord { former, ..record.clone() })
}
