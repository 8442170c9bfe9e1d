//! Bulk retry: counts the failed files that match a filter, then stages them again one by one.

use super::{FileFilter, OwnerScope, RetryError, list, retry, retryable_until};
use crate::{app::App, pagination::PageRequest};
use entity::{
    FileId,
    file::{FileStatus, Model},
};
use futures::{StreamExt, stream};
use sea_orm::DbErr;
use std::error::Error;

/// Maximum number of files counted or retried per call; the rest is left to another call.
pub const MAX_RETRIED: u64 = 10_000;

/// Files read per query.
const PAGE: u64 = 200;

/// Files staged concurrently.
const CONCURRENCY: usize = 16;

/// How many failed files match, and how many of them can be retried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkRetryPreview {
    /// Files that still have their bytes.
    pub retryable: u64,
    /// Files whose bytes are gone.
    pub gone: u64,
    /// Whether there are more matches than were counted.
    pub at_least: bool,
}

/// The result of a bulk retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkRetryResult {
    pub staged: u64,
    /// Files whose bytes are gone, whose owner's quota is exhausted, or that had not failed any more.
    pub refused: u64,
}

/// Counts the failed files that match; the filter's status is ignored.
///
/// # Errors
/// Database errors.
pub async fn preview_retry(
    app: &App,
    scope: &OwnerScope,
    filter: &FileFilter,
) -> Result<BulkRetryPreview, DbErr> {
    let mut forecast = BulkRetryPreview::default();
    let mut pages = MatchingPages::new(filter);
    while let Some(page) = pages.next(app, scope).await? {
        for file in &page {
            match retryable_until(file) {
                Some(_) => forecast.retryable += 1,
                None => forecast.gone += 1,
            }
        }
    }
    forecast.at_least = !pages.is_over;
    Ok(forecast)
}

/// Stages the matching failed files again and pushes their jobs. A crash in between leaves staged files whose jobs the
/// sweep pushes.
///
/// # Errors
/// Database errors; files staged before the error stay staged.
pub async fn retry_matching(
    app: &App,
    scope: &OwnerScope,
    filter: &FileFilter,
) -> Result<BulkRetryResult, DbErr> {
    let mut retried = BulkRetryResult::default();
    let mut pages = MatchingPages::new(filter);
    while let Some(page) = pages.next(app, scope).await? {
        let outcomes: Vec<_> = stream::iter(page)
            .map(|file| async move { (file.id, retry(app, scope, file.id, None).await) })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let mut staged: Vec<FileId> = Vec::new();
        for (id, outcome) in outcomes {
            match outcome {
                Ok(_) => staged.push(id),
                Err(RetryError::Database(error)) => return Err(error),
                Err(error) => {
                    tracing::debug!(file.id = %id, error = &error as &dyn Error, "the file was not retried");
                    retried.refused += 1;
                }
            }
        }
        app.dispatch.finalize(&staged).await;
        retried.staged += staged.len() as u64;
    }
    Ok(retried)
}

/// The matching failed files, page by page, up to [`MAX_RETRIED`].
struct MatchingPages {
    filter: FileFilter,
    request: PageRequest,
    seen: u64,
    is_over: bool,
}

impl MatchingPages {
    fn new(filter: &FileFilter) -> Self {
        let filter = FileFilter {
            status: Some(FileStatus::Failed),
            ..filter.clone()
        };
        let request = PageRequest {
            limit: PAGE,
            before: None,
        };
        Self {
            filter,
            request,
            seen: 0,
            is_over: false,
        }
    }

    async fn next(&mut self, app: &App, scope: &OwnerScope) -> Result<Option<Vec<Model>>, DbErr> {
        if self.is_over || self.seen >= MAX_RETRIED {
            return Ok(None);
        }
        let page = list(app.db.read(), scope, &self.filter, self.request).await?;
        let next = PageRequest::decode(PAGE, page.next_cursor.as_deref());
        self.is_over = page.next_cursor.is_none();
        self.request = next.unwrap_or(self.request);
        self.seen += page.items.len() as u64;
        Ok(Some(page.items))
    }
}
