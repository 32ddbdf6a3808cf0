//! Real brokers, real ensembles, faults, and a checker that says whether the promises were kept.

pub mod binary;
pub mod checker;
pub mod preload;
