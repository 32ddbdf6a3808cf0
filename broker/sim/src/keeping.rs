//! What a process does with its log beside appending: hearing what is durable, snapshots, checkpoints, cleaning.

use std::collections::BTreeMap;

use bellwether_log::Batch;
use bellwether_protocol::ids::{BrokerLife, Epoch, Offset};
use bellwether_queue::Queue;
use bellwether_replication::Event;

use crate::disk::{Checkpoint, Disk, Image, Write};
use crate::ports::Output;
use crate::process::Process;

impl Process {
    pub(crate) fn synced(&mut self, disk: &mut Disk) {
        self.disk_answered();
        for write in disk.end_sync() {
            // One of a copy that was given up meanwhile is nothing to this one.
            if let Write::Replace(image, store) = write
                && self.installing
                && store == self.replica.member().store
            {
                self.snapshot_installed(disk, *image);
            }
        }
        let end = disk.durable().min(self.log.end);
        self.step(disk, Event::LocalDurable { end });
    }

    pub(crate) fn give_snapshot(&mut self, to: BrokerLife, epoch: Epoch, fetch: u64) {
        let image = (self.replica.leads() == Some(epoch)).then(|| {
            let at = self.machine.applied();
            let checkpoint = self.checkpoint();
            let starts = self.log.epochs.starts().iter().filter(|(_, start)| *start < at);
            let epochs = bellwether_log::EpochHistory::new(starts.copied().collect());
            Box::new(Image {
                start: at,
                end: at,
                batches: BTreeMap::new(),
                live: self.live_below(at).into_iter().map(|batch| (batch.base(), batch)).collect(),
                epochs: epochs.expect("a part of a history is one"),
                checkpoint: Some(checkpoint),
            })
        });
        self.out.push(Output::GiveSnapshot { to, epoch, fetch, image });
    }

    pub(crate) fn snapshot(&mut self, disk: &mut Disk, epoch: Epoch, image: Option<Box<Image>>) {
        let follows = self.replica.follows().map(|(_, followed)| followed) == Some(epoch);
        let below = self.replica.log().high_watermark;
        match image.filter(|image| follows && image.end >= below) {
            // It takes the log's place when it is durable; until then the log is what it was.
            Some(image) => {
                self.installing = true;
                disk.write(Write::Replace(image, self.replica.member().store));
            }
            None => self.step(disk, Event::SnapshotFailed { epoch }),
        }
    }

    fn snapshot_installed(&mut self, disk: &mut Disk, image: Image) {
        self.installing = false;
        let followed = self.replica.follows();
        let epoch = followed.map(|(_, epoch)| epoch).unwrap_or_default();
        let checkpoint = image.checkpoint.as_ref().expect("a snapshot has a state");
        self.machine = Queue::restore(&checkpoint.state).expect("this build wrote it");
        let (at, epochs) = (image.end, image.epochs.starts().to_vec());
        self.log = image;
        self.step(disk, Event::SnapshotInstalled { epoch, at, epochs });
        // What the leader said meanwhile was not heard: ask again.
        if let Some((from, epoch)) = followed {
            self.step(disk, Event::NotLeading { from, epoch, seen: epoch });
        }
    }

    fn checkpoint(&self) -> Checkpoint {
        let at = self.machine.applied();
        let high_watermark = self.replica.log().high_watermark.max(at);
        Checkpoint { at, high_watermark, state: self.machine.checkpoint() }
    }

    pub(crate) fn clean(&mut self, disk: &mut Disk) {
        let start = self.machine.applied();
        let unusable =
            !self.hosts() || self.replica.stopped().is_some() || self.replica.awaits_snapshot();
        if unusable || start <= self.log.start {
            return;
        }
        let live = self.live_below(start);
        self.write(disk, Write::Checkpoint(self.checkpoint()));
        self.write(disk, Write::Clean { start, live });
        self.replica.log_starts(start);
    }

    /// The batches below `at` that hold unsettled messages.
    fn live_below(&self, at: Offset) -> Vec<Batch> {
        let all =
            self.log.live.values().chain(self.log.batches.range(..at).map(|(_, batch)| batch));
        all.filter(|batch| !self.machine.unsettled_in(batch.offsets()).is_empty())
            .cloned()
            .collect()
    }
}
