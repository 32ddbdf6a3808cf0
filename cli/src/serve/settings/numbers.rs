//! How many things there may be in the whole cluster.

use bellwether_broker::config::Numbers;
use clap::Args;

/// What the cluster may hold. Every broker heeds its own when it declares: set them for the whole cluster.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Numbers in the cluster")]
pub struct NumberSettings {
    /// Queues of the whole cluster, in all virtual hosts together
    ///
    /// Every broker keeps all of them in memory, some 2 KiB each, and so does ZooKeeper. Raise it with the memory limits of both; lower it
    /// where clients that run wild should be stopped sooner.
    #[arg(long, value_name = "N", env = "BELLWETHER_QUEUES_MAX", default_value_t = Numbers::default().queues_max)]
    pub queues_max: usize,
    /// Deleted queues that are still remembered because the disk of a broker that is away may hold them
    ///
    /// Beyond it no queue can be declared until that broker comes back or is retired. Raise it where queues are made and deleted by the
    /// second and brokers stay away for days; each takes some 300 bytes.
    #[arg(long, value_name = "N", env = "BELLWETHER_DELETED_QUEUES_MAX", default_value_t = Numbers::default().deleted_queues_max)]
    pub deleted_queues_max: usize,
    /// Exchanges of the whole cluster, in all virtual hosts together
    ///
    /// Every broker keeps all of them in memory, some 300 bytes each. Lower it where clients that run wild should be stopped sooner.
    #[arg(long, value_name = "N", env = "BELLWETHER_EXCHANGES_MAX", default_value_t = Numbers::default().exchanges_max)]
    pub exchanges_max: usize,
    /// Bindings of the whole cluster, in all virtual hosts together
    ///
    /// Every broker keeps all of them in memory, some 400 bytes each with short names. Raise it with the memory limit.
    #[arg(long, value_name = "N", env = "BELLWETHER_BINDINGS_MAX", default_value_t = Numbers::default().bindings_max)]
    pub bindings_max: usize,
    /// Bindings of one queue
    ///
    /// They are one document of ZooKeeper, written anew with every change and 900,000 bytes long at most: with long names that comes first.
    /// Lower it to notice clients that bind without end.
    #[arg(long, value_name = "N", env = "BELLWETHER_BINDINGS_PER_QUEUE_MAX", default_value_t = Numbers::default().bindings_per_queue_max)]
    pub bindings_per_queue_max: usize,
}

impl NumberSettings {
    pub(super) fn to_numbers(&self) -> Numbers {
        Numbers {
            queues_max: self.queues_max,
            deleted_queues_max: self.deleted_queues_max,
            exchanges_max: self.exchanges_max,
            bindings_max: self.bindings_max,
            bindings_per_queue_max: self.bindings_per_queue_max,
        }
    }
}
