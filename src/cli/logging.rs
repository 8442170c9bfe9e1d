//! Logs: to standard error, for people or for machines. Spans: to a collector, where one is set.

use crate::telemetry::{self, Traces};
use landfall_core::config::{LogConfig, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

/// Crates whose everyday is no news here, or who say of each request alike that it waited: the checks of `/readyz` tell
/// of it once. Naming them in `log.level` brings them back.
const QUIET: &str = "sea_orm_migration=warn,apalis_core=warn,sqlx::pool::acquire=error";

/// Starts logging for the whole process, and collecting if there is somebody to collect. A filter that cannot be
/// read falls back to `info`, and says so.
pub(super) fn start(log: &LogConfig, traces: Option<&Traces>) {
    let (filter, problem) = match EnvFilter::try_new(format!("{QUIET},{}", log.level)) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match log.format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let spans = traces.map(|collecting| {
        tracing_opentelemetry::layer()
            .with_tracer(collecting.tracer())
            .with_location(false)
            .with_threads(false)
            .with_level(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(telemetry::is_exported))
    });
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(spans)
        .init();
    if let Some(error) = problem {
        tracing::warn!(%error, "log.level is not a filter, logging at `info`");
    }
}
