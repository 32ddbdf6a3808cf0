//! Joining the cluster and registering in it: one holder for each broker id.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_coordinator::coordinator::{Conflict, Coordinator, ReadError, Write, WriteError};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::{BrokerRecord, ClusterRecord, StoreRecord, UnknownFields};
use bellwether_coordinator::tombstone::registered;
use bellwether_coordinator::users::LoginRecord;
use bellwether_protocol::ids::{BrokerLife, ClusterId};
use tracing::{info, warn};
use uuid::Uuid;

use super::{RETRY, Registrant};

/// The layout of the coordinator's tree that this version reads and writes.
const FORMAT: u32 = 1;

/// Why a broker cannot register.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error(
        "broker id {id} is in use by a broker on host {theirs} with another data folder; this one runs on host {ours}. Give one of them another --id, or stop the other"
    )]
    IdInUse { id: u32, theirs: String, ours: String },
    #[error(
        "the data folder belongs to cluster {folder}, the coordinator holds cluster {coordinator}: use the folder of this cluster, or the coordinator of that one"
    )]
    OtherCluster { folder: ClusterId, coordinator: ClusterId },
    #[error(
        "this broker was told to be of cluster {wanted} (by --cluster-id or its certificate for brokers), and {whose} is of cluster {found}: name that one, or use another coordinator and data folder"
    )]
    NotTheClusterWanted { wanted: ClusterId, whose: &'static str, found: ClusterId },
    #[error(
        "the coordinator's tree has format {found}, this version knows {FORMAT}: upgrade this broker"
    )]
    NewerFormat { found: u32 },
    #[error("a document in the coordinator cannot be read: {0}")]
    Unreadable(String),
    #[error("the coordinator refuses: {0}")]
    Refused(String),
    #[error("the coordinator session is over")]
    SessionOver,
}

impl From<ReadError> for RegisterError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::SessionOver => RegisterError::SessionOver,
            ReadError::Unavailable(why) | ReadError::Denied(why) => RegisterError::Refused(why),
        }
    }
}

/// Reads the cluster's id, or founds the cluster in an empty chroot. Waits while the coordinator is away.
///
/// `expected` is the cluster of the data folder. A folder with a cluster never founds one: an ensemble that was restored empty
/// must not be taken for a new cluster. `wanted` is the cluster that the operator named: one that is founded gets it, and
/// another one is refused.
///
/// # Errors
/// [`RegisterError`] when the folder is of another cluster, or the tree cannot be used.
pub async fn join_cluster(
    coordinator: &Arc<dyn Coordinator>,
    expected: Option<ClusterId>,
    wanted: Option<ClusterId>,
) -> Result<ClusterId, RegisterError> {
    if let Some(folder) = expected {
        check_wanted(wanted, "its data folder", folder)?;
    }
    loop {
        match try_join(coordinator, expected, wanted).await {
            Err(RegisterError::Refused(why)) => {
                warn!(%why, "the cluster's record cannot be read yet");
                tokio::time::sleep(RETRY).await;
            }
            done => return done,
        }
    }
}

fn check_wanted(
    wanted: Option<ClusterId>,
    whose: &'static str,
    found: ClusterId,
) -> Result<(), RegisterError> {
    match wanted {
        Some(wanted) if wanted != found => {
            Err(RegisterError::NotTheClusterWanted { wanted, whose, found })
        }
        _ => Ok(()),
    }
}

async fn try_join(
    coordinator: &Arc<dyn Coordinator>,
    expected: Option<ClusterId>,
    wanted: Option<ClusterId>,
) -> Result<ClusterId, RegisterError> {
    coordinator.sync().await?;
    for folder in paths::folders() {
        settled(coordinator.make_parents(&folder).await)?;
    }
    if let Some(document) = coordinator.read(&paths::cluster()).await? {
        let record = ClusterRecord::parse(&document.bytes)
            .map_err(|error| RegisterError::Unreadable(error.to_string()))?;
        if record.format > FORMAT {
            return Err(RegisterError::NewerFormat { found: record.format });
        }
        if let Some(folder) = expected.filter(|folder| *folder != record.cluster) {
            return Err(RegisterError::OtherCluster { folder, coordinator: record.cluster });
        }
        check_wanted(wanted, "the coordinator", record.cluster)?;
        make_login_record(coordinator).await?;
        return Ok(record.cluster);
    }
    let cluster = expected.or(wanted).unwrap_or_else(|| ClusterId(Uuid::new_v4()));
    if expected.is_some() {
        warn!(%cluster, "the coordinator holds no cluster although this data folder has one: was it restored empty? The cluster's id is written again; queues that only the logs know stay stopped");
    }
    let record = ClusterRecord { cluster, format: FORMAT, unknown: UnknownFields::new() };
    let create =
        Write::Create { path: paths::cluster(), bytes: record.to_bytes(), ephemeral: false };
    settled(coordinator.write(vec![create]).await)?;
    // Another broker may have been first: what is read now decides.
    Box::pin(try_join(coordinator, expected, wanted)).await
}

