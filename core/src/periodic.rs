//! When each periodic job last ran and what it found: the rows of `periodic_runs`.
//!
//! Owns the fence that lets one of several processes begin a run. What a run does is not its business.

use crate::{app::App, clock::later};
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
use std::time::Duration;

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

/// A run that began later than now by more than this began by a clock that was set back since, and counts for nothing.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Which run keeps another from beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunFence {
    /// One that has begun since.
    Begun,
    /// One that has begun since and came to its end: an interrupted one is begun again.
    Finished,
}

/// Records that a run begins at `at`, unless one that counts has begun at or after `due`; answers whether it did. Of
/// several that try at once, one does.
pub(crate) async fn begin(
    app: &App,
    name: &'static str,
    at: Timestamp,
    due: Timestamp,
    fence: RunFence,
) -> Result<bool, DbErr> {
    let row = ActiveModel {
        name: Set(name.to_owned()),
        started_at: Set(at),
        ..Default::default()
    };
    let column = |column| Expr::col((Entity, column));
    let mut may = column(Column::StartedAt)
        .lt(due)
        .or(column(Column::StartedAt).gt(later(at, MAX_CLOCK_SKEW)));
    if fence == RunFence::Finished {
        may = may
            .or(column(Column::FinishedAt).is_null())
            .or(column(Column::FinishedAt).lt(column(Column::StartedAt)));
    }
    app.db
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
    app: &App,
    name: &'static str,
    started_at: Timestamp,
    report: &impl Serialize,
) -> Result<(), DbErr> {
    let report = serde_json::to_value(report).map_err(|error| DbErr::Json(error.to_string()))?;
    let row = Model {
        name: name.to_owned(),
        started_at,
        finished_at: Some(app.clock.now()),
        report: Some(report),
    };
    app.db
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

/// The ticks of a periodic job: every multiple of a number of seconds since the Unix epoch.
#[derive(Clone, Debug)]
pub struct Ticks {
    seconds: i64,
    last: Option<i64>,
}

impl Ticks {
    /// Intervals are rounded up to whole seconds.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        let seconds = interval.as_secs() + u64::from(interval.subsec_nanos() > 0);
        Self {
            seconds: i64::try_from(Ord::max(seconds, 1)).unwrap_or(i64::MAX),
            last: None,
        }
    }

    /// The tick that has come since this was asked last, in seconds since the epoch. A clock that was set, forward or
    /// back, is at another tick.
    pub fn since_last(&mut self, now: Timestamp) -> Option<u64> {
        let tick = now.timestamp().div_euclid(self.seconds) * self.seconds;
        match self.last.replace(tick) {
            Some(last) if last != tick => u64::try_from(tick).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_timestamp(second, 0).unwrap()
    }

    #[test]
    fn every_interval_ticks_once_whatever_the_clock_does() {
        let mut ticks = Ticks::new(Duration::from_secs(300));
        assert_eq!(ticks.since_last(at(3_001)), None, "it has just begun");
        assert_eq!(ticks.since_last(at(3_299)), None);
        assert_eq!(ticks.since_last(at(3_300)), Some(3_300));
        assert_eq!(ticks.since_last(at(3_301)), None);
        let set_forward = ticks.since_last(at(6_901));
        assert_eq!(set_forward, Some(6_900));
        let set_back = ticks.since_last(at(3_302));
        assert_eq!(set_back, Some(3_300));
        assert_eq!(ticks.since_last(at(3_600)), Some(3_600));
    }
}
