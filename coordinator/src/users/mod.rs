//! Users: what is kept of each, what may be changed, and what the permissions mean. Pure; brokers carry the changes out for
//! administrators, and the command line does so for whoever may write to the ensemble.

mod change;
mod pattern;
mod record;

pub use change::{ApplyError, UserChange, UserError, apply};
pub use pattern::{InvalidPattern, PATTERN_BYTES_MAX, Pattern};
pub use record::{LoginRecord, UserRecord};
