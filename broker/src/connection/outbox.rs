//! What waits to be written to one client, in order. Nobody who adds to it ever waits: deliveries are held back by the
//! shard beyond a number of bytes; everything else answers something, and beyond a number of bytes of it nothing more is read
//! from the client.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bellwether_protocol::client::{BrokerFrame, DeliveredRun};
use bellwether_protocol::error::ErrorBody;
use bellwether_protocol::ids::{ConsumerHandle, Epoch};
use tokio::sync::Notify;

use super::consumers::Outlet;
use super::weight::weight;
use super::{ANSWERS_BYTES_LEAST, ANSWERS_BYTES_MAX, OUTBOX_FRAME_BYTES_MAX, OUTBOX_FRAMES_MAX};
use crate::memory::Pool;
use crate::metrics::{Gauge, Metrics};
use crate::shard::input::Lease;

/// One thing to write.
pub(super) enum Item {
    Frame(BrokerFrame),
    Delivery(Delivery),
}

/// Runs for a consumer, with the right to write them.
pub(super) struct Delivery {
    pub outlet: Arc<Outlet>,
    pub epoch: Epoch,
    pub lease: Lease,
    pub runs: Vec<DeliveredRun>,
}

impl Delivery {
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(|run| run.messages.len()).sum()
    }
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    frames: usize,
    /// About what those frames take in memory.
    frame_bytes: usize,
    /// The same of those that the writer has taken.
    taken_bytes: usize,
    /// Of deliveries that are not written yet, those the writer has taken included, but for those that it has set aside.
    delivery_bytes: usize,
    /// Consumers whose shard was told to hold back.
    held_back: Vec<Arc<Outlet>>,
    /// The session reads nothing more until enough of this is written.
    reader_waits: bool,
    /// An idle client: nothing is to be kept for it.
    rests: bool,
    ending: Option<Option<ErrorBody>>,
    overflown: bool,
    /// Nobody writes any more: nothing is kept.
    dead: bool,
}

/// See the module.
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    /// Bytes of frames other than deliveries that are not written yet. Changed under the lock, looked at without.
    unread: AtomicUsize,
    arrived: Notify,
    delivery_bytes_max: usize,
    metrics: Arc<Metrics>,
}

/// What the writer took.
pub(super) struct Taken {
    pub items: VecDeque<Item>,
    /// After these the connection ends, with a goodbye if there is something to say.
    pub ending: Option<Option<ErrorBody>>,
    /// The client never reads what it is owed.
    pub overflown: bool,
    /// The session waits for this: it may read again.
    pub reader_goes_on: bool,
    /// The client is idle.
    pub rests: bool,
}

impl Outbox {
    pub fn new(delivery_bytes_max: usize, metrics: Arc<Metrics>) -> Outbox {
        Outbox {
            waiting: Mutex::default(),
            unread: AtomicUsize::new(0),
            arrived: Notify::new(),
            delivery_bytes_max,
            metrics,
        }
    }

    /// Deliveries in all outboxes.
    fn pool(&self) -> &Gauge {
        self.metrics.memory.held(Pool::Outboxes)
    }

    /// Everything else in them.
    fn answers(&self) -> &Gauge {
        self.metrics.memory.held(Pool::Answers)
    }

    /// Bytes of frames other than deliveries that are not written yet.
    pub fn unread(&self) -> usize {
        self.unread.load(Ordering::Relaxed)
    }

    /// Whether the client has to read before more is read from it.
    pub fn is_behind(&self) -> bool {
        let unread = self.unread();
        unread >= ANSWERS_BYTES_MAX
            || (unread >= ANSWERS_BYTES_LEAST && self.metrics.memory.is_full(Pool::Answers))
    }

    /// The same; when it is so, the writer tells when enough is written ([`Taken::reader_goes_on`]).
    pub fn has_to_wait(&self) -> bool {
        if !self.is_behind() {
            return false;
        }
        let mut waiting = self.waiting();
        // Looked at again: the writer may have written it all before the lock was had, and would tell nobody.
        waiting.reader_waits = !waiting.dead && self.is_behind();
        waiting.reader_waits
    }

    /// The client says that it is idle.
    pub fn rest(&self) {
        self.waiting().rests = true;
        self.arrived.notify_one();
    }

    fn count_frames(&self, waiting: &Waiting, before: usize) {
        let more = waiting.frame_bytes - before;
        self.unread.fetch_add(more, Ordering::Relaxed);
        self.answers().add(more as u64);
    }

    /// Deliveries beyond which the shards hold back: few, once all outboxes together hold what they may. Then everybody is
    /// still delivered to, a run at a time.
    fn delivery_bytes_max(&self) -> usize {
        if self.metrics.memory.is_full(Pool::Outboxes) { 0 } else { self.delivery_bytes_max }
    }

