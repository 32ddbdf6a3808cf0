//! The last judgement, when everything has been drained: what is lost, what is out of order, what does not add up.

use std::collections::BTreeMap;

use super::{Checker, MessageId, Place, QueueIndex, Violation};

/// What a queue's leader counts, after the drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub enqueued: u64,
    pub ready: u64,
    pub delivered: u64,
    pub settled: u64,
    pub purged: u64,
}

/// The sum of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    pub published: u64,
    pub confirmed: u64,
    pub refused: u64,
    pub unknown: u64,
    pub deliveries: u64,
    pub redeliveries: u64,
    pub settled: u64,
    /// Acks and rejects that were answered with "not done" or "unknown".
    pub settles_failed: u64,
    /// Broken promises by kind.
    pub violations: BTreeMap<&'static str, u64>,
    /// The first of them, in words.
    pub evidence: Vec<String>,
}

impl Verdict {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

impl Checker {
    /// Judges the drained history. `counts` are what the leaders say of their queues; a queue that did not drain is left out
    /// of them, and has been reported as [`Violation::Stuck`].
    #[must_use]
    pub fn finish(mut self, counts: &[(QueueIndex, Counts)]) -> Verdict {
        for queue in (0..self.queues.len()).map(QueueIndex) {
            self.find_lost(queue);
            self.find_reordered(queue);
        }
        for &(queue, counts) in counts {
            self.compare_counts(queue, counts);
        }
        Verdict {
            published: self.producers.iter().map(|producer| producer.published).sum(),
            confirmed: self.confirmed(),
            refused: self.producers.iter().map(|producer| producer.refused.count()).sum(),
            unknown: self.producers.iter().map(|producer| producer.unknown).sum(),
            deliveries: self.deliveries,
            redeliveries: self.redeliveries,
            settled: self.queues.iter().map(|queue| queue.settled()).sum(),
            settles_failed: self.settles_failed,
            evidence: self.violations.iter().map(ToString::to_string).collect(),
            violations: self.totals,
        }
    }

    fn find_lost(&mut self, queue: QueueIndex) {
        let history = &self.queues[queue.0];
        let mut lost = Vec::new();
        for (producer, stream) in &history.streams {
            let confirmed = &self.producers[producer.0 as usize].confirmed;
            for number in confirmed.iter().filter(|&number| !stream.is_dealt_with(number)) {
                lost.push(Violation::Lost {
                    queue: history.name.clone(),
                    message: MessageId { producer: producer.0, number },
                    delivered_at: match stream.place(number) {
                        Place::At(offset) => Some(offset),
                        Place::NotDelivered | Place::Forgotten => None,
                    },
                });
            }
        }
        for violation in lost {
            self.broken(violation);
        }
    }

    /// What one producer published earlier stands at a lower offset.
    fn find_reordered(&mut self, queue: QueueIndex) {
        let streams = &mut self.queues[queue.0].streams;
        let swapped: Vec<_> = streams
            .iter_mut()
            .map(|(producer, stream)| (producer.0, stream.last_swapped()))
            .collect();
        for (producer, swapped) in swapped {
            self.reordered(queue, producer, swapped);
        }
    }

    fn compare_counts(&mut self, queue: QueueIndex, counts: Counts) {
        let history = &self.queues[queue.0];
        let stored = history.offsets.count();
        let mut wrong = Vec::new();
        if counts.enqueued != counts.ready + counts.delivered + counts.settled + counts.purged {
            wrong.push(format!("its counts do not add up: {counts:?}"));
        }
        if counts.enqueued != stored {
            wrong.push(format!(
                "it counts {} messages enqueued; {stored} different ones were delivered",
                counts.enqueued
            ));
        }
        if counts.ready + counts.delivered != 0 {
            wrong.push(format!(
                "it is drained, and still counts {} ready and {} delivered",
                counts.ready, counts.delivered
            ));
        }
        for what in wrong {
            self.broken(Violation::CountsDiffer { queue: self.queues[queue.0].name.clone(), what });
        }
    }
}

impl super::QueueHistory {
    fn settled(&self) -> u64 {
        self.streams.values().map(|stream| stream.settled.count()).sum()
    }
}
