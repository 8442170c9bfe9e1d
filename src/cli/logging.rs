//! Logging to standard error, human-readable or JSON, and the export of spans, if configured.

use super::json_log::JsonLines;
use crate::telemetry::{self, Traces};
use landfall_core::config::{LogConfig, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::filter_fn,
    fmt::{self, format::JsonFields},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Crates whose routine messages are filtered out, or that would log the same for every waiting request, which
/// `/readyz` reports once. Naming them in `log.level` enables them.
const QUIET: &str = "sea_orm_migration=warn,apalis_core=warn,sqlx::pool::acquire=error,sqlx::postgres::notice=error";

/// Starts logging for the whole process, and exporting spans if configured. An invalid filter falls back to `info`,
/// with a warning.
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
        LogFormat::Json => lines
            .fmt_fields(JsonFields::new())
            .event_format(JsonLines::new())
            .with_ansi(false)
            .boxed(),
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
        tracing::warn!(%error, "log.level is not a valid filter, using `info`");
    }
}
