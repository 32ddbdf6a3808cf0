//! Streaming a led queue's log to its followers.

use std::sync::Arc;

use bellwether_journal::Read;
use bellwether_log::Batch;
use bellwether_protocol::ids::{BrokerLife, Epoch, Offset};
use bellwether_protocol::peer::{AppendRun, PeerFrame};

use super::input::Promises;
use super::queue::LocalQueue;
use super::tools::{ReadPurpose, Tools};
use crate::seams::SendOutcome;

/// How far one follower has been streamed to.
pub(crate) struct Stream {
    /// Lease clock of the connection that the follower dialed.
    pub promises: Option<Arc<Promises>>,
    next: Offset,
    /// Its outbox is full: go on when it says that there is room.
    full: bool,
    reading: bool,
    /// Told by the last frame.
    told: Offset,
}

impl LocalQueue {
    pub(super) fn begin_stream(&mut self, tools: &mut Tools, to: BrokerLife, from: Offset) {
        let Some(leader) = &mut self.leader else { return };
        let promises = tools.promises_of(to);
        let stream = Stream { promises, next: from, full: false, reading: false, told: Offset(0) };
        leader.streams.insert(to, stream);
        tools.touch(self.id);
    }

    pub(super) fn end_stream(&mut self, to: BrokerLife) {
        if let Some(leader) = &mut self.leader {
            leader.streams.remove(&to);
        }
    }

    pub(super) fn room(&mut self, tools: &mut Tools, peer: BrokerLife) {
        if let Some(stream) = self.leader.as_mut().and_then(|leader| leader.streams.get_mut(&peer))
            && std::mem::take(&mut stream.full)
        {
            tools.touch(self.id);
        }
    }

    /// Streams what each follower has not been sent, as far as it can be had without waiting and fits its outbox.
    pub(super) fn stream_to_followers(&mut self, tools: &mut Tools) {
        let Some(leader) = &mut self.leader else { return };
        let tell = std::mem::take(&mut leader.tell_committed);
        let followers: Vec<BrokerLife> = leader.streams.keys().copied().collect();
        for follower in followers {
            self.stream_to(tools, follower);
            if tell {
                self.tell_committed(tools, follower);
            }
        }
    }

    fn stream_to(&mut self, tools: &mut Tools, to: BrokerLife) {
        let end = tools.logs.end(self.id);
        loop {
            let Some(leader) = &mut self.leader else { return };
            let epoch = leader.epoch;
            let Some(stream) = leader.streams.get_mut(&to) else { return };
            if stream.full || stream.reading || stream.next >= end {
                return;
            }
            match tools.logs.read(self.id, stream.next, tools.stream_bytes_max()) {
                Read::Ready(batches) => {
                    if !self.send_batches(tools, to, &batches) {
                        return;
                    }
                }
                Read::OnDisk(request) => {
                    stream.reading = true;
                    let purpose = ReadPurpose::Stream { to, from: stream.next };
                    return tools.read_on_disk(self.id, purpose, request);
                }
                Read::Gone => {
                    leader.streams.remove(&to);
                    tools.to_follower(to, PeerFrame::SnapshotNeeded { queue: self.id, epoch });
                    return;
                }
            }
        }
    }

    /// Whether there may be more to send.
    fn send_batches(&mut self, tools: &mut Tools, to: BrokerLife, batches: &[Batch]) -> bool {
        let high_watermark = self.replica.log().high_watermark;
        let Some(leader) = &mut self.leader else { return false };
        let epoch = leader.epoch;
        let Some(stream) = leader.streams.get_mut(&to) else { return false };
        for batch in batches {
            if batch.base() < stream.next {
                continue;
            }
            match tools.stream(to, run(self.id, epoch, high_watermark, batch)) {
                SendOutcome::Sent => {
                    stream.next = batch.end();
                    stream.told = high_watermark;
                }
                SendOutcome::Full => {
                    stream.full = true;
                    return false;
                }
                SendOutcome::Down => {
                    leader.streams.remove(&to);
                    return false;
                }
            }
        }
        !batches.is_empty()
    }

    pub(super) fn stream_read(
        &mut self,
        tools: &mut Tools,
        to: BrokerLife,
        from: Offset,
        batches: &[Batch],
    ) {
        let Some(leader) = &mut self.leader else { return };
        let Some(stream) = leader.streams.get_mut(&to) else { return };
        stream.reading = false;
        if stream.next == from {
            self.send_batches(tools, to, batches);
        }
        tools.touch(self.id);
    }

    fn tell_committed(&mut self, tools: &mut Tools, to: BrokerLife) {
        let high_watermark = self.replica.log().high_watermark;
        let Some(leader) = &mut self.leader else { return };
        let epoch = leader.epoch;
        if let Some(stream) = leader.streams.get_mut(&to)
            && stream.told < high_watermark
        {
            stream.told = high_watermark;
            tools.tell_committed(to, self.id, epoch, high_watermark);
        }
    }
}

fn run(
    queue: bellwether_protocol::ids::QueueId,
    epoch: Epoch,
    high_watermark: Offset,
    batch: &Batch,
) -> AppendRun {
    AppendRun { queue, epoch, high_watermark, batches: batch.bytes().clone() }
}
