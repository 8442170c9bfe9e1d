//! What can be done with a file.

use crate::{
    api::{Download, download},
    dashboard::{error::Refusal, repair, session::Visitor, state::Dashboard},
};
use entity::FileId;
use landfall_core::files::{self, DeleteError, FinalizeNowError, RetryError};
use poem::{Request, Response, Result, handler, web::Path};
use serde_json::json;
use uuid::Uuid;

/// Its bytes, as the API sends them.
#[handler]
pub(super) async fn content(
    visitor: Visitor,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
    request: &Request,
) -> Result<Download> {
    let db = dashboard.landfall().db.read();
    let found = files::get(db, &visitor.sees(), FileId(id))
        .await
        .map_err(Refusal::from)?;
    let file = found.ok_or_else(|| Refusal::not_found("file with this id"))?;
    let sent = download(dashboard.api(), file, request).await;
    Ok(
        sent.map_err(|problem| match problem.code.status().is_server_error() {
            true => Refusal::unavailable("The storage does not give the file", problem),
            false => Refusal::conflict(problem.detail),
        })?,
    )
}

#[handler]
pub(super) async fn finalize(
    visitor: Visitor,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let landfall = dashboard.landfall();
    let file = FileId(id);
    let due = files::finalize_now(&landfall.db, &landfall.clock, &visitor.sees(), file).await;
    due.map_err(|error| match error {
        FinalizeNowError::NotFound => Refusal::not_found("file with this id"),
        FinalizeNowError::NotWaiting(_) => Refusal::conflict(sentence(&error)),
        FinalizeNowError::Database(error) => error.into(),
    })?;
    landfall.dispatch.finalize(&[file]).await;
    let page = format!("/files/{id}");
    Ok(repair::done(
        &dashboard,
        &visitor,
        "file.finalize",
        id.to_string(),
        json!({}),
        &page,
    )
    .await?)
}

#[handler]
pub(super) async fn retry(
    visitor: Visitor,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let landfall = dashboard.landfall();
    let file = FileId(id);
    let retried = files::retry(landfall, &visitor.sees(), file, None).await;
    retried.map_err(|error| match error {
        RetryError::NotFound => Refusal::not_found("file with this id"),
        RetryError::NotFailed(_) | RetryError::BytesGone | RetryError::Quota(_) => {
            Refusal::conflict(sentence(&error))
        }
        RetryError::Database(error) => error.into(),
        RetryError::Key(_) | RetryError::Staging(_) => Refusal::failed(error),
    })?;
    landfall.dispatch.finalize(&[file]).await;
    let page = format!("/files/{id}");
    Ok(repair::done(
        &dashboard,
        &visitor,
        "file.retry",
        id.to_string(),
        json!({}),
        &page,
    )
    .await?)
}

#[handler]
pub(super) async fn delete(
    visitor: Visitor,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let landfall = dashboard.landfall();
    let file = FileId(id);
    let deleted = files::delete(&landfall.db, &landfall.clock, &visitor.sees(), file).await;
    let written = deleted.map_err(|error| match error {
        DeleteError::NotFound => Refusal::not_found("file with this id"),
        DeleteError::NotStored(_) => Refusal::conflict(sentence(&error)),
        DeleteError::Database(error) => error.into(),
        DeleteError::Outbox(error) => Refusal::failed(error),
    })?;
    landfall.dispatch.purge(&[file]).await;
    if let Some(written) = written {
        dashboard.api().waiters.settled(file);
        landfall.dispatch.deliver(&written.due).await;
        landfall.dispatch.settled(file).await;
    }
    let page = format!("/files/{id}");
    Ok(repair::done(
        &dashboard,
        &visitor,
        "file.delete",
        id.to_string(),
        json!({}),
        &page,
    )
    .await?)
}

/// An error of the core's as a page says it.
pub(crate) fn sentence(error: &impl ToString) -> String {
    let text = error.to_string();
    let mut rest = text.chars();
    let first = rest.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), rest.as_str())
}
