//! Consumers that come to a leader, with what they were delivered by the one before it.

use std::sync::Arc;

use bellwether_journal::Read;
use bellwether_log::EpochHistory;
use bellwether_protocol::client::{Claim, ConsumerAttached};
use bellwether_protocol::ids::{Offset, OffsetRange, QueueId};

use super::deliver::Consumer;
use super::input::AttachConsumer;
use super::queue::{LocalQueue, answer};
use super::tools::Tools;

impl LocalQueue {
    pub fn attach(&mut self, tools: &mut Tools, attach: AttachConsumer) {
        let error = self.not_leader(tools);
        let Some(leader) = self.leader.as_mut().filter(|leader| !leader.deleting) else {
            return answer(attach.reply, Err(error));
        };
        if self.replica.leads().is_none() {
            return answer(attach.reply, Err(error));
        }
        // What it claims it may settle at once. A deposed leader must be done with delivering by then, or it could deliver
        // what was settled here (promise G3).
        if !leader.serves || tools.now < leader.deliver_from {
            if let Some(attach) = leader.hold_attach(attach) {
                answer(attach.reply, Err(error));
            }
            return;
        }
        self.machine.attach(attach.consumer.0, attach.prefetch);
        let mut consumer = Consumer::new(Arc::clone(&attach.sink), attach.prefetch_bytes);
        let mut attached = ConsumerAttached {
            epoch: leader.epoch,
            queue: self.id,
            held: Vec::new(),
            settled: Vec::new(),
        };
        // A forced leader's log need not be the one that it was delivered from: an offset may stand for another message there.
        let forced = self.replica.forced_in();
        let is_same_log = |claim: &Claim| claim.queue == self.id && claim.epoch >= forced;
        let claimed = attach.claim.filter(is_same_log);
        let ranges = claimed.map(|claim| as_delivered(&claim, tools.logs.epochs(self.id)));
        if let Some(ranges) = ranges.filter(|ranges| !ranges.is_empty()) {
            match self.machine.claim(attach.consumer.0, &ranges) {
                Ok(claimed) => {
                    let messages = claimed.held.iter().map(|range| range.count()).sum();
                    let bytes = bytes_of(tools, self.id, &claimed.held, attach.prefetch_bytes);
                    consumer.holds(messages, bytes);
                    attached.held = claimed.held;
                    attached.settled = claimed.settled;
                }
                Err(error) => {
                    // It holds nothing yet: there is nothing to return.
                    let _nothing = self.machine.detach(attach.consumer.0);
                    return answer(attach.reply, Err(error));
                }
            }
        }
        if let Some(leader) = &mut self.leader {
            leader.consumers.insert(attach.consumer, consumer);
        }
        attach.sink.attached(attached);
        answer(attach.reply, Ok(()));
        self.regulate(attach.consumer);
        tools.touch(self.id);
    }

    /// Consumers that came before this leader might deliver.
    pub(super) fn take_held_attaches(&mut self, tools: &mut Tools) {
        let Some(leader) = &mut self.leader else { return };
        if leader.held_attaches.is_empty() || !leader.serves || tools.now < leader.deliver_from {
            return;
        }
        for attach in std::mem::take(&mut leader.held_attaches) {
            self.attach(tools, attach);
        }
    }
}

/// About how many bytes these messages take, as far as it matters where so many at most may be held; nothing is read from the disk.
fn bytes_of(tools: &Tools, queue: QueueId, ranges: &[OffsetRange], prefetch_bytes: u64) -> u64 {
    if prefetch_bytes == 0 {
        return 0;
    }
    let most = usize::try_from(prefetch_bytes).unwrap_or(usize::MAX);
    match tools.logs.read_live(queue, ranges, most) {
        Read::Ready(batches) => batches.iter().map(|batch| batch.bytes().len() as u64).sum(),
        Read::OnDisk(request) => request.bytes(),
        Read::Gone => 0,
    }
}

/// The part of a claim whose offsets still stand for the messages that were delivered: below the first epoch behind the one
/// they were delivered in. After a forced election others may stand at the same offsets, and nobody has seen those.
fn as_delivered(claim: &Claim, epochs: &EpochHistory) -> Vec<OffsetRange> {
    let behind = epochs.starts().iter().find(|(epoch, _)| *epoch > claim.epoch);
    let end = behind.map_or(Offset(u64::MAX), |(_, start)| *start);
    let below = |range: &OffsetRange| OffsetRange::new(range.first, range.end.min(end));
    claim.ranges.iter().map(below).filter(|range| range.first < range.end).collect()
}

#[cfg(test)]
mod tests {
    use bellwether_protocol::ids::Epoch;

    use super::*;

    fn range(first: u64, end: u64) -> OffsetRange {
        OffsetRange::new(Offset(first), Offset(end))
    }

    fn claimed(epoch: u64, ranges: &[OffsetRange]) -> Vec<OffsetRange> {
        let starts = [(1, 0), (3, 10), (6, 25)].map(|(epoch, at)| (Epoch(epoch), Offset(at)));
        let queue = QueueId(uuid::Uuid::from_u128(1));
        let claim = Claim { queue, epoch: Epoch(epoch), ranges: ranges.to_vec() };
        as_delivered(&claim, &EpochHistory::new(starts.to_vec()).unwrap())
    }

    /// Messages 20 to 30 were delivered in epoch 5 and then lost in a forced election; epoch 6 has others from 25 on. An ack of
    /// what was delivered must not settle those.
    #[test]
    fn what_a_later_epoch_wrote_cannot_be_claimed_by_who_was_there_before() {
        assert_eq!(claimed(5, &[range(20, 30)]), [range(20, 25)]);
        assert_eq!(claimed(5, &[range(2, 4), range(26, 30)]), [range(2, 4)]);
        assert_eq!(claimed(1, &[range(2, 12)]), [range(2, 10)]);
    }

    #[test]
    fn what_the_present_epoch_delivered_can_be_claimed_whole() {
        assert_eq!(claimed(6, &[range(2, 4), range(26, 30)]), [range(2, 4), range(26, 30)]);
    }
}