    /// What is kept for a client that does not read, whatever it is owed.
    fn frame_bytes_max(&self) -> usize {
        match self.metrics.memory.is_full(Pool::Answers) {
            true => OUTBOX_FRAME_BYTES_MAX / 8,
            false => OUTBOX_FRAME_BYTES_MAX,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, frame: BrokerFrame) {
        self.push_all([frame]);
    }

    pub fn push_all(&self, frames: impl IntoIterator<Item = BrokerFrame>) {
        let mut waiting = self.waiting();
        let before = waiting.frame_bytes;
        let most = self.frame_bytes_max();
        for frame in frames {
            waiting.push(frame, most);
        }
        self.count_frames(&waiting, before);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Adds settles that are committed; one frame says it for all that came since the last.
    pub fn push_settled(&self, consumer: ConsumerHandle, up_to: u64) {
        let mut waiting = self.waiting();
        // Only right behind the last one: a refusal in between has to be heard before a higher number.
        if let Some(Item::Frame(BrokerFrame::Settled { consumer: last, up_to: told })) =
            waiting.items.back_mut()
            && *last == consumer
        {
            *told = up_to.max(*told);
            return;
        }
        let before = waiting.frame_bytes;
        waiting.push(BrokerFrame::Settled { consumer, up_to }, self.frame_bytes_max());
        self.count_frames(&waiting, before);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Adds deliveries; `false`: no more until there is room.
    pub fn deliver(&self, delivery: Delivery) -> bool {
        let mut waiting = self.waiting();
        if waiting.dead {
            return false;
        }
        let bytes = delivery.bytes();
        waiting.delivery_bytes += bytes;
        self.pool().add(bytes as u64);
        let has_room = waiting.delivery_bytes < self.delivery_bytes_max();
        if !has_room {
            waiting.held_back.push(Arc::clone(&delivery.outlet));
        }
        waiting.items.push_back(Item::Delivery(delivery));
        drop(waiting);
        self.arrived.notify_one();
        has_room
    }

    /// So many bytes of deliveries were written or dropped; answers whose shards may go on.
    pub fn delivered(&self, bytes: usize) -> Vec<Arc<Outlet>> {
        let mut waiting = self.waiting();
        let gone = bytes.min(waiting.delivery_bytes);
        waiting.delivery_bytes -= gone;
        self.pool().subtract(gone as u64);
        if waiting.delivery_bytes > self.delivery_bytes_max() / 2 {
            return Vec::new();
        }
        std::mem::take(&mut waiting.held_back)
    }

    /// So many bytes of deliveries wait for their lease, and take no room from other queues meanwhile; answers whose shards may go
    /// on. Bounded all the same: nothing is handed out under a lease that does not hold, so it is an outbox full for each
    /// queue at most.
    pub fn set_aside(&self, bytes: usize) -> Vec<Arc<Outlet>> {
        self.delivered(bytes)
    }

    /// So many that were set aside wait to be written again.
    pub fn taken_up(&self, bytes: usize) {
        let mut waiting = self.waiting();
        if !waiting.dead {
            waiting.delivery_bytes += bytes;
            self.pool().add(bytes as u64);
        }
    }

    /// Writes what waits and then ends the connection; a reason is said in a goodbye. The first reason counts.
    pub fn end(&self, reason: Option<ErrorBody>) {
        self.waiting().ending.get_or_insert(reason);
        self.arrived.notify_one();
    }

    /// Waits until there is something. Only the writer does.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// The writer has stopped. What waits is dropped, and what comes too: consumers and outbox know each other, and would
    /// keep each other alive.
    pub fn abandon(&self) {
        let dropped =
            std::mem::replace(&mut *self.waiting(), Waiting { dead: true, ..Waiting::default() });
        self.pool().subtract(dropped.delivery_bytes as u64);
        self.answers().subtract((dropped.frame_bytes + dropped.taken_bytes) as u64);
        self.metrics.memory.answers_read.notify_one();
        drop(dropped);
    }

    pub fn take(&self) -> Taken {
        let mut waiting = self.waiting();
        waiting.frames = 0;
        // Whoever takes more has written what it took before.
        let written = std::mem::take(&mut waiting.taken_bytes);
        waiting.taken_bytes = std::mem::take(&mut waiting.frame_bytes);
        if written > 0 {
            self.unread.fetch_sub(written, Ordering::Relaxed);
            self.answers().subtract(written as u64);
            self.metrics.memory.answers_read.notify_one();
        }
        let goes_on = waiting.reader_waits && waiting.taken_bytes < ANSWERS_BYTES_MAX / 2;
        waiting.reader_waits &= !goes_on;
        Taken {
            reader_goes_on: goes_on,
            rests: std::mem::take(&mut waiting.rests),
            items: std::mem::take(&mut waiting.items),
            ending: waiting.ending.clone(),
            overflown: waiting.overflown,
        }
    }
}

#[cfg(test)]
impl Outbox {
    pub fn is_overflown(&self) -> bool {
        self.waiting().overflown
    }
}

impl Waiting {
    fn push(&mut self, frame: BrokerFrame, bytes_max: usize) {
        if self.dead {
            return;
        }
        if self.frames >= OUTBOX_FRAMES_MAX || self.frame_bytes >= bytes_max {
            self.overflown = true;
            return;
        }
        self.frames += 1;
        self.frame_bytes += weight(&frame);
        self.items.push_back(Item::Frame(frame));
    }
}
