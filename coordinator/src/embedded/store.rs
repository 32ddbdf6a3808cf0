//! Keeps the embedded coordinator's permanent documents in a folder: one file of JSON lines, each an atomic write, rewritten
//! when it has grown. Ephemerals and sessions are not kept: after a restart there are none.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path as FilePath, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::tree::{Change, Tree};
use crate::coordinator::{Path, Version};

const FILE: &str = "coordinator.jsonl";
const FILE_BEING_WRITTEN: &str = "coordinator.jsonl.new";
const LOCK: &str = "coordinator.lock";

/// Keys of users are in it: nobody but the broker's user reads it.
const FILE_MODE: u32 = 0o600;

/// The file is rewritten when this many bytes have been appended since it last was: a start then reads seldom more than
/// that besides what is live.
const APPENDED_BYTES_MAX: u64 = 16 << 20;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is in use by another process")]
    InUse { path: PathBuf },
    #[error("{path}, line {line}, is damaged: {reason}")]
    Damaged { path: PathBuf, line: usize, reason: String },
}

#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    file: File,
    appended: u64,
    /// Held while this process lives, so that no second one writes here.
    _lock: File,
}

/// One document as one write left it.
#[derive(Serialize, Deserialize)]
struct Step {
    path: String,
    /// Absent when it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<i32>,
    /// The document, when it is text, as all of Bellwether's are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<Vec<u8>>,
}

impl Store {
    /// Opens or makes the folder and reads what it holds.
    pub(crate) fn open(folder: &FilePath) -> Result<(Store, Tree), StoreError> {
        let at = |path: &FilePath| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, source }
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(at(folder))?;
        let lock_path = folder.join(LOCK);
        let mut options = OpenOptions::new();
        let lock = options
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(&lock_path)
            .map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: folder.to_owned() });
            }
            Err(std::fs::TryLockError::Error(source)) => {
                return Err(StoreError::Io { path: lock_path, source });
            }
        }
        let tree = read(&folder.join(FILE))?;
        let file = rewrite(folder, &tree).map_err(at(folder))?;
        Ok((Store { folder: folder.to_owned(), file, appended: 0, _lock: lock }, tree))
    }

    /// Makes a write durable. After an error nothing may be written any more: the file may end in half a line.
    pub(crate) fn append(&mut self, changes: &[Change], tree: &Tree) -> io::Result<()> {
        let steps: Vec<Step> = changes.iter().filter_map(step_of).collect();
        if steps.is_empty() {
            return Ok(());
        }
        let line = line_of(&steps)?;
        self.file.write_all(&line)?;
        self.file.sync_data()?;
        self.appended += line.len() as u64;
        if self.appended > APPENDED_BYTES_MAX {
            self.file = rewrite(&self.folder, tree)?;
            self.appended = 0;
        }
        Ok(())
    }
}

fn read(path: &FilePath) -> Result<Tree, StoreError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Tree::default()),
        Err(source) => return Err(StoreError::Io { path: path.to_owned(), source }),
    };
    let mut tree = Tree::default();
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        // A last line without its end was being written when the process died: that write was never answered.
        if line.last() != Some(&b'\n') {
            break;
        }
        let damaged =
            |reason: String| StoreError::Damaged { path: path.to_owned(), line: index + 1, reason };
        let steps: Vec<Step> =
            serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
        for step in steps {
            restore(&mut tree, step);
        }
    }
    Ok(tree)
}

fn restore(tree: &mut Tree, step: Step) {
    let path = Path(step.path);
    let bytes = step.text.map(Bytes::from).or(step.bytes.map(Bytes::from)).unwrap_or_default();
    match step.version {
        Some(version) => tree.restore(path, bytes, Version(version)),
        None => tree.forget(&path),
    }
}

/// Writes the whole tree beside the file and puts it in the file's place: a crash leaves the one or the other.
fn rewrite(folder: &FilePath, tree: &Tree) -> io::Result<File> {
    let new = folder.join(FILE_BEING_WRITTEN);
    // Beside the file there may be one of a former version, which others may read.
    let file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(FILE_MODE).open(&new)?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    let mut writer = BufWriter::new(file);
    for change in tree.permanent() {
        let step = step_of(&change);
        writer.write_all(&line_of(&step.into_iter().collect::<Vec<_>>())?)?;
    }
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    std::fs::rename(&new, folder.join(FILE))?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

fn line_of(steps: &[Step]) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(steps)?;
    line.push(b'\n');
    Ok(line)
}

