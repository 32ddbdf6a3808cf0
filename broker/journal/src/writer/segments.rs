//! The segment files: the one that is written to, the sealed ones, and the spare ones that wait for their turn.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bellwether_protocol::ids::StoreId;
use rustix::io::Errno;
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::group::{Group, ZEROS_MAX};
use crate::DiskLevel;
use crate::disk::{Disk, DiskFile};
use crate::format::{BLOCK, FORMAT, Nonce, SegmentHeader, SegmentSeq, frame_group};
use crate::metrics::JournalMetrics;
use crate::recovery::SealedSegment;
use crate::recovery::scan::Found;
use crate::recovery::side;
use crate::segment::{Segment, number_in, segment_name, side_name, spare_name};
use crate::store;

/// Spare files wanted: the next segment, and one in reserve, so that settles, checkpoints and deletes find room when
/// publishes have filled the disk.
const SPARES: usize = 2;

/// Spare files kept when segments are freed: written files sync faster than new ones.
const SPARES_MAX: usize = 4;

/// How often it is said that the next segment waits for file descriptors.
const STARVED_TOLD_EVERY: Duration = Duration::from_secs(10);

/// What a group takes besides its one entry, and a segment besides its groups, at most, in bytes.
const OVERHEAD: u64 = 4 * BLOCK;

/// Largest payload of one entry.
pub fn entry_bytes_max(segment_bytes: u64) -> u64 {
    segment_bytes - OVERHEAD
}

pub struct Segments {
    disk: Arc<dyn Disk>,
    store: StoreId,
    segment_bytes: u64,
    pub disk_low_bytes: u64,
    active: Active,
    pub sealed: BTreeMap<SegmentSeq, SealedSegment>,
    spares: VecDeque<Spare>,
    next_spare: u32,
    next_seq: SegmentSeq,
    pub free_bytes: u64,
    /// No spare file and no room for one: what waits, waits for space.
    pub stalled: bool,
    /// A segment was sealed or freed since somebody last looked after them.
    pub changed: bool,
    sync_failed: bool,
    /// The next segment, or a spare one, waits for a file descriptor.
    starved: bool,
    /// When it was last said that there are no file descriptors.
    starved_told: Option<Instant>,
}

/// The segment that is written to.
struct Active {
    segment: Arc<Segment>,
    nonce: Nonce,
    /// Where the next group goes. Everything before is synced, but for a group being written.
    position: u64,
    /// Everything before has been written to since the file was made, if only with zeros.
    written: u64,
    found: Vec<Found>,
    /// Whether a mark stands at `position`.
    marked: bool,
}

/// A file that waits to be a segment.
struct Spare {
    name: String,
    /// Everything before has been written to.
    written: u64,
}

/// What the segments begin with.
pub struct Start {
    pub sealed: Vec<SealedSegment>,
    pub spares: Vec<String>,
    pub next_seq: SegmentSeq,
}

impl Segments {
    /// Begins a new segment behind those that are there.
    pub fn start(
        disk: Arc<dyn Disk>,
        store: StoreId,
        segment_bytes: u64,
        disk_low_bytes: u64,
        start: Start,
    ) -> io::Result<Segments> {
        let numbers = start.spares.iter().filter_map(|name| number_in(name, "spare"));
        let next_spare = numbers.max().map_or(0, |last| last.wrapping_add(1));
        let mut spares = VecDeque::new();
        for name in start.spares {
            if disk.open(&name)?.length()? == segment_bytes {
                spares.push_back(Spare { name, written: 0 });
            } else {
                // Made by a process that did not get to its end, or with other settings.
                disk.remove(&name)?;
            }
        }
        let mut made = next_spare;
        if spares.is_empty() {
            spares.push_back(make_spare(&*disk, &mut made, segment_bytes)?);
        }
        let spare = spares.pop_front().expect("one was made when there was none");
        let file = disk.open(&spare.name)?;
        let active = activate(&*disk, store, &spare, file, start.next_seq)?;
        Ok(Segments {
            disk,
            store,
            segment_bytes,
            disk_low_bytes,
            active,
            sealed: start.sealed.into_iter().map(|one| (one.segment.seq, one)).collect(),
            spares,
            next_spare: made,
            next_seq: SegmentSeq(start.next_seq.0 + 1),
            free_bytes: 0,
            stalled: false,
            changed: true,
            sync_failed: false,
            starved: false,
            starved_told: None,
        })
    }

    pub fn active(&self) -> Arc<Segment> {
        Arc::clone(&self.active.segment)
    }

    /// Bytes that the active segment still takes.
    pub fn room(&self) -> u64 {
        self.segment_bytes - self.active.position
    }

