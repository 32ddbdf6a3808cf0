//! A disk in memory that can crash: of what was not synced, any part may be on it afterwards or not.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, Lock, LockError};

/// What is written as one.
const SECTOR: usize = 512;

/// A small random number generator (splitmix64), so that a seed says everything.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct CrashDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<FileState>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    syncs: u64,
    /// The power goes when this sync is called.
    crash_at: Option<u64>,
    crashed: bool,
    /// This sync, and no other, fails.
    fail_at: Option<u64>,
    /// Bytes all files together may have; none: any.
    capacity: Option<u64>,
    read_only: bool,
    /// Nothing can be opened.
    no_descriptors: bool,
}

#[derive(Debug, Default, Clone)]
struct FileState {
    now: Vec<u8>,
    synced: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Bytes { at: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Is(String, usize),
    Gone(String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Is(name, file) => names.insert(name.clone(), *file),
            NameChange::Gone(name) => names.remove(name),
        };
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Bytes { at, bytes } => {
                if content.len() < at + bytes.len() {
                    content.resize(at + bytes.len(), 0);
                }
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Change::Length(length) => content.resize(*length, 0),
        }
    }

    /// Of an un-synced change, what the crash left.
    fn apply_torn(&self, content: &mut Vec<u8>, dice: &mut Dice, chance: u64) {
        match self {
            Change::Length(_) => {
                if dice.percent(chance) {
                    self.apply(content);
                }
            }
            Change::Bytes { at, bytes } => {
                let mut from = 0;
                while from < bytes.len() {
                    let end = ((at + from) / SECTOR + 1) * SECTOR - at;
                    let end = end.min(bytes.len());
                    if dice.percent(chance) {
                        let sector = bytes[from..end].to_vec();
                        Change::Bytes { at: at + from, bytes: sector }.apply(content);
                    }
                    from = end;
                }
            }
        }
    }
}

impl CrashDisk {
    /// A disk whose power goes at the `sync`-th sync, counted from one.
    pub fn crashing_at(sync: u64) -> CrashDisk {
        let disk = CrashDisk::default();
        disk.locked().crash_at = Some(sync);
        disk
    }

    /// From now on the power goes at the `syncs`-th sync.
    pub fn crash_after(&self, syncs: u64) {
        let mut state = self.locked();
        state.crash_at = Some(state.syncs + syncs);
    }

    /// The next sync fails.
    pub fn fail_next_sync(&self) {
        let mut state = self.locked();
        state.fail_at = Some(state.syncs + 1);
    }

    pub fn limit(&self, bytes: Option<u64>) {
        self.locked().capacity = bytes;
    }

    pub fn make_read_only(&self) {
        self.locked().read_only = true;
    }

    pub fn set_no_descriptors(&self, none: bool) {
        self.locked().no_descriptors = none;
    }

    pub fn syncs(&self) -> u64 {
        self.locked().syncs
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        let state = self.locked();
        state.names.values().map(|file| state.files[*file].now.len() as u64).sum()
    }

    /// What is on the disk after a crash now: what was synced, and of the rest what `seed` says (0: nothing, 1: all).
    pub fn image(&self, seed: u64) -> CrashDisk {
        let state = self.locked();
        let mut dice = Dice(seed);
        let chance = match seed {
            0 => 0,
            1 => 100,
            _ => 10 + dice.below(81),
        };
        let mut names = state.synced_names.clone();
        let changes = state.name_changes.len() as u64;
        let kept = if seed == 1 { changes } else { dice.below(changes + 1) };
        let kept = if seed == 0 { 0 } else { kept };
        for change in &state.name_changes[..kept as usize] {
            change.apply(&mut names);
        }
        let files = state.files.iter().map(|file| {
            let mut content = file.synced.clone();
            for change in &file.changes {
                change.apply_torn(&mut content, &mut dice, chance);
            }
            FileState { now: content.clone(), synced: content, changes: Vec::new() }
        });
        let files = files.collect();
        let image = State { files, synced_names: names.clone(), names, ..State::default() };
        CrashDisk { state: Arc::new(Mutex::new(image)) }
    }

