//! What may arrive on a connection: a frame that has begun has to end in time, a large one needs room before it is read, and
//! nothing is read while the broker holds too many publishes.
//!
//! *Invariant:* bytes of frames that are not whole, all connections together: at most what the pool has, and
//! [`FREE_BYTES`] for each connection.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;

use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::frame::LENGTH_BYTES;
use bytes::BytesMut;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant};

use crate::memory::{Held, Pool};
use crate::metrics::Metrics;

/// Frames up to this length, in bytes, are read without asking for room: a read buffer of a busy connection holds them.
pub(super) const FREE_BYTES: usize = 64 * 1024;

/// How quickly a large frame has to come in, besides the time that every frame has, in bytes a second: slower than any
/// network that is of use, and quick enough that room comes back.
const FRAME_BYTES_PER_SECOND: u64 = 256 * 1024;

/// Room is counted in pieces of so many bytes.
const PIECE_BYTES: usize = 1024;

/// A request that is not answered, with what was said and what looks for the answer, takes about so many bytes.
const REQUEST_BYTES: u64 = 4 * 1024;

type Waiting = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// Room for frames that have begun, shared by all connections.
#[derive(Clone, Debug)]
pub(super) struct FrameRoom(Arc<Semaphore>);

impl FrameRoom {
    pub fn new(bytes: u64) -> FrameRoom {
        let pieces = usize::try_from(bytes).unwrap_or(usize::MAX) / PIECE_BYTES;
        // As many as one client can ask for at once are as good as any number.
        FrameRoom(Arc::new(Semaphore::new(pieces.min(u32::MAX as usize))))
    }
}

#[cfg(test)]
impl FrameRoom {
    /// Takes all the room there is, as if others had it.
    pub fn take_all(&self) -> OwnedSemaphorePermit {
        let all = u32::try_from(self.0.available_permits()).unwrap_or(u32::MAX);
        Arc::clone(&self.0).try_acquire_many_owned(all).unwrap()
    }
}

/// See the module. One for each connection.
pub(super) struct Intake {
    room: FrameRoom,
    timeout: Duration,
    /// When the first byte of the frame that is not whole arrived, or when there was room for it.
    begun: Option<Instant>,
    /// Bytes of that frame in all, if they are known.
    announced: usize,
    granted: Option<OwnedSemaphorePermit>,
    waiting: Option<Waiting>,
    /// Too much is unconfirmed: what would come in waits in the socket.
    paused: bool,
    held: Held,
    requests: Held,
}

impl Intake {
    pub fn new(metrics: &Arc<Metrics>, room: FrameRoom, timeout: Duration) -> Intake {
        Intake {
            room,
            timeout,
            begun: None,
            announced: 0,
            granted: None,
            waiting: None,
            paused: false,
            held: Held::new(metrics, Pool::Connections, 0),
            requests: Held::new(metrics, Pool::Requests, 0),
        }
    }

    /// Looks at what is left once all whole frames were taken; `taken`: whether there were any.
    pub fn look(&mut self, arrived: &BytesMut, taken: bool) {
        self.held.set(arrived.capacity() as u64);
        if taken || arrived.is_empty() {
            (self.begun, self.granted, self.waiting, self.announced) = (None, None, None, 0);
        }
        if arrived.is_empty() {
            return;
        }
        self.begun.get_or_insert_with(Instant::now);
        let Some(length) = arrived.first_chunk::<LENGTH_BYTES>() else { return };
        self.announced = LENGTH_BYTES + u32::from_be_bytes(*length) as usize;
        if self.announced > FREE_BYTES && self.granted.is_none() && self.waiting.is_none() {
            self.ask_for_room();
        }
    }

    fn ask_for_room(&mut self) {
        // A frame is far below 4 GiB: its length was checked when it was announced.
        let pieces = u32::try_from(self.announced.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX);
        match Arc::clone(&self.room.0).try_acquire_many_owned(pieces) {
            Ok(granted) => self.granted = Some(granted),
            Err(_) => {
                self.waiting = Some(Box::pin(Arc::clone(&self.room.0).acquire_many_owned(pieces)))
            }
        }
    }

    /// Waits until there is room for the frame that waits for it.
    pub async fn room(&mut self) {
        let Some(waiting) = &mut self.waiting else { return pending().await };
        // The semaphore is never closed.
        if let Ok(granted) = waiting.await {
            self.granted = Some(granted);
        }
        self.waiting = None;
        self.begun = Some(Instant::now());
    }

    /// Whether the socket is to be read now.
    pub fn reads(&self) -> bool {
        !self.paused && self.waiting.is_none()
    }

    /// Reading stops or goes on; answers whether it goes on again.
    pub fn pause(&mut self, paused: bool) -> bool {
        let goes_on = self.paused && !paused;
        if goes_on && self.begun.is_some() {
            self.begun = Some(Instant::now());
        }
        self.paused = paused;
        goes_on
    }

    /// When the frame that has begun is late.
    pub fn deadline(&self) -> Option<Instant> {
        let begun = self.begun.filter(|_| self.reads())?;
        let length = self.announced as u64;
        Some(begun + self.timeout + Duration::from_secs(length / FRAME_BYTES_PER_SECOND))
    }

    pub fn count_requests(&mut self, requests: usize) {
        self.requests.set(requests as u64 * REQUEST_BYTES);
    }

    /// Why a connection ends whose frame is late.
    pub fn late(&self) -> ErrorBody {
        let words = format!(
            "a frame of {} bytes was begun and is not whole after {} s and a second for each 256 KiB; send frames without pauses, and smaller ones over a slow network (frame-timeout)",
            self.announced,
            self.timeout.as_secs_f32()
        );
        ErrorBody::not_done(ErrorCode::FrameTimeout, words)
    }
}
