//! The journal thread: takes what the shards have handed in, writes it as one group, makes it durable with
//! one fdatasync, tells the shards; between groups it looks after the segments.

mod cleaner;
mod group;
mod segments;

pub use segments::{Segments, Start, entry_bytes_max};

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use self::cleaner::{Cleaner, Cleaning};
use self::group::{Group, Origin};
use crate::DiskLevel;
use crate::format::{EntryKind, SegmentSeq, Stamp};
use crate::index::Place;
use crate::registers::{RegisterRef, Registers};
use crate::shared::{Copied, CopyItem, Entry, Outcome, Shared, Work};

/// Largest group, in payload bytes (a single larger entry makes a group of its own): bounds how long one fdatasync
/// takes, and so how long the next message waits.
const GROUP_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Most entries in a group: bounds its directory.
const GROUP_ENTRIES_MAX: usize = 16 * 1024;

/// How often the thread looks after segments and disk when nothing else wakes it.
const TICK: Duration = Duration::from_secs(1);

/// What waits its turn.
enum Queued {
    Entry(usize, Entry),
    /// Comes after the checkpoints that it counts on: a segment freed before them would take records that a replay
    /// still needs.
    Plan {
        shard: usize,
        segment: SegmentSeq,
        items: Vec<CopyItem>,
    },
}

pub struct Writer {
    shared: Arc<Shared>,
    segments: Segments,
    registers: Registers,
    cleaner: Cleaner,
    /// Handed in and not written yet. Bounded by `waiting_bytes_max`, through `has_room`.
    queue: VecDeque<Queued>,
    looked_after: Instant,
}

impl Writer {
    pub fn new(
        shared: Arc<Shared>,
        segments: Segments,
        registers: Registers,
        dead_bytes_max: u64,
    ) -> Writer {
        let cleaner = Cleaner::new(dead_bytes_max);
        let queue = VecDeque::new();
        Writer { shared, segments, registers, cleaner, queue, looked_after: Instant::now() }
    }