    /// What a restart of the process alone finds: everything that was written.
    pub fn restarted(&self) -> CrashDisk {
        self.image(1)
    }

    /// Turns one bit of a file.
    pub fn flip(&self, name: &str, bit: u64) {
        let mut state = self.locked();
        let file = state.names[name];
        let FileState { now, synced, .. } = &mut state.files[file];
        now[(bit / 8) as usize] ^= 1 << (bit % 8);
        synced[(bit / 8) as usize] ^= 1 << (bit % 8);
    }

    pub fn content(&self, name: &str) -> Vec<u8> {
        let state = self.locked();
        state.files[state.names[name]].now.clone()
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        if self.crashed { Err(io::Error::other("the power is gone")) } else { Ok(()) }
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { self.check() }
    }

    fn check_opens(&self) -> io::Result<()> {
        match self.no_descriptors {
            true => Err(rustix::io::Errno::MFILE.into()),
            false => self.check_writable(),
        }
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    /// Counts a sync; the power may go, or it may fail.
    fn count_sync(&mut self) -> io::Result<()> {
        self.check()?;
        self.syncs += 1;
        if self.crash_at.is_some_and(|at| self.syncs >= at) {
            self.crashed = true;
        }
        if self.fail_at == Some(self.syncs) {
            return Err(io::Error::other("the disk refused the sync"));
        }
        self.check()
    }

    fn used(&self) -> u64 {
        self.names.values().map(|file| self.files[*file].now.len() as u64).sum()
    }
}

#[derive(Debug)]
struct NoLock;

impl Lock for NoLock {}

impl Disk for CrashDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        let state = self.locked();
        state.check()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.locked();
        state.check_opens()?;
        let file = state.files.len();
        state.files.push(FileState::default());
        state.change_name(NameChange::Is(name.to_owned(), file));
        Ok(Arc::new(CrashFile { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.locked();
        state.check_opens()?;
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(CrashFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.locked();
        state.check_writable()?;
        let file = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.change_name(NameChange::Gone(from.to_owned()));
        state.change_name(NameChange::Is(to.to_owned(), file));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.locked();
        state.check_writable()?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Gone(name.to_owned()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.locked();
        state.count_sync()?;
        state.synced_names = state.names.clone();
        state.name_changes.clear();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.locked();
        state.check()?;
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used())))
    }

    fn lock(&self) -> Result<Box<dyn Lock>, LockError> {
        self.locked().check_writable().map_err(LockError::Io)?;
        Ok(Box::new(NoLock))
    }
}

#[derive(Debug)]
struct CrashFile {
    disk: CrashDisk,
    file: usize,
}

impl CrashFile {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.disk.locked();
        state.check_writable()?;
        let file = &mut state.files[self.file];
        change.apply(&mut file.now);
        file.changes.push(change);
        Ok(())
    }
}

impl DiskFile for CrashFile {
    fn length(&self) -> io::Result<u64> {
        let state = self.disk.locked();
        state.check()?;
        Ok(state.files[self.file].now.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<()> {
        let state = self.disk.locked();
        state.check()?;
        let from = position as usize;
        let bytes = state.files[self.file].now.get(from..from + into.len());
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.change(Change::Bytes { at: position as usize, bytes })
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.locked();
        state.count_sync()?;
        let file = &mut state.files[self.file];
        file.synced = file.now.clone();
        file.changes.clear();
        Ok(())
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.change(Change::Length(length as usize))
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let grows = length.saturating_sub(self.length()?);
        let full = {
            let state = self.disk.locked();
            state.capacity.is_some_and(|capacity| state.used() + grows > capacity)
        };
        if full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let longer = (length as usize).max(self.length()? as usize);
        self.change(Change::Length(longer))
    }
}
