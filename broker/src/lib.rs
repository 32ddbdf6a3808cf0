//! The broker: the shell around the pure machines. [`run`] starts every part, and stops it.

mod address;
pub mod admin;
pub mod catalog;
pub mod config;
pub mod connection;
mod controller;
mod descriptors;
pub mod live;
pub mod login;
pub mod memory;
pub mod metrics;
pub mod peers;
mod places;
pub mod publish;
mod pulse;
#[cfg(test)]
mod released;
pub mod routing;
mod run;
pub mod seams;
mod seldom;
pub mod session;
pub mod shard;
mod stall;
pub mod tls;
pub mod traces;
mod watch;
pub mod words;

pub use run::{BrokerError, run};
