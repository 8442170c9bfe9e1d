//! Logs: to standard error, for people or for machines.

use landfall_core::config::{Log, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt};

/// Crates whose everyday is no news here; naming them in `log.level` brings them back.
const QUIET: &str = "sea_orm_migration=warn,apalis_core=warn";

/// Starts logging for the whole process. A filter that cannot be read falls back to `info`, and says so.
pub(super) fn start(log: &Log) {
    let (filter, problem) = match EnvFilter::try_new(format!("{QUIET},{}", log.level)) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match log.format {
        LogFormat::Human => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    if let Some(error) = problem {
        tracing::warn!(%error, "log.level is not a filter, logging at `info`");
    }
}
