//! Giving space back: one segment at a time is emptied, by asking the shards what they still need of it, writing that again
//! a little with every group, and freeing the segment once nobody refers to it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_log::Batch;
use bellwether_protocol::ids::QueueId;
use tracing::{debug, warn};

use super::copy_of;
use super::group::{Group, Origin};
use super::segments::Segments;
use crate::DiskLevel;
use crate::format::SegmentSeq;
use crate::read::{ReadError, read, read_batch};
use crate::recovery::SealedSegment;
use crate::registers::{RegisterRef, Registers};
use crate::segment::Segment;
use crate::shared::{Copied, CopyItem, Entry, Keep, Outcome, Shared};

/// Bytes copied with one group: about a millisecond's worth.
const COPY_BYTES_MAX: u64 = 1024 * 1024;

/// A segment whose emptying gained nothing is left alone for so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Segments shorter than a quarter (every restart leaves one) are merged when there are more of them than this.
const SMALL_MAX: usize = 16;

pub struct Cleaner {
    pub state: Cleaning,
    pub dead_bytes_max: u64,
    declined: HashMap<SegmentSeq, Instant>,
}

/// How far the emptying of a segment has come.
pub enum Cleaning {
    Idle,
    /// Shards that have not said yet what they need.
    Asked {
        segment: SegmentSeq,
        missing: usize,
        items: VecDeque<(usize, CopyItem)>,
    },
    Copying(Copying),
    /// Shards that still refer to it.
    Releasing {
        segment: SegmentSeq,
        missing: usize,
    },
}

pub struct Copying {
    segment: SegmentSeq,
    shards: usize,
    items: VecDeque<(usize, CopyItem)>,
    /// Read, and not written yet.
    ready: VecDeque<(Origin, Entry)>,
    copied: Vec<(usize, Copied)>,
    /// The segments that copies went to.
    targets: Vec<Arc<Segment>>,
}

/// An emptied segment: where what was in it has gone, by shard.
pub type Emptied = (SegmentSeq, Vec<Vec<Copied>>, Vec<Arc<Segment>>);

impl Cleaner {
    pub fn new(dead_bytes_max: u64) -> Cleaner {
        Cleaner { state: Cleaning::Idle, dead_bytes_max, declined: HashMap::new() }
    }

    /// The segment to empty next, if one should be. `condemned`: whether there are logs whose damage is evidence.
    pub fn choose(
        &mut self,
        segments: &Segments,
        level: DiskLevel,
        condemned: bool,
    ) -> Option<Arc<Segment>> {
        self.declined.retain(|_, since| since.elapsed() < PATIENCE);
        let tried = |seq| self.declined.contains_key(&seq);
        // Every log was fetched anew: what cannot be read there would condemn them again at the next start.
        let stale = |one: &&SealedSegment| one.damaged && !condemned && !tried(one.segment.seq);
        if let Some(stale) = segments.sealed.values().find(stale) {
            return Some(Arc::clone(&stale.segment));
        }
        let (used, live) = (segments.used_bytes(), segments.live_bytes());
        let allowed = match level {
            DiskLevel::Ok => self.dead_bytes_max + live / 2,
            DiskLevel::Low | DiskLevel::Scarce | DiskLevel::Full | DiskLevel::Starved => 0,
        };
        let small = |length: u64| length < segments.segment_bytes() / 4;
        let many_small =
            segments.sealed.values().filter(|one| small(one.length)).count() > SMALL_MAX;
        let too_much = used.saturating_sub(live) > allowed;
        if !too_much && !many_small {
            return None;
        }
        let candidates = segments.sealed.values().filter(|one| {
            let seq = one.segment.seq;
            let worth = one.segment.live_bytes() < one.length / 4 * 3 || small(one.length);
            !one.damaged && worth && !tried(seq) && (too_much || small(one.length))
        });
        // Wholly dead ones first, and of these the oldest: the newer ones serve followers that come back.
        let chosen = candidates.min_by_key(|one| (one.segment.live_bytes(), one.segment.seq))?;
        Some(Arc::clone(&chosen.segment))
    }

    pub fn ask(&mut self, segment: SegmentSeq, shards: usize) {
        self.state = Cleaning::Asked { segment, missing: shards, items: VecDeque::new() };
    }

    /// A shard has said what it needs.
    pub fn planned(&mut self, shard: usize, segment: SegmentSeq, planned: Vec<CopyItem>) {
        let Cleaning::Asked { segment: asked, missing, items } = &mut self.state else { return };
        if *asked != segment {
            return;
        }
        items.extend(planned.into_iter().map(|item| (shard, item)));
        *missing -= 1;
        if *missing == 0 {
            let items = std::mem::take(items);
            self.state = Cleaning::Copying(Copying {
                segment,
                shards: 0,
                items,
                ready: VecDeque::new(),
                copied: Vec::new(),
                targets: Vec::new(),
            });
        }
    }

    /// Whether there is something to copy, or to finish.
    pub fn has_copies(&self) -> bool {
        matches!(self.state, Cleaning::Copying(_))
    }

    /// Whether copies wait to be written.
    pub fn has_ready(&self) -> bool {
        match &self.state {
            Cleaning::Copying(copying) => !copying.ready.is_empty(),
            Cleaning::Idle | Cleaning::Asked { .. } | Cleaning::Releasing { .. } => false,
        }
    }

