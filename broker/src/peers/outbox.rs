//! What waits to be written to one peer, in two lanes: promises, reports and questions go ahead of bodies, so that a
//! lease never ends because somebody published a large message.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bellwether_protocol::ids::{Epoch, Offset, QueueId};
use bellwether_protocol::peer::{CHUNK_BYTES_MAX, ForwardResult, PeerFrame};
use tokio::sync::Notify;

use super::cut;
use crate::memory::Pool;
use crate::metrics::Metrics;

/// Control frames that wait for one peer, in bytes: a subscription for each of a hundred thousand queues fits. A peer that
/// takes nothing for so long is cut off; it would have to start anew anyway.
const CONTROL_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Entries of a list in one frame: well below the longest frame.
const LIST_ENTRIES_MAX: usize = 2_000;

/// Bytes handed to the socket at once. A promise waits behind no more than this.
const WRITE_BYTES_MAX: usize = CHUNK_BYTES_MAX;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits for the socket.
    Taken,
    /// Bodies fill the lane; room is told of.
    Full,
    /// The connection is gone, or was just given up because the peer takes nothing.
    Closed,
}

/// Frames to be written in one go.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub frames: Vec<PeerFrame>,
    /// Whoever was told that the lane is full may go on.
    pub room: bool,
}

#[derive(Debug)]
pub(super) struct Outbox {
    lanes: Mutex<Lanes>,
    /// Something waits, or the box was closed.
    changed: Notify,
    bulk_bytes_max: usize,
    /// What all links hold.
    metrics: Option<Arc<Metrics>>,
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.count(&mut self.lanes(), true);
    }
}

type Marks = HashMap<QueueId, (Epoch, Offset)>;

#[derive(Debug, Default)]
struct Lanes {
    control: VecDeque<PeerFrame>,
    control_bytes: usize,
    /// The latest report of each queue: an earlier one that still waits says nothing more.
    durable: Marks,
    committed: Marks,
    forwarded: Vec<(u64, ForwardResult)>,
    bulk: VecDeque<PeerFrame>,
    bulk_bytes: usize,
    /// What was counted of them in the pool of all links.
    counted: usize,
    room_wanted: bool,
    closed: bool,
}

impl Outbox {
    pub fn new(bulk_bytes_max: usize) -> Outbox {
        Outbox { lanes: Mutex::default(), changed: Notify::new(), bulk_bytes_max, metrics: None }
    }

    /// One whose bytes are counted with those of all others.
    pub fn counted(bulk_bytes_max: usize, metrics: Arc<Metrics>) -> Outbox {
        let mut outbox = Outbox::new(bulk_bytes_max);
        outbox.metrics = Some(metrics);
        outbox
    }

    /// Brings what waits here into the pool: once a push or a write.
    fn count(&self, lanes: &mut Lanes, over: bool) {
        let Some(metrics) = &self.metrics else { return };
        let now = if over { 0 } else { lanes.control_bytes + lanes.bulk_bytes };
        let pool = metrics.memory.held(Pool::Peers);
        if now >= lanes.counted {
            pool.add((now - lanes.counted) as u64);
        } else {
            pool.subtract((lanes.counted - now) as u64);
        }
        lanes.counted = now;
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a frame into the lane where it belongs. Only pieces of logs are ever refused as too many: what is
    /// forwarded is bounded by the publishers' credit.
    pub fn push(&self, frame: PeerFrame) -> Pushed {
        let append = matches!(frame, PeerFrame::Append(_));
        // These answer a new subscription: what was streamed for the one before stays ahead of them, so that it is over
        // when they arrive.
        let answer = matches!(frame, PeerFrame::EpochEnd { .. } | PeerFrame::SnapshotNeeded { .. });
        let bulk = append || answer || matches!(frame, PeerFrame::Forward(_));
        // Cut outside the lock: a large forward is encoded for it.
        let pieces = if bulk && !answer { cut::pieces(frame) } else { vec![frame] };
        let mut lanes = self.lanes();
        if lanes.closed {
            return Pushed::Closed;
        }
        // All of it or nothing: half a batch in the lane would be completed by whatever comes next.
        if append && lanes.bulk_bytes >= self.bulk_bytes_max {
            lanes.room_wanted = true;
            return Pushed::Full;
        }
        for piece in pieces {
            if bulk {
                lanes.bulk_bytes += weight(&piece);
                lanes.bulk.push_back(piece);
            } else {
                lanes.control(piece);
            }
        }
        if lanes.control_bytes > CONTROL_BYTES_MAX {
            lanes.closed = true;
        }
        let closed = lanes.closed;
        self.count(&mut lanes, false);
        drop(lanes);
        self.changed.notify_one();
        if closed { Pushed::Closed } else { Pushed::Taken }
    }

    /// The results of forwards, as many frames' worth as there are.
    pub fn forwarded(&self, results: impl IntoIterator<Item = (u64, ForwardResult)>) {
        let mut lanes = self.lanes();
        if !lanes.closed {
            lanes.forwarded.extend(results);
            drop(lanes);
            self.changed.notify_one();
        }
    }

    /// Nothing more goes out.
    pub fn close(&self) {
        let mut lanes = self.lanes();
        self.count(&mut lanes, true);
        *lanes = Lanes { closed: true, ..Lanes::default() };
        drop(lanes);
        self.changed.notify_one();
    }

    /// What to write next; waits for it. `None`: closed.
    pub async fn next(&self) -> Option<Outgoing> {
        loop {
            {
                let mut lanes = self.lanes();
                if lanes.closed {
                    return None;
                }
                let outgoing = lanes.take(self.bulk_bytes_max / 2);
                self.count(&mut lanes, false);
                if !outgoing.frames.is_empty() {
                    return Some(outgoing);
                }
            }
            self.changed.notified().await;
        }
    }
}

impl Lanes {
    fn control(&mut self, frame: PeerFrame) {
        match frame {
            PeerFrame::Durable(ends) => raise(&mut self.durable, ends),
            PeerFrame::Committed(marks) => raise(&mut self.committed, marks),
            PeerFrame::Subscribe(subscriptions) => {
                for subscription in &subscriptions {
                    self.durable.remove(&subscription.queue);
                }
                self.lists(subscriptions, PeerFrame::Subscribe);
            }
            PeerFrame::Unsubscribe(queues) => {
                // A report that overtook nothing but came behind the `Unsubscribe` would be one in an epoch that is no
                // longer answered: a deposed leader could confirm with it.
                for (queue, _) in &queues {
                    self.durable.remove(queue);
                }
                self.lists(queues, PeerFrame::Unsubscribe);
            }
            PeerFrame::PositionAsk(queues) => self.lists(queues, PeerFrame::PositionAsk),
            PeerFrame::Positions(positions, without) => {
                self.lists(positions, |part| PeerFrame::Positions(part, Vec::new()));
                self.lists(without, |part| PeerFrame::Positions(Vec::new(), part));
            }
            PeerFrame::StateChanged(queues) => self.lists(queues, PeerFrame::StateChanged),
            other => self.push_control(other),
        }
    }