    /// Writes a group; it is durable only after [`Segments::sync`]. Answers where its payloads lie and how long it is.
    pub fn write(&mut self, group: &Group) -> io::Result<(Vec<u32>, u64)> {
        let zeros = self.zeros_behind(group);
        let Active { segment, nonce, position, written, found, marked } = &mut self.active;
        *marked = false;
        let positions = group.write(&*segment.file, *nonce, *position, zeros)?;
        let end = *position + group.length();
        *written = (end + zeros).max(*written);
        let lines = group.headers.iter().zip(&positions);
        found
            .extend(lines.map(|(header, position)| Found { header: *header, position: *position }));
        let length = end - *position;
        *position = end;
        Ok((positions, length))
    }

    /// A file system has to note in its own journal, at every sync, which blocks of a new file have been written. Small groups
    /// that each went to blocks never written would each wait for that too; so the first of them writes a stretch ahead.
    fn zeros_behind(&self, group: &Group) -> u64 {
        let end = self.active.position + group.length();
        if end <= self.active.written || group.length() > ZEROS_MAX / 2 {
            return 0;
        }
        ZEROS_MAX.min(self.segment_bytes - end)
    }

    pub fn sync(&mut self) -> io::Result<()> {
        let synced = self.active.segment.file.sync();
        self.note(synced)
    }

    /// Remembers that a sync failed: nothing on this disk can be trusted then.
    fn note(&mut self, synced: io::Result<()>) -> io::Result<()> {
        self.sync_failed |= synced.is_err();
        synced
    }

    /// Marks the folder when a sync failed, so that no later life of the broker trusts it.
    pub fn condemn(&self, failure: &str) {
        if self.sync_failed
            && let Err(error) = store::condemn(&*self.disk, failure)
        {
            error!(%error, "the folder could not be marked as not to be trusted");
        }
    }

    /// Says behind the last group that it is synced, so that damage to it is never taken for a torn write. The
    /// next group is written over it. Not synced: it only has to be true, not to be there.
    pub fn mark(&mut self) -> io::Result<()> {
        if self.active.marked {
            return Ok(());
        }
        self.active.marked = true;
        let Active { segment, nonce, position, .. } = &self.active;
        let (head, tail) = frame_group(*nonce, *position, *position, &[], 0);
        segment.file.write_at(&[IoSlice::new(&head), IoSlice::new(&tail)], *position)
    }

    /// Everything is written: the mark becomes durable too.
    pub fn close(&mut self) -> io::Result<()> {
        self.mark()?;
        self.sync()
    }

