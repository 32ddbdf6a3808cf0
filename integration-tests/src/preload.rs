//! Builds the power-loss shim (`preload/power_loss.c`) with the machine's C compiler and says how a process is
//! started under it.

use std::ffi::OsString;
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

/// The environment in which a process loses at its death what it wrote below `folder` and did not sync.
pub fn power_loss(folder: &Path, syncs: Syncs) -> Result<Vec<(OsString, OsString)>> {
    let mut environment = vec![
        ("LD_PRELOAD".into(), library()?.into()),
        ("POWER_LOSS_FOLDER".into(), folder.as_os_str().to_owned()),
    ];
    if let Syncs::IgnoredAfter(count) = syncs {
        environment.push(("POWER_LOSS_SYNCS".into(), count.to_string().into()));
    }
    Ok(environment)
}

/// The shared library, built once a process and named by its source, so that tests in parallel share it safely.
fn library() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT
        .get_or_init(|| build().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("preload/power_loss.c");
    let text = std::fs::read(&source).with_context(|| format!("reading {}", source.display()))?;
    let folder = crate::binary::target_folder().join("preload");
    std::fs::create_dir_all(&folder)?;
    let library = folder.join(format!("power_loss-{:08x}.so", crc32c::crc32c(&text)));
    if library.exists() {
        return Ok(library);
    }
    // Built aside and renamed: another test process may be building, or loading, the same library.
    let aside = folder.join(format!("power_loss-{}.so", std::process::id()));
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
