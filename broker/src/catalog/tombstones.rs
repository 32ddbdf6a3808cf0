//! Which data folders there are in the cluster, and what the controller does for the tombstones that wait for them: those of former
//! versions get their lists, brokers that were retired are not waited for, and a folder that another one took the place of is
//! answered for by that one.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bellwether_coordinator::coordinator::{Coordinator, Path, ReadError, Version, Write};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::{BrokerRecord, DrainRecord, RecordError, StoreRecord};
pub use bellwether_coordinator::tombstone::ReplacedStores;
use bellwether_coordinator::tombstone::{Stores, attended, lost, without_given_up};
use bellwether_protocol::ids::{BrokerId, Incarnation, QueueId, StoreId};
use tracing::{debug, info};

use super::strikes::{BATCH, rewrite};
use super::tree::Waiting;
use super::{Catalog, Shared};

/// What was read after a sync: who has which data folder.
pub(super) struct KnownStores {
    pub stores: Stores,
    /// Of those that are written down, by which version.
    written: BTreeMap<BrokerId, (StoreRecord, Version)>,
    /// In which life.
    live: BTreeMap<BrokerId, Incarnation>,
}

impl KnownStores {
    /// A broker registers its folder and itself in one write. So whoever could be given a copy before this is read is in it.
    ///
    /// # Errors
    /// The coordinator did not answer, or one of the documents cannot be read: a store that a tombstone leaves out could come back with
    /// what was deleted (promise G8), so that nothing is deleted by who does not know all of them.
    pub async fn read(
        shared: &Shared,
        session: &Arc<dyn Coordinator>,
    ) -> Result<KnownStores, ReadError> {
        session.sync().await?;
        let mut known = KnownStores {
            stores: Stores { counted: shared.tree().counted().collect(), ..Stores::default() },
            written: BTreeMap::new(),
            live: BTreeMap::new(),
        };
        for document in documents(session, paths::all_stores()).await? {
            let record = StoreRecord::parse(&document.bytes).map_err(unreadable)?;
            known.stores.present.insert(record.broker, record.store);
            known.stores.former.insert(record.broker, record.former.clone());
            known.written.insert(record.broker, (record, document.version));
        }
        for document in documents(session, paths::live_brokers()).await? {
            let record = BrokerRecord::parse(&document.bytes).map_err(unreadable)?;
            // A former version has not written its folder down.
            known.stores.present.insert(record.life.broker, record.store);
            known.live.insert(record.life.broker, record.life.incarnation);
        }
        Ok(known)
    }
}

fn unreadable(error: RecordError) -> ReadError {
    ReadError::Denied(format!(
        "{error}: a broker of a later version wrote it. Not every disk that may hold the queue is known here, so that nothing was done; ask a broker of that version, or bring this one up to it"
    ))
}

impl KnownStores {
    /// A write that goes through only while the broker has the folder that was read.
    pub fn unchanged(&self, broker: BrokerId) -> Option<Write> {
        let (_, version) = self.written.get(&broker)?;
        Some(Write::Check { path: paths::store(broker), version: *version })
    }
}

async fn documents(
    session: &Arc<dyn Coordinator>,
    folder: Path,
) -> Result<Vec<bellwether_coordinator::coordinator::Document>, ReadError> {
    let children: Vec<Path> =
        session.children(&folder).await?.iter().map(|child| folder.child(child)).collect();
    Ok(session.read_many(&children).await?.into_iter().flatten().collect())
}

impl Catalog {
    /// One batch of what is to be done for tombstones; nothing is read where there are none.
    ///
    /// # Errors
    /// The coordinator did not answer: another time.
    pub async fn attend_tombstones(
        &self,
        replaced: &mut ReplacedStores,
        now: Instant,
    ) -> Result<(), ReadError> {
        let (none, retired) = {
            let tree = self.shared.tree();
            (tree.tombstones.is_empty() && tree.former_stores.is_empty(), tree.retired.clone())
        };
        let Some(session) = self.shared.connected() else { return Ok(()) };
        if none && retired.is_empty() {
            return Ok(());
        }
        let known = KnownStores::read(&self.shared, &session).await?;
        let gone = gone_for_good(&session, &known, retired).await?;
        let wanting = self.wanting(&known, &gone, replaced, now);
        let fate = |record: &_| {
            let given_up = |broker, store| replaced.is_given_up((broker, store), now);
            attended(record, &known.stores, |broker| gone.contains(&broker), given_up)
        };
        let done = rewrite(&session, &wanting, fate).await;
        if !done.is_empty() {
            info!(tombstones = done.len(), gone = ?gone, "tombstones wait for others now, or for nobody");
        }
        self.forget_stores(&session, &known, &gone).await;
        self.forget_former(&session, &known, replaced, now).await;
        Ok(())
    }

