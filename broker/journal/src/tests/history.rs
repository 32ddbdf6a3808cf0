//! What the journal should hold, kept in the simplest way there is: after every operation, a copy of everything.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_log::{Batch, EpochHistory, Record};
use bellwether_protocol::ids::{Epoch, Offset, OffsetRange, QueueId};
use bytes::Bytes;

use super::story::{Story, bodies_in, enqueue, finish, message, queue, settle, store};
use crate::disk::crash::Dice;
use crate::{Checkpoint, Condition, Evacuation, Progress, QueueLive, Read};

/// One queue's log as it should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    /// Every batch of the log as it is now, also those that may have been cleaned away.
    batches: BTreeMap<Offset, Batch>,
    /// Below it only what is live is there (a snapshot brought no more).
    floor: Offset,
    end: Offset,
    epoch: u64,
    checkpoint: Option<Checkpoint>,
    /// Everything below is committed: never cut.
    committed: Offset,
}

impl Expected {
    fn unsettled(&self, below: Offset) -> BTreeMap<Offset, String> {
        let mut left = BTreeMap::new();
        for batch in self.batches.range(..below).map(|(_, batch)| batch) {
            match batch.record().unwrap() {
                Record::Enqueue(_) => {
                    let bodies = bodies_in(batch, batch.offsets());
                    left.extend((batch.base().0..).map(Offset).zip(bodies));
                }
                Record::Settle { ranges, .. } => {
                    for range in ranges {
                        left.retain(|offset, _| *offset < range.first || *offset >= range.end);
                    }
                }
                Record::EpochStart { .. } | Record::Return { .. } | Record::Purge { .. } => {}
            }
        }
        left
    }

    fn unsettled_ranges(&self) -> Vec<OffsetRange> {
        let mut ranges: Vec<OffsetRange> = Vec::new();
        for offset in self.unsettled(self.committed).into_keys() {
            match ranges.last_mut() {
                // Split now and then, so that a batch falls into more parts.
                Some(last) if last.end == offset && offset.0 % 3 != 0 => last.end = offset.plus(1),
                _ => ranges.push(OffsetRange::new(offset, offset.plus(1))),
            }
        }
        ranges
    }
}

/// Everything there should be.
pub type World = BTreeMap<QueueId, Expected>;

/// A journal driven at random, with what it should hold after each step.
pub struct History {
    pub story: Story,
    dice: Dice,
    world: World,
    /// The world after each step, from the beginning.
    pub worlds: Vec<World>,
    /// Index of the last world that is known durable.
    pub durable: usize,
    failed: bool,
    bodies: u64,
    installing: Option<QueueId>,
}

impl History {
    pub fn new(story: Story, seed: u64) -> History {
        let (world, worlds) = (World::new(), vec![World::new()]);
        let dice = Dice(seed);
        let (durable, failed, bodies, installing) = (0, false, 0, None);
        History { story, dice, world, worlds, durable, failed, bodies, installing }
    }

