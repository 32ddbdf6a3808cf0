//! A queue's replicated state as bytes: in checkpoints, and in snapshots to other replicas. The
//! types here are the format; those of the machine may change without it.

use bellwether_protocol::ids::{Offset, OffsetRange, Seq};
use bellwether_protocol::names::ProducerName;
use serde::{Deserialize, Serialize};

use crate::Queue;
use crate::offsets::OffsetSet;
use crate::producers::{Known, Producers};
use crate::returns::Returns;
use crate::state::State;

/// The first byte of a checkpoint.
const VERSION: u8 = CHECKPOINT_VERSION;
/// The version of checkpoints that this build writes, and the newest it reads.
pub const CHECKPOINT_VERSION: u8 = 1;

/// The version of a checkpoint, whether this build reads it or not.
#[must_use]
pub fn checkpoint_version(bytes: &[u8]) -> Option<u8> {
    bytes.first().copied()
}

/// ```text
/// | version: u8 = 1 | StateV1 in postcard |
/// ```
#[derive(Serialize, Deserialize)]
struct StateV1 {
    applied: u64,
    enqueued: u64,
    settled: u64,
    purged: u64,
    time_ms: u64,
    producers_forgotten: u64,
    /// By upper half of the offset: a bitmap of lower halves in Roaring's portable format.
    unsettled: Vec<(u32, Vec<u8>)>,
    /// First offset, end, count.
    returns: Vec<(u64, u64, u32)>,
    /// The one unused for longest first.
    producers: Vec<ProducerV1>,
}

#[derive(Serialize, Deserialize)]
struct ProducerV1 {
    name: String,
    last: u64,
    used: u64,
    time_ms: u64,
}

/// Bytes that are not the state of a queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error("the state of a queue is of version {0}; this build reads version {VERSION}")]
    Version(u8),
    #[error("the state of a queue cannot be read: {0}")]
    Malformed(String),
    #[error("the state of a queue contradicts itself: {0}")]
    Contradiction(&'static str),
}

impl Queue {
    /// The replicated state as bytes. Replicas that have applied the same records give the same bytes.
    #[must_use]
    pub fn checkpoint(&self) -> Vec<u8> {
        let State { applied, unsettled, returns, producers, enqueued, settled, purged, time_ms } =
            &self.state;
        let returns = returns.iter().map(|(range, count)| (range.first.0, range.end.0, count));
        let each = producers.iter().map(|(name, known)| ProducerV1 {
            name: name.as_str().to_owned(),
            last: known.last.0,
            used: known.used.0,
            time_ms: known.time_ms,
        });
        let state = StateV1 {
            applied: applied.0,
            enqueued: *enqueued,
            settled: *settled,
            purged: *purged,
            time_ms: *time_ms,
            producers_forgotten: producers.forgotten(),
            unsettled: unsettled.to_parts(),
            returns: returns.collect(),
            producers: each.collect(),
        };
        postcard::to_extend(&state, vec![VERSION]).expect("a Vec takes every write")
    }

    /// The queue of a checkpoint. It does not serve.
    ///
    /// # Errors
    /// [`RestoreError`] says why the bytes are not one.
    pub fn restore(bytes: &[u8]) -> Result<Queue, RestoreError> {
        let malformed = |what: &str| RestoreError::Malformed(what.to_owned());
        let (version, rest) = bytes.split_first().ok_or_else(|| malformed("no bytes"))?;
        if *version != VERSION {
            return Err(RestoreError::Version(*version));
        }
        let read: StateV1 = postcard::from_bytes(rest)
            .map_err(|error| RestoreError::Malformed(error.to_string()))?;
        let returns: Vec<_> = read
            .returns
            .iter()
            .map(|(first, end, count)| (OffsetRange::new(Offset(*first), Offset(*end)), *count))
            .collect();
        let state = State {
            applied: Offset(read.applied),
            unsettled: OffsetSet::from_parts(read.unsettled).ok_or_else(|| malformed("offsets"))?,
            returns: Returns::from_ranges(&returns).ok_or_else(|| malformed("return counts"))?,
            producers: restore_producers(read.producers_forgotten, read.producers)?,
            enqueued: read.enqueued,
            settled: read.settled,
            purged: read.purged,
            time_ms: read.time_ms,
        };
        check(&state)?;
        Ok(Queue { state, serving: None })
    }
}

fn restore_producers(forgotten: u64, read: Vec<ProducerV1>) -> Result<Producers, RestoreError> {
    let mut producers = Vec::with_capacity(read.len());
    for producer in read {
        let ProducerV1 { name, last, used, time_ms } = producer;
        let name = ProducerName::try_from(name)
            .map_err(|error| RestoreError::Malformed(error.to_string()))?;
        producers.push((name, Known { last: Seq(last), used: Offset(used), time_ms }));
    }
    Producers::restore(forgotten, producers)
        .ok_or_else(|| RestoreError::Malformed("producers".to_owned()))
}

/// What would break the machine later is refused here.
fn check(state: &State) -> Result<(), RestoreError> {
    let below = OffsetRange::new(Offset(0), state.applied);
    if !state.unsettled.lies_within(below) {
        return Err(RestoreError::Contradiction("messages behind its end"));
    }
    let gone = state.settled.checked_add(state.purged);
    if gone.and_then(|gone| gone.checked_add(state.unsettled.len())) != Some(state.enqueued) {
        return Err(RestoreError::Contradiction("its counts do not add up"));
    }
    if state.returns.iter().any(|(range, _)| !state.unsettled.contains(range)) {
        return Err(RestoreError::Contradiction("return counts of messages that are gone"));
    }
    if state.producers.iter().any(|(_, known)| known.used >= state.applied) {
        return Err(RestoreError::Contradiction("producers behind its end"));
    }
    Ok(())
}