    /// Some tombstones that are to be changed.
    fn wanting(
        &self,
        known: &KnownStores,
        gone: &BTreeSet<BrokerId>,
        replaced: &mut ReplacedStores,
        now: Instant,
    ) -> Vec<QueueId> {
        let tree = self.shared.tree();
        let listed = tree.tombstones.values().flatten().flat_map(|stores| stores.iter().copied());
        let lost = lost(listed, &known.stores, &known.live);
        replaced.note(&lost, now);
        let wants = |waiting: &Waiting| match waiting {
            None => true,
            Some(stores) => stores.iter().any(|listed| {
                let given_up = |store| replaced.is_given_up((listed.0, store), now);
                gone.contains(&listed.0) || listed.1.is_some_and(given_up)
            }),
        };
        let wanting = tree.tombstones.iter().filter(|(_, waiting)| wants(waiting));
        wanting.map(|(queue, _)| *queue).take(BATCH).collect()
    }

    /// Of a broker that is gone for good and that no tombstone waits for nothing has to be known any more. If it comes back it is
    /// written down anew, which this does not undo: it names the version.
    async fn forget_stores(
        &self,
        session: &Arc<dyn Coordinator>,
        known: &KnownStores,
        gone: &BTreeSet<BrokerId>,
    ) {
        let waited: HashSet<BrokerId> =
            self.shared.tree().waited_for().into_iter().map(|(broker, _)| broker).collect();
        for broker in gone.iter().filter(|broker| !waited.contains(broker)) {
            let Some((_, version)) = known.written.get(broker) else { continue };
            let path = paths::store(*broker);
            match session.write(vec![Write::Delete { path, version: Some(*version) }]).await {
                Ok(_) => info!(
                    broker = broker.0,
                    "the data folder of a retired broker is not waited for any more"
                ),
                Err(error) => {
                    debug!(broker = broker.0, %error, "the data folder of a retired broker stays written down")
                }
            }
        }
    }
}

impl Catalog {
    /// Former data folders that were given up, and that no tombstone waits for, need not be remembered: queues that are deleted from now
    /// on do not wait for them. A broker that registers meanwhile writes another version.
    async fn forget_former(
        &self,
        session: &Arc<dyn Coordinator>,
        known: &KnownStores,
        replaced: &ReplacedStores,
        now: Instant,
    ) {
        let listed: HashSet<(BrokerId, Option<StoreId>)> = {
            let tree = self.shared.tree();
            tree.tombstones.values().flatten().flat_map(|stores| stores.iter().copied()).collect()
        };
        for (broker, (record, version)) in &known.written {
            let given_up = |broker, store| replaced.is_given_up((broker, store), now);
            let Some(next) = without_given_up(record, given_up, &listed) else { continue };
            let bytes = next.to_bytes();
            let write = Write::Set { path: paths::store(*broker), bytes, version: *version };
            match session.write(vec![write]).await {
                Ok(_) => info!(
                    broker = broker.0,
                    "a former data folder of this broker is given up: should it come back, it must come back empty"
                ),
                Err(error) => {
                    debug!(broker = broker.0, %error, "the former data folder of a broker stays written down")
                }
            }
        }
    }
}

/// Of the brokers that operators retired those that are not live: read anew, for a retirement can be taken back.
async fn gone_for_good(
    session: &Arc<dyn Coordinator>,
    known: &KnownStores,
    retired: BTreeSet<BrokerId>,
) -> Result<BTreeSet<BrokerId>, ReadError> {
    let retired: Vec<BrokerId> =
        retired.into_iter().filter(|broker| !known.live.contains_key(broker)).collect();
    let all: Vec<Path> = retired.iter().map(|broker| paths::drained(*broker)).collect();
    let documents = session.read_many(&all).await?;
    let is_retired = |document: Option<bellwether_coordinator::coordinator::Document>| {
        document
            .and_then(|document| DrainRecord::parse(&document.bytes).ok())
            .is_some_and(|record| record.retired)
    };
    let still =
        retired.into_iter().zip(documents).filter(|(_, document)| is_retired(document.clone()));
    Ok(still.map(|(broker, _)| broker).collect())
}
