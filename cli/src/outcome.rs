//! How a command ends, and the exit codes that say so.

use std::io;
use std::process::ExitCode;

/// Shown at the end of `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  not done: refused or given up, and it will not happen any more
  2  bad usage or configuration: nothing was tried
  3  unknown: the connection or the leader was lost; it may be done or not";

/// Why a command did not end well.
#[derive(Debug)]
pub enum Failure {
    /// Not done. Says why.
    NotDone(String),
    /// Nothing was tried. Says what is wrong with what was asked.
    Usage(String),
    /// Nobody knows whether it was done.
    Unknown(String),
    /// Whoever read our output has had enough, as `head` does: no reason to complain.
    OutputClosed,
    /// A signal ended it before its end.
    Interrupted,
}

impl Failure {
    /// Anything that means "not done".
    pub fn not_done(why: impl ToString) -> Failure {
        Failure::NotDone(why.to_string())
    }

    /// Anything that means "asked wrongly".
    pub fn usage(why: impl ToString) -> Failure {
        Failure::Usage(why.to_string())
    }
}

/// From writing to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::NotDone(error.to_string()),
        }
    }
}

/// Says on standard error what went wrong, and gives the exit code.
pub fn report(ended: Result<(), Failure>) -> ExitCode {
    let (code, words) = match ended {
        Ok(()) => return ExitCode::SUCCESS,
        // As a process that SIGPIPE ends: not zero, and no words.
        Err(Failure::OutputClosed) => return ExitCode::FAILURE,
        Err(Failure::NotDone(why)) => (1, why),
        Err(Failure::Interrupted) => (1, "stopped by a signal".to_owned()),
        Err(Failure::Usage(why)) => (2, why),
        Err(Failure::Unknown(why)) => (3, format!("{why}\nIt is unknown whether it was done.")),
    };
    eprintln!("error: {words}");
    ExitCode::from(code)
}
