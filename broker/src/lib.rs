//! The broker: the shell around the pure machines.

pub mod admin;
pub mod config;
pub mod metrics;
pub mod routing;
pub mod shard;
pub mod seams;
pub mod session;
