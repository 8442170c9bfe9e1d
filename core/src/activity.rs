//! Counts of what happened in each minute, so that charts are cheap to draw.
//!
//! Owns the rows of `minute_counts`. Files are counted in memory after their commit and written within a second, all
//! counts in one statement; if every upload updated a shared row in its own transaction, uploads would wait for each
//! other. A crash loses at most one second of a chart, and nothing else depends on these counts.

use crate::{clock::Clock, db::Database};
use entity::{
    Timestamp,
    minute_count::{ActiveModel, Column, Entity},
};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect,
    sea_query::{Expr, ExprTrait, OnConflict},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long counts are buffered before they are written.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// How many minutes of counts are kept: two weeks.
pub const RETENTION_MINUTES: i64 = 14 * 24 * 60;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActivityMetric {
    /// Files whose bytes are all staged.
    FilesReceived,
    /// Bytes of those files.
    BytesReceived,
    FilesStored,
    FilesFailed,
    /// Deliveries answered with a 2xx.
    DeliveriesDelivered,
    AttemptsFailed,
}

impl ActivityMetric {
    /// The name under which the metric is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FilesReceived => "files_received",
            Self::BytesReceived => "bytes_received",
            Self::FilesStored => "files_stored",
            Self::FilesFailed => "files_failed",
            Self::DeliveriesDelivered => "deliveries_delivered",
            Self::AttemptsFailed => "attempts_failed",
        }
    }
}

type MinuteCounts = BTreeMap<(i64, ActivityMetric), u64>;

/// Counts of this process that have not been written yet.
#[derive(Debug, Default)]
pub(crate) struct ActivityBuffer(Mutex<PendingCounts>);

#[derive(Debug, Default)]
struct PendingCounts {
    counts: MinuteCounts,
    /// Whether a task is already scheduled to write the counts.
    is_awaited: bool,
}

impl ActivityBuffer {
    fn lock(&self) -> MutexGuard<'_, PendingCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, counts: impl IntoIterator<Item = ((i64, ActivityMetric), u64)>) -> bool {
        let mut gathered = self.lock();
        for (which, count) in counts {
            *gathered.counts.entry(which).or_default() += count;
        }
        !std::mem::replace(&mut gathered.is_awaited, true)
    }

    fn drain(&self) -> MinuteCounts {
        let mut gathered = self.lock();
        gathered.is_awaited = false;
        std::mem::take(&mut gathered.counts)
    }
}

/// Counts what has just been committed. The counts are written within a second, and the caller does not wait.
pub fn count(db: &Database, clock: &Clock, counts: &[(ActivityMetric, u64)]) {
    let minute = unix_minute(clock.now());
    let counts = counts.iter().map(|(what, count)| ((minute, *what), *count));
    if db.activity().add(counts) {
        let db = db.clone();
        tokio::spawn(async move {
            tokio::time::sleep(FLUSH_INTERVAL).await;
            write(&db).await;
        });
    }
}

/// Writes the counts buffered so far. Called before the process ends.
pub async fn write(db: &Database) {
    let counts = db.activity().drain();
    if counts.is_empty() {
        return;
    }
    let written = {
        let counts = counts.clone();
        db.write(move |transaction| Box::pin(async move { add(transaction, counts).await }))
            .await
    };
    if let Err(error) = written {
        // They are written with the next counts, if any; a chart is not worth a retry.
        tracing::debug!(%error, "counts of this minute are not written yet");
        let mut gathered = db.activity().lock();
        if gathered.counts.len() < 1000 {
            for (which, count) in counts {
                *gathered.counts.entry(which).or_default() += count;
            }
        }
    }
}

/// Adds the counts to the rows. All processes share these rows, so this must be the last statement of a transaction,
/// and rows are updated in key order.
async fn add(
    transaction: &impl ConnectionTrait,
    counts: BTreeMap<(i64, ActivityMetric), u64>,
) -> Result<(), DbErr> {
    let mut rows: Vec<_> = counts
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|((minute, what), count)| (minute, what.as_str(), count))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    rows.sort_unstable();
    let rows = rows.into_iter().map(|(minute, name, count)| ActiveModel {
        minute: Set(minute),
        name: Set(name.to_owned()),
        count: Set(i64::try_from(count).unwrap_or(i64::MAX)),
    });
    let sum = Expr::col((Entity, Column::Count)).add(Expr::cust("excluded.count"));
    Entity::insert_many(rows)
        .on_conflict(
            OnConflict::columns([Column::Minute, Column::Name])
                .value(Column::Count, sum)
                .to_owned(),
        )
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// The counts of the last minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActivitySeries {
    /// The first minute, counted from the Unix epoch. The last minute of the series is still in progress.
    pub first: i64,
    /// One count per minute, as in the following series.
    pub files_received: Vec<u64>,
    pub bytes_received: Vec<u64>,
    pub files_stored: Vec<u64>,
    pub files_failed: Vec<u64>,
    pub deliveries_delivered: Vec<u64>,
    pub attempts_failed: Vec<u64>,
}

/// Returns the counts of the last `minutes` minutes up to now: a range of the primary key, at most six rows per minute.
///
/// # Errors
/// Database errors.
pub async fn last(
    db: &impl ConnectionTrait,
    clock: &Clock,
    minutes: u32,
) -> Result<ActivitySeries, DbErr> {
    let first = unix_minute(clock.now()) - i64::from(minutes) + 1;
    let rows: Vec<(i64, String, i64)> = Entity::find()
        .select_only()
        .columns([Column::Minute, Column::Name, Column::Count])
        .filter(Column::Minute.gte(first))
        .into_tuple()
        .all(db)
        .await?;
    let zeros = || vec![0; usize::try_from(minutes).unwrap_or(0)];
    let mut found = ActivitySeries {
        first,
        files_received: zeros(),
        bytes_received: zeros(),
        files_stored: zeros(),
        files_failed: zeros(),
        deliveries_delivered: zeros(),
        attempts_failed: zeros(),
    };
    for (minute, name, count) in rows {
        let at = usize::try_from(minute - first).unwrap_or(usize::MAX);
        if let Some(slot) = found.series(&name).and_then(|series| series.get_mut(at)) {
            *slot = u64::try_from(count).unwrap_or(0);
        }
    }
    Ok(found)
}

impl ActivitySeries {
    fn series(&mut self, name: &str) -> Option<&mut Vec<u64>> {
        Some(match name {
            "files_received" => &mut self.files_received,
            "bytes_received" => &mut self.bytes_received,
            "files_stored" => &mut self.files_stored,
            "files_failed" => &mut self.files_failed,
            "deliveries_delivered" => &mut self.deliveries_delivered,
            "attempts_failed" => &mut self.attempts_failed,
            _ => return None,
        })
    }
}

/// Deletes counts older than two weeks and returns how many rows were deleted. Only those since the last sweep are
/// left, so there are few.
///
/// # Errors
/// Database errors.
pub async fn forget(db: &Database, clock: &Clock) -> Result<u64, DbErr> {
    let oldest = unix_minute(clock.now()) - RETENTION_MINUTES;
    db.write(move |transaction| {
        Box::pin(async move {
            let deleted = Entity::delete_many()
                .filter(Column::Minute.lt(oldest))
                .exec(transaction)
                .await?;
            Ok(deleted.rows_affected)
        })
    })
    .await
}

fn unix_minute(moment: Timestamp) -> i64 {
    moment.timestamp().div_euclid(60)
}
