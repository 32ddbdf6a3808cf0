//! The data folder's identity: whose it is, and that only one process uses it.

use std::path::PathBuf;

use bellwether_protocol::ids::{BrokerId, ClusterId, StoreId};

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("data folder {dir}: {what}: {error}")]
    Io { dir: PathBuf, what: String, error: std::io::Error },
    #[error("data folder {dir} is read-only")]
    ReadOnly { dir: PathBuf },
    #[error("data folder {dir} is in use by {by}")]
    InUse { dir: PathBuf, by: String },
    #[error("data folder {dir} belongs to broker {of}, this is broker {this}")]
    OtherBroker { dir: PathBuf, of: BrokerId, this: BrokerId },
    #[error("data folder {dir} belongs to cluster {of}, this is cluster {this}")]
    OtherCluster { dir: PathBuf, of: ClusterId, this: ClusterId },
    #[error(
        "data folder {dir} was written in format {found}, this version of Bellwether knows formats up to {known}"
    )]
    Newer { dir: PathBuf, found: u32, known: u32 },
    #[error("data folder {dir}: {what}")]
    Damaged { dir: PathBuf, what: String },
    #[error("journal setting {0}")]
    Config(String),
}

/// The data folder, held for this process as long as this lives.
#[derive(Debug)]
pub struct StoreFolder {}

impl StoreFolder {
    /// Minted when the folder was empty.
    #[must_use]
    pub fn id(&self) -> StoreId {
        unimplemented!()
    }

    #[must_use]
    pub fn broker(&self) -> BrokerId {
        unimplemented!()
    }

    /// The cluster it has been claimed for.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        unimplemented!()
    }

    /// Claims the folder for a cluster, durably; refuses if it is another's. Call it as soon as the cluster is known, and use nothing in it
    /// before. Blocks.
    ///
    /// # Errors
    /// [`OpenError::OtherCluster`], or the disk's own.
    pub fn claim(&self, _cluster: ClusterId) -> Result<(), OpenError> {
        unimplemented!()
    }
}