    /// Until told to stop. A failed write or sync ends it too: what the disk then holds is not known, and to try again
    /// could report as durable what the kernel has already thrown away.
    pub fn run(mut self) {
        if let Err(failure) = self.serve() {
            // A store that is dead does not stall: it was given up for good.
            self.shared.metrics.rests();
            error!(error = %failure, "the journal failed; nothing more will be durable");
            self.segments.condemn(&failure.to_string());
            self.refuse_everything(&failure.to_string());
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        self.shared.metrics.begins();
        self.look_after()?;
        loop {
            let busy = !self.queue.is_empty() || self.cleaner.has_copies();
            let (mut work, mut stopping) = self.shared.take(Duration::ZERO);
            let stalled = busy && self.segments.stalled;
            if work.is_empty() && !stopping && (!busy || stalled) {
                self.segments.mark()?;
                self.shared.metrics.rests();
                (work, stopping) = self.shared.take(TICK);
            }
            self.shared.metrics.begins();
            for one in work {
                self.accept(one)?;
            }
            let wrote = self.write_group()?;
            if stopping && !wrote {
                return self.segments.close();
            }
            if self.looked_after.elapsed() >= TICK || self.segments.changed {
                self.look_after()?;
            }
        }
    }

    fn accept(&mut self, work: Work) -> io::Result<()> {
        match work {
            Work::Entries { shard, entries } => {
                self.queue.extend(entries.into_iter().map(|entry| Queued::Entry(shard, entry)));
            }
            Work::Plan { shard, segment, items } => {
                self.queue.push_back(Queued::Plan { shard, segment, items });
            }
            Work::Released { segment } => {
                if self.cleaner.released(segment) {
                    self.registers.freed(segment);
                    self.segments.free(segment)?;
                    self.shared.metrics.segments_freed.fetch_add(1, Relaxed);
                }
            }
        }
        Ok(())
    }

    /// Writes what waits, as much as a group takes; answers whether there was something.
    fn write_group(&mut self) -> io::Result<bool> {
        let mut group = self.gather();
        if group.is_empty() && self.has_entries() {
            // Nothing fits: on to the next segment.
            if !self.segments.roll()? {
                return Ok(false);
            }
            group = self.gather();
        }
        if group.is_empty() {
            self.finish_cleaning();
            return Ok(false);
        }
        let positions = self.write(&group)?;
        self.deliver(group, &positions);
        self.finish_cleaning();
        Ok(true)
    }

    fn has_entries(&self) -> bool {
        !self.queue.is_empty() || self.cleaner.has_ready()
    }

    fn gather(&mut self) -> Group {
        let mut group = Group::new(self.segments.room());
        while group.payload_bytes() < GROUP_BYTES_MAX
            && group.len() < GROUP_ENTRIES_MAX
            && let Some(next) = self.queue.pop_front()
        {
            match next {
                Queued::Entry(shard, entry) if group.fits(entry.payload.len() as u64) => {
                    group.cost += entry.cost();
                    group.push(Origin::Shard(shard), entry);
                }
                Queued::Entry(..) => {
                    self.queue.push_front(next);
                    break;
                }
                Queued::Plan { shard, segment, items } => {
                    self.cleaner.planned(shard, segment, items);
                }
            }
        }
        // A few copies ride along with every group, so that cleaning goes on under load and never holds an append up for long.
        self.cleaner.prepare(&self.shared, &self.registers, &mut self.segments);
        self.cleaner.ride_along(&mut group);
        group
    }

    fn write(&mut self, group: &Group) -> io::Result<Vec<u32>> {
        let (positions, bytes) = self.segments.write(group)?;
        let began = Instant::now();
        self.segments.sync()?;
        self.shared.metrics.synced(began.elapsed(), group.len() as u64, bytes);
        Ok(positions)
    }

    /// The group is durable: says so to whom it may concern.
    fn deliver(&mut self, group: Group, positions: &[u32]) {
        let segment = self.segments.active();
        let mut placed: Vec<Vec<u32>> = vec![Vec::new(); self.shared.shards()];
        for (index, position) in positions.iter().enumerate() {
            let (origin, header) = (group.origins[index], group.headers[index]);
            match origin {
                Origin::Shard(shard) => placed[shard].push(*position),
                Origin::Copy { shard, messages } => {
                    let (generation, base) = (header.generation, header.base);
                    let place = Place {
                        segment: segment.seq,
                        position: *position,
                        length: header.length,
                        count: header.count,
                        messages,
                    };
                    let copied = Copied { queue: header.queue, generation, base, place };
                    self.cleaner.copied(shard, copied, &segment);
                    self.shared.metrics.moved_bytes.fetch_add(u64::from(header.length), Relaxed);
                }
                Origin::Register => {}
            }
            if header.is_register() {
                let position = *position;
                self.registers.wrote(RegisterRef { header, segment: segment.seq, position });
            }
        }
        self.shared.metrics.waiting_bytes.fetch_sub(group.cost, Relaxed);
        let told = placed.into_iter().enumerate().filter(|(_, positions)| !positions.is_empty());
        let outcome = |positions| Outcome::Placed { segment: Arc::clone(&segment), positions };
        self.shared.tell(told.map(|(shard, positions)| (shard, outcome(positions))));
    }

    /// Everything has been moved out of a segment: the shards let go of it.
    fn finish_cleaning(&mut self) {
        if let Some((segment, by_shard, targets)) = self.cleaner.finish(&self.registers) {
            let outcome = |copies| Outcome::Moved { segment, targets: targets.clone(), copies };
            self.shared.tell(by_shard.into_iter().map(outcome).enumerate());
        }
    }

    /// Spare segments, the room on the disk, and whether a segment should be emptied.
    fn look_after(&mut self) -> io::Result<()> {
        self.looked_after = Instant::now();
        self.segments.changed = false;
        self.segments.disk_low_bytes = self.shared.disk_low_bytes.load(Relaxed);
        self.cleaner.dead_bytes_max = self.shared.dead_bytes_max.load(Relaxed);
        let level = self.segments.refill()?;
        if self.shared.set_level(level) {
            let free = self.segments.free_bytes;
            match level {
                DiskLevel::Ok => info!(free, "there is room on the disk again"),
                DiskLevel::Low => warn!(
                    free,
                    "the disk is nearly full: publishes are refused until there is room, but for those to queues of class vital"
                ),
                DiskLevel::Scarce | DiskLevel::Full => warn!(
                    ?level,
                    free, "the disk is nearly full: publishes are refused until there is room"
                ),
                DiskLevel::Starved => warn!(
                    free,
                    "publishes are refused until there is a file descriptor for the journal: raise the limit of open files, or close connections"
                ),
            }
            let shards = 0..self.shared.shards();
            self.shared.tell(shards.map(|shard| (shard, Outcome::Disk(level))));
        }
        self.segments.report(&self.shared.metrics);
        let condemned = self.shared.condemned.load(Relaxed) > 0;
        if matches!(self.cleaner.state, Cleaning::Idle)
            && let Some(segment) = self.cleaner.choose(&self.segments, level, condemned)
        {
            self.cleaner.ask(segment.seq, self.shared.shards());
            let shards = 0..self.shared.shards();
            let outcome = |shard| (shard, Outcome::Evacuate { segment: Arc::clone(&segment) });
            self.shared.tell(shards.map(outcome));
        }
        Ok(())
    }

    fn refuse_everything(&mut self, failure: &str) {
        self.shared.tell_failed(failure);
        let costs = self.queue.drain(..).map(|queued| match queued {
            Queued::Entry(_, entry) => entry.cost(),
            Queued::Plan { .. } => 0,
        });
        let mut refused: u64 = costs.sum();
        loop {
            self.shared.metrics.waiting_bytes.fetch_sub(refused, Relaxed);
            let (work, stopping) = self.shared.take(TICK);
            if stopping {
                return;
            }
            let costs = work.iter().map(|work| match work {
                Work::Entries { entries, .. } => entries.iter().map(Entry::cost).sum(),
                Work::Plan { .. } | Work::Released { .. } => 0,
            });
            refused = costs.sum();
        }
    }
}

/// The kind under which a moved batch is written.
const COPY: EntryKind = EntryKind::Copy;

/// What a copy keeps of its original: the generation that it was appended under.
fn copy_of(batch: &bellwether_log::Batch, generation: Stamp) -> Entry {
    let header = crate::logs::batch_header(COPY, generation, batch);
    Entry { header, payload: batch.bytes().clone() }
}
