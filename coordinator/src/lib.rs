//! What the ensemble knows: the seam to it, the documents kept in it, and the pure rules for
//! electing leaders and placing replicas. The only crate that names the ZooKeeper client.

pub mod balance;
pub mod coordinator;
pub mod election;
pub mod embedded;
pub mod paths;
pub mod placement;
pub mod records;
mod session;
pub mod stuck;
pub mod tombstone;
pub mod users;
pub mod zookeeper;

pub use session::WRITE_BYTES_MAX;
