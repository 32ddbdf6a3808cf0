//! The broker: the shell around the pure machines.

pub mod admin;
pub mod config;
pub mod metrics;
pub mod routing;
pub mod shard;
pub mod seams;
pub mod session;
pub mod catalog;
pub mod connection;
pub mod publish;
pub mod peers;
