//! Coming back: which segments there are, which logs, and whether they can be trusted.

pub mod scan;
pub mod side;
mod tally;

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bellwether_protocol::ids::{QueueId, StoreId};
use bytes::Bytes;
use tracing::{info, warn};

use self::scan::{Found, Scan};
use self::tally::Tally;
use crate::disk::{Disk, DiskFile};
use crate::format::{BLOCK, FORMAT, Nonce, SegmentHeader, SegmentSeq, Stamp, frame_group};
use crate::log::Log;
use crate::registers::Registers;
use crate::segment::{Segment, number_in, segment_name, side_name};
use crate::{Condition, RecoveredLog};

/// What was found.
pub struct Recovered {
    pub segments: Vec<SealedSegment>,
    /// Names of files that may be used for segments.
    pub spares: Vec<String>,
    pub registers: Registers,
    pub logs: HashMap<QueueId, Log>,
    pub reports: Vec<RecoveredLog>,
    /// Higher than every stamp on the disk.
    pub next_stamp: Stamp,
    /// Higher than every segment's number.
    pub next_seq: SegmentSeq,
}

/// A segment that is not written to any more.
#[derive(Debug)]
pub struct SealedSegment {
    pub segment: Arc<Segment>,
    pub length: u64,
    /// It is damaged: never freed, it may be needed as evidence.
    pub damaged: bool,
}

/// Something on the disk that a later version wrote: what, its format, and the newest that is known here. It is no damage, and nothing
/// is done about it but to say so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} was written in format {found}; this version of Bellwether knows formats up to {known}. Start the later version again, \
     or move the folder away and start with an empty one: it is filled from the other replicas"
)]
pub struct NewerFormat {
    pub what: String,
    pub found: u32,
    pub known: u32,
}

/// Why nothing was recovered.
#[derive(Debug)]
pub enum RecoveryError {
    Io {
        what: String,
        error: io::Error,
    },
    /// Something was written by a later version.
    Newer(NewerFormat),
    /// A segment is of another store.
    Foreign {
        name: String,
        of: StoreId,
    },
}

/// Attaches what was being done to an error of the disk.
fn doing<T>(what: impl FnOnce() -> String, result: io::Result<T>) -> Result<T, RecoveryError> {
    result.map_err(|error| RecoveryError::Io { what: what(), error })
}

/// A segment on the way through recovery.
struct Opened {
    segment: Arc<Segment>,
    /// None: the header is not readable, and so nothing in it.
    nonce: Option<Nonce>,
    length: u64,
}

/// Reads the folder back. Cuts what the crash tore off the newest segment and syncs the rest, so that what is
/// reported from here on is on the disk.
pub fn recover(disk: &dyn Disk, store: StoreId) -> Result<Recovered, RecoveryError> {
    let (opened, spares) = open_files(disk, store)?;
    let next_seq = opened.last().map_or(0, |last| last.segment.seq.0 + 1);
    let mut tally = Tally::new(store);
    // First the registers of all segments: they say which batches count.
    let mut kept: HashMap<SegmentSeq, Vec<Found>> = HashMap::new();
    let newest = opened.last().map(|last| last.segment.seq);
    let mut used = Vec::new();
    for mut one in opened {
        let is_newest = Some(one.segment.seq) == newest;
        let (scan, listed) = read_segment(disk, &mut one, is_newest)?;
        tally.registers(&one.segment, &scan);
        if scan.damage.is_empty() && scan.found.is_empty() && one.nonce.is_some() {
            remove_empty(disk, one.segment.seq)?;
            continue;
        }
        if listed || (scan.damage.is_empty() && write_side(disk, &one, &scan.found)) {
            used.push(one);
            continue;
        }
        kept.insert(one.segment.seq, scan.found);
        used.push(one);
    }
    doing(|| "sync of the folder".to_owned(), disk.sync_names())?;
    tally.choose().map_err(RecoveryError::Newer)?;
    for one in &used {
        let seq = one.segment.seq;
        let found = kept.remove(&seq).or_else(|| read_side(disk, one));
        // It was there a moment ago; whoever removed it has the segment read again.
        let found = found.map_or_else(|| whole_scan(one, one.length).map(|scan| scan.found), Ok)?;
        tally.batches(&one.segment, &found).map_err(RecoveryError::Newer)?;
    }
    let segments = used.into_iter().map(|one| SealedSegment {
        damaged: tally.is_damaged(one.segment.seq),
        segment: one.segment,
        length: one.length,
    });
    let segments = segments.collect();
    let next_stamp = tally.next_stamp();
    let (registers, logs, reports) = tally.close();
    for report in &reports {
        if let Condition::Corrupt(what) = &report.condition {
            warn!(queue = %report.queue, what, "log found corrupt");
        }
    }
    let next_seq = SegmentSeq(next_seq);
    info!(logs = logs.len(), "journal recovered");
    Ok(Recovered { segments, spares, registers, logs, reports, next_stamp, next_seq })
}

