//! Fetches a snapshot: the end that is filled.

use std::sync::Arc;
use std::time::Duration;

use bellwether_log::{BATCH_BYTES_MAX, Batch};
use bellwether_protocol::CodecError;
use bellwether_protocol::ids::{BrokerLife, Epoch, QueueId};
use bellwether_protocol::peer::{PeerFrame, Purpose};
use bytes::{Bytes, BytesMut};

use super::Shared;
use super::dial::{DialError, dial};
use super::hello::Framed;
use super::secure::Stream;
use crate::memory::{Held, Pool};
use crate::seams::SnapshotPart;
use crate::shard::input::{PeerNews, ShardInput};

/// Largest state of a queue that is taken, in bytes: a hundred thousand producers with the longest names take a tenth of it.
const STATE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A snapshot connection on which nothing has arrived for so long is given up. Generous: the other end paces itself.
const SILENCE_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no address of the leader is known")]
    NoAddress,
    #[error("this broker is between two lives")]
    NotReady,
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("another life of the leader answered")]
    OtherLife,
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("nothing arrived for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the connection ended in the middle")]
    Ended,
    #[error("the leader refused: {0}")]
    Refused(String),
    #[error("a frame came out of turn")]
    OutOfTurn,
    #[error("a state of {0} bytes is over {STATE_BYTES_MAX}")]
    StateTooLarge(u64),
    #[error("what arrived is no batch")]
    NotBatch,
}

/// Fetches it and tells the queue's shard, to the last part or to the failure.
pub(super) async fn fetch(
    shared: Arc<Shared>,
    from: BrokerLife,
    queue: QueueId,
    epoch: Epoch,
    fetch: u64,
) {
    let Ok(_turn) = shared.fetches.acquire().await else { return };
    let fetched = tokio::select! {
        fetched = fetch_one(&shared, from, queue, epoch, fetch) => fetched,
        () = shared.shutdown.cancelled() => return,
    };
    let part = match fetched {
        Ok(()) => {
            shared.metrics.snapshots_received.increment();
            SnapshotPart::End
        }
        Err(error) => {
            tracing::warn!(%queue, leader = %from, %error, "a snapshot could not be fetched");
            SnapshotPart::Failed(error.to_string())
        }
    };
    tell(&shared, queue, fetch, part).await;
}

async fn tell(shared: &Shared, queue: QueueId, fetch: u64, part: SnapshotPart) {
    let news = PeerNews::Snapshot { queue, fetch, part };
    shared.shards.send(shared.shards.shard_of(queue), ShardInput::Peer(news)).await;
}

async fn fetch_one(
    shared: &Shared,
    from: BrokerLife,
    queue: QueueId,
    epoch: Epoch,
    fetch: u64,
) -> Result<(), FetchError> {
    let me = shared.me.borrow().filter(|me| me.ready).ok_or(FetchError::NotReady)?;
    let target = shared.target_of(from.broker).ok_or(FetchError::NoAddress)?;
    let (mut framed, theirs) = dial(shared, &me, &target, Purpose::Snapshot).await?;
    if theirs.life != from {
        return Err(FetchError::OtherLife);
    }
    framed.write(&PeerFrame::SnapshotAsk { queue, epoch }).await.map_err(CodecError::from)?;
    let PeerFrame::SnapshotStart { at, high_watermark, state_bytes, epochs } =
        next(&mut framed).await?
    else {
        return Err(FetchError::OutOfTurn);
    };
    let mut held = Held::new(&shared.metrics, Pool::Snapshots, 0);
    let state = take_state(&mut framed, state_bytes, &mut held).await?;
    tell(shared, queue, fetch, SnapshotPart::Head { at, high_watermark, epochs, state }).await;
    take_live(shared, &mut framed, queue, fetch, &mut held).await
}

async fn take_state(
    framed: &mut Framed<Stream>,
    bytes: u64,
    held: &mut Held,
) -> Result<Bytes, FetchError> {
    if bytes > STATE_BYTES_MAX {
        return Err(FetchError::StateTooLarge(bytes));
    }
    let mut state = BytesMut::new();
    while (state.len() as u64) < bytes {
        let PeerFrame::SnapshotPart(part) = next(framed).await? else {
            return Err(FetchError::OutOfTurn);
        };
        state.extend_from_slice(&part);
        held.set(state.len() as u64);
    }
    if state.len() as u64 > bytes { Err(FetchError::OutOfTurn) } else { Ok(state.freeze()) }
}

/// Hands whole batches on; the shard's mailbox slows the leader when it is full.
async fn take_live(
    shared: &Shared,
    framed: &mut Framed<Stream>,
    queue: QueueId,
    fetch: u64,
    held: &mut Held,
) -> Result<(), FetchError> {
    let mut arrived = BytesMut::new();
    loop {
        match next(framed).await? {
            PeerFrame::SnapshotPart(part) => arrived.extend_from_slice(&part),
            PeerFrame::SnapshotEnd if arrived.is_empty() => return Ok(()),
            PeerFrame::SnapshotEnd => return Err(FetchError::Ended),
            _ => return Err(FetchError::OutOfTurn),
        }
        held.set(arrived.len() as u64);
        let whole = whole_batches(&arrived)?;
        if whole > 0 {
            let live = SnapshotPart::Live(arrived.split_to(whole).freeze());
            tell(shared, queue, fetch, live).await;
        }
    }
}

/// How many of these bytes are whole batches.
fn whole_batches(arrived: &[u8]) -> Result<usize, FetchError> {
    let mut end = 0;
    while let Some(length) = Batch::length(&arrived[end..]) {
        if length == 0 || length > BATCH_BYTES_MAX {
            return Err(FetchError::NotBatch);
        }
        if end + length > arrived.len() {
            break;
        }
        end += length;
    }
    Ok(end)
}

async fn next(framed: &mut Framed<Stream>) -> Result<PeerFrame, FetchError> {
    let frame = tokio::time::timeout(SILENCE_MAX, framed.read())
        .await
        .map_err(|_| FetchError::Silent)??;
    match frame {
        Some(PeerFrame::Goodbye(error)) => Err(FetchError::Refused(error.message)),
        Some(frame) => Ok(frame),
        None => Err(FetchError::Ended),
    }
}
