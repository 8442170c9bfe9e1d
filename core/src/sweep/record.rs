//! When the sweep last ran and its report, for `/readyz` and operators.

use super::SweepReport;
use crate::{
    app::App,
    periodic::{self, LastRun, RunFence},
};
use entity::Timestamp;
use sea_orm::{ConnectionTrait, DbErr};

const NAME: &str = "sweep";

/// Returns the last run, if any.
///
/// # Errors
/// Database errors.
pub async fn last_run(db: &impl ConnectionTrait) -> Result<Option<LastRun>, DbErr> {
    periodic::last(db, NAME).await
}

/// Records the start of a sweep, unless one has started at or after `due`; returns whether it did.
pub(super) async fn begin(app: &App, at: Timestamp, due: Timestamp) -> Result<bool, DbErr> {
    periodic::begin(app, NAME, at, due, RunFence::Begun).await
}

pub(super) async fn finished(
    app: &App,
    started_at: Timestamp,
    report: &SweepReport,
) -> Result<(), DbErr> {
    periodic::finish(app, NAME, started_at, report).await
}
