//! What waits for the writer of a connection. Requests and settles go before publishes, so that they never wait
//! behind bodies; publishes of several producers take turns.

use std::collections::VecDeque;
use std::sync::Arc;

use bellwether_protocol::client::ClientFrame;
use bellwether_protocol::frame::Frame;
use bytes::BytesMut;
use tokio::sync::Notify;

use super::LinkId;
use crate::lock::Locked;

/// Bytes of publishes that one write takes, at most (a larger message goes alone): what a settle or a heartbeat
/// waits for, at worst.
const WRITE_BYTES_MAX: usize = 256 * 1024;

/// Bytes of publishes that one producer puts into one write before it is another's turn.
const TURN_BYTES_MAX: usize = 128 * 1024;

/// Frames that wait ahead of settles and publishes. They are as few as there are requests; a broker that lets so
/// many wait does not read, and is given up.
const CONTROL_FRAMES_MAX: usize = 4096;

/// Which line a source stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Ahead of publishes.
    Settles,
    /// As many as fit into the write.
    Publishes,
}

/// Something that gathers while the writer is busy, and is asked when the writer has time: natural batching.
pub(crate) trait Source: Send + Sync + std::fmt::Debug {
    /// Encodes what is waiting for this connection, about `budget` bytes at most. Whether more is waiting.
    fn pull(&self, link: LinkId, budget: usize, out: &mut BytesMut) -> bool;
}

/// *Invariant:* a source stands in its line once at most, so the lines are as long as there are sources.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Locked<Waiting>,
    /// Wakes the writer.
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// At most `CONTROL_FRAMES_MAX`.
    control: VecDeque<ClientFrame>,
    settles: VecDeque<Arc<dyn Source>>,
    publishes: VecDeque<Arc<dyn Source>>,
    goodbye: bool,
}

/// What came of collecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Collected {
    /// There may be something to write; more may come.
    Open,
    /// The goodbye is in: write it and leave.
    Last,
}

impl Outbox {
    /// Whether there was room.
    #[must_use]
    pub(super) fn control(&self, frame: ClientFrame) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.control.len() >= CONTROL_FRAMES_MAX {
            return false;
        }
        waiting.control.push_back(frame);
        drop(waiting);
        self.filled.notify_one();
        true
    }

    pub(super) fn ready(&self, lane: Lane, source: Arc<dyn Source>) {
        let mut waiting = self.waiting.lock();
        match lane {
            Lane::Settles => waiting.settles.push_back(source),
            Lane::Publishes => waiting.publishes.push_back(source),
        }
        drop(waiting);
        self.filled.notify_one();
    }

    pub(super) fn goodbye(&self) {
        self.waiting.lock().goodbye = true;
        self.filled.notify_one();
    }

    pub(super) fn clear(&self) {
        *self.waiting.lock() = Waiting::default();
    }

    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Encodes what is waiting: all that is small, and publishes up to the limit.
    pub(super) fn collect(
        &self,
        link: LinkId,
        mut taken: impl FnMut(&ClientFrame),
        out: &mut BytesMut,
    ) -> Collected {
        self.collect_settles(link, out);
        while let Some(frame) = self.next_control() {
            taken(&frame);
            frame.encode(out);
        }
        self.collect_publishes(link, out);
        self.collect_goodbye(out)
    }

    fn next_control(&self) -> Option<ClientFrame> {
        self.waiting.lock().control.pop_front()
    }

    fn collect_settles(&self, link: LinkId, out: &mut BytesMut) {
        let sources = std::mem::take(&mut self.waiting.lock().settles);
        for source in sources {
            if source.pull(link, WRITE_BYTES_MAX, out) {
                self.ready(Lane::Settles, source);
            }
        }
    }

    fn collect_publishes(&self, link: LinkId, out: &mut BytesMut) {
        let start = out.len();
        while out.len() - start < WRITE_BYTES_MAX {
            let Some(source) = self.next_publisher() else { return };
            let left = WRITE_BYTES_MAX - (out.len() - start);
            if source.pull(link, left.min(TURN_BYTES_MAX), out) {
                self.ready(Lane::Publishes, source);
            }
        }
    }

    fn next_publisher(&self) -> Option<Arc<dyn Source>> {
        self.waiting.lock().publishes.pop_front()
    }

    fn collect_goodbye(&self, out: &mut BytesMut) -> Collected {
        let waiting = self.waiting.lock();
        let emptied = waiting.control.is_empty()
            && waiting.settles.is_empty()
            && waiting.publishes.is_empty();
        if waiting.goodbye && emptied {
            ClientFrame::Goodbye.encode(out);
            return Collected::Last;
        }
        Collected::Open
    }
}
