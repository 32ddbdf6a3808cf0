//! A disk that can lose power: what was written is there for the process that wrote it, what was synced is there for good.

use std::collections::{BTreeMap, VecDeque};

use bellwether_log::{Batch, EpochHistory};
use bellwether_protocol::ids::{Offset, StoreId};

use crate::random::Random;

/// A queue's log and state, as memory or the disk has them.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Batches below are gone but for the live ones.
    pub start: Offset,
    pub end: Offset,
    /// By base.
    pub batches: BTreeMap<Offset, Batch>,
    /// Batches below `start` that hold unsettled messages.
    pub live: BTreeMap<Offset, Batch>,
    pub epochs: EpochHistory,
    pub checkpoint: Option<Checkpoint>,
}

/// The state of everything below `at`.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub at: Offset,
    pub high_watermark: Offset,
    pub state: Vec<u8>,
}

/// One entry of the journal.
#[derive(Clone, Debug)]
pub enum Write {
    Append(Batch),
    Truncate(Offset),
    Checkpoint(Checkpoint),
    /// Batches below are dropped; `live` are kept.
    Clean {
        start: Offset,
        live: Vec<Batch>,
    },
    /// A snapshot takes the place of everything, as the copy of this store.
    Replace(Box<Image>, StoreId),
    /// The log goes. What comes next is the copy of this store.
    Drop(StoreId),
}

impl Image {
    pub fn apply(&mut self, write: &Write) {
        match write {
            Write::Append(batch) => {
                assert_eq!(batch.base(), self.end, "a batch that does not join the log");
                self.epochs.append(batch.epoch(), batch.base());
                self.end = batch.end();
                self.batches.insert(batch.base(), batch.clone());
            }
            Write::Truncate(to) => {
                self.batches.split_off(to);
                self.epochs.truncate(*to);
                self.end = *to;
            }
            Write::Checkpoint(checkpoint) => self.checkpoint = Some(checkpoint.clone()),
            Write::Clean { start, live } => {
                self.batches = self.batches.split_off(start);
                self.start = *start;
                self.live = live.iter().map(|batch| (batch.base(), batch.clone())).collect();
            }
            Write::Replace(image, _) => *self = Image::clone(image),
            Write::Drop(_) => *self = Image::default(),
        }
    }

    /// The batch that holds `offset`.
    #[must_use]
    pub fn batch_with(&self, offset: Offset) -> Option<&Batch> {
        let batches = if offset < self.start { &self.live } else { &self.batches };
        let (_, batch) = batches.range(..=offset).next_back()?;
        (batch.end() > offset).then_some(batch)
    }
}

/// A data directory.
#[derive(Debug)]
pub struct Disk {
    /// As whose copy the log takes part.
    store: StoreId,
    /// Bits have turned in what was synced: nothing of it can be used.
    damaged: bool,
    synced: Image,
    written: VecDeque<Write>,
    /// Writes that the sync under way covers.
    syncing: Option<usize>,
}

impl Disk {
    #[must_use]
    pub fn new(store: StoreId) -> Disk {
        let synced = Image::default();
        Disk { store, damaged: false, synced, written: VecDeque::new(), syncing: None }
    }

    pub fn damage(&mut self) {
        self.damaged = true;
    }

    /// Whether a log was ever begun here, since the disk was new or the last one was given up.
    #[must_use]
    pub fn has_log(&self) -> bool {
        self.damaged || self.synced.end > Offset(0)
    }

    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// As whose copy the log takes part. None: as nobody's, until it was fetched anew.
    #[must_use]
    pub fn store(&self) -> Option<StoreId> {
        (!self.damaged).then_some(self.store)
    }

    /// The store of the log that is written now, also when it is not known that it is on the disk.
    #[must_use]
    pub fn coming_store(&self) -> Option<StoreId> {
        let written = self.written.iter().rev().find_map(|write| match write {
            Write::Replace(_, store) | Write::Drop(store) => Some(*store),
            Write::Append(_) | Write::Truncate(_) | Write::Checkpoint(_) | Write::Clean { .. } => {
                None
            }
        });
        written.or_else(|| self.store())
    }

    pub fn write(&mut self, write: Write) {
        self.written.push_back(write);
    }

    /// Begins a sync of everything written, unless one is under way or nothing is to be synced.
    pub fn begin_sync(&mut self) -> bool {
        let begins = self.syncing.is_none() && !self.written.is_empty();
        if begins {
            self.syncing = Some(self.written.len());
        }
        begins
    }

    /// The sync under way is done. What it covered comes back.
    pub fn end_sync(&mut self) -> Vec<Write> {
        let covered = self.syncing.take().unwrap_or(0);
        let done: Vec<Write> = self.written.drain(..covered).collect();
        for write in &done {
            self.reached(write);
        }
        done
    }

    /// Up to where the log that the process sees is durable: not beyond a cut that is not durable itself, since
    /// what was written behind it is not what was synced there before.
    #[must_use]
    pub fn durable(&self) -> Offset {
        let cuts = self.written.iter().filter_map(|write| match write {
            Write::Truncate(to) => Some(*to),
            Write::Drop(_) => Some(Offset(0)),
            Write::Append(_) | Write::Checkpoint(_) | Write::Clean { .. } | Write::Replace(..) => {
                None
            }
        });
        cuts.fold(self.synced.end, Offset::min)
    }

    /// What would be there after a loss of power at this moment, at least.
    #[must_use]
    pub fn synced(&self) -> &Image {
        &self.synced
    }

    /// The process died. Some of what it had not synced may have reached the disk all the same, in order.
    pub fn crash(&mut self, random: &mut Random) {
        let survive = random.between(0, self.written.len() as u64) as usize;
        for write in std::mem::take(&mut self.written).iter().take(survive) {
            self.reached(write);
        }
        self.syncing = None;
    }

    fn reached(&mut self, write: &Write) {
        self.synced.apply(write);
        if let Write::Replace(_, store) | Write::Drop(store) = write {
            (self.store, self.damaged) = (*store, false);
        }
    }
}
