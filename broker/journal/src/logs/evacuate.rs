//! Emptying a segment: what of this shard's logs is still needed there, and where it has gone.

use std::sync::Arc;

use bellwether_protocol::ids::{Offset, OffsetRange, QueueId};

use super::Logs;
use crate::format::{SegmentSeq, Stamp};
use crate::index::Located;
use crate::log::{Log, parts};
use crate::segment::Segment;
use crate::shared::{Copied, CopyItem, Keep, Work};
use crate::{Condition, Evacuation, EvacuationNeed, Progress, QueueLive};

/// A log of which records are about to go: it will start at or behind `start`.
pub struct Leaving {
    queue: QueueId,
    root: Stamp,
    start: Offset,
}

impl Logs {
    /// Asks the shard what it needs of a segment; answers at once when nothing of it lies there.
    pub(super) fn needs_in(&mut self, segment: Arc<Segment>) -> Option<Progress> {
        let needs = self.logs.iter().filter_map(|(queue, log)| need(*queue, log, segment.seq));
        let evacuation = Evacuation { queues: needs.collect(), segment };
        if evacuation.queues.is_empty() {
            self.evacuate(evacuation, &[]);
            return None;
        }
        Some(Progress::Evacuate(evacuation))
    }

    /// Answers [`Progress::Evacuate`]: what is still needed there is moved by the journal thread. All messages
    /// of queues that are not named are taken for live.
    pub fn evacuate(&mut self, evacuation: Evacuation, live: &[QueueLive]) {
        let segment = evacuation.segment.seq;
        let mut items = Vec::new();
        let mut leaving = Vec::new();
        for (queue, log) in &self.logs {
            let live = live.iter().find(|live| live.queue == *queue);
            let unsettled = live.map(|live| live.unsettled.as_slice());
            leaving.extend(plan(*queue, log, segment, unsettled, &mut items));
        }
        for (queue, staging) in &self.staging {
            let all = staging.log.in_segment(segment).into_iter();
            items.extend(all.map(|located| item(*queue, &staging.log, located, Keep::Whole)));
        }
        self.leaving.insert(segment, leaving);
        // In this order: the segment may be freed only when the checkpoint that lets its records go is durable.
        self.flush();
        self.shared.send(Work::Plan { shard: self.shard, segment, items });
    }

    /// What was needed lies elsewhere now.
    pub(super) fn moved(
        &mut self,
        segment: SegmentSeq,
        targets: &[Arc<Segment>],
        copies: &[Copied],
    ) {
        for log in self.logs.values_mut() {
            log.leave_segment(segment);
        }
        for staging in self.staging.values_mut() {
            staging.log.leave_segment(segment);
        }
        for copy in copies {
            self.take_copy(copy, targets);
        }
        for Leaving { queue, root, start } in self.leaving.remove(&segment).unwrap_or_default() {
            if let Some(log) = self.logs.get_mut(&queue)
                && log.lineage.root() == root
            {
                log.start = log.start.max(start);
            }
        }
        self.shared.send(Work::Released { segment });
    }

    fn take_copy(&mut self, copy: &Copied, targets: &[Arc<Segment>]) {
        let Copied { queue, generation, base, place } = *copy;
        let end = base.plus(u64::from(place.count));
        let target = targets.iter().find(|target| target.seq == place.segment);
        let target = target.expect("copies name the segments they were written to");
        // A log that was cut, replaced or removed meanwhile does not know the copy any more.
        let log = self.logs.get_mut(&queue).filter(|log| log.lineage.admits(generation, base, end));
        if let Some(log) = log {
            return log.moved(base, place, target);
        }
        let staging = self.staging.get_mut(&queue);
        if let Some(staging) = staging.filter(|one| one.log.lineage.admits(generation, base, end)) {
            staging.log.moved(base, place, target);
        }
    }
}

fn need(queue: QueueId, log: &Log, segment: SegmentSeq) -> Option<EvacuationNeed> {
    let there = log.in_segment(segment);
    let offsets = OffsetRange::new(there.first()?.base, there.last()?.end());
    let at = log.checkpointed.map_or(Offset(0), |(at, _)| at);
    let checkpoint_wanted = offsets.end > at && log.condition == Condition::Ok;
    Some(EvacuationNeed { queue, offsets, checkpoint_wanted })
}

/// What of a log has to be moved out of a segment.
fn plan(
    queue: QueueId,
    log: &Log,
    segment: SegmentSeq,
    unsettled: Option<&[OffsetRange]>,
    items: &mut Vec<CopyItem>,
) -> Option<Leaving> {
    let at = log.checkpointed.map_or(Offset(0), |(at, _)| at);
    let trusted = log.condition == Condition::Ok;
    let mut start = None;
    for located in log.in_segment(segment) {
        // A replay needs everything from the checkpoint on; an operator may need everything of a damaged log.
        if located.end() > at || !trusted {
            items.push(item(queue, log, located, Keep::Whole));
            continue;
        }
        start = start.max(Some(located.end()));
        if located.place.messages {
            items.extend(keep(&located, unsettled).map(|keep| item(queue, log, located, keep)));
        }
    }
    start.map(|start| Leaving { queue, root: log.lineage.root(), start })
}

/// What has to be kept of a batch of messages that no replay needs.
fn keep(located: &Located, unsettled: Option<&[OffsetRange]>) -> Option<Keep> {
    let Some(unsettled) = unsettled else { return Some(Keep::Whole) };
    let parts: Vec<OffsetRange> = parts(located, unsettled).collect();
    let kept: u64 = parts.iter().map(|part| part.count()).sum();
    match kept {
        0 => None,
        all if all == u64::from(located.place.count) => Some(Keep::Whole),
        _ => Some(Keep::Parts(parts)),
    }
}

fn item(queue: QueueId, log: &Log, located: Located, keep: Keep) -> CopyItem {
    CopyItem { queue, generation: log.lineage.at(located.base), located, keep }
}
