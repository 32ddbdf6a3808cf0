//! The binary `bellwether`: `serve`, `dev`, `demo`, and the commands of operators and users.

mod args;
mod commands;
#[cfg(test)]
mod deployment;
mod local;
mod outcome;
mod progress;
mod serve;
mod signals;
mod values;

use std::process::ExitCode;

use args::{Command, Understood};
use outcome::{Failure, report};

fn main() -> ExitCode {
    let understood = match args::understand(&std::env::args_os().collect::<Vec<_>>()) {
        Ok(understood) => understood,
        // Help and version are no errors, and go to standard output.
        Err(error) => error.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return report(Err(Failure::not_done(format!("cannot start the runtime: {error}"))));
        }
    };
    let ended = runtime.block_on(run(understood));
    // What still blocks a thread (a read of standard input, say) must not hold up the exit.
    runtime.shutdown_background();
    report(ended)
}

async fn run(understood: Understood) -> Result<(), Failure> {
    let Understood { command, matches, file, arguments } = understood;
    match command {
        Command::Serve(args) => {
            let matches = matches
                .subcommand_matches("serve")
                .expect("this is the subcommand that was chosen");
            serve::run(*args, matches, &file, arguments).await
        }
        Command::Demo(args) => local::demo::run(args).await,
        Command::Dev(args) => local::dev::run(args).await,
        Command::Publish(args) => commands::publish::run(args).await,
        Command::Consume(args) => commands::consume::run(args).await,
        Command::Exchange(args) => commands::exchange::run(args).await,
        Command::Queue(args) => commands::queue::run(args).await,
        Command::User(args) => commands::user::run(args).await,
        Command::Cluster(args) => commands::cluster::run(args).await,
        Command::Backup(args) => commands::backup::backup(args).await,
        Command::Restore(args) => commands::backup::restore(args).await,
        Command::Elections(args) => commands::elections::run(args).await,
        Command::Recover(args) => commands::recover::run(args).await,
        Command::Certs(args) => commands::certs::run(&args),
        Command::Bench(args) => commands::bench::run(args).await,
    }
}
