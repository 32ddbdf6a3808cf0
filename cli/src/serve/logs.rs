//! Logs: to standard error, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use super::settings::LogFormat;
use crate::outcome::Failure;

/// At a bare level, libraries are heard only on errors: the broker says the same in terms of what it means.
const QUIETER: &str = "zookeeper=error,zookeeper_client=error,hyper=error";

/// Changes what is logged.
pub struct LogDial(Option<reload::Handle<EnvFilter, Registry>>);

impl LogDial {
    /// From now on.
    ///
    /// # Errors
    /// The log has ended.
    pub fn set(&self, filter: EnvFilter) -> Result<(), String> {
        match &self.0 {
            Some(handle) => handle.reload(filter).map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    /// Of a process that does not log.
    #[cfg(test)]
    pub fn none() -> LogDial {
        LogDial(None)
    }
}

/// What `log` means; without it RUST_LOG, or else info. An error begins with what was given.
pub fn filter(given: Option<&str>) -> Result<EnvFilter, String> {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = given.map(str::to_owned).or(from_environment).unwrap_or_else(|| "info".to_owned());
    let bare_level = !filter.contains(['=', ',']);
    let directives = if bare_level { format!("{filter},{QUIETER}") } else { filter.clone() };
    EnvFilter::try_new(directives)
        .map_err(|error| format!("{filter}: {error}; give a level such as info or debug"))
}

/// Starts logging. Called once.
pub fn start(format: LogFormat, given: Option<&str>) -> Result<LogDial, Failure> {
    let filter = filter(given).map_err(|why| Failure::usage(format!("--log {why}")))?;
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => {
            let lines = lines.with_ansi(std::io::stderr().is_terminal()).with_target(false);
            registry.with(lines).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    started.map_err(Failure::not_done)?;
    Ok(LogDial(Some(handle)))
}
