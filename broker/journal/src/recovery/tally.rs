//! Putting the logs together from what the segments hold. Registers first: the one with the highest
//! version says which batches make up a log; then the batches; then whether anything is missing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bellwether_log::{EpochHistory, RecordKind};
use bellwether_protocol::ids::{Epoch, Offset, QueueId, StoreId};
use bytes::Bytes;

use super::scan::{Damage, Found, Scan, check_payload};
use crate::format::{EntryKind, SegmentSeq, Stamp};
use crate::index::Place;
use crate::log::Log;
use crate::read::read;
use crate::recovery::NewerFormat;
use crate::register::{self, Lineage, RegisterError, Shape};
use crate::registers::{RegisterRef, Registers};
use crate::segment::Segment;
use crate::{Checkpoint, Condition, RecoveredLog};

pub struct Tally {
    store: StoreId,
    segments: HashMap<SegmentSeq, Arc<Segment>>,
    registers: Vec<RegisterRef>,
    damage: Vec<(SegmentSeq, Damage)>,
    highest: u64,
    logs: HashMap<QueueId, Building>,
    /// Queues with batches and no log: dropped ones, unless what is damaged said otherwise.
    orphans: HashMap<QueueId, Stamp>,
}

/// A log being put together.
struct Building {
    log: Log,
    checkpoint: Option<Checkpoint>,
    /// First offsets of epochs newer than the register knows.
    epochs: BTreeMap<Epoch, Offset>,
    damage: Option<String>,
}

impl Tally {
    /// Of a folder with this store id.
    pub fn new(store: StoreId) -> Tally {
        Tally {
            store,
            segments: HashMap::new(),
            registers: Vec::new(),
            damage: Vec::new(),
            highest: 0,
            logs: HashMap::new(),
            orphans: HashMap::new(),
        }
    }

    /// Notes the registers and the damage of a segment.
    pub fn registers(&mut self, segment: &Arc<Segment>, scan: &Scan) {
        self.segments.insert(segment.seq, Arc::clone(segment));
        for Found { header, position } in &scan.found {
            self.highest = self.highest.max(header.generation.0);
            if header.is_register() {
                self.highest = self.highest.max(header.version);
                let (header, position) = (*header, *position);
                self.registers.push(RegisterRef { header, segment: segment.seq, position });
            }
        }
        self.damage.extend(scan.damage.iter().map(|damage| (segment.seq, damage.clone())));
    }

    /// All registers are known: reads those that count.
    pub fn choose(&mut self) -> Result<(), NewerFormat> {
        self.registers.sort_by_key(|register| register.header.version);
        let mut queues: HashMap<QueueId, Vec<RegisterRef>> = HashMap::new();
        for register in &self.registers {
            queues.entry(register.header.queue).or_default().push(*register);
        }
        for (queue, registers) in queues {
            if let Some(building) = self.build(&registers)? {
                self.logs.insert(queue, building);
            }
        }
        Ok(())
    }

    /// A log from its registers, which come with rising versions. `None`: it was dropped.
    fn build(&self, registers: &[RegisterRef]) -> Result<Option<Building>, NewerFormat> {
        let Some(top) = registers.last() else { return Ok(None) };
        let mut building = match self.read(top) {
            Ok((Shape::Dropped, _)) => return Ok(None),
            Ok((Shape::Live { lineage, epochs }, checkpoint)) => {
                Building::new(lineage, epochs, checkpoint)
            }
            Err(RegisterError::Newer(newer)) => return Err(newer),
            Err(RegisterError::Malformed(what)) => {
                return Ok(Some(self.build_damaged(registers, what)));
            }
        };
        if building.checkpoint.is_none() {
            let lineage = &building.log.lineage;
            let counts = |register: &&RegisterRef| {
                let header = &register.header;
                header.kind == EntryKind::Checkpoint && header.generation == lineage.root()
            };
            match registers.iter().rev().find(counts).map(|register| self.read(register)) {
                Some(Ok((_, checkpoint))) => building.checkpoint = checkpoint,
                Some(Err(RegisterError::Newer(newer))) => return Err(newer),
                Some(Err(RegisterError::Malformed(what))) => building.damage = Some(what),
                None => {}
            }
        }
        let mark = building.checkpoint.as_ref().map(|kept| (kept.at, kept.high_watermark));
        building.log.checkpointed = mark;
        Ok(Some(building))
    }

