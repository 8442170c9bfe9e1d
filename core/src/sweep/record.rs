//! When the sweep last ran and what it did, for `/readyz` and the operators.

use super::SweepReport;
use crate::{
    context::Landfall,
    periodic::{self, Fence, LastRun},
};
use entity::Timestamp;
use sea_orm::{ConnectionTrait, DbErr};

const NAME: &str = "sweep";

/// The last run there was, if any.
///
/// # Errors
/// The database's.
pub async fn last_run(db: &impl ConnectionTrait) -> Result<Option<LastRun>, DbErr> {
    periodic::last(db, NAME).await
}

/// Records that a sweep begins, unless one has begun at or after `due`; answers whether it did.
pub(super) async fn begin(
    landfall: &Landfall,
    at: Timestamp,
    due: Timestamp,
) -> Result<bool, DbErr> {
    periodic::begin(landfall, NAME, at, due, Fence::Begun).await
}

pub(super) async fn finished(
    landfall: &Landfall,
    started_at: Timestamp,
    report: &SweepReport,
) -> Result<(), DbErr> {
    periodic::finish(landfall, NAME, started_at, report).await
}
