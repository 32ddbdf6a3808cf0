//! The real file system.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, FileExt, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;

use super::{Disk, DiskFile, Lock, LockError};

/// Parts one pwritev takes on Linux (IOV_MAX).
const PARTS_MAX: usize = 1024;

/// Messages are in it: nobody but the broker's user reads its files, or lists them.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// A folder of the real file system.
#[derive(Debug)]
pub struct RealDisk {
    dir: PathBuf,
    /// Held open to sync names.
    folder: File,
}

impl RealDisk {
    /// Makes the folder when it is not there.
    ///
    /// # Errors
    /// The file system's.
    pub fn new(dir: &Path) -> io::Result<RealDisk> {
        std::fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(dir)?;
        warn_of_others(dir)?;
        Ok(RealDisk { dir: dir.to_owned(), folder: File::open(dir)? })
    }

    fn open_with(&self, name: &str, options: &mut OpenOptions) -> io::Result<Arc<dyn DiskFile>> {
        let file = options.read(true).write(true).mode(FILE_MODE).open(self.dir.join(name))?;
        Ok(Arc::new(RealFile { file }))
    }
}

impl Disk for RealDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            // Names that are no UTF-8 are not ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_with(name, OpenOptions::new().create(true).truncate(true))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_with(name, &mut OpenOptions::new())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.dir.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.folder)?)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let about = rustix::fs::fstatvfs(&self.folder)?;
        Ok(about.f_bavail.saturating_mul(about.f_frsize))
    }

    fn lock(&self) -> Result<Box<dyn Lock>, LockError> {
        let path = self.dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)
            .map_err(LockError::Io)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(LockError::Held { by: holder(&mut file) }),
            Err(error) => return Err(LockError::Io(error.into())),
        }
        file.set_len(0).map_err(LockError::Io)?;
        writeln!(file, "process {}", std::process::id()).map_err(LockError::Io)?;
        Ok(Box::new(HeldLock { _file: file }))
    }
}

/// A folder that was there before may be open: whose will that is cannot be told.
fn warn_of_others(dir: &Path) -> io::Result<()> {
    let mode = std::fs::metadata(dir)?.permissions().mode();
    if mode & 0o007 != 0 {
        let (mode, folder) = (format!("{:03o}", mode & 0o777), dir.display());
        tracing::warn!(%folder, mode, "other users of this machine can look into the data folder, where messages are: chmod 700 it");
    }
    Ok(())
}

/// What the holder wrote about itself.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().to_owned(),
        Ok(_) | Err(_) => "another process".to_owned(),
    }
}

/// The lock goes with the open file, also when the process is killed.
#[derive(Debug)]
struct HeldLock {
    _file: File,
}

impl Lock for HeldLock {}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<()> {
        self.file.read_exact_at(into, position)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], mut position: u64) -> io::Result<()> {
        for chunk in parts.chunks(PARTS_MAX) {
            let mut left: Vec<IoSlice<'_>> = chunk.to_vec();
            let mut left = left.as_mut_slice();
            // Empty parts are done already; a call with nothing else would write nothing, which is an error.
            IoSlice::advance_slices(&mut left, 0);
            while !left.is_empty() {
                match rustix::io::pwritev(&self.file, left, position) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        position += written as u64;
                        IoSlice::advance_slices(&mut left, written);
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.file, length)?)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, length) {
            Ok(()) => Ok(()),
            // Not every file system can; there a full disk shows at the write, and is fatal.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(rustix::fs::ftruncate(&self.file, length)?),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_on_the_machine_reads_what_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("made/on/demand");
        let disk = RealDisk::new(&folder).unwrap();
        disk.create("file").unwrap();
        let _lock = disk.lock().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&dir.path().join("made"))), (0o700, 0o700));
        for file in ["file", "lock"] {
            assert_eq!(mode(&folder.join(file)), 0o600, "{file}");
        }
    }

    #[test]
    fn any_number_of_parts_of_any_length_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path()).unwrap();
        for parts in [0, 1, 2, PARTS_MAX - 1, PARTS_MAX, PARTS_MAX + 1, 3 * PARTS_MAX] {
            let file = disk.create("file").unwrap();
            let mut slices: Vec<IoSlice<'_>> = (0..parts).map(|_| IoSlice::new(b"ab")).collect();
            // As a group without zeros behind it ends: with nothing.
            slices.push(IoSlice::new(&[]));
            file.write_at(&slices, 10).unwrap();
            let length = if parts == 0 { 0 } else { 10 + 2 * parts as u64 };
            assert_eq!(file.length().unwrap(), length, "{parts} parts");
        }
    }
}
