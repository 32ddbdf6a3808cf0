//! What keeps a broker from being sent clients, and what makes it need a person.

use std::fmt;
use std::sync::{Mutex, PoisonError};

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
    /// A write or a sync failed: this store is dead until the disk is replaced.
    StoreFailed(String),
}

impl Trouble {
    /// Whether waiting will not help.
    fn is_for_good(&self) -> bool {
        match self {
            Trouble::Starting | Trouble::Stopping | Trouble::NoSession => false,
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
            Trouble::StoreFailed(why) => {
                write!(f, "the store has failed and must be replaced: {why}")
            }
        }
    }
}

/// The troubles of a broker now. It starts out [`Trouble::Starting`].
#[derive(Debug)]
pub struct Health(Mutex<Vec<Trouble>>);

impl Default for Health {
    fn default() -> Health {
        Health(Mutex::new(vec![Trouble::Starting]))
    }
}

impl Health {
    /// `trouble` has begun.
    pub fn raise(&self, trouble: Trouble) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !troubles.contains(&trouble) {
            troubles.push(trouble);
        }
    }

    /// `trouble` is over.
    pub fn clear(&self, trouble: &Trouble) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| known != trouble);
    }

    /// Why clients should not be sent here; empty when ready.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What will not pass by itself; empty when healthy.
    #[must_use]
    pub fn broken(&self) -> Vec<Trouble> {
        self.troubles().into_iter().filter(Trouble::is_for_good).collect()
    }
}
