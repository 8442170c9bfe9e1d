//! Actions on a file.

use crate::{
    api::{Download, download},
    dashboard::{error::ErrorPage, repair, session::User, state::Dashboard},
};
use entity::FileId;
use landfall_core::files::{self, DeleteError, FinalizeNowError, RetryError};
use poem::{Request, Response, Result, handler, web::Path};
use serde_json::json;
use uuid::Uuid;

/// Downloads the file, as the API does.
#[handler]
pub(super) async fn content(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
    request: &Request,
) -> Result<Download> {
    let db = dashboard.app().db.read();
    let found = files::get(db, &user.sees(), FileId(id))
        .await
        .map_err(ErrorPage::from)?;
    let file = found.ok_or_else(|| ErrorPage::not_found("file with this id"))?;
    let sent = download(dashboard.api(), file, request).await;
    Ok(
        sent.map_err(|problem| match problem.code.status().is_server_error() {
            true => ErrorPage::unavailable("The file cannot be read from storage", problem),
            false => ErrorPage::conflict(problem.detail),
        })?,
    )
}

#[handler]
pub(super) async fn finalize(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let app = dashboard.app();
    let file = FileId(id);
    let due = files::finalize_now(&app.db, &app.clock, &user.sees(), file).await;
    due.map_err(|error| match error {
        FinalizeNowError::NotFound => ErrorPage::not_found("file with this id"),
        FinalizeNowError::NotWaiting(_) => ErrorPage::conflict(sentence(&error)),
        FinalizeNowError::Database(error) => error.into(),
    })?;
    app.dispatch.finalize(&[file]).await;
    let page = format!("/files/{id}");
    Ok(repair::done(
        &dashboard,
        &user,
        "file.finalize",
        id.to_string(),
        json!({}),
        &page,
    )
    .await?)
}

#[handler]
pub(super) async fn retry(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let app = dashboard.app();
    let file = FileId(id);
    let retried = files::retry(app, &user.sees(), file, None).await;
    retried.map_err(|error| match error {
        RetryError::NotFound => ErrorPage::not_found("file with this id"),
        RetryError::NotFailed(_) | RetryError::BytesGone | RetryError::Quota(_) => {
            ErrorPage::conflict(sentence(&error))
        }
        RetryError::Database(error) => error.into(),
        RetryError::Key(_) | RetryError::Staging(_) => ErrorPage::failed(error),
    })?;
    app.dispatch.finalize(&[file]).await;
    let page = format!("/files/{id}");
    Ok(repair::done(
        &dashboard,
        &user,
        "file.retry",
        id.to_string(),
        json!({}),
        &page,
    )
    .await?)
}

#[handler]
pub(super) async fn delete(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let app = dashboard.app();
    let file = FileId(id);
    let deleted = files::delete(&app.db, &app.clock, &user.sees(), file).await;
    let written = deleted.map_err(|error| match error {
        DeleteError::NotFound => ErrorPage::not_found("file with this id"),
        DeleteError::NotStored(_) => ErrorPage::conflict(sentence(&error)),
        DeleteError::Database(error) => error.into(),
        DeleteError::Outbox(error) => ErrorPage::failed(error),
    })?;
    app.dispatch.purge(&[file]).await;
    if let Some(written) = written {
        dashboard.api().waiters.settled(file);
        app.dispatch.deliver(&written.due).await;
        app.dispatch.settled(file).await;
    }
    let page = format!("/files/{id}");
    Ok(repair::done(
        &dashboard,
        &user,
        "file.delete",
        id.to_string(),
        json!({}),
        &page,
    )
    .await?)
}

/// Formats an error of the core as a sentence.
pub(crate) fn sentence(error: &impl ToString) -> String {
    let text = error.to_string();
    let mut rest = text.chars();
    let first = rest.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), rest.as_str())
}
