//! How far a restore has got, kept beside the backup: who interrupts it and starts it again goes on, and stores nothing twice. What makes
//! that true are the names and numbers of the producers (promise G7); this file only keeps the names, and saves sending all again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::write::sync_folder_of;
use crate::outcome::Failure;

/// The format that this version writes, and the newest it reads.
const FORMAT: u32 = 1;

/// A restore that was begun longer ago than this is not gone on with, in milliseconds: 6 days. Queues remember a producer for 7, and one
/// that was forgotten could store its messages twice.
const AGE_MS_MAX: u64 = 6 * 24 * 60 * 60 * 1000;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    format: u32,
    /// Of this restore: producers are named after it.
    pub restore: Uuid,
    pub backup: Uuid,
    pub cluster: String,
    pub virtual_host: String,
    /// In milliseconds since 1970.
    begun_at_ms: u64,
    pub queues: BTreeMap<String, QueueProgress>,
    #[serde(skip)]
    path: PathBuf,
}

/// One queue's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueProgress {
    pub id: String,
    /// Everything restored lies at or behind this offset.
    pub from: u64,
    /// Messages that were enqueued in the queue before.
    pub enqueued_before: u64,
    /// Of these, settled or purged.
    pub gone_before: u64,
    /// So many messages of the backup are confirmed at least.
    pub confirmed: u64,
    /// All of them are, and were looked for in the queue. Files of earlier versions do not say so of any.
    #[serde(default)]
    pub finished: bool,
}

impl Progress {
    /// That of a restore that was interrupted, or of a new one. `true`: it goes on.
    pub fn of(
        backup_file: &Path,
        backup: Uuid,
        cluster: &str,
        virtual_host: &str,
        now_ms: u64,
    ) -> Result<(Progress, bool), Failure> {
        let mut path = backup_file.as_os_str().to_owned();
        path.push(".restoring");
        let path = PathBuf::from(path);
        let failed = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let progress = Progress {
                    format: FORMAT,
                    restore: Uuid::new_v4(),
                    backup,
                    cluster: cluster.to_owned(),
                    virtual_host: virtual_host.to_owned(),
                    begun_at_ms: now_ms,
                    queues: BTreeMap::new(),
                    path,
                };
                return Ok((progress, false));
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        let mut progress: Progress = serde_json::from_slice(&text)
            .map_err(|error| failed(format!("this is no progress of a restore: {error}")))?;
        progress.path.clone_from(&path);
        progress.check(backup, cluster, virtual_host, now_ms).map_err(failed)?;
        Ok((progress, true))
    }

    fn check(
        &self,
        backup: Uuid,
        cluster: &str,
        virtual_host: &str,
        now_ms: u64,
    ) -> Result<(), String> {
        let anew = "To restore anew, purge what it has restored so far and delete this file.";
        if self.format > FORMAT {
            return Err(format!(
                "it was written in format {}; this version of Bellwether knows formats up to {FORMAT}: go on with a later version",
                self.format
            ));
        }
        if self.backup != backup {
            return Err(format!("it is of a restore of another backup, {}. {anew}", self.backup));
        }
        if self.cluster != cluster || self.virtual_host != virtual_host {
            return Err(format!(
                "it is of a restore into virtual host {} of cluster {}, and this is virtual host {virtual_host} of cluster {cluster}. {anew}",
                self.virtual_host, self.cluster
            ));
        }
        if now_ms.saturating_sub(self.begun_at_ms) > AGE_MS_MAX {
            return Err(format!(
                "the restore was begun more than 6 days ago, and queues do not remember for long enough what it has stored. {anew}"
            ));
        }
        Ok(())
    }

    /// The producer of a queue's messages.
    pub fn producer(&self, queue: &QueueProgress) -> String {
        format!("restore-{}-{}", self.restore, queue.id)
    }

    /// On the disk before what it says is built upon.
    pub fn save(&self) -> Result<(), Failure> {
        let failed =
            |error: std::io::Error| Failure::NotDone(format!("{}: {error}", self.path.display()));
        let text = serde_json::to_vec_pretty(self).map_err(Failure::not_done)?;
        let mut new = self.path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        std::fs::write(&new, text).map_err(failed)?;
        std::fs::File::open(&new).and_then(|file| file.sync_all()).map_err(failed)?;
        std::fs::rename(&new, &self.path).map_err(failed)?;
        sync_folder_of(&self.path)
    }

