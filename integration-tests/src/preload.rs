//! Builds the shims (`preload/`: power that fails, disks that are slow, full or broken, clocks that jump, detours) with the machine's
//! C compiler and says how a process is started under them.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// What the shim makes of fsync and fdatasync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    /// What was written before is kept when the process is killed.
    Kept,
    /// After so many of them they do nothing: a test of durability must then fail.
    IgnoredAfter(u32),
}

/// A library to be loaded before libc, and what it is told.
#[derive(Clone, Debug)]
pub struct Shim {
    library: PathBuf,
    settings: Vec<(OsString, OsString)>,
}

/// The process loses at its death what it wrote below `folder` and did not sync.
pub fn power_loss(folder: &Path, syncs: Syncs) -> Result<Shim> {
    static BUILT: Built = Built::new();
    let mut settings = vec![("POWER_LOSS_FOLDER".into(), folder.as_os_str().to_owned())];
    if let Syncs::IgnoredAfter(count) = syncs {
        settings.push(("POWER_LOSS_SYNCS".into(), count.to_string().into()));
    }
    Ok(Shim { library: library("power_loss", &BUILT)?, settings })
}

/// Each sync of the process takes as many milliseconds longer as `file` says; none while there is no such file.
pub fn slow_disk(file: &Path) -> Result<Shim> {
    static BUILT: Built = Built::new();
    let settings = vec![("SLOW_DISK_FILE".into(), file.as_os_str().to_owned())];
    Ok(Shim { library: library("slow_disk", &BUILT)?, settings })
}

/// What lies below `folder` is on a disk that is as bad as `file` says: `full`, or `sync` for syncs that fail.
pub fn bad_disk(folder: &Path, file: &Path) -> Result<Shim> {
    static BUILT: Built = Built::new();
    let settings = vec![
        ("BAD_DISK_FOLDER".into(), folder.as_os_str().to_owned()),
        ("BAD_DISK_FILE".into(), file.as_os_str().to_owned()),
    ];
    Ok(Shim { library: library("bad_disk", &BUILT)?, settings })
}

/// The clock of the day is ahead by as many milliseconds as `file` says; right while there is no such file.
pub fn wrong_clock(file: &Path) -> Result<Shim> {
    static BUILT: Built = Built::new();
    let settings = vec![("WRONG_CLOCK_FILE".into(), file.as_os_str().to_owned())];
    Ok(Shim { library: library("wrong_clock", &BUILT)?, settings })
}

/// Who connects to one of the ports on loopback that `file` names is connected to the one beside it.
pub fn detour(file: &Path) -> Result<Shim> {
    static BUILT: Built = Built::new();
    let settings = vec![("DETOUR_FILE".into(), file.as_os_str().to_owned())];
    Ok(Shim { library: library("detour", &BUILT)?, settings })
}

/// The environment of a process under these shims, of which each comes before those behind it.
#[must_use]
pub fn under(shims: Vec<Shim>) -> Vec<(OsString, OsString)> {
    let libraries: Vec<&OsStr> = shims.iter().map(|shim| shim.library.as_os_str()).collect();
    let mut environment = vec![("LD_PRELOAD".into(), libraries.join(OsStr::new(":")))];
    environment.extend(shims.into_iter().flat_map(|shim| shim.settings));
    environment
}

type Built = OnceLock<Result<PathBuf, String>>;

/// The shared library, built once a process and named by its source, so that tests in parallel share it safely.
fn library(name: &str, built: &Built) -> Result<PathBuf> {
    built
        .get_or_init(|| build(name).map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

fn build(name: &str) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("preload/{name}.c"));
    let text = std::fs::read(&source).with_context(|| format!("reading {}", source.display()))?;
    let folder = crate::binary::target_folder().join("preload");
    std::fs::create_dir_all(&folder)?;
    let library = folder.join(format!("{name}-{:08x}.so", crc32c::crc32c(&text)));
    if library.exists() {
        return Ok(library);
    }
    // Built aside and renamed: another test process may be building, or loading, the same library.
    let aside = folder.join(format!("{name}-{}.so", std::process::id()));
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let built = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-o"])
        .arg(&aside)
        .arg(&source)
        .args(["-ldl", "-lpthread"])
        .output()
        .with_context(|| format!("running {}", compiler.display()))?;
    ensure!(
        built.status.success(),
        "building the shim: {}",
        String::from_utf8_lossy(&built.stderr)
    );
    std::fs::rename(&aside, &library)?;
    Ok(library)
}