    fn lists<T: Clone>(&mut self, entries: Vec<T>, frame: fn(Vec<T>) -> PeerFrame) {
        if entries.is_empty() {
            return;
        }
        if entries.len() <= LIST_ENTRIES_MAX {
            return self.push_control(frame(entries));
        }
        for part in entries.chunks(LIST_ENTRIES_MAX) {
            self.push_control(frame(part.to_vec()));
        }
    }

    fn push_control(&mut self, frame: PeerFrame) {
        self.control_bytes += weight(&frame);
        self.control.push_back(frame);
    }

    fn take(&mut self, room_below: usize) -> Outgoing {
        let mut outgoing = Outgoing::default();
        let mut bytes = 0;
        while bytes < WRITE_BYTES_MAX
            && let Some(frame) = self.control.pop_front()
        {
            let weight = weight(&frame);
            self.control_bytes -= weight;
            bytes += weight;
            outgoing.frames.push(frame);
        }
        // Behind the control frames that were pushed before them, never ahead: a report follows its subscription.
        if self.control.is_empty() {
            for part in drained(&mut self.durable) {
                outgoing.frames.push(PeerFrame::Durable(part));
            }
            for part in drained(&mut self.committed) {
                outgoing.frames.push(PeerFrame::Committed(part));
            }
        }
        let results = std::mem::take(&mut self.forwarded);
        for part in results.chunks(LIST_ENTRIES_MAX) {
            outgoing.frames.push(PeerFrame::Forwarded(part.to_vec()));
        }
        // At least one, so that bodies move however much is said beside them.
        let mut bulk_bytes = 0;
        while (bulk_bytes == 0 || bytes + bulk_bytes < WRITE_BYTES_MAX)
            && let Some(frame) = self.bulk.pop_front()
        {
            bulk_bytes += weight(&frame);
            outgoing.frames.push(frame);
        }
        self.bulk_bytes -= bulk_bytes;
        if self.room_wanted && self.bulk_bytes <= room_below {
            self.room_wanted = false;
            outgoing.room = true;
        }
        outgoing
    }
}

fn raise(marks: &mut Marks, latest: Vec<(QueueId, Epoch, Offset)>) {
    for (queue, epoch, offset) in latest {
        let mark = marks.entry(queue).or_insert((epoch, offset));
        *mark = (*mark).max((epoch, offset));
    }
}

fn drained(marks: &mut Marks) -> Vec<Vec<(QueueId, Epoch, Offset)>> {
    let all: Vec<_> =
        marks.drain().map(|(queue, (epoch, offset))| (queue, epoch, offset)).collect();
    all.chunks(LIST_ENTRIES_MAX).map(<[_]>::to_vec).collect()
}

/// About how many bytes a frame takes.
fn weight(frame: &PeerFrame) -> usize {
    const FRAME: usize = 64;
    const ENTRY: usize = 80;
    FRAME
        + match frame {
            PeerFrame::Subscribe(list) => list.len() * ENTRY,
            PeerFrame::Positions(list, without) => (list.len() + without.len()) * ENTRY,
            PeerFrame::Unsubscribe(list) => list.len() * ENTRY,
            PeerFrame::PositionAsk(list) | PeerFrame::StateChanged(list) => list.len() * ENTRY,
            PeerFrame::Committed(list) | PeerFrame::Durable(list) => list.len() * ENTRY,
            PeerFrame::Forwarded(list) => list.len() * ENTRY,
            PeerFrame::Append(runs) => runs.iter().map(|run| ENTRY + run.batches.len()).sum(),
            PeerFrame::AppendPart { bytes, .. }
            | PeerFrame::ForwardPart { bytes, .. }
            | PeerFrame::SnapshotPart(bytes) => bytes.len(),
            PeerFrame::Forward(forward) => ENTRY + forward.messages.len(),
            PeerFrame::SnapshotStart { epochs, .. } => epochs.len() * ENTRY,
            PeerFrame::Goodbye(error) => error.message.len(),
            PeerFrame::Hello(_)
            | PeerFrame::Heartbeat
            | PeerFrame::NotLeading { .. }
            | PeerFrame::EpochEnd { .. }
            | PeerFrame::SnapshotNeeded { .. }
            | PeerFrame::PromiseAsk { .. }
            | PeerFrame::Promise { .. }
            | PeerFrame::SnapshotAsk { .. }
            | PeerFrame::SnapshotEnd => 0,
        }
}
