//! Writing a backup: under another name until it is whole and on the disk, so that what looks like a backup is one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use super::format::{Begin, End, Entry, FORMAT, GATHERED_BYTES, Kept, MAGIC, QueueBegin, QueueEnd};
use super::hex;
use crate::outcome::Failure;

/// A backup that is being written.
pub struct Part {
    file: BufWriter<File>,
    path: PathBuf,
    part: PathBuf,
    gathered: BytesMut,
    queue: QueueEnd,
    sha256: Sha256,
    end: End,
    whole: bool,
}

impl Part {
    /// Begins one that will be `path`, which must not be there.
    pub fn begin(path: &Path, begin: Begin) -> Result<Part, Failure> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        if path.exists() {
            return Err(is_there(path));
        }
        // Messages are nobody else's business. What an earlier run left behind is written over.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&part).map_err(|error| failed(&part, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let words = format!("{} is being written by another backup", part.display());
                return Err(Failure::Usage(words));
            }
            Err(TryLockError::Error(error)) => return Err(failed(&part, &error)),
        }
        file.set_len(0).map_err(|error| failed(&part, &error))?;
        let mut written = Part {
            file: BufWriter::with_capacity(GATHERED_BYTES, file),
            path: path.to_owned(),
            part,
            gathered: BytesMut::with_capacity(2 * GATHERED_BYTES),
            queue: QueueEnd::default(),
            sha256: Sha256::new(),
            end: End::default(),
            whole: false,
        };
        written.put(&MAGIC)?;
        written.put(&FORMAT.to_be_bytes())?;
        written.entry(&Entry::Begin(begin))?;
        Ok(written)
    }

    pub fn queue(&mut self, queue: QueueBegin) -> Result<(), Failure> {
        self.entry(&Entry::Queue(queue))
    }

    pub fn message(&mut self, message: &Kept) -> Result<(), Failure> {
        message.put(&mut self.gathered);
        self.queue.messages += 1;
        self.queue.bytes += message.size();
        if self.gathered.len() >= GATHERED_BYTES { self.write_gathered() } else { Ok(()) }
    }

    fn write_gathered(&mut self) -> Result<(), Failure> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let payload: Bytes = self.gathered.split().freeze();
        self.sha256.update(&payload);
        self.entry(&Entry::Messages(Vec::new(), payload))
    }

    /// Ends the queue; what was written of it.
    pub fn end_queue(&mut self) -> Result<QueueEnd, Failure> {
        self.write_gathered()?;
        let sha256 = hex(&self.sha256.finalize_reset());
        let queue = QueueEnd { sha256, ..std::mem::take(&mut self.queue) };
        self.end.queues += 1;
        self.end.messages += queue.messages;
        self.entry(&Entry::QueueEnd(queue.clone()))?;
        Ok(queue)
    }

    /// Makes it the backup: on the disk first, then under its name, and never over another.
    pub fn finish(mut self) -> Result<End, Failure> {
        self.entry(&Entry::End(self.end.clone()))?;
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|error| failed(&self.part, &error))?;
        match std::fs::hard_link(&self.part, &self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(is_there(&self.path));
            }
            // A file system without links.
            Err(_) if self.path.exists() => return Err(is_there(&self.path)),
            Err(_) => {
                std::fs::rename(&self.part, &self.path)
                    .map_err(|error| failed(&self.path, &error))?;
                self.whole = true;
            }
        }
        sync_folder_of(&self.path)?;
        Ok(self.end.clone())
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Failure> {
        let frame = entry.to_frame().map_err(Failure::not_done)?;
        self.put(&frame)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| failed(&self.part, &error))
    }
}

/// Whatever happened: the part goes. When it is whole its other name stays.
impl Drop for Part {
    fn drop(&mut self) {
        if !self.whole
            && let Err(error) = std::fs::remove_file(&self.part)
        {
            eprintln!("warning: {} is left behind: {error}", self.part.display());
        }
    }
}

/// Puts a file's name on the disk: until then it may be gone, or mean what it meant before, after a loss of power.
pub fn sync_folder_of(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(folder, &error))
}

fn is_there(path: &Path) -> Failure {
    Failure::Usage(format!("{} is there already; choose another name", path.display()))
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::NotDone(format!("{}: {error}", path.display()))
}