    /// So many steps, or until the disk fails.
    pub fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            if self.failed {
                return;
            }
            self.step();
            if self.dice.percent(40) {
                self.sync();
            }
        }
        self.sync();
    }

    fn step(&mut self) {
        let queue = queue(1 + self.dice.below(4) as u8);
        if !self.world.contains_key(&queue) {
            self.story.logs.create(queue);
            self.world.insert(queue, Expected { epoch: 1, ..Expected::default() });
            return self.done();
        }
        match self.dice.below(100) {
            0..55 => self.publish(queue),
            55..75 => self.settle(queue),
            75..82 => self.cut(queue),
            82..92 => self.checkpoint(queue),
            92..97 => self.snapshot(queue),
            _ => {
                self.story.logs.remove(queue);
                self.world.remove(&queue);
            }
        }
        self.done();
    }

    fn done(&mut self) {
        self.worlds.push(self.world.clone());
    }

    fn append(&mut self, batch: Batch) {
        let expected = self.world.get_mut(&batch.queue()).unwrap();
        expected.end = batch.end();
        expected.batches.insert(batch.base(), batch.clone());
        self.story.logs.append(batch);
    }

    fn publish(&mut self, queue: QueueId) {
        let count = 1 + self.dice.below(5);
        let bodies = (0..count).map(|_| {
            self.bodies += 1;
            let padding = "x".repeat(self.dice.below(1500) as usize);
            Bytes::from(format!("body {} {padding}", self.bodies))
        });
        let bodies: Vec<Bytes> = bodies.collect();
        let Expected { epoch, end, .. } = &self.world[&queue];
        self.append(enqueue(queue, *epoch, end.0, &bodies));
    }

    fn settle(&mut self, queue: QueueId) {
        let expected = &self.world[&queue];
        let unsettled: Vec<Offset> = expected.unsettled(expected.committed).into_keys().collect();
        if unsettled.is_empty() {
            return;
        }
        let first = self.dice.below(unsettled.len() as u64) as usize;
        let range = OffsetRange::new(unsettled[first], unsettled[first].plus(1));
        let (epoch, end) = (expected.epoch, expected.end);
        self.append(settle(queue, epoch, end.0, &[range]));
        self.story.logs.settled(queue, range);
    }

    /// Cuts what is not committed, and goes on in another epoch.
    fn cut(&mut self, queue: QueueId) {
        let expected = self.world.get_mut(&queue).unwrap();
        let cuts: Vec<Offset> =
            expected.batches.range(expected.committed..).map(|(base, _)| *base).collect();
        let Some(to) = cuts.get(self.dice.below(cuts.len() as u64) as usize) else { return };
        expected.batches.split_off(to);
        expected.end = *to;
        expected.epoch += 1;
        assert_eq!(self.story.logs.truncate(queue, *to), *to);
    }

    fn checkpoint(&mut self, queue: QueueId) {
        let expected = self.world.get_mut(&queue).unwrap();
        let (at, high_watermark) = (expected.committed, expected.committed);
        let state = Bytes::from(format!("state at {at}"));
        expected.checkpoint = Some(Checkpoint { at, high_watermark, state: state.clone() });
        self.story.logs.checkpoint(queue, at, high_watermark, state);
    }

    fn snapshot(&mut self, queue: QueueId) {
        self.sync();
        if self.failed {
            return;
        }
        let expected = self.world.get_mut(&queue).unwrap();
        let at = expected.end.plus(100);
        let epoch = expected.epoch + 1;
        let epochs = EpochHistory::new(vec![(Epoch(epoch), Offset(0))]).unwrap();
        let state = Bytes::from(format!("snapshot at {at}"));
        self.story.logs.stage_snapshot(queue, store(), at, at, epochs, state.clone());
        let mut batches = BTreeMap::new();
        for offset in 0..self.dice.below(6) {
            self.bodies += 1;
            let batch = message(queue, epoch, at.0 - 50 + offset, &format!("live {}", self.bodies));
            self.story.logs.stage_live(batch.clone());
            batches.insert(batch.base(), batch);
        }
        self.story.logs.commit_snapshot(queue);
        let checkpoint = Some(Checkpoint { at, high_watermark: at, state });
        *expected = Expected { batches, floor: at, end: at, epoch, checkpoint, committed: at };
        self.installing = Some(queue);
        self.sync_until_done(|one| matches!(one, Progress::Installed { .. }));
        self.installing = None;
    }

    /// Waits until everything so far is durable, and commits it.
    fn sync(&mut self) {
        // A queue of its own says when everything before it is durable.
        let marker = queue(99);
        if !self.world.contains_key(&marker) {
            self.story.logs.create(marker);
            self.world.insert(marker, Expected { epoch: 1, ..Expected::default() });
            self.done();
        }
        let end = self.world[&marker].end;
        self.append(message(marker, 1, end.0, "marker"));
        let is = |one: &Progress| matches!(one, Progress::Durable { queue, end: durable } if *queue == marker && *durable > end);
        self.sync_until_done(is);
    }

    /// The step that was just taken: waits for the sign that it, and so everything before it, is durable.
    fn sync_until_done(&mut self, is: impl Fn(&Progress) -> bool) {
        self.done();
        let step = self.worlds.len() - 1;
        let mut reached = false;
        while !reached && !self.failed {
            for progress in self.story.hear() {
                reached |= is(&progress);
                match progress {
                    Progress::Failed(_) => self.failed = true,
                    Progress::Evacuate(evacuation) => self.evacuate(evacuation),
                    Progress::Corrupt { queue, what } => panic!("{queue}: {what}"),
                    Progress::Durable { .. } | Progress::Installed { .. } | Progress::Disk(_) => {}
                }
            }
        }
        if reached {
            self.durable = step;
            for (queue, durable) in &self.worlds[step] {
                if let Some(expected) = self.world.get_mut(queue) {
                    expected.committed = durable.end;
                }
            }
        }
    }

    fn evacuate(&mut self, evacuation: Evacuation) {
        let mut live = Vec::new();
        for need in &evacuation.queues {
            // A log that is about to be replaced is not the one that the world knows.
            if self.installing == Some(need.queue) || !self.world.contains_key(&need.queue) {
                continue;
            }
            if need.checkpoint_wanted && self.dice.percent(80) {
                self.checkpoint(need.queue);
                self.done();
            }
            let unsettled = self.world[&need.queue].unsettled_ranges();
            if self.dice.percent(90) {
                live.push(QueueLive { queue: need.queue, unsettled });
            }
        }
        self.story.logs.evacuate(evacuation, &live);
    }
}

