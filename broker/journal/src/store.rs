//! The data folder's identity: whose it is, and that only one process uses it.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bellwether_protocol::ids::{BrokerId, ClusterId, StoreId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::disk::{Disk, Lock, LockError};
use crate::format::FORMAT;
use crate::recovery::{NewerFormat, RecoveryError};
use crate::segment::number_in;

const NAME: &str = "store.json";
const NEW_NAME: &str = "store.json.new";
/// There when a sync has failed.
const FAILED_NAME: &str = "failed";

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("data folder {dir}: {what}: {error}")]
    Io { dir: PathBuf, what: String, error: io::Error },
    #[error("data folder {dir} is read-only")]
    ReadOnly { dir: PathBuf },
    #[error("data folder {dir} is in use by {by}")]
    InUse { dir: PathBuf, by: String },
    #[error("data folder {dir} belongs to broker {of}, this is broker {this}")]
    OtherBroker { dir: PathBuf, of: BrokerId, this: BrokerId },
    #[error("data folder {dir} belongs to cluster {of}, this is cluster {this}")]
    OtherCluster { dir: PathBuf, of: ClusterId, this: ClusterId },
    #[error("data folder {dir}: {newer}")]
    Newer { dir: PathBuf, newer: NewerFormat },
    #[error("data folder {dir}: {what}")]
    Damaged { dir: PathBuf, what: String },
    /// The kernel may have thrown away what it could not write, and shows it all the same until the machine restarts.
    #[error(
        "data folder {dir}: a sync failed ({what}), so what is in it cannot be trusted. Move the folder away and start with an empty one: it is filled from the other replicas"
    )]
    SyncFailed { dir: PathBuf, what: String },
    #[error("journal setting {0}")]
    Config(String),
}

impl OpenError {
    pub(crate) fn io(dir: &Path, what: &str, error: io::Error) -> OpenError {
        let dir = dir.to_owned();
        if error.kind() == io::ErrorKind::ReadOnlyFilesystem {
            return OpenError::ReadOnly { dir };
        }
        OpenError::Io { dir, what: what.to_owned(), error }
    }

    pub(crate) fn recovery(dir: &Path, error: RecoveryError) -> OpenError {
        match error {
            RecoveryError::Io { what, error } => OpenError::io(dir, &what, error),
            RecoveryError::Newer(newer) => OpenError::Newer { dir: dir.to_owned(), newer },
            RecoveryError::Foreign { name, of } => OpenError::Damaged {
                dir: dir.to_owned(),
                what: format!("{name} was written by store {of}, which is another one"),
            },
        }
    }
}

/// `store.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Document {
    format: u32,
    store: Uuid,
    broker: u32,
    cluster: Option<Uuid>,
}

/// The data folder, held for this process as long as this lives.
#[derive(Debug)]
pub struct StoreFolder {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    document: Mutex<Document>,
    _lock: Box<dyn Lock>,
}

impl StoreFolder {
    /// Locks the folder and makes sure whose it is.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        broker: BrokerId,
    ) -> Result<StoreFolder, OpenError> {
        let lock = disk.lock().map_err(|error| match error {
            LockError::Held { by } => OpenError::InUse { dir: dir.clone(), by },
            LockError::Io(error) => OpenError::io(&dir, "locking it", error),
        })?;
        let names = disk.names().map_err(|error| OpenError::io(&dir, "listing it", error))?;
        if names.iter().any(|name| name == FAILED_NAME) {
            let bytes = read_all(&*disk, FAILED_NAME);
            let bytes = bytes.map_err(|error| OpenError::io(&dir, FAILED_NAME, error))?;
            // A disk that fails may keep the name and lose what was written to it.
            let words = String::from_utf8_lossy(&bytes).trim_matches(['\0', ' ', '\n']).to_owned();
            let what = if words.is_empty() { "it is not known why".to_owned() } else { words };
            return Err(OpenError::SyncFailed { dir, what });
        }
        let document = if names.iter().any(|name| name == NAME) {
            let bytes = read_all(&*disk, NAME).map_err(|error| OpenError::io(&dir, NAME, error))?;
            parse(&dir, &bytes)?
        } else if names.iter().any(|name| number_in(name, "segment").is_some()) {
            let what = format!("there are segments, but no {NAME} that says whose they are");
            return Err(OpenError::Damaged { dir, what });
        } else {
            let store = Uuid::new_v4();
            let minted = Document { format: FORMAT, store, broker: broker.0, cluster: None };
            write(&*disk, &minted).map_err(|error| OpenError::io(&dir, NAME, error))?;
            minted
        };
        let of = BrokerId(document.broker);
        if of != broker {
            return Err(OpenError::OtherBroker { dir, of, this: broker });
        }
        Ok(StoreFolder { dir, disk, document: Mutex::new(document), _lock: lock })
    }

    /// Minted when the folder was empty.
    #[must_use]
    pub fn id(&self) -> StoreId {
        StoreId(self.document().store)
    }

    #[must_use]
    pub fn broker(&self) -> BrokerId {
        BrokerId(self.document().broker)
    }

    /// The cluster it has been claimed for.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.document().cluster.map(ClusterId)
    }

    /// Claims the folder for a cluster, durably; refuses if it is another's. Call it as soon as the cluster
    /// is known, and use nothing in it before. Blocks.
    ///
    /// # Errors
    /// [`OpenError::OtherCluster`], or the disk's own.
    pub fn claim(&self, cluster: ClusterId) -> Result<(), OpenError> {
        let mut document = self.document.lock().unwrap_or_else(PoisonError::into_inner);
        match document.cluster {
            Some(of) if of == cluster.0 => Ok(()),
            Some(of) => {
                let dir = self.dir.clone();
                Err(OpenError::OtherCluster { dir, of: ClusterId(of), this: cluster })
            }
            None => {
                let claimed = Document { cluster: Some(cluster.0), ..document.clone() };
                write(&*self.disk, &claimed)
                    .map_err(|error| OpenError::io(&self.dir, NAME, error))?;
                *document = claimed;
                Ok(())
            }
        }
    }

    fn document(&self) -> Document {
        self.document.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Notes that a sync failed, as well as that disk still can, so that no later life of the broker trusts the folder.
pub(crate) fn condemn(disk: &dyn Disk, what: &str) -> io::Result<()> {
    let file = disk.create(FAILED_NAME)?;
    file.write_at(&[IoSlice::new(what.as_bytes())], 0)?;
    file.sync()?;
    disk.sync_names()
}

fn read_all(disk: &dyn Disk, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name)?;
    let mut bytes = vec![0; file.length()? as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn parse(dir: &Path, bytes: &[u8]) -> Result<Document, OpenError> {
    let damaged = |error: serde_json::Error| OpenError::Damaged {
        dir: dir.to_owned(),
        what: format!("{NAME}: {error}"),
    };
    // The format first: of a later one nothing else need be as it is here.
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    let Versioned { format } = serde_json::from_slice(bytes).map_err(damaged)?;
    if format > FORMAT {
        let newer = NewerFormat { what: NAME.to_owned(), found: format, known: FORMAT };
        return Err(OpenError::Newer { dir: dir.to_owned(), newer });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

/// Replaces the document, all or nothing.
fn write(disk: &dyn Disk, document: &Document) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(document)?;
    bytes.push(b'\n');
    let file = disk.create(NEW_NAME)?;
    file.write_at(&[IoSlice::new(&bytes)], 0)?;
    file.sync()?;
    disk.rename(NEW_NAME, NAME)?;
    disk.sync_names()
}
