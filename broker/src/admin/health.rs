//! What keeps a broker from being sent clients, and what makes it need a person.

use std::fmt;

use tokio::sync::watch;

/// Something that is wrong, or not right yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Not registered yet: recovering, waiting for the coordinator, or for its own leftovers to go.
    Starting,
    /// Handing over and leaving.
    Stopping,
    /// The coordinator session is over and there is no new one yet. (A session that is merely
    /// disconnected is no trouble: the data plane goes on.)
    NoSession,
    /// Too much is held in memory: producers wait for credit, and all else goes on, so that it passes.
    MemoryFull {
        /// The limit in bytes.
        limit: u64,
    },
    /// No write or sync of the journal returns: leaderships are given up until they do again.
    DiskStalls,
    /// A write or a sync failed: this store is dead until the disk is replaced.
    StoreFailed(String),
}

impl Trouble {
    /// Whether waiting will not help.
    fn is_for_good(&self) -> bool {
        match self {
            Trouble::Starting
            | Trouble::Stopping
            | Trouble::NoSession
            | Trouble::MemoryFull { .. }
            | Trouble::DiskStalls => false,
            Trouble::StoreFailed(_) => true,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Starting => f.write_str("starting: not registered with the coordinator yet"),
            Trouble::Stopping => f.write_str("stopping: handing its queues over"),
            Trouble::NoSession => f.write_str("no coordinator session"),
            Trouble::MemoryFull { limit } => write!(
                f,
                "the memory limit of {limit} bytes is reached: producers wait for credit until consumers have drained; see bellwether_memory_pool_bytes"
            ),
            Trouble::DiskStalls => {
                f.write_str("the disk stalls: no write or sync returns; look at it")
            }
            Trouble::StoreFailed(why) => {
                write!(f, "the store has failed and must be replaced: {why}")
            }
        }
    }
}

/// The troubles of a broker now. It starts out [`Trouble::Starting`].
#[derive(Debug)]
pub struct Health(watch::Sender<Vec<Trouble>>);

impl Default for Health {
    fn default() -> Health {
        Health(watch::Sender::new(vec![Trouble::Starting]))
    }
}

impl Health {
    /// `trouble` has begun.
    pub fn raise(&self, trouble: Trouble) {
        self.0.send_if_modified(|troubles| {
            let new = !troubles.contains(&trouble);
            if new {
                troubles.push(trouble);
            }
            new
        });
    }

    /// `trouble` is over.
    pub fn clear(&self, trouble: &Trouble) {
        self.0.send_modify(|troubles| troubles.retain(|known| known != trouble));
    }

    /// Why clients should not be sent here; empty when ready.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        self.0.borrow().clone()
    }

    /// What will not pass by itself; empty when healthy.
    #[must_use]
    pub fn broken(&self) -> Vec<Trouble> {
        self.troubles().into_iter().filter(Trouble::is_for_good).collect()
    }

    /// Returns once there is no trouble.
    pub async fn until_ready(&self) {
        let mut troubles = self.0.subscribe();
        // The sender lives as long as `self`, so the wait can only end by the condition.
        let _ready = troubles.wait_for(Vec::is_empty).await;
    }
}