/// What logins must have in common on all brokers is drawn once for the cluster.
async fn make_login_record(coordinator: &Arc<dyn Coordinator>) -> Result<(), RegisterError> {
    let path = paths::login();
    if coordinator.read(&path).await?.is_some() {
        return Ok(());
    }
    let record = LoginRecord { decoys: rand::random(), unknown: UnknownFields::new() };
    let create = Write::Create { path, bytes: record.to_bytes(), ephemeral: false };
    settled(coordinator.write(vec![create]).await)
}

/// A write that may have been refused because it was done before.
fn settled<T>(outcome: Result<T, WriteError>) -> Result<(), RegisterError> {
    match outcome {
        Ok(_) | Err(WriteError::Refused { conflict: Conflict::Exists, .. }) => Ok(()),
        Err(WriteError::SessionOver) => Err(RegisterError::SessionOver),
        Err(error) => Err(RegisterError::Refused(error.to_string())),
    }
}

/// Registers this life: its id, held by one broker at a time, and its live path, never used twice.
pub(super) async fn register(
    coordinator: &Arc<dyn Coordinator>,
    registrant: &Registrant,
    life: BrokerLife,
) -> Result<(), RegisterError> {
    let record = BrokerRecord { life, ..registrant.record.clone() };
    let patience = coordinator.session().timeout + Duration::from_millis(500);
    let started = Instant::now();
    let mut told = false;
    loop {
        let id = paths::broker_id(life.broker);
        let store = match store_write(coordinator, &record).await {
            Ok(store) => store,
            Err(RegisterError::Refused(why)) => {
                warn!(%why, "the broker could not register yet");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let writes = vec![
            Write::Create { path: id.clone(), bytes: record.to_bytes(), ephemeral: true },
            Write::Create {
                path: paths::live_broker(life),
                bytes: record.to_bytes(),
                ephemeral: true,
            },
            store,
        ];
        match coordinator.write(writes).await {
            Ok(_) => return Ok(()),
            Err(WriteError::SessionOver) => return Err(RegisterError::SessionOver),
            Err(WriteError::Refused { conflict: Conflict::Exists, .. }) => {}
            // The controller forgot its store, as that of a retired broker, a moment ago; or the ensemble was restored from before
            // stores were written down, and there is no folder for them.
            Err(error @ WriteError::Refused { index: 2, .. }) => {
                warn!(%error, "the broker could not write down its store yet");
                settled(coordinator.make_parents(&paths::all_stores()).await)?;
                tokio::time::sleep(RETRY).await;
                continue;
            }
            Err(error) => {
                warn!(%error, "the broker could not register yet");
                tokio::time::sleep(RETRY).await;
            }
        }
        match coordinator.sync().await {
            Ok(()) => {}
            Err(ReadError::SessionOver) => return Err(RegisterError::SessionOver),
            Err(_) => {
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        let holder = match coordinator.read(&id).await {
            Ok(Some(document)) => document,
            Ok(None) => continue,
            Err(ReadError::SessionOver) => return Err(RegisterError::SessionOver),
            Err(_) => continue,
        };
        let theirs = BrokerRecord::parse(&holder.bytes)
            .map_err(|error| RegisterError::Unreadable(error.to_string()))?;
        if theirs.life == life {
            // Applied after all, its answer was lost.
            return Ok(());
        }
        if theirs.store != record.store && started.elapsed() > patience {
            return Err(RegisterError::IdInUse {
                id: life.broker.0,
                theirs: theirs.host,
                ours: record.host,
            });
        }
        if !told {
            info!(former = %theirs.life, host = %theirs.host, "this broker id is still registered; waiting until that session is over");
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Writes down which data folder the broker has, together with its being live: a copy can only come to a folder that is written
/// down, and whoever deletes a queue names all of these. Written also where it says so already: then nobody who read it before may
/// take it away.
async fn store_write(
    coordinator: &Arc<dyn Coordinator>,
    record: &BrokerRecord,
) -> Result<Write, RegisterError> {
    let path = paths::store(record.life.broker);
    let present = coordinator.read(&path).await?;
    let before = present.as_ref().map(|document| StoreRecord::parse(&document.bytes)).transpose();
    let before = before.map_err(|error| RegisterError::Unreadable(error.to_string()))?;
    if let Some(before) = before.as_ref().filter(|before| before.store != record.store) {
        let (former, now) = (before.store, record.store);
        info!(%former, %now, "this broker had another data folder when it last registered: queues that are deleted from now on are remembered for that one, too, until it is given up");
    }
    let bytes = registered(before, record.life.broker, record.store).to_bytes();
    Ok(match present {
        Some(document) => Write::Set { path, bytes, version: document.version },
        None => Write::Create { path, bytes, ephemeral: false },
    })
}

#[cfg(test)]
mod tests {
    use bellwether_coordinator::coordinator::Connector;
    use bellwether_coordinator::embedded::{Embedded, EmbeddedConfig};

    use super::*;

    const WANTED: ClusterId = ClusterId(Uuid::from_u128(1));
    const OTHER: ClusterId = ClusterId(Uuid::from_u128(2));

    #[tokio::test]
    async fn a_cluster_is_founded_with_the_id_that_was_named_and_another_one_is_refused() {
        let embedded = Embedded::start(EmbeddedConfig::default()).unwrap();
        let coordinator = embedded.connector(Duration::from_secs(10)).connect().await.unwrap();
        let founded = join_cluster(&coordinator, None, Some(WANTED)).await.unwrap();
        assert_eq!(founded, WANTED);
        assert_eq!(join_cluster(&coordinator, None, None).await.unwrap(), WANTED);

        let refused = join_cluster(&coordinator, None, Some(OTHER)).await.unwrap_err().to_string();
        let both = refused.contains(&WANTED.to_string()) && refused.contains(&OTHER.to_string());
        assert!(both && refused.contains("--cluster-id"), "{refused}");
    }

    /// A folder of another cluster must not found that cluster anew in an empty coordinator.
    #[tokio::test]
    async fn a_folder_of_another_cluster_than_the_one_named_is_refused_before_anything_is_written()
    {
        let embedded = Embedded::start(EmbeddedConfig::default()).unwrap();
        let coordinator = embedded.connector(Duration::from_secs(10)).connect().await.unwrap();
        let refused = join_cluster(&coordinator, Some(OTHER), Some(WANTED)).await.unwrap_err();
        assert!(refused.to_string().contains("its data folder"), "{refused}");
        assert_eq!(join_cluster(&coordinator, None, Some(WANTED)).await.unwrap(), WANTED);
    }

    /// It asked again and again without a pause or a word, and never registered.
    #[tokio::test(start_paused = true)]
    async fn a_tree_without_the_folder_of_stores_gets_one() {
        let embedded = Embedded::start(EmbeddedConfig::default()).unwrap();
        let coordinator = embedded.connector(Duration::from_secs(10)).connect().await.unwrap();
        let cluster = join_cluster(&coordinator, None, Some(WANTED)).await.unwrap();
        let path = paths::all_stores();
        let version = Some(coordinator.read(&path).await.unwrap().unwrap().version);
        coordinator.write(vec![Write::Delete { path, version }]).await.unwrap();

        let life = crate::catalog::doubles::life(1);
        let record = crate::catalog::doubles::record(life);
        let store = record.store;
        let registrant = Registrant { record, cluster };
        register(&coordinator, &registrant, life).await.unwrap();
        let document = coordinator.read(&paths::store(life.broker)).await.unwrap().unwrap();
        assert_eq!(StoreRecord::parse(&document.bytes).unwrap().store, store);
    }
}
