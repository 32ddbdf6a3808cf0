//! Where a local cluster keeps its data: a folder of the user's, or a temporary one that is removed after.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::outcome::Failure;

/// How often a removal is tried: a process that was killed a moment ago may still make a file.
const REMOVALS_MAX: u32 = 20;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// A cluster's folder.
#[derive(Debug)]
pub enum Folder {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Folder {
    /// The folder at `kept`, made when it is missing, or a temporary one.
    pub fn open(kept: Option<&Path>) -> Result<Folder, Failure> {
        let Some(path) = kept else {
            let made = tempfile::Builder::new().prefix("bellwether-").tempdir();
            return made.map(Folder::Temporary).map_err(|error| {
                Failure::NotDone(format!("cannot make a temporary folder: {error}"))
            });
        };
        let cannot =
            |error| Failure::NotDone(format!("cannot use --data {}: {error}", path.display()));
        // Messages, users' keys and logs are in it.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(cannot)?;
        path.canonicalize().map(Folder::Kept).map_err(cannot)
    }

    pub fn path(&self) -> &Path {
        match self {
            Folder::Kept(path) => path,
            Folder::Temporary(folder) => folder.path(),
        }
    }

    /// Removes it when it is temporary.
    pub async fn close(self) -> Result<(), Failure> {
        let Folder::Temporary(folder) = self else { return Ok(()) };
        let mut removed = Ok(());
        for _ in 0..REMOVALS_MAX {
            removed = std::fs::remove_dir_all(folder.path());
            match &removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tokio::time::sleep(PAUSE).await
                }
                _ => return Ok(()),
            }
        }
        removed.map_err(|error| {
            Failure::NotDone(format!("cannot remove {}: {error}", folder.path().display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_that_is_made_is_the_users_alone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(Some(&parent.path().join("made"))).unwrap();
        let mode = std::fs::metadata(folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