    /// Seals the active segment and goes on to the next. `false`: there is none, and no room to make one.
    pub fn roll(&mut self) -> io::Result<bool> {
        if self.spares.is_empty() && self.refill()? >= DiskLevel::Full {
            self.stalled = true;
            return Ok(false);
        }
        let Some(spare) = self.spares.pop_front() else {
            self.stalled = true;
            return Ok(false);
        };
        // Before the old segment is sealed: without a descriptor for the next one everything stays as it is.
        let file = match self.disk.open(&spare.name) {
            Ok(file) => file,
            Err(error) if is_starved(&error) => {
                self.spares.push_front(spare);
                self.stalled = true;
                self.tell_starved(&error);
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        (self.stalled, self.starved) = (false, false);
        self.seal()?;
        let next = activate(&*self.disk, self.store, &spare, file, self.next_seq)?;
        self.next_seq = SegmentSeq(self.next_seq.0 + 1);
        let last = std::mem::replace(&mut self.active, next);
        let length = last.position + BLOCK;
        let seq = last.segment.seq;
        if let Err(error) = side::write(&*self.disk, seq, &last.nonce, length, &last.found) {
            warn!(segment = seq.0, %error, "side file not written");
        }
        let sealed = SealedSegment { segment: last.segment, length, damaged: false };
        self.sealed.insert(seq, sealed);
        self.changed = true;
        Ok(true)
    }

    /// The file ends behind the mark: whoever reads it later knows that all of it was synced.
    fn seal(&mut self) -> io::Result<()> {
        self.mark()?;
        let file = &self.active.segment.file;
        file.cut(self.active.position + BLOCK)?;
        self.sync()
    }

    /// Nothing in a segment is needed any more, and no shard refers to it.
    pub fn free(&mut self, seq: SegmentSeq) -> io::Result<()> {
        let Some(sealed) = self.sealed.remove(&seq) else { return Ok(()) };
        debug!(segment = seq.0, "segment freed");
        let name = segment_name(seq);
        // Somebody who still reads from it must not find another segment's bytes: then it is not used again.
        let unused = Arc::into_inner(sealed.segment).filter(|_| self.spares.len() < SPARES_MAX);
        let spare = spare_name(self.next_spare);
        match unused {
            Some(_) => self.disk.rename(&name, &spare)?,
            None => self.disk.remove(&name)?,
        }
        // In this order, and before the next is freed: a log that was dropped must not come back because the segment
        // that says so went before one that still holds it.
        self.disk.sync_names()?;
        if let Some(segment) = unused {
            self.next_spare = self.next_spare.wrapping_add(1);
            self.reuse(&segment, spare, sealed.length)?;
        }
        if let Err(error) = self.disk.remove(&side_name(seq)) {
            debug!(segment = seq.0, %error, "side file not removed");
        }
        self.changed = true;
        Ok(())
    }

    /// A freed segment's file becomes a spare one, now that no restart takes it for a segment any more. What its seal cut off
    /// is reserved again: on a full disk it would be too late when the file is needed.
    fn reuse(&mut self, segment: &Segment, name: String, written: u64) -> io::Result<()> {
        match segment.file.allocate(self.segment_bytes) {
            Ok(()) => self.spares.push_back(Spare { name, written }),
            Err(error) => {
                debug!(name, %error, "freed file not used again");
                self.disk.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Makes spare files as long as there is room, and says how much there is.
    pub fn refill(&mut self) -> io::Result<DiskLevel> {
        let mut wanted = SPARES;
        while self.spares.len() < wanted {
            match make_spare(&*self.disk, &mut self.next_spare, self.segment_bytes) {
                Ok(spare) => {
                    self.starved = false;
                    self.spares.push_back(spare);
                }
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                // Not the disk's fault, and it passes: whoever reaches a port can use descriptors up for a while.
                Err(error) if is_starved(&error) => {
                    self.tell_starved(&error);
                    wanted = self.spares.len();
                }
                Err(error) => return Err(error),
            }
        }
        self.free_bytes = self.disk.free_bytes()?;
        if self.spares.is_empty() {
            return Ok(if self.starved { DiskLevel::Starved } else { DiskLevel::Full });
        }
        // What waited for the next segment is tried again.
        let starved = std::mem::replace(&mut self.stalled, false) && self.starved;
        let scarce = self.spares.len() < wanted || self.free_bytes < self.disk_low_bytes / 2;
        Ok(match self.free_bytes < self.disk_low_bytes {
            _ if starved => DiskLevel::Starved,
            _ if scarce => DiskLevel::Scarce,
            true => DiskLevel::Low,
            false => DiskLevel::Ok,
        })
    }

    fn tell_starved(&mut self, error: &io::Error) {
        self.starved = true;
        if self.starved_told.is_some_and(|told| told.elapsed() < STARVED_TOLD_EVERY) {
            return;
        }
        self.starved_told = Some(Instant::now());
        error!(%error, spares = self.spares.len(), "no file descriptor for the journal's next segment; it is tried again, and without one appends will wait: raise the limit of open files");
    }

    /// Bytes in segments, those that are dead included.
    pub fn used_bytes(&self) -> u64 {
        self.sealed.values().map(|one| one.length).sum::<u64>() + self.active.position
    }

    pub fn live_bytes(&self) -> u64 {
        let sealed: u64 = self.sealed.values().map(|one| one.segment.live_bytes()).sum();
        sealed + self.active.segment.live_bytes()
    }

    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    pub fn report(&self, metrics: &JournalMetrics) {
        let sealed: u64 = self.sealed.values().map(|one| one.length).sum();
        let whole = 1 + self.spares.len() as u64;
        metrics.disk_bytes.store(sealed + whole * self.segment_bytes, Relaxed);
        metrics.live_bytes.store(self.live_bytes(), Relaxed);
        metrics.segments.store(self.sealed.len() as u64 + 1, Relaxed);
        metrics.disk_free_bytes.store(self.free_bytes, Relaxed);
    }
}

/// The process, or the machine, has no file descriptor left.
fn is_starved(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

fn make_spare(disk: &dyn Disk, next: &mut u32, bytes: u64) -> io::Result<Spare> {
    let name = spare_name(*next);
    *next = next.wrapping_add(1);
    match disk.create(&name).and_then(|file| file.allocate(bytes)) {
        Ok(()) => Ok(Spare { name, written: 0 }),
        Err(error) => {
            // What was allocated of it before the disk was full is given back.
            if let Err(error) = disk.remove(&name) {
                debug!(name, %error, "spare file not removed");
            }
            Err(error)
        }
    }
}

/// Makes a spare file the segment to write to. It gets a nonce of its own, durably, before it gets its name: what it held
/// before can then never be read as part of it.
fn activate(
    disk: &dyn Disk,
    store: StoreId,
    spare: &Spare,
    file: Arc<dyn DiskFile>,
    seq: SegmentSeq,
) -> io::Result<Active> {
    let Spare { name, written } = spare;
    let nonce = Uuid::new_v4().into_bytes();
    let header = SegmentHeader { format: FORMAT, store, seq, nonce };
    file.write_at(&[IoSlice::new(&header.encode())], 0)?;
    file.sync()?;
    disk.rename(name, &segment_name(seq))?;
    disk.sync_names()?;
    let segment = Segment::new(seq, file);
    let (position, found, marked) = (BLOCK, Vec::new(), false);
    Ok(Active { segment, nonce, position, written: *written, found, marked })
}