fn step_of(change: &Change) -> Option<Step> {
    match change {
        Change::Put { ephemeral: true, .. } | Change::Deleted { ephemeral: true, .. } => None,
        Change::Put { path, bytes, version, ephemeral: false } => {
            let text = std::str::from_utf8(bytes).ok().map(str::to_owned);
            let binary = text.is_none().then(|| bytes.to_vec());
            Some(Step { path: path.0.clone(), version: Some(version.0), text, bytes: binary })
        }
        Change::Deleted { path, ephemeral: false } => {
            Some(Step { path: path.0.clone(), version: None, text: None, bytes: None })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::Write;
    use crate::embedded::tree::SessionId;

    const ME: SessionId = SessionId(1);

    fn path(text: &str) -> Path {
        Path(text.to_owned())
    }

    fn create(at: &str, bytes: &'static [u8], ephemeral: bool) -> Write {
        Write::Create { path: path(at), bytes: Bytes::from_static(bytes), ephemeral }
    }

    fn write(store: &mut Store, tree: &mut Tree, writes: &[Write]) {
        let (_, changes) = tree.write(ME, writes).unwrap();
        store.append(&changes, tree).unwrap();
    }

    fn filled(folder: &FilePath) -> (Store, Tree) {
        let (mut store, mut tree) = Store::open(folder).unwrap();
        write(
            &mut store,
            &mut tree,
            &[create("/a", b"{}", false), create("/a/b", b"\xff\n", false)],
        );
        write(&mut store, &mut tree, &[create("/e", b"", true), create("/gone", b"", false)]);
        let set = Write::Set {
            path: path("/a"),
            bytes: Bytes::from_static(b"{\"n\":1}"),
            version: Version(0),
        };
        write(&mut store, &mut tree, &[set, Write::Delete { path: path("/gone"), version: None }]);
        (store, tree)
    }

    #[test]
    fn everything_but_ephemerals_comes_back_with_its_version() {
        let folder = tempfile::tempdir().unwrap();
        drop(filled(folder.path()));
        for _ in 0..2 {
            let (_store, tree) = Store::open(folder.path()).unwrap();
            let a = tree.read(&path("/a"), ME).unwrap();
            assert_eq!((&a.bytes[..], a.version), (&b"{\"n\":1}"[..], Version(1)));
            assert_eq!(tree.read(&path("/a/b"), ME).unwrap().bytes, &b"\xff\n"[..]);
            assert_eq!(tree.children(&path("/")), ["a"]);
            assert_eq!(tree.children(&path("/a")), ["b"]);
        }
    }

    #[test]
    fn nobody_else_on_the_machine_reads_it_also_when_a_former_version_let_them() {
        let folder = tempfile::tempdir().unwrap();
        let made = folder.path().join("made");
        drop(filled(&made));
        let mode = |path: &FilePath| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&made), 0o700);
        for file in [FILE, LOCK] {
            assert_eq!(mode(&made.join(file)), 0o600, "{file}");
        }
        let open = Permissions::from_mode(0o644);
        std::fs::set_permissions(made.join(FILE), open).unwrap();
        drop(Store::open(&made).unwrap());
        assert_eq!(mode(&made.join(FILE)), 0o600);
    }

    #[test]
    fn half_a_line_at_the_end_is_a_write_that_was_never_answered() {
        let folder = tempfile::tempdir().unwrap();
        drop(filled(folder.path()));
        let file = folder.path().join(FILE);
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..whole.len() - 3]).unwrap();
        let (_store, tree) = Store::open(folder.path()).unwrap();
        assert_eq!(tree.read(&path("/a"), ME).unwrap().version, Version(0));
        assert!(tree.read(&path("/gone"), ME).is_some());
    }

    #[test]
    fn a_damaged_line_is_named_and_nothing_is_guessed() {
        let folder = tempfile::tempdir().unwrap();
        drop(filled(folder.path()));
        let file = folder.path().join(FILE);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[0] = b'?';
        std::fs::write(&file, &bytes).unwrap();
        let error = Store::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("coordinator.jsonl, line 1, is damaged"), "{error}");
    }

    #[test]
    fn a_folder_is_used_by_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = Store::open(folder.path()).unwrap();
        assert!(matches!(Store::open(folder.path()), Err(StoreError::InUse { .. })));
        drop(first);
        Store::open(folder.path()).unwrap();
    }
}
