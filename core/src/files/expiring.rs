//! Announces stored files that are about to expire, once per file and ahead of time. Run by the sweep.
//!
//! The mark on the row and the event are written in one transaction, so a crash leaves both or neither, and the next
//! sweep continues with unmarked files. A file that has already expired is no longer announced, only deleted.

use crate::{
    app::App,
    batcher::ClassifyError,
    outbox::{self, FileExpiring, NewEvent, WrittenEvent},
    storage::{InvalidStorageKey, StorageError, StorageKey},
};
use entity::{
    FileId, Timestamp,
    file::{Column, Entity, Model},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::Expr,
};
use std::{collections::HashMap, time::Duration};

/// Files announced in one transaction.
const PAGE: u64 = 100;

/// Maximum number of pages per call; the rest is left to the next call.
const MAX_PAGES: usize = 1000;

/// Maximum number of files that cannot be announced before the rest is left to the next sweep.
const MAX_STUCK: usize = 100;

// A literal, not bound values, so that the partial index `files_expiring` is used.
const UNANNOUNCED: &str =
    "status = 'stored' AND expires_at IS NOT NULL AND expiring_announced_at IS NULL";

/// Why expiring files could not be announced. Files announced before the error stay announced.
#[derive(Debug, thiserror::Error)]
pub enum ExpiringError {
    #[error("a row has an invalid storage key")]
    Key(#[from] InvalidStorageKey),
    #[error("no URL can be made for an object")]
    Url(#[from] StorageError),
    #[error("the expiry could not be announced")]
    Outbox(#[from] outbox::WriteError),
    #[error("the expiring files could not be read or marked")]
    Database(#[from] DbErr),
}

impl ClassifyError for ExpiringError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) | Self::Outbox(outbox::WriteError::Database(error)) => {
                error.is_transient()
            }
            Self::Key(_) | Self::Url(_) | Self::Outbox(_) => false,
        }
    }
}

/// Writes `file.expiring` for each stored file that expires within `notice` and was not announced before, pushes the
/// deliveries, and returns the number of files. Safe to run concurrently. A file that cannot be announced does not stop
/// the others.
///
/// # Errors
/// [`ExpiringError`]; that of the last file that could not be announced, with all others announced.
pub async fn announce_expiring(app: &App, notice: Duration) -> Result<u64, ExpiringError> {
    let (mut announced, mut stuck, mut fault) = (0, Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page = due(app, notice, &stuck).await?;
        if page.is_empty() || stuck.len() >= MAX_STUCK {
            break;
        }
        let whole = page.len() as u64 == PAGE;
        announced += match announce(app, &page).await {
            Err(error) if !error.is_transient() => {
                let (announced, last) = announce_each(app, &page, &mut stuck).await?;
                fault = last.or(fault);
                announced
            }
            outcome => outcome?,
        };
        if !whole {
            break;
        }
    }
    match fault {
        Some(fault) => Err(fault),
        None => Ok(announced),
    }
}

/// By itself, so that the one that cannot be announced is found, and passed over from now on.
async fn announce_each(
    app: &App,
    page: &[Model],
    stuck: &mut Vec<FileId>,
) -> Result<(u64, Option<ExpiringError>), ExpiringError> {
    let (mut announced, mut fault) = (0, None);
    for file in page {
        match announce(app, std::slice::from_ref(file)).await {
            Ok(one) => announced += one,
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                tracing::error!(file.id = %file.id, %error, "the expiry of a file cannot be announced");
                stuck.push(file.id);
                fault = Some(error);
            }
        }
    }
    Ok((announced, fault))
}

async fn due(app: &App, notice: Duration, stuck: &[FileId]) -> Result<Vec<Model>, DbErr> {
    let mut query = Entity::find().filter(Expr::cust(UNANNOUNCED));
    if !stuck.is_empty() {
        query = query.filter(Column::Id.is_not_in(stuck.iter().copied()));
    }
    query
        .filter(Column::ExpiresAt.gt(app.clock.now()))
        .filter(Column::ExpiresAt.lte(app.clock.after(notice)))
        .order_by_asc(Column::ExpiresAt)
        .limit(PAGE)
        .all(app.db.read())
        .await
}

async fn announce(app: &App, page: &[Model]) -> Result<u64, ExpiringError> {
    let now = app.clock.now();
    let mut urls = HashMap::with_capacity(page.len());
    for file in page {
        // A stored file always has a key.
        if let Some(key) = &file.storage_key {
            let url = app.url_of(file.id, &key.parse::<StorageKey>()?).await?;
            urls.insert(file.id, url);
        }
    }
    let written = app
        .db
        .write(move |transaction| {
            Box::pin(async move { mark_and_write(transaction, &urls, now).await })
        })
        .await?;
    for one in &written {
        app.dispatch.deliver(&one.due).await;
    }
    Ok(written.len() as u64)
}

/// Marks the files that are still stored and unannounced, and writes an event for exactly those.
async fn mark_and_write(
    transaction: &impl ConnectionTrait,
    urls: &HashMap<FileId, String>,
    now: Timestamp,
) -> Result<Vec<WrittenEvent>, ExpiringError> {
    let marked = Entity::update_many()
        .col_expr(Column::ExpiringAnnouncedAt, Expr::value(now))
        .filter(Column::Id.is_in(urls.keys().copied()))
        .filter(Expr::cust(UNANNOUNCED))
        .exec_with_returning(transaction)
        .await?;
    let mut written = Vec::with_capacity(marked.len());
    for file in marked {
        if let (Some(url), Some(expires_at)) = (urls.get(&file.id), file.expires_at) {
            let payload = FileExpiring::from_model(&file, url.clone(), expires_at);
            let event = NewEvent::file_expiring(payload, &file);
            written.push(outbox::write(transaction, now, event).await?);
        }
    }
    Ok(written)
}
