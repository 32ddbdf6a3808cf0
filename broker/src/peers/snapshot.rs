//! Fills a replica over a connection of its own, so that neither promises nor messages wait for it: the serving end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bellwether_log::Batch;
use bellwether_protocol::CodecError;
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::{BrokerId, BrokerLife, Epoch, OffsetRange, QueueId};
use bellwether_protocol::peer::{CHUNK_BYTES_MAX, PeerFrame};
use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Shared;
use super::hello::{Framed, HELLO_WAIT};
use super::secure::Stream;
use crate::seams::{SnapshotHead, SnapshotMore};
use crate::shard::input::ShardInput;

/// Ranges that are asked for at once: enough for many chunks, few enough to copy.
const RANGES_PER_READ: usize = 1_024;

/// How long the fetching end may take to close after the last frame.
const FAREWELL_WAIT: Duration = Duration::from_secs(10);

/// Spreads what is sent to each broker evenly over time, all its snapshots together.
pub(super) struct Pacer {
    bytes_per_second: AtomicU64,
    free_at: Mutex<HashMap<BrokerId, Instant>>,
}

impl Pacer {
    pub fn new(bytes_per_second: u64) -> Pacer {
        Pacer {
            bytes_per_second: AtomicU64::new(bytes_per_second.max(1)),
            free_at: Mutex::default(),
        }
    }

    /// From now on.
    pub fn set(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second.max(1), Relaxed);
    }

    /// Waits until `bytes` more may be sent to `to`.
    async fn wait(&self, to: BrokerId, bytes: usize) {
        let takes =
            Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.load(Relaxed) as f64);
        let now = Instant::now();
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let free_at = free_at.entry(to).or_insert(now);
            *free_at = (*free_at).max(now) + takes;
            *free_at
        };
        tokio::time::sleep_until(until).await;
    }
}

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("{}", .0.message)]
    Refused(ErrorBody),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("the fetching broker did not ask")]
    NotAsked,
    #[error("the broker is stopping")]
    Stopping,
    #[error("the journal could not be read: {0}")]
    Read(String),
}

impl From<std::io::Error> for ServeError {
    fn from(error: std::io::Error) -> ServeError {
        ServeError::Codec(error.into())
    }
}

/// Serves one snapshot on a connection that is past its hellos.
pub(super) async fn serve(shared: &Arc<Shared>, mut framed: Framed<Stream>, to: BrokerLife) {
    let served = tokio::select! {
        served = serve_one(shared, &mut framed, to) => served,
        () = shared.shutdown.cancelled() => return,
    };
    match served {
        Ok(queue) => {
            shared.metrics.snapshots_sent.increment();
            tracing::debug!(%queue, %to, "snapshot sent");
        }
        Err(ServeError::Refused(error)) => {
            tracing::debug!(%to, reason = error.message, "snapshot refused");
            if let Err(error) = framed.write(&PeerFrame::Goodbye(error)).await {
                tracing::debug!(%error, "the fetching broker did not wait for the reason");
            }
        }
        Err(error) => tracing::warn!(%to, %error, "a snapshot broke off"),
    }
}

async fn serve_one(
    shared: &Shared,
    framed: &mut Framed<Stream>,
    to: BrokerLife,
) -> Result<QueueId, ServeError> {
    let asked = tokio::time::timeout(HELLO_WAIT, framed.read())
        .await
        .map_err(|_| ServeError::NotAsked)??;
    let (queue, epoch) = match asked {
        Some(PeerFrame::SnapshotAsk { queue, epoch }) => (queue, epoch),
        Some(_) => {
            return Err(ServeError::Refused(ErrorBody::not_done(
                ErrorCode::UnexpectedFrame,
                "a snapshot connection begins with the ask for one",
            )));
        }
        None => return Err(ServeError::NotAsked),
    };
    let head = begin(shared, queue, epoch).await?;
    let start = PeerFrame::SnapshotStart {
        at: head.at,
        high_watermark: head.high_watermark,
        state_bytes: head.state.len() as u64,
        epochs: head.epochs,
    };
    framed.write(&start).await?;
    send(shared, framed, to, head.state).await?;
    send_live(shared, framed, to, queue, head.live).await?;
    framed.write(&PeerFrame::SnapshotEnd).await?;
    wait_for_farewell(framed).await;
    Ok(queue)
}

async fn send_live(
    shared: &Shared,
    framed: &mut Framed<Stream>,
    to: BrokerLife,
    queue: QueueId,
    live: Vec<OffsetRange>,
) -> Result<(), ServeError> {
    let mut left = &live[..];
    let mut begun = None;
    while let Some(first) = left.first() {
        let mut ranges: Vec<OffsetRange> = left.iter().take(RANGES_PER_READ).copied().collect();
        ranges[0] = begun.unwrap_or(*first);
        let asked = ranges.len();
        let batches = more(shared, queue, ranges).await?;
        let Some(end) = batches.last().map(Batch::end) else {
            left = &left[asked..];
            begun = None;
            continue;
        };
        let mut gathered = BytesMut::new();
        for batch in &batches {
            gathered.extend_from_slice(batch.bytes());
            if gathered.len() >= CHUNK_BYTES_MAX {
                send(shared, framed, to, gathered.split().freeze()).await?;
            }
        }
        send(shared, framed, to, gathered.freeze()).await?;
        left = &left[left.partition_point(|range| range.end <= end)..];
        begun = left.first().map(|range| OffsetRange::new(range.first.max(end), range.end));
    }
    Ok(())
}

/// The state to begin with, from the shard that leads the queue.
async fn begin(shared: &Shared, queue: QueueId, epoch: Epoch) -> Result<SnapshotHead, ServeError> {
    let (reply, answer) = oneshot::channel();
    let shard = shared.shards.shard_of(queue);
    shared.shards.send(shard, ShardInput::SnapshotAsked { queue, epoch, reply }).await;
    answer.await.map_err(|_| ServeError::Stopping)?.map_err(ServeError::Refused)
}

/// The first batches that hold messages of these ranges; none when they hold nothing any more.
async fn more(
    shared: &Shared,
    queue: QueueId,
    ranges: Vec<OffsetRange>,
) -> Result<Vec<Batch>, ServeError> {
    let (reply, answer) = oneshot::channel();
    let shard = shared.shards.shard_of(queue);
    shared.shards.send(shard, ShardInput::SnapshotMore { queue, ranges, reply }).await;
    match answer.await.map_err(|_| ServeError::Stopping)?.map_err(ServeError::Refused)? {
        SnapshotMore::Ready(batches) => Ok(batches),
        SnapshotMore::OnDisk(request) => {
            let read = tokio::task::spawn_blocking(move || request.run()).await;
            read.map_err(|_| ServeError::Stopping)?
                .map_err(|error| ServeError::Read(error.to_string()))
        }
    }
}

async fn send(
    shared: &Shared,
    framed: &mut Framed<Stream>,
    to: BrokerLife,
    mut bytes: Bytes,
) -> Result<(), ServeError> {
    while !bytes.is_empty() {
        let part = bytes.split_to(bytes.len().min(CHUNK_BYTES_MAX));
        shared.pacer.wait(to.broker, part.len()).await;
        framed.write(&PeerFrame::SnapshotPart(part)).await?;
    }
    Ok(())
}

/// Closing first could reset the connection under data that the other end has not read.
async fn wait_for_farewell(framed: &mut Framed<Stream>) {
    match tokio::time::timeout(FAREWELL_WAIT, framed.read()).await {
        Ok(Ok(_)) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a snapshot connection ended"),
    }
}
