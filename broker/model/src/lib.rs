//! A model of the replication protocol, small enough that a machine can look at every state that it can get into.

pub mod calm;
pub mod checked;
pub mod log;
pub mod mutants;
pub mod promises;
pub mod protocol;
pub mod rules;
pub mod searches;
pub mod story;
mod symmetry;
pub mod world;
