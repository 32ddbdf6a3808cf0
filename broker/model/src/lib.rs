//! A model of the replication protocol, small enough that a machine can look at every state that it can get into.
//!
//! [`protocol`] is the protocol itself, to be read beside docs/replication.md; [`world`] what there is in it, [`promises`] what must hold in every
//! world, [`calm`] whether a leader is found when faults end. [`searches`] are the bounds within which everything is looked at, [`mutants`] the
//! guards that are taken away one by one to show that each property can fail, and [`checked`] hands all of it to the checker.
//!
//! # What the abstraction may hide
//!
//! - It is a model, not the code that ships: what the code does otherwise is found by the simulator, or not at all.
//! - A report arrives the moment it is sent, and is counted later or never. To have heard only ever allows more, so late and lost reports are in
//!   the model as confirms that come late or never. The same holds for what a leader streams and a follower appends.
//! - Agreeing on the log, with all its rounds, is one step: an answer to an older question is not in the model.
//! - A request that names an old version is never made, and one that has become old is gone: both are refused whatever happens.
//! - Crashes lose all that was not synced or nothing of it; a part of it is a follower that had appended less.
//! - A leader knows one store of each broker at a time: when a broker reports with another disk, the leader forgets the report of the one before.
//! - In coarse steps a follower never holds what it has not synced, and a leader confirms at once. "small steps" is without them.
//! - A promise ends for both at one moment: clocks that run at different speeds are not in the model. Nor are promises for many queues at once.
//! - Not modelled: snapshots, damaged logs, stores that fail and stay, changes of the replica set, forced elections, restored ensembles, retries of
//!   producers, consumers and what they hold. A new queue of a deleted one's name is another queue, whose logs have another id.

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
