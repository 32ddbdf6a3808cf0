//! A queue with leaders that come and go, a client that follows the rules of the protocol, and links that break.

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// A queue as its leaders see it: committed messages never go away, appended ones may.
#[derive(Default)]
struct Queue {
    broker: u32,
    epoch: u64,
    serves: bool,
    log: Vec<u64>,
    committed: usize,
    /// Appended and not answered yet: the end of the log at which each commits.
    waiting: VecDeque<(usize, u64)>,
}

impl Queue {
    fn take(&mut self, dispatch: &Dispatch) -> Option<Result<(), ErrorBody>> {
        let Lead { life, epoch } = dispatch.to;
        if life.broker.0 != self.broker || epoch.0 != self.epoch || !self.serves {
            return Some(refused(ErrorCode::NotLeader));
        }
        let last = self.log.iter().copied().max().unwrap_or(0);
        let end = dispatch.first.0 + u64::from(dispatch.messages.count());
        if end - 1 > last {
            if dispatch.chained && dispatch.previous.0 > last {
                return Some(refused(ErrorCode::OutOfSequence));
            }
            self.log.extend(dispatch.first.0.max(last + 1)..end);
        }
        self.waiting.push_back((self.log.len(), dispatch.token));
        None
    }

    fn commit(&mut self, up_to: usize) -> Vec<(u64, Result<(), ErrorBody>)> {
        self.committed = self.committed.max(up_to);
        let mut outcomes = Vec::new();
        while self.waiting.front().is_some_and(|(end, _)| *end <= self.committed) {
            outcomes.extend(self.waiting.pop_front().map(|(_, token)| (token, Ok(()))));
        }
        outcomes
    }

    /// Another broker leads; the tail that was not committed survives in part.
    fn fail_over(&mut self, keeps: usize) -> Vec<(u64, Result<(), ErrorBody>)> {
        self.log.truncate(self.committed + keeps);
        self.broker = self.broker % 3 + 1;
        self.epoch += 1;
        self.serves = false;
        self.waiting.drain(..).map(|(_, token)| (token, unconfirmed())).collect()
    }
}

pub fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    // The client sends everything again at each failure, without a thought for its credit.
    let mut world = World::with_credit(Some("shop"), 1_000_000);
    let mut queues: BTreeMap<QueueId, Queue> = [ORDERS, AUDIT]
        .map(|id| (id, Queue { broker: 1, epoch: 1, serves: true, ..Queue::default() }))
        .into();
    let mut outcomes: VecDeque<(u64, Result<(), ErrorBody>)> = VecDeque::new();
    let mut next = 1;
    let mut open: BTreeMap<u64, Vec<QueueId>> = BTreeMap::new();
    let mut confirmed: BTreeMap<u64, Vec<QueueId>> = BTreeMap::new();
    for step in 0..500 {
        let calm = step > 300;
        match random.random_range(0..10) {
            0..=3 if next <= 120 => {
                let targets = [vec![ORDERS], vec![AUDIT], vec![ORDERS, AUDIT]]
                    [random.random_range(0..3)]
                .clone();
                world.publish(next, 1, &targets);
                open.insert(next, targets);
                next += 1;
            }
            4 if !calm => {
                let id = [ORDERS, AUDIT][random.random_range(0..2)];
                let queue = queues.get_mut(&id).unwrap();
                let keeps = random.random_range(0..=queue.log.len() - queue.committed);
                let lost = queue.fail_over(keeps);
                // Some answers never come: the link is gone.
                outcomes.extend(lost.into_iter().filter(|_| random.random_bool(0.7)));
                world.leader_changes(id, led_by(queue.broker, queue.epoch));
            }
            5 => queues
                .values_mut()
                .for_each(|queue| queue.serves |= calm || random.random_bool(0.5)),
            6 => world.passes(Duration::from_millis(random.random_range(1..50))),
            _ => {}
        }
        let before = world.sent.len();
        world.dispatch();
        for dispatch in &world.sent[before..] {
            // Now and then a disk is full: refused for good.
            let full = !calm && random.random_bool(0.05);
            let answer = match full {
                true => Some(refused(ErrorCode::DiskFull)),
                false => queues.get_mut(&dispatch.queue).unwrap().take(dispatch),
            };
            outcomes.extend(answer.map(|answer| (dispatch.token, answer)));
        }
        for queue in queues.values_mut().filter(|queue| queue.serves) {
            let up_to = random.random_range(queue.committed..=queue.log.len());
            outcomes.extend(queue.commit(if calm { queue.log.len() } else { up_to }));
        }
        let arrive = if calm { outcomes.len() } else { random.random_range(0..=outcomes.len()) };
        world.publisher.outcomes(world.now, outcomes.drain(..arrive));
        let mut failed = false;
        for frame in world.frames() {
            match frame {
                BrokerFrame::Confirmed { ranges, .. } => {
                    for number in ranges.into_iter().flat_map(|range| range.first.0..=range.last.0)
                    {
                        confirmed.extend(open.remove(&number).map(|targets| (number, targets)));
                    }
                }
                BrokerFrame::PublishFailed { .. } => failed = true,
                _ => {}
            }
        }
        // The client goes back to the lowest number that is not confirmed, and sends everything again.
        if failed {
            for (number, targets) in &open {
                world.publish(*number, 1, targets);
            }
        }
    }
    for (number, targets) in &confirmed {
        for id in targets {
            let queue = &queues[id];
            assert!(
                queue.log[..queue.committed].contains(number),
                "seed {seed}: {number} was confirmed and is not there"
            );
        }
    }
    for queue in queues.values() {
        assert!(
            queue.log.is_sorted_by(|one, two| one < two),
            "seed {seed}: out of order: {:?}",
            queue.log
        );
    }
    assert!(open.is_empty(), "seed {seed}: not confirmed after all is well: {open:?}");
}
