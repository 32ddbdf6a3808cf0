//! What is shown of the pools of memory.

use super::{Family, Kind};
use crate::memory::{Memory, Pool};

/// A family with a line for each pool: what it shows of one, where there is something to be shown.
pub type PoolColumn = (Family, fn(&Memory, Pool) -> Option<u64>);

/// Of each pool.
pub const OF_POOLS: &[PoolColumn] = &[
    (
        Family {
            name: "bellwether_memory_pool_bytes",
            kind: Kind::Gauge,
            labels: &["pool"],
            help: "What a pool of memory holds.",
        },
        |memory, pool| Some(memory.held(pool).get()),
    ),
    (
        Family {
            name: "bellwether_memory_pool_limit_bytes",
            kind: Kind::Gauge,
            labels: &["pool"],
            help: "What a pool of memory may hold.",
        },
        Memory::limit_of,
    ),
];

/// Of all pools together.
pub const LIMIT: Family = Family {
    name: "bellwether_memory_limit_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "What all pools of memory may hold together.",
};
