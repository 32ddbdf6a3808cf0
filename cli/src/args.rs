//! The command line as a whole.

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::bench::BenchArgs;
use crate::commands::certs::CertsArgs;
use crate::commands::cluster::ClusterArgs;
use crate::commands::consume::ConsumeArgs;
use crate::commands::exchange::ExchangeArgs;
use crate::commands::publish::PublishArgs;
use crate::commands::queue::QueueArgs;
use crate::commands::user::UserArgs;
use crate::local::demo::DemoArgs;
use crate::local::dev::DevArgs;
use crate::outcome::EXIT_CODES;
use crate::serve::ServeArgs;
use crate::serve::layers::FileLayer;

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
    /// Make, delete, purge, list, describe and bind queues
    Queue(QueueArgs),
    /// Say who may log in, and do what
    User(UserArgs),
    /// Look at the cluster
    Cluster(ClusterArgs),
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
}

/// Understands `arguments`. The configuration file of `serve` is read in between, and its values become defaults.
pub fn understand(arguments: Vec<std::ffi::OsString>) -> Result<Understood, clap::Error> {
    let command = CommandLine::command();
    let mut matches = command.clone().try_get_matches_from(&arguments)?;
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
        matches = layered.try_get_matches_from(&arguments).map_err(refused)?;
    }
    let command = CommandLine::from_arg_matches(&matches)?.command;
    Ok(Understood { command, matches, file })
}

/// The first paragraph of a clap error, without its "error: " and its advice on usage.
fn words_of(error: &clap::Error) -> String {
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
