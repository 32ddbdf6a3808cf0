//! What the journal thread has done, as the logs take it in.

use std::collections::BTreeSet;
use std::sync::Arc;

use bellwether_protocol::ids::QueueId;

use super::{Logs, Sent, SentWhat};
use crate::Progress;
use crate::segment::Segment;
use crate::shared::Outcome;

impl Logs {
    /// Takes what the journal thread has done. Call it whenever this shard was notified.
    pub fn completed(&mut self) -> Vec<Progress> {
        let mut progress = Vec::new();
        let mut advanced = BTreeSet::new();
        for outcome in self.shared.heard(self.shard) {
            match outcome {
                Outcome::Placed { segment, positions } => {
                    for position in positions {
                        self.placed(&segment, position, &mut advanced, &mut progress);
                    }
                }
                Outcome::Evacuate { segment } => progress.extend(self.needs_in(segment)),
                Outcome::Moved { segment, targets, copies } => {
                    self.moved(segment, &targets, &copies);
                }
                Outcome::Disk(level) => progress.push(Progress::Disk(level)),
                Outcome::Corrupt { queue, what } => {
                    if self.contains(queue) {
                        self.quarantine(queue, what.clone());
                        progress.push(Progress::Corrupt { queue, what });
                    }
                }
                Outcome::Failed(error) => {
                    progress.push(Progress::Failed(error));
                }
            }
        }
        let logs = &self.logs;
        let durable = advanced.into_iter().filter_map(|queue| {
            logs.get(&queue).map(|log| Progress::Durable { queue, end: log.durable })
        });
        // Before what came of it: an installed log, a failure.
        progress.splice(0..0, durable);
        self.trim_cache();
        progress
    }

    /// The oldest entry that waits is durable, and lies there.
    fn placed(
        &mut self,
        segment: &Arc<Segment>,
        position: u32,
        advanced: &mut BTreeSet<QueueId>,
        progress: &mut Vec<Progress>,
    ) {
        let sent = self.sent.pop_front();
        let Sent { queue, generation, what, cost } =
            sent.expect("the journal thread places what was sent, once and in order");
        self.sent_bytes -= cost;
        match what {
            SentWhat::Batch { base } => {
                if let Some(log) = self.logs.get_mut(&queue)
                    && log.placed(generation, base, segment, position, false)
                {
                    advanced.insert(queue);
                }
            }
            SentWhat::Staged { base } => {
                if let Some(staging) = self.staging.get_mut(&queue) {
                    staging.log.placed(generation, base, segment, position, true);
                }
            }
            SentWhat::Shape => {
                advanced.insert(queue);
            }
            SentWhat::Install => {
                if let Some(end) = self.install(queue, generation) {
                    progress.push(Progress::Installed { queue, end });
                }
            }
            SentWhat::Checkpoint | SentWhat::Drop => {}
        }
    }

    pub(super) fn trim_cache(&mut self) {
        let Logs { cache, logs, .. } = self;
        cache.trim(|queue, base| logs.get(&queue).is_none_or(|log| log.is_placed(base)));
    }
}