/// Checks that a journal holds exactly what one of the worlds says.
pub fn holds_one_of(story: &Story, worlds: &[World]) -> Result<(), String> {
    let mut reasons = Vec::new();
    for world in worlds.iter().rev() {
        match holds(story, world) {
            Ok(()) => return Ok(()),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(reasons.join("\n"))
}

fn holds(story: &Story, world: &World) -> Result<(), String> {
    let there: BTreeSet<QueueId> = story.logs.queues().collect();
    let expected: BTreeSet<QueueId> = world.keys().copied().collect();
    if there != expected {
        return Err(format!("queues {there:?} instead of {expected:?}"));
    }
    for (queue, expected) in world {
        holds_log(story, *queue, expected).map_err(|what| format!("{queue}: {what}"))?;
    }
    Ok(())
}

fn holds_log(story: &Story, queue: QueueId, expected: &Expected) -> Result<(), String> {
    let report = story.recovered.iter().find(|report| report.queue == queue);
    let report = report.ok_or("no report")?;
    if report.condition != Condition::Ok {
        return Err(format!("{:?}", report.condition));
    }
    let (start, end) = (story.logs.start(queue), story.logs.end(queue));
    if end != expected.end {
        return Err(format!("ends at {end} instead of {}", expected.end));
    }
    if report.checkpoint != expected.checkpoint {
        return Err(format!("{:?} instead of {:?}", report.checkpoint, expected.checkpoint));
    }
    let at = report.checkpoint.as_ref().map_or(Offset(0), |checkpoint| checkpoint.at);
    if start > at || start < expected.floor {
        return Err(format!("starts at {start} with a checkpoint at {at}"));
    }
    let log: Vec<&Batch> = expected.batches.range(start..).map(|(_, batch)| batch).collect();
    let read = story.read(queue, start.0);
    if !log.iter().copied().eq(read.iter()) {
        return Err(format!("holds {read:?} instead of {log:?}"));
    }
    for (offset, body) in expected.unsettled(end) {
        let one = OffsetRange::new(offset, offset.plus(1));
        let bodies = match story.logs.read_live(queue, &[one], 1) {
            Read::Gone => return Err(format!("message {offset} is gone")),
            other => {
                finish(other).iter().flat_map(|batch| bodies_in(batch, one)).collect::<Vec<_>>()
            }
        };
        if bodies != [body.as_str()] {
            return Err(format!("message {offset} is {bodies:?} instead of {body:?}"));
        }
    }
    Ok(())
}
