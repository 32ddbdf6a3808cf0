//! What may arrive on a connection: a frame that has begun has to end in time, a large one needs room before it is read, and
//! nothing is read while the broker holds too many publishes or the client has too many answers to read.
//!
//! *Invariant:* bytes of frames that are not whole, all connections together: at most the room there is, and for each connection
//! what fits the read buffer that it has earned, [`FREE_BYTES`] to begin with.

use std::future::pending;
use std::sync::Arc;

use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::frame::LENGTH_BYTES;
use bytes::BytesMut;
use tokio::time::{Duration, Instant};

use super::room::{FrameRoom, Grant, Turn};
use crate::memory::{Held, Pool};
use crate::metrics::Metrics;

/// Frames up to this length, in bytes, are read without asking for room by a connection that has shown nothing yet: ten
/// thousand of them that are all half cost little.
pub(super) const FREE_BYTES: usize = 8 * 1024;

/// How quickly a large frame has to come in, besides the time that every frame has, in bytes a second: slower than any
/// network that is of use, and quick enough that room comes back.
const FRAME_BYTES_PER_SECOND: u64 = 256 * 1024;

/// How long a frame may hold room that others wait for, besides a second for each [`HASTE_BYTES_PER_SECOND`] of it.
const HASTE: Duration = Duration::from_secs(1);

/// See [`HASTE`].
const HASTE_BYTES_PER_SECOND: u64 = 8 * 1024 * 1024;

/// A request that is not answered, with what was said and what looks for the answer, takes about so many bytes.
const REQUEST_BYTES: u64 = 4 * 1024;

/// See the module. One for each connection.
pub(super) struct Intake {
    room: FrameRoom,
    timeout: Duration,
    /// When the first byte of the frame that is not whole arrived, or when there was room for it.
    begun: Option<Instant>,
    /// Bytes of that frame in all, if they are known.
    announced: usize,
    granted: Option<Grant>,
    waiting: Option<Turn>,
    /// What would come in waits in the socket.
    paused: bool,
    /// The read buffer, as far as it is not a frame that room was granted to.
    held: Held,
    frames: Held,
    requests: Held,
}

/// Why a frame that has begun does not become whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    /// It did not come in.
    Slow,
    /// It did not come in quickly enough for others to wait for its room.
    Wanted,
    /// There was no room.
    NoRoom,
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
            frames: Held::new(metrics, Pool::Frames, 0),
            requests: Held::new(metrics, Pool::Requests, 0),
        }
    }

    /// Looks at what is left once all whole frames were taken; `taken`: whether there were any; `free`: frames up to which length
    /// need no room.
    pub fn look(&mut self, arrived: &BytesMut, taken: bool, free: usize) {
        if taken || arrived.is_empty() {
            (self.begun, self.granted, self.waiting, self.announced) = (None, None, None, 0);
        }
        if !arrived.is_empty() {
            self.begun.get_or_insert_with(Instant::now);
            if let Some(length) = arrived.first_chunk::<LENGTH_BYTES>() {
                self.announced = LENGTH_BYTES + u32::from_be_bytes(*length) as usize;
            }
            let known = self.granted.is_some() || self.waiting.is_some();
            if self.announced > free.max(FREE_BYTES) && !known {
                self.ask_for_room();
            }
        }
        self.count(arrived);
    }

    /// Counts what is held, when nothing was looked at.
    pub fn count(&mut self, arrived: &BytesMut) {
        let granted = self.granted.as_ref().map_or(0, |granted| granted.bytes);
        self.frames.set(granted);
        self.held.set((arrived.capacity() as u64).saturating_sub(granted));
    }

    fn ask_for_room(&mut self) {
        match self.room.ask(self.announced as u64) {
            Ok(granted) => self.granted = Some(granted),
            Err(turn) => {
                self.waiting = Some(turn);
                self.begun = Some(Instant::now());
            }
        }
    }

    /// Waits until something about room changes: there is some for the frame that waits for it, or others wait for what it has.
    pub async fn room(&mut self) {
        if let Some(granted) = &mut self.granted {
            return granted.wanted_changes().await;
        }
        let Some(waiting) = &mut self.waiting else { return pending().await };
        let granted = waiting.come().await;
        self.frames.set(granted.bytes);
        self.granted = Some(granted);
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
        let begun = self.begun.filter(|_| !self.paused)?;
        let length = self.announced as u64;
        let patience = match self.lateness() {
            Late::NoRoom => self.timeout,
            Late::Slow => self.timeout + Duration::from_secs(length / FRAME_BYTES_PER_SECOND),
            Late::Wanted => HASTE + Duration::from_secs(length / HASTE_BYTES_PER_SECOND),
        };
        Some(begun + patience)
    }

    fn lateness(&self) -> Late {
        match &self.granted {
            _ if self.waiting.is_some() => Late::NoRoom,
            Some(granted) if granted.is_wanted() => Late::Wanted,
            _ => Late::Slow,
        }
    }

    pub fn count_requests(&mut self, requests: usize) {
        self.requests.set(requests as u64 * REQUEST_BYTES);
    }

    /// Why a connection ends whose frame is late.
    pub fn late(&self) -> ErrorBody {
        let (bytes, timeout) = (self.announced, self.timeout.as_secs_f32());
        let words = match self.lateness() {
            Late::Slow => format!(
                "a frame of {bytes} bytes was begun and is not whole after {timeout} s and a second for each 256 KiB; send frames without pauses, and smaller ones over a slow network (frame-timeout)"
            ),
            Late::Wanted => format!(
                "a frame of {bytes} bytes was begun and is not whole after {} s and a second for each 8 MiB, and other clients wait for the memory that is kept for it; send frames without pauses, or smaller ones",
                HASTE.as_secs()
            ),
            Late::NoRoom => format!(
                "there was no memory for a frame of {bytes} bytes within {timeout} s: large frames of other clients are not whole; send it again, smaller frames, or to another broker (frame-timeout, memory-limit)"
            ),
        };
        ErrorBody::not_done(ErrorCode::FrameTimeout, words)
    }
}