    /// A log whose newest register cannot be read. What an older one says of it is kept as evidence.
    fn build_damaged(&self, registers: &[RegisterRef], what: String) -> Building {
        let older = registers.iter().rev().find_map(|register| match self.read(register) {
            Ok((Shape::Live { lineage, epochs }, _)) => Some(Building::new(lineage, epochs, None)),
            Ok((Shape::Dropped, _)) | Err(_) => None,
        });
        let newest = registers.last().map_or(Stamp(0), |top| top.header.generation);
        let mut building = older.unwrap_or_else(|| Building::unknown(newest, self.store));
        building.damage = Some(what);
        building
    }

    fn read(&self, at: &RegisterRef) -> Result<(Shape, Option<Checkpoint>), RegisterError> {
        let segment =
            self.segments.get(&at.segment).expect("registers are noted with their segments");
        let payload: Bytes = read(segment, u64::from(at.position), u64::from(at.header.length))
            .map_err(|error| RegisterError::Malformed(error.to_string()))?;
        check_payload(&at.header, payload.clone()).map_err(RegisterError::Malformed)?;
        register::decode(&at.header, payload)
    }

    /// Adds the batches of a segment. Segments come in their order.
    pub fn batches(&mut self, segment: &Arc<Segment>, found: &[Found]) -> Result<(), NewerFormat> {
        for Found { header, position } in found {
            if header.is_register() {
                continue;
            }
            let Some(building) = self.logs.get_mut(&header.queue) else {
                self.orphans.insert(header.queue, header.generation);
                continue;
            };
            if !building.log.lineage.admits(header.generation, header.base, header.end()) {
                continue;
            }
            if RecordKind::from_number(header.record_kind).is_none() {
                // Its checksum is right: a later version wrote it, and what it does to the queue is not known here.
                let what = format!("a record of queue {}", header.queue);
                let (found, known) = (header.record_kind.into(), RecordKind::NEWEST.into());
                return Err(NewerFormat { what, found, known });
            }
            let place = Place {
                segment: segment.seq,
                position: *position,
                length: header.length,
                count: header.count,
                messages: header.record_kind == RecordKind::Enqueue as u8,
            };
            let copy = header.kind == EntryKind::Copy || header.base < building.log.end;
            // The crash came while a segment was being emptied: the original is still there, and whole, while its
            // copies may be incomplete.
            let original = building.log.find(header.base);
            if copy && original.is_some_and(|original| original.end() >= header.end()) {
                continue;
            }
            if !copy {
                building.log.end = header.end();
            }
            building.log.found(header.base, segment, place, copy);
            let epoch = Epoch(header.version);
            if building.log.epochs.last().is_none_or(|last| epoch > last) {
                let first = building.epochs.entry(epoch).or_insert(header.base);
                *first = header.base.min(*first);
            }
        }
        Ok(())
    }

    pub fn is_damaged(&self, segment: SegmentSeq) -> bool {
        self.damage.iter().any(|(damaged, _)| *damaged == segment)
    }

    pub fn next_stamp(&self) -> Stamp {
        Stamp(self.highest + 1)
    }

    /// Everything is read: what came of it.
    pub fn close(mut self) -> (Registers, HashMap<QueueId, Log>, Vec<RecoveredLog>) {
        self.spread_damage();
        let mut registers = Registers::default();
        for register in self.registers {
            registers.wrote(register);
        }
        let mut logs = HashMap::new();
        let mut reports = Vec::new();
        for (queue, building) in self.logs {
            let (log, checkpoint) = building.close();
            let (start, end, condition) = (log.start, log.end, log.condition.clone());
            let store = log.lineage.store();
            reports.push(RecoveredLog { queue, store, checkpoint, start, end, condition });
            logs.insert(queue, log);
        }
        reports.sort_by_key(|report| report.queue);
        (registers, logs, reports)
    }

