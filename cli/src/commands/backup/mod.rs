//! `bellwether backup` and `bellwether restore`: of definitions, or of the messages that wait.

mod data;
mod definitions;
mod users;

use std::path::PathBuf;

use clap::Args;
use wildmatch::WildMatch;

use super::ClientArgs;
use super::patterns::not_as_for_files;
use crate::outcome::Failure;

/// Flags of `backup`.
#[derive(Args, Debug)]
pub struct BackupArgs {
    /// Where to write it; must not be there yet
    file: PathBuf,
    /// The messages that wait in the queues, in place of the definitions
    #[arg(long)]
    data: bool,
    /// With --data: only queues whose name matches; * stands for anything. May be given more than once
    #[arg(long = "queue", value_name = "PATTERN", requires = "data")]
    queues: Vec<String>,
    /// With the definitions: the cluster's users too, with their permissions and what their passwords are checked against
    #[arg(long, conflicts_with = "data")]
    users: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Flags of `restore`.
#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// What `backup` wrote
    file: PathBuf,
    /// Only say what would be made
    #[arg(long)]
    dry_run: bool,
    /// Publish the messages of a backup of data
    #[arg(long)]
    data: bool,
    /// With --data: only queues whose name matches; * stands for anything. May be given more than once
    #[arg(long = "queue", value_name = "PATTERN", requires = "data")]
    queues: Vec<String>,
    /// With --data: also into queues that hold messages, behind these
    #[arg(long, requires = "data")]
    append: bool,
    /// Make the users that the backup holds, too
    #[arg(long, conflicts_with = "data")]
    users: bool,
    /// With --users: users that are there and differ become those of the backup
    #[arg(long, requires = "users")]
    replace: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Carries `backup` out.
pub async fn backup(args: BackupArgs) -> Result<(), Failure> {
    warn_of(&args.queues);
    match args.data {
        true => data::backup(&args).await,
        false => definitions::backup(args).await,
    }
}

/// Carries `restore` out.
pub async fn restore(args: RestoreArgs) -> Result<(), Failure> {
    warn_of(&args.queues);
    match args.data {
        true => data::restore(&args).await,
        false => definitions::restore(args).await,
    }
}

fn warn_of(patterns: &[String]) {
    for warning in patterns.iter().filter_map(|pattern| not_as_for_files(pattern)) {
        eprintln!("warning: {warning}");
    }
}

/// Whether a queue is meant; without patterns all are.
fn is_meant(patterns: &[String], queue: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| WildMatch::new(pattern).matches(queue))
}
