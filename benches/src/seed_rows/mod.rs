//! Millions of rows for benchmarks: every table as a busy installation would have filled it in a week, in all states.
//!
//! The databases generate the rows from their numbers, so two runs of one size are alike. The files have no bytes. A
//! database with any file or event is rejected, so existing data is never mixed with it.

mod events;
mod rows;
mod sql;

use entity::{Timestamp, file, outbox_event};
use landfall_core::db::Database;
use rows::RowGenerator;
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, QuerySelect};
use sql::Dialect;

/// Files or events per transaction.
const PAGE: u64 = 25_000;

/// The amount of data.
#[derive(Clone, Copy, Debug)]
pub struct SeedAmount {
    pub files: u64,
    /// Each with one or two deliveries and their attempts.
    pub events: u64,
    /// The newest rows are from about this time, the oldest from a week earlier.
    pub until: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error("the database already has files or events; use an empty database")]
    NotEmpty,
    #[error("the rows could not be written")]
    Database(#[from] DbErr),
}

/// Fills the database, and reports the number of files and events after each page.
///
/// # Errors
/// [`SeedError`]; earlier pages are kept.
pub async fn seed(
    db: &Database,
    amount: SeedAmount,
    progress: impl Fn(u64),
) -> Result<(), SeedError> {
    let file = file::Entity::find().limit(1).one(db.read()).await?;
    let event = outbox_event::Entity::find().limit(1).one(db.read()).await?;
    if file.is_some() || event.is_some() {
        return Err(SeedError::NotEmpty);
    }
    let rows = RowGenerator::new(Dialect(db.backend()), amount);
    write(db, rows.once()).await?;
    for (first, last) in pages(amount.files) {
        write(db, rows.of_files(first, last)).await?;
        progress(last);
    }
    for (first, last) in pages(amount.events) {
        write(db, rows.of_events(first, last)).await?;
        progress(amount.files + last);
    }
    write(db, vec!["ANALYZE".to_owned()]).await?;
    Ok(())
}

/// The first and last number of each page; rows are numbered from 1.
fn pages(count: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..count.div_ceil(PAGE)).map(move |page| (page * PAGE + 1, ((page + 1) * PAGE).min(count)))
}

async fn write(db: &Database, statements: Vec<String>) -> Result<(), DbErr> {
    db.write(move |transaction| {
        Box::pin(async move {
            for statement in statements {
                transaction.execute_unprepared(&statement).await?;
            }
            Ok(())
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_every_number_once() {
        let all: Vec<_> = pages(2 * PAGE + 1).collect();
        let (last, end) = (2 * PAGE, 2 * PAGE + 1);
        assert_eq!(all, [(1, PAGE), (PAGE + 1, last), (end, end)]);
        assert_eq!(pages(0).count(), 0);
    }
}
