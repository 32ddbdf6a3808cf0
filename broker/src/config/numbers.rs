//! How many things there may be in the whole cluster. Every broker keeps a copy of what the coordinator knows, and the coordinator keeps
//! all of it in memory: whoever may declare without end would fill both.

use super::{InvalidSetting, between};

/// See the module. Each is a setting of the same name; every broker that declares heeds its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Queues in all virtual hosts together. Default: 100,000.
    pub queues_max: usize,
    /// Deleted queues whose tombstones still wait for the disk of a broker. Default: 200,000.
    pub deleted_queues_max: usize,
    /// Exchanges in all virtual hosts together. Default: 100,000.
    pub exchanges_max: usize,
    /// Bindings in all virtual hosts together. Default: 500,000.
    pub bindings_max: usize,
    /// Bindings of one queue; fewer where names are long, for they are one document. Default: 10,000.
    pub bindings_per_queue_max: usize,
}

impl Default for Numbers {
    fn default() -> Numbers {
        Numbers {
            queues_max: 100_000,
            deleted_queues_max: 200_000,
            exchanges_max: 100_000,
            bindings_max: 500_000,
            bindings_per_queue_max: 10_000,
        }
    }
}

impl Numbers {
    pub(super) fn check(&self) -> Result<(), InvalidSetting> {
        between("queues-max", self.queues_max as u64, 1, 10_000_000)?;
        between("deleted-queues-max", self.deleted_queues_max as u64, 1, 10_000_000)?;
        between("exchanges-max", self.exchanges_max as u64, 1, 10_000_000)?;
        between("bindings-max", self.bindings_max as u64, 1, 100_000_000)?;
        between("bindings-per-queue-max", self.bindings_per_queue_max as u64, 1, 100_000)
    }
}
