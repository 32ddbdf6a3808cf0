//! A control group that bounds the memory of the processes in it, version 1 or 2, where this machine lets us make one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::eventually::eventually;

/// A group whose last process was ended is removed within moments.
const EMPTY_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// See the module. Remove it with [`MemoryGroup::remove`] when its processes have ended.
#[derive(Debug)]
pub struct MemoryGroup {
    folder: PathBuf,
    files: Files,
}

/// How a version names what is asked of it.
#[derive(Debug)]
struct Files {
    limit: &'static str,
    used: &'static str,
    most_used: &'static str,
}

const VERSION_1: Files = Files {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    most_used: "memory.max_usage_in_bytes",
};
const VERSION_2: Files =
    Files { limit: "memory.max", used: "memory.current", most_used: "memory.peak" };

impl MemoryGroup {
    /// A new group that may use `bytes`.
    ///
    /// # Errors
    /// When there are no control groups here, or we may not make one.
    pub fn new(name: &str, bytes: u64) -> Result<MemoryGroup> {
        let root = Path::new("/sys/fs/cgroup");
        let (parent, files) = if root.join("memory/memory.limit_in_bytes").exists() {
            (root.join("memory"), VERSION_1)
        } else if root.join("cgroup.controllers").exists() {
            std::fs::write(root.join("cgroup.subtree_control"), "+memory")
                .context("handing memory on to new groups")?;
            (root.to_owned(), VERSION_2)
        } else {
            bail!("there are no control groups for memory below {}", root.display());
        };
        let folder = parent.join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let group = MemoryGroup { folder, files };
        std::fs::write(group.folder.join(group.files.limit), bytes.to_string())
            .context("setting its limit")?;
        Ok(group)
    }

    /// Where a process enters: by writing its number to `cgroup.procs` in here.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it uses, cached files included.
    pub fn used(&self) -> Result<u64> {
        self.read(self.files.used)
    }

    /// The most it has used, where the system says; cached files included.
    pub fn most_used(&self) -> Result<u64> {
        self.read(self.files.most_used)
    }

    /// Processes in it that were killed because it had used up its memory.
    pub fn killed(&self) -> Result<u64> {
        for file in ["memory.oom_control", "memory.events"] {
            let Ok(said) = std::fs::read_to_string(self.folder.join(file)) else { continue };
            let killed = said.lines().find_map(|line| line.strip_prefix("oom_kill "));
            return Ok(killed.context("no oom_kill")?.trim().parse()?);
        }
        bail!("{} does not say who was killed", self.folder.display())
    }

    fn read(&self, file: &str) -> Result<u64> {
        let said = std::fs::read_to_string(self.folder.join(file))?;
        Ok(said.trim().parse()?)
    }

    /// Removes it. Its processes have ended, or are about to.
    pub async fn remove(self) -> Result<()> {
        eventually("the control group to be empty", EMPTY_WITHIN, async || {
            Ok(std::fs::remove_dir(&self.folder)?)
        })
        .await?;
        ensure!(!self.folder.exists(), "{} is still there", self.folder.display());
        Ok(())
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Removed already, unless something has failed before; then its process may still be ending.
        std::fs::remove_dir(&self.folder).ok();
    }
}
