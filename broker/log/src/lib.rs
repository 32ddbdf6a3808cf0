//! The unit of every queue's log: a batch. Encoded once by the leader; the same bytes cross the
//! peer links and lie in every journal. Pure: no clock, file or socket.

mod batch;
mod epochs;
mod payload;
mod record;

pub use batch::{BATCH_BYTES_MAX, Batch, BatchError, HEADER_BYTES};
pub use epochs::{EpochHistory, EpochOrderError};
pub use record::{Enqueue, ProducerMark, Record, RecordError, RecordKind, SettleKind};