    /// These queues are restored. A further restore begins anew, unless others were begun that are not: the file is kept for them, and
    /// they are named. Without it they could only be restored anew, and what they hold already would be stored twice.
    pub fn finish<'a>(
        mut self,
        restored: impl IntoIterator<Item = &'a String>,
    ) -> Result<Vec<String>, Failure> {
        for name in restored {
            if let Some(queue) = self.queues.get_mut(name) {
                queue.finished = true;
            }
        }
        let unfinished = self.queues.iter().filter(|(_, queue)| !queue.finished);
        let unfinished: Vec<String> = unfinished.map(|(name, _)| name.clone()).collect();
        if !unfinished.is_empty() {
            self.save()?;
            return Ok(unfinished);
        }
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::NotDone(format!("{}: {error}", self.path.display())))
            }
            _ => Ok(unfinished),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn begun(
        file: &Path,
        backup: Uuid,
        cluster: &str,
        now_ms: u64,
    ) -> Result<(Progress, bool), String> {
        Progress::of(file, backup, cluster, "/", now_ms).map_err(|failure| match failure {
            Failure::Usage(words) => words,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn an_interrupted_restore_is_gone_on_with_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (file, backup) = (folder.path().join("b"), Uuid::from_u128(7));
        let (mut first, goes_on) = begun(&file, backup, "c", NOW).unwrap();
        assert!(!goes_on);
        let queue = QueueProgress {
            id: "q".into(),
            from: 3,
            enqueued_before: 2,
            gone_before: 2,
            confirmed: 100,
            finished: false,
        };
        first.queues.insert("orders".into(), queue.clone());
        first.save().unwrap();
        let (again, goes_on) = begun(&file, backup, "c", NOW + 1).unwrap();
        assert!(goes_on);
        assert_eq!(again, first);
        assert_eq!(again.producer(&queue), first.producer(&queue));
        assert!(again.finish([&"orders".to_owned()]).unwrap().is_empty());
        let (another, goes_on) = begun(&file, backup, "c", NOW).unwrap();
        assert!(!goes_on && another.restore != first.restore);
    }

    /// A restore was interrupted in `b`, then `--queue a` alone was restored. Had that one taken the file away, the first half of `b`
    /// would have been published a second time, under another name.
    #[test]
    fn a_restore_of_one_queue_keeps_what_is_known_of_another_that_was_begun() {
        let folder = tempfile::tempdir().unwrap();
        let (file, backup) = (folder.path().join("backup"), Uuid::from_u128(7));
        let (mut first, _) = begun(&file, backup, "c", NOW).unwrap();
        let (a, b) = ("a".to_owned(), "b".to_owned());
        let half = QueueProgress {
            id: "q".into(),
            from: 0,
            enqueued_before: 0,
            gone_before: 0,
            confirmed: 50,
            finished: false,
        };
        first.queues.insert(a.clone(), half.clone());
        first.queues.insert(b.clone(), half.clone());
        let restore = first.restore;
        assert_eq!(first.finish([&a]).unwrap(), [b.as_str()]);
        let (again, goes_on) = begun(&file, backup, "c", NOW).unwrap();
        assert!(goes_on && again.restore == restore, "its producers have the names they had");
        assert_eq!(again.queues[&b], half);
        assert!(again.queues[&a].finished);
        assert!(again.finish([&b]).unwrap().is_empty());
        assert!(!begun(&file, backup, "c", NOW).unwrap().1);
    }

    #[test]
    fn the_progress_of_something_else_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let (file, backup) = (folder.path().join("b"), Uuid::from_u128(7));
        begun(&file, backup, "c", NOW).unwrap().0.save().unwrap();
        for (backup, cluster, now_ms, part) in [
            (Uuid::from_u128(8), "c", NOW, "another backup"),
            (backup, "d", NOW, "cluster c"),
            (backup, "c", NOW + AGE_MS_MAX + 1, "6 days"),
        ] {
            let error = begun(&file, backup, cluster, now_ms).unwrap_err();
            assert!(error.contains(part) && error.contains("b.restoring"), "{error}");
        }
        std::fs::write(folder.path().join("b.restoring"), "{\"format\": 1}").unwrap();
        assert!(begun(&file, backup, "c", NOW).unwrap_err().contains("no progress"));
    }
}
