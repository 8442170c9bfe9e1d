//! When each periodic job last ran, and its report: the rows of `periodic_runs`.
//!
//! Owns the fence that lets only one of several processes start a run. Knows nothing about what a run does.

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
    /// When the last completed run finished. Older than `started_at` while a run is in progress, or if one was
    /// interrupted.
    pub finished_at: Option<Timestamp>,
    /// The report of the last completed run.
    pub report: Option<serde_json::Value>,
}

/// Returns the last run, if any.
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

/// A recorded start further in the future than this was made by a clock that was set back since, and is ignored.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Which earlier run prevents a new one from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunFence {
    /// Any run that has started since.
    Begun,
    /// A run that has started since and finished; an interrupted run is started again.
    Finished,
}

/// Records the start of a run at `at`, unless a relevant run started at or after `due`, and returns whether it did. Of
/// several concurrent calls, one succeeds.
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

/// Records the end of the run that started at `started_at`.
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
    /// The interval is rounded up to whole seconds.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        let seconds = interval.as_secs() + u64::from(interval.subsec_nanos() > 0);
        Self {
            seconds: i64::try_from(Ord::max(seconds, 1)).unwrap_or(i64::MAX),
            last: None,
        }
    }

    /// Returns the tick that occurred since the last call, if any, in seconds since the epoch. Setting the clock
    /// forward or back counts as another tick.
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
