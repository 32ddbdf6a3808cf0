//! Single-owner tasks over which the queues are partitioned.

pub mod input;
