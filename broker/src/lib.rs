//! The broker: the shell around the pure machines.

pub mod shard;
