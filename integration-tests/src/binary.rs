//! Where the binary under test and the build's scratch folder are.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The `bellwether` binary: `BELLWETHER_BIN`, else the release build, else the debug build.
pub fn bellwether() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("BELLWETHER_BIN") {
        let named = PathBuf::from(named);
        if !named.is_file() {
            bail!("BELLWETHER_BIN names {}, which is not a file", named.display());
        }
        return Ok(named);
    }
    for profile in ["release", "debug"] {
        let built = target_folder().join(profile).join("bellwether");
        if built.is_file() {
            return Ok(built);
        }
    }
    bail!("no bellwether binary below {}: run `cargo build` first", target_folder().display())
}

/// The `bellwether` binary of an earlier version, when `BELLWETHER_OLD_BIN` names one.
pub fn older() -> Result<Option<PathBuf>> {
    let Some(named) = std::env::var_os("BELLWETHER_OLD_BIN") else { return Ok(None) };
    let named = PathBuf::from(named);
    if !named.is_file() {
        bail!("BELLWETHER_OLD_BIN names {}, which is not a file", named.display());
    }
    Ok(Some(named))
}

/// Cargo's target folder.
#[must_use]
pub fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(named) => PathBuf::from(named),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    }
}
