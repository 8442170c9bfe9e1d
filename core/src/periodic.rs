//! When each periodic job last ran and what it found: the rows of `periodic_runs`.
//!
//! Owns the fence that lets one of several processes begin a run. What a run does is not its business.

use crate::context::Landfall;
use entity::{
    Timestamp,
    periodic_run::{ActiveModel, Column, Entity, Model},
};
use sea_orm::{
    ActiveValue::Set,
    ConnectionTrait, DbErr, EntityTrait, IntoActiveModel,
    sea_query::{Expr, ExprTrait, OnConflict},
};
use serde::Serialize;

/// The last run of a periodic job.
#[derive(Clone, Debug)]
pub struct LastRun {
    pub started_at: Timestamp,
    /// Of the last run that came to its end; older than `started_at` while one runs or when one was interrupted.
    pub finished_at: Option<Timestamp>,
    /// Of the last run that came to its end.
    pub report: Option<serde_json::Value>,
}

/// The last run there was, if any.
pub(crate) async fn last(db: &impl ConnectionTrait, name: &str) -> Result<Option<LastRun>, DbErr> {
    let row = Entity::find_by_id(name.to_owned()).one(db).await?;
    Ok(row.map(
        |Model {
             started_at,
             finished_at,
             report,
             ..
         }| LastRun {
            started_at,
            finished_at,
            report,
        },
    ))
}

/// Which run keeps another from beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fence {
    /// One that has begun since.
    Begun,
    /// One that has begun since and came to its end: an interrupted one is begun again.
    Finished,
}

/// Records that a run begins at `at`, unless one that counts has begun at or after `due`; answers whether it did. Of
/// several that try at once, one does.
pub(crate) async fn begin(
    landfall: &Landfall,
    name: &'static str,
    at: Timestamp,
    due: Timestamp,
    fence: Fence,
) -> Result<bool, DbErr> {
    let row = ActiveModel {
        name: Set(name.to_owned()),
        started_at: Set(at),
        ..Default::default()
    };
    let column = |column| Expr::col((Entity, column));
    let mut may = column(Column::StartedAt).lt(due);
    if fence == Fence::Finished {
        may = may
            .or(column(Column::FinishedAt).is_null())
            .or(column(Column::FinishedAt).lt(column(Column::StartedAt)));
    }
    landfall
        .db
        .write(move |transaction| {
            Box::pin(async move {
                let unless_begun = OnConflict::column(Column::Name)
                    .update_columns([Column::StartedAt])
                    .action_and_where(may)
                    .to_owned();
                let inserted = Entity::insert(row)
                    .on_conflict(unless_begun)
                    .exec_without_returning(transaction)
                    .await?;
                Ok(inserted == 1)
            })
        })
        .await
}

/// Records that the run which began at `started_at` is over.
pub(crate) async fn finish(
    landfall: &Landfall,
    name: &'static str,
    started_at: Timestamp,
    report: &impl Serialize,
) -> Result<(), DbErr> {
    let report = serde_json::to_value(report).map_err(|error| DbErr::Json(error.to_string()))?;
    let row = Model {
        name: name.to_owned(),
        started_at,
        finished_at: Some(landfall.clock.now()),
        report: Some(report),
    };
    landfall
        .db
        .write(move |transaction| {
            Box::pin(async move {
                let replace = OnConflict::column(Column::Name)
                    .update_columns([Column::FinishedAt, Column::Report])
                    .to_owned();
                let row = row.into_active_model();
                Entity::insert(row)
                    .on_conflict(replace)
                    .exec_without_returning(transaction)
                    .await
                    .map(drop)
            })
        })
        .await
}
