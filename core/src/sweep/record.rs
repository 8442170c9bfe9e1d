//! When the sweep last ran and what it did, for `/readyz` and the operators.

use super::SweepReport;
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

const NAME: &str = "sweep";

/// The last run of the sweep.
#[derive(Clone, Debug)]
pub struct LastRun {
    pub started_at: Timestamp,
    /// None while it runs, or if it was ended in the middle.
    pub finished_at: Option<Timestamp>,
    pub report: Option<serde_json::Value>,
}

/// The last run there was, if any.
///
/// # Errors
/// The database's.
pub async fn last_run(db: &impl ConnectionTrait) -> Result<Option<LastRun>, DbErr> {
    let row = Entity::find_by_id(NAME.to_owned()).one(db).await?;
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

/// Records that a sweep begins, unless one has begun at or after `due`; answers whether it did. Of several that try
/// at once, one does.
pub(super) async fn begin(
    landfall: &Landfall,
    at: Timestamp,
    due: Timestamp,
) -> Result<bool, DbErr> {
    let row = ActiveModel {
        name: Set(NAME.to_owned()),
        started_at: Set(at),
        ..Default::default()
    };
    landfall
        .db
        .write(move |transaction| {
            Box::pin(async move {
                let unless_begun = OnConflict::column(Column::Name)
                    .update_columns([Column::StartedAt])
                    .action_and_where(Expr::col((Entity, Column::StartedAt)).lt(due))
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

pub(super) async fn finished(
    landfall: &Landfall,
    started_at: Timestamp,
    report: &SweepReport,
) -> Result<(), DbErr> {
    let report = serde_json::to_value(report).map_err(|error| DbErr::Json(error.to_string()))?;
    let row = Model {
        name: NAME.to_owned(),
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
