//! What happened in each minute, for charts that cost nothing to draw.
//!
//! Owns the rows of `minute_counts`. Files are counted in memory once they are committed and written within a second,
//! all that came together in one statement: a row that every upload changed in its own transaction would have them
//! wait for each other. So a crash loses at most a second of a chart, and of nothing else: no promise rests on these.

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

/// How long counts are gathered before they are written.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Minutes whose counts are kept: two weeks.
pub const RETENTION_MINUTES: i64 = 14 * 24 * 60;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActivityMetric {
    /// Files all of whose bytes are staged.
    FilesReceived,
    /// Their bytes.
    BytesReceived,
    FilesStored,
    FilesFailed,
    /// Deliveries that got their 2xx.
    DeliveriesDelivered,
    AttemptsFailed,
}

impl ActivityMetric {
    /// As it is stored.
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

/// Counts of this process that are not written yet.
#[derive(Debug, Default)]
pub(crate) struct ActivityBuffer(Mutex<PendingCounts>);

#[derive(Debug, Default)]
struct PendingCounts {
    counts: MinuteCounts,
    /// A task will write them.
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

/// Counts what has just been committed; it is written within a second, and nobody waits for it.
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

/// Writes what has been counted so far: before a process ends.
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
        // With the next ones, perhaps; a chart is worth no retries of its own.
        tracing::debug!(%error, "counts of this minute are not written yet");
        let mut gathered = db.activity().lock();
        if gathered.counts.len() < 1000 {
            for (which, count) in counts {
                *gathered.counts.entry(which).or_default() += count;
            }
        }
    }
}

/// Adds to the rows. Its rows are everybody's: the last statement of a transaction, in the order of the key.
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

/// What was counted in the last minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActivitySeries {
    /// The first minute since the Unix epoch; as many follow as were asked for, the last of them is still counted.
    pub first: i64,
    /// For each minute.
    pub files_received: Vec<u64>,
    pub bytes_received: Vec<u64>,
    pub files_stored: Vec<u64>,
    pub files_failed: Vec<u64>,
    pub deliveries_delivered: Vec<u64>,
    pub attempts_failed: Vec<u64>,
}

/// The counts of the last `minutes` minutes up to now: a range of the primary key, six rows for each minute at most.
///
/// # Errors
/// The database's.
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

/// Removes counts that are older than two weeks: what came since the last sweep, so few; tells how many.
///
/// # Errors
/// The database's.
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
