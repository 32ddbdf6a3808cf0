//! Chaos: brokers and an ensemble under load and under faults, drawn from a printed seed; then everything is healed and
//! drained, and the checker says whether a promise was broken.

mod attached;
mod ending;
mod inject;
mod leaders;
mod options;
mod own;
mod page;
mod progress;
mod report;
mod scene;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tokio_util::sync::CancellationToken;

use options::Options;

/// Exit code when a promise was broken, as against 1 for a run that could not be carried out.
const VIOLATED: u8 = 2;
/// Exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let folder = options.folder.clone().unwrap_or_else(|| PathBuf::from(format!("chaos-{seed}")));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let clean = runtime.block_on(async {
        if options.attach.attach.is_empty() {
            on_its_own(&options, seed, &folder).await
        } else {
            attached(&options, seed, &folder).await
        }
    })?;
    Ok(match clean {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::from(VIOLATED),
        None => ExitCode::from(INTERRUPTED),
    })
}

/// Whether every promise was kept; nothing when it was interrupted.
async fn on_its_own(options: &Options, seed: u64, folder: &Path) -> Result<Option<bool>> {
    tokio::select! {
        ended = own::run(options, seed, folder) => ended.map(Some).with_context(|| failed(folder)),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            // Dropping the run ends every child that it started.
            eprintln!("interrupted; what there is lies in {}", folder.display());
            Ok(None)
        }
    }
}

/// The same; what was interrupted is ended in order, or by a second interrupt.
async fn attached(options: &Options, seed: u64, folder: &Path) -> Result<Option<bool>> {
    let interrupted = CancellationToken::new();
    let run = attached::run(options, seed, folder, interrupted.clone());
    tokio::pin!(run);
    tokio::select! {
        ended = &mut run => return ended.map(Some).with_context(|| failed(folder)),
        pressed = tokio::signal::ctrl_c() => pressed?,
    }
    eprintln!("interrupted: what was begun is ended first; once more to leave everything as it is");
    interrupted.cancel();
    tokio::select! {
        ended = &mut run => ended.map(Some).with_context(|| failed(folder)),
        pressed = tokio::signal::ctrl_c() => pressed.map(|()| None).map_err(Into::into),
    }
}

fn failed(folder: &Path) -> String {
    format!("the run failed; what there is lies in {}", folder.display())
}
