//! Logs: to standard error, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::settings::LogFormat;
use crate::outcome::Failure;

/// At a bare level, libraries are heard only on errors: the broker says the same in terms of what it means.
const QUIETER: &str = "zookeeper=error,zookeeper_client=error,hyper=error";

/// Starts logging. Called once.
pub fn start(format: LogFormat, filter: Option<&str>) -> Result<(), Failure> {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter =
        filter.map(str::to_owned).or(from_environment).unwrap_or_else(|| "info".to_owned());
    let bare_level = !filter.contains(['=', ',']);
    let directives = if bare_level { format!("{filter},{QUIETER}") } else { filter.clone() };
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        Failure::usage(format!("--log {filter}: {error}; give a level such as info or debug"))
    })?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => {
            subscriber.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
        }
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    started.map_err(Failure::not_done)
}
