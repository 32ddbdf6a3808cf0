//! The command line as a whole.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::backup::{BackupArgs, RestoreArgs};
use crate::commands::bench::BenchArgs;
use crate::commands::certs::CertsArgs;
use crate::commands::cluster::ClusterArgs;
use crate::commands::consume::ConsumeArgs;
use crate::commands::elections::ElectionsArgs;
use crate::commands::exchange::ExchangeArgs;
use crate::commands::publish::PublishArgs;
use crate::commands::queue::QueueArgs;
use crate::commands::recover::RecoverArgs;
use crate::commands::user::UserArgs;
use crate::local::demo::DemoArgs;
use crate::local::dev::DevArgs;
use crate::outcome::EXIT_CODES;
use crate::serve::ServeArgs;
use crate::serve::layers::{self, FileLayer};

/// A message-queue broker whose queues survive their leaders.
#[derive(Parser, Debug)]
#[command(name = "bellwether", version, about, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct CommandLine {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show on this machine that nothing is lost when a leader is killed
    Demo(DemoArgs),
    /// Run a whole cluster on this machine, without ZooKeeper, to develop against
    Dev(DevArgs),
    /// Run one broker of a cluster
    Serve(Box<ServeArgs>),
    /// Publish messages
    Publish(PublishArgs),
    /// Take messages from a queue and write them to standard output
    Consume(ConsumeArgs),
    /// Make, delete and list exchanges
    Exchange(ExchangeArgs),
    /// Make, delete, purge, list, describe, explain and bind queues
    Queue(QueueArgs),
    /// Say who may log in, and do what
    User(UserArgs),
    /// Look at the cluster
    Cluster(ClusterArgs),
    /// Write the definitions of a virtual host, or with --data the messages that wait there, to a file
    Backup(BackupArgs),
    /// Make what a backup holds and the cluster lacks, or publish its messages; refuse what differs
    Restore(RestoreArgs),
    /// Show the last changes of leaders: when, from whom to whom, why, and how long they took
    Elections(ElectionsArgs),
    /// Show what would be lost if a copy led whose in-sync set is gone for good; with --force, let it lead
    Recover(RecoverArgs),
    /// Make certificates for trials and small installations
    Certs(CertsArgs),
    /// Measure one producer and one consumer, end to end
    Bench(BenchArgs),
}

/// A command line as it was understood.
#[derive(Debug)]
pub struct Understood {
    pub command: Command,
    /// What the flags were, for showing where a setting came from.
    pub matches: ArgMatches,
    /// What lies beneath them.
    pub file: FileLayer,
    /// What was given, to be understood again when the file has changed.
    pub arguments: Vec<OsString>,
}

/// Understands `arguments`. The configuration file of `serve` is read in between, and its values become defaults.
pub fn understand(arguments: &[OsString]) -> Result<Understood, clap::Error> {
    understand_over(&BTreeMap::new(), arguments)
}

/// The same over settings that lie beneath the configuration file. Their keys are known, and their values have been judged.
pub fn understand_over(
    beneath: &BTreeMap<String, String>,
    arguments: &[OsString],
) -> Result<Understood, clap::Error> {
    let command = CommandLine::command()
        .mut_subcommand("serve", |serve| layers::beneath(serve, beneath.iter()));
    let mut matches = command.clone().try_get_matches_from(arguments)?;
    let mut file = FileLayer::empty();
    let config = matches
        .subcommand_matches("serve")
        .and_then(|serve| serve.get_one::<std::path::PathBuf>("config"));
    if let Some(path) = config {
        let in_the_file = |error: String| {
            CommandLine::command().error(clap::error::ErrorKind::ValueValidation, error)
        };
        file = FileLayer::read(path).map_err(|error| in_the_file(error.to_string()))?;
        let layered = command.mut_subcommand("serve", |serve| file.beneath(serve));
        // The flags alone were understood above, so what is refused now is in the file.
        let refused =
            |error: clap::Error| in_the_file(format!("{}: {}", path.display(), words_of(&error)));
        matches = layered.try_get_matches_from(arguments).map_err(refused)?;
    }
    let command = CommandLine::from_arg_matches(&matches)?.command;
    Ok(Understood { command, matches, file, arguments: arguments.to_vec() })
}

/// The first paragraph of a clap error, without its "error: " and its advice on usage.
pub fn words_of(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or(&text);
    first.trim_start_matches("error: ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_no_contradiction() {
        CommandLine::command().debug_assert();
    }
}