    /// Tells each log of the damage that may have touched it.
    fn spread_damage(&mut self) {
        let damage = std::mem::take(&mut self.damage);
        self.name_missing(&damage);
        for (segment, Damage { position, header, what }) in &damage {
            let what = format!("segment {} at {position}: {what}", segment.0);
            let Some(header) = header else {
                // It may have been anything: a batch, a cut, a moved message of any queue. To trust one of them
                // could be to serve a log that lacks what was confirmed.
                for building in self.logs.values_mut() {
                    building
                        .damage
                        .get_or_insert_with(|| format!("{what}; it may have been this log's"));
                }
                continue;
            };
            let Some(building) = self.logs.get_mut(&header.queue) else { continue };
            if building.is_touched_by(header, &self.registers) {
                building.damage.get_or_insert(what);
            }
        }
        self.damage = damage;
    }

    /// Logs of which nothing is left but damage must not look as if they had never been there: an empty log
    /// would take part in elections as if it held everything.
    fn name_missing(&mut self, damage: &[(SegmentSeq, Damage)]) {
        for (_, Damage { header, .. }) in damage {
            match header {
                Some(header) if header.is_register() && !self.logs.contains_key(&header.queue) => {
                    let known =
                        self.registers.iter().filter(|one| one.header.queue == header.queue);
                    let newest = known.map(|one| one.header.version).max();
                    if newest.is_none_or(|newest| header.version > newest) {
                        let building = Building::unknown(header.generation, self.store);
                        self.logs.insert(header.queue, building);
                    }
                }
                Some(_) => {}
                None => {
                    let store = self.store;
                    for (queue, generation) in self.orphans.drain() {
                        let building = || Building::unknown(generation, store);
                        self.logs.entry(queue).or_insert_with(building);
                    }
                }
            }
        }
    }
}

impl Building {
    /// Nothing is known of it but that it was there.
    fn unknown(generation: Stamp, store: StoreId) -> Building {
        Building::new(Lineage::new(generation, store), EpochHistory::default(), None)
    }

    fn new(lineage: Lineage, epochs: EpochHistory, checkpoint: Option<Checkpoint>) -> Building {
        let mut log = Log::new(lineage);
        log.epochs = epochs;
        Building { log, checkpoint, epochs: BTreeMap::new(), damage: None }
    }

    /// Whether a damaged entry was part of the log as it is now.
    fn is_touched_by(&self, header: &crate::format::EntryHeader, known: &[RegisterRef]) -> bool {
        if !header.is_register() {
            return self.log.lineage.admits(header.generation, header.base, header.end());
        }
        let of_queue = known.iter().filter(|one| one.header.queue == header.queue);
        let newest = |kind: Option<EntryKind>| {
            let of_kind =
                of_queue.clone().filter(|one| kind.is_none_or(|kind| one.header.kind == kind));
            of_kind.map(|one| one.header.version).max().unwrap_or(0)
        };
        // An older one than those that are whole does not count any more.
        match header.kind {
            EntryKind::Checkpoint => header.version > newest(Some(EntryKind::Checkpoint)),
            EntryKind::Shape | EntryKind::Batch | EntryKind::Copy => header.version > newest(None),
        }
    }

    fn close(mut self) -> (Log, Option<Checkpoint>) {
        let mut damage = self.damage;
        let starts: BTreeSet<(Epoch, Offset)> = self.epochs.into_iter().collect();
        let known = self.log.epochs.starts().to_vec();
        match EpochHistory::new(known.into_iter().chain(starts).collect()) {
            Ok(epochs) => self.log.epochs = epochs,
            Err(error) => damage = damage.or(Some(error.to_string())),
        }
        let whole = self.log.close_recovery();
        if let Some(what) = damage.or(whole.err()) {
            self.log.condition = Condition::Corrupt(what);
        }
        (self.log, self.checkpoint)
    }
}