    /// Reads what is to be copied with the next group.
    pub fn prepare(&mut self, shared: &Shared, registers: &Registers, segments: &mut Segments) {
        let Cleaning::Copying(copying) = &mut self.state else { return };
        let small = segments.segment_bytes() / 4;
        let Some(sealed) = segments.sealed.get_mut(&copying.segment) else { return };
        copying.shards = shared.shards();
        let wanted_gone = sealed.length < small || sealed.damaged;
        let gain = copying.is_worth(sealed.length, wanted_gone);
        let result = if gain { copying.read_some(&sealed.segment, registers) } else { Err(None) };
        let Err(failed) = result else { return };
        let segment = copying.segment;
        if let Some((shard, queue, error)) = failed {
            warn!(segment = segment.0, %error, "segment not emptied");
            if let ReadError::Damaged { .. } = error {
                sealed.damaged = true;
                let what = error.to_string();
                shared.tell(shard.map(|shard| (shard, Outcome::Corrupt { queue, what })));
            }
        } else {
            debug!(segment = segment.0, "segment not emptied: little would be gained");
        }
        self.declined.insert(segment, Instant::now());
        self.state = Cleaning::Idle;
    }

    /// Adds copies to a group.
    pub fn ride_along(&mut self, group: &mut Group) {
        let Cleaning::Copying(copying) = &mut self.state else { return };
        while let Some((_, entry)) = copying.ready.front()
            && group.fits(entry.payload.len() as u64)
            && let Some((origin, entry)) = copying.ready.pop_front()
        {
            group.push(origin, entry);
        }
    }

    /// A copy is durable.
    pub fn copied(&mut self, shard: usize, copied: Copied, target: &Arc<Segment>) {
        let Cleaning::Copying(copying) = &mut self.state else { return };
        copying.copied.push((shard, copied));
        if copying.targets.last().is_none_or(|last| last.seq != target.seq) {
            copying.targets.push(Arc::clone(target));
        }
    }

    /// When everything has been copied: what the shards have to know.
    pub fn finish(&mut self, registers: &Registers) -> Option<Emptied> {
        let Cleaning::Copying(copying) = &mut self.state else { return None };
        let done = copying.items.is_empty() && copying.ready.is_empty() && copying.shards > 0;
        if !done || !registers.needed_in(copying.segment).is_empty() {
            return None;
        }
        let (segment, missing) = (copying.segment, copying.shards);
        let mut by_shard = vec![Vec::new(); missing];
        for (shard, copied) in copying.copied.drain(..) {
            by_shard[shard].push(copied);
        }
        let targets = std::mem::take(&mut copying.targets);
        self.state = Cleaning::Releasing { segment, missing };
        Some((segment, by_shard, targets))
    }

    /// A shard refers to nothing in the segment any more; answers whether it was the last.
    pub fn released(&mut self, segment: SegmentSeq) -> bool {
        let Cleaning::Releasing { segment: releasing, missing } = &mut self.state else {
            return false;
        };
        if *releasing != segment {
            return false;
        }
        *missing -= 1;
        let last = *missing == 0;
        if last {
            self.state = Cleaning::Idle;
        }
        last
    }
}

type CopyError = Option<(Option<usize>, QueueId, ReadError)>;

impl Copying {
    /// Whether freeing the segment gives back clearly more than copying takes.
    fn is_worth(&self, length: u64, wanted_gone: bool) -> bool {
        let begun = !self.copied.is_empty() || !self.ready.is_empty();
        let needed: u64 = self.items.iter().map(|(_, item)| item.bytes()).sum();
        begun || wanted_gone || needed <= length / 4 * 3
    }

    fn read_some(&mut self, segment: &Segment, registers: &Registers) -> Result<(), CopyError> {
        let mut bytes: u64 = self.ready.iter().map(|(_, entry)| entry.cost()).sum();
        while bytes < COPY_BYTES_MAX
            && let Some((shard, item)) = self.items.pop_front()
        {
            let failed = |error| Some((Some(shard), item.queue, error));
            let batch = read_batch(segment, item.queue, &item.located).map_err(failed)?;
            for part in kept(segment, &batch, &item).map_err(failed)? {
                let entry = copy_of(&part, item.generation);
                bytes += entry.cost();
                let messages = item.located.place.messages;
                self.ready.push_back((Origin::Copy { shard, messages }, entry));
            }
        }
        // Registers last, and only those that still count then.
        if self.items.is_empty() && self.ready.is_empty() {
            for register in registers.needed_in(self.segment) {
                let failed = |error| Some((None, register.header.queue, error));
                let entry = read_register(segment, &register).map_err(failed)?;
                self.ready.push_back((Origin::Register, entry));
            }
        }
        Ok(())
    }
}

impl CopyItem {
    fn bytes(&self) -> u64 {
        let length = u64::from(self.located.place.length);
        match &self.keep {
            Keep::Whole => length,
            Keep::Parts(parts) => {
                let kept: u64 = parts.iter().map(|part| part.count()).sum();
                length * kept / u64::from(self.located.place.count.max(1))
            }
        }
    }
}

fn kept(segment: &Segment, batch: &Batch, item: &CopyItem) -> Result<Vec<Batch>, ReadError> {
    match &item.keep {
        Keep::Whole => Ok(vec![batch.clone()]),
        Keep::Parts(parts) => {
            let cut = parts.iter().map(|part| batch.part(*part)).collect::<Result<_, _>>();
            cut.map_err(|error| ReadError::Damaged {
                segment: segment.seq.0,
                position: u64::from(item.located.place.position),
                what: error.to_string(),
            })
        }
    }
}

fn read_register(segment: &Segment, register: &RegisterRef) -> Result<Entry, ReadError> {
    let position = u64::from(register.position);
    let payload = read(segment, position, u64::from(register.header.length))?;
    let entry = Entry { header: register.header, payload };
    let whole = crate::recovery::scan::check_payload(&entry.header, entry.payload.clone());
    whole.map_err(|what| ReadError::Damaged { segment: segment.seq.0, position, what })?;
    Ok(entry)
}