/// A segment that nothing was written to, as every restart leaves one.
fn remove_empty(disk: &dyn Disk, seq: SegmentSeq) -> Result<(), RecoveryError> {
    let name = segment_name(seq);
    doing(|| format!("removing {name}"), disk.remove(&name))
}

fn open_files(
    disk: &dyn Disk,
    store: StoreId,
) -> Result<(Vec<Opened>, Vec<String>), RecoveryError> {
    let names = doing(|| "listing the folder".to_owned(), disk.names())?;
    let mut numbers: Vec<u32> =
        names.iter().filter_map(|name| number_in(name, "segment")).collect();
    numbers.sort_unstable();
    let orphan = |name: &&String| {
        number_in(name, "index").is_some_and(|number| numbers.binary_search(&number).is_err())
    };
    for name in names.iter().filter(orphan) {
        doing(|| format!("removing {name}"), disk.remove(name))?;
    }
    let mut opened = Vec::new();
    for number in numbers {
        opened.push(open_segment(disk, store, SegmentSeq(number))?);
    }
    let spares = names.into_iter().filter(|name| number_in(name, "spare").is_some()).collect();
    Ok((opened, spares))
}

fn open_segment(disk: &dyn Disk, store: StoreId, seq: SegmentSeq) -> Result<Opened, RecoveryError> {
    let name = segment_name(seq);
    let file = doing(|| format!("opening {name}"), disk.open(&name))?;
    let length = doing(|| format!("length of {name}"), file.length())?;
    let mut block = vec![0; BLOCK.min(length) as usize];
    doing(|| format!("reading {name}"), file.read_at(&mut block, 0))?;
    let header = SegmentHeader::decode(&block).filter(|header| header.seq == seq);
    match header {
        Some(header) if header.format > FORMAT => {
            let (found, known) = (header.format, FORMAT);
            return Err(RecoveryError::Newer(NewerFormat { what: name, found, known }));
        }
        Some(header) if header.store != store => {
            return Err(RecoveryError::Foreign { name, of: header.store });
        }
        Some(_) | None => {}
    }
    let nonce = header.map(|header| header.nonce);
    Ok(Opened { segment: Segment::new(seq, file), nonce, length })
}

/// What a segment holds: from its side file (then the second is true), or, for the newest and when there is none, from
/// itself.
fn read_segment(
    disk: &dyn Disk,
    one: &mut Opened,
    newest: bool,
) -> Result<(Scan, bool), RecoveryError> {
    if !newest {
        if let Some(found) = read_side(disk, one) {
            return Ok((Scan { found, damage: Vec::new(), end: one.length }, true));
        }
        // Everything in a segment was synced before the next one was begun.
        return Ok((whole_scan(one, one.length)?, false));
    }
    let scan = whole_scan(one, 0)?;
    if let Some(nonce) = one.nonce {
        seal(one, nonce, scan.end)?;
    }
    Ok((scan, false))
}

fn read_side(disk: &dyn Disk, one: &Opened) -> Option<Vec<Found>> {
    let file = disk.open(&side_name(one.segment.seq)).ok()?;
    side::read(&file, &one.nonce?, one.length)
}

/// Whether the side file could be written.
fn write_side(disk: &dyn Disk, one: &Opened, found: &[Found]) -> bool {
    let Some(nonce) = one.nonce else { return false };
    match side::write(disk, one.segment.seq, &nonce, one.length, found) {
        Ok(()) => true,
        Err(error) => {
            warn!(segment = one.segment.seq.0, %error, "side file not written");
            false
        }
    }
}

fn whole_scan(one: &Opened, synced: u64) -> Result<Scan, RecoveryError> {
    let Some(nonce) = one.nonce else {
        let what = "the header of the segment is not readable".to_owned();
        let damage = vec![scan::Damage { position: 0, header: None, what }];
        return Ok(Scan { found: Vec::new(), damage, end: one.length });
    };
    let bytes = whole_file(&one.segment.file);
    let bytes = doing(|| format!("reading {}", segment_name(one.segment.seq)), bytes)?;
    Ok(scan::scan(&bytes, &nonce, synced))
}

fn whole_file(file: &Arc<dyn DiskFile>) -> io::Result<Bytes> {
    let mut bytes = vec![0; file.length()? as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes.into())
}

/// Cuts the newest segment behind its last whole group and writes there that everything before is synced, which is
/// made true at once. A torn group can then never come back, and damage done later is never taken for one.
fn seal(one: &mut Opened, nonce: Nonce, end: u64) -> Result<(), RecoveryError> {
    let name = segment_name(one.segment.seq);
    let file = &one.segment.file;
    doing(|| format!("cutting {name}"), file.cut(end))?;
    doing(|| format!("syncing {name}"), file.sync())?;
    let (head, tail) = frame_group(nonce, end, end, &[], 0);
    let mark = [IoSlice::new(&head), IoSlice::new(&tail)];
    doing(|| format!("sealing {name}"), file.write_at(&mark, end))?;
    doing(|| format!("syncing {name}"), file.sync())?;
    one.length = end + BLOCK;
    Ok(())
}
