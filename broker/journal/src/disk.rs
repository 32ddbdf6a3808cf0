//! The seam to the file system: what the journal wants of a data folder. One real, one in memory that can crash.

#[cfg(test)]
pub mod crash;
mod real;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::sync::Arc;

pub use real::RealDisk;

/// A data folder.
pub trait Disk: Send + Sync + Debug {
    /// The names of all files in it.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Makes an empty file; one of that name is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file a new name, replacing what had it. Not durable before [`Disk::sync_names`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Not durable before [`Disk::sync_names`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_names(&self) -> io::Result<()>;
    /// Bytes that may still be written.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Holds the folder for this process until dropped. `Err(Ok(holder))`: another process has it.
    fn lock(&self) -> Result<Box<dyn Lock>, LockError>;
}

/// The folder is ours while this lives.
pub trait Lock: Send + Sync + Debug {}

/// Why the folder is not ours.
#[derive(Debug)]
pub enum LockError {
    Held { by: String },
    Io(io::Error),
}

/// A file in it. Positions are bytes from its beginning.
pub trait DiskFile: Send + Sync + Debug {
    fn length(&self) -> io::Result<u64>;
    /// Fills `into`; an end of the file before that is an error.
    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<()>;
    /// Writes all parts, one behind the other.
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<()>;
    /// Makes content and length durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file to `length`.
    fn cut(&self, length: u64) -> io::Result<()>;
    /// Lengthens the file to `length` and reserves its blocks.
    fn allocate(&self, length: u64) -> io::Result<()>;
}
