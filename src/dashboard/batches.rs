//! `/batches/{id}`: a batch and its files.

use super::{
    auth::READ,
    components::{batch_state, confirmed_action_button, empty, pager, panel, panel_with},
    error::ErrorPage,
    files,
    format::{href, number, when},
    layout::{Page, Section},
    listing,
    pages::Pages,
    repair,
    session::User,
    state::Dashboard,
};
use entity::{BatchId, batch::Model, file::FileStatus};
use landfall_core::{
    batches::{self, FinalizeBatchError},
    files::FileFilter,
};
use maud::{Markup, html};
use poem::{
    Response, Result, handler,
    web::{Path, Query},
};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

pub(super) fn pages(pages: Pages) -> Pages {
    pages
        .get("/batches/:id", READ, show)
        .post("/batches/:id/finalize", READ, finalize)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BatchFilesQuery {
    status: String,
    cursor: String,
}

#[handler]
async fn show(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
    Query(query): Query<BatchFilesQuery>,
) -> Result<Response> {
    let app = dashboard.app();
    let (db, scope) = (app.db.read(), user.sees());
    let batch = batches::get(db, &scope, BatchId(id))
        .await
        .map_err(ErrorPage::from)?;
    let batch = batch.ok_or_else(|| ErrorPage::not_found("batch with this id"))?;
    let filter = FileFilter {
        batch_id: Some(batch.id),
        status: listing::status::<FileStatus>("status", &query.status)?,
        ..FileFilter::default()
    };
    let page = listing::page(&query.cursor)?;
    let found = landfall_core::files::list(db, &scope, &filter, page)
        .await
        .map_err(ErrorPage::from)?;
    let path = format!("/batches/{id}");
    let cursor = Some(query.cursor.as_str()).filter(|cursor| !cursor.is_empty());
    let body = html! {
        div.title { h1 { "Batch " span.mono { (id) } } (batch_state(batch.status)) }
        (counts(&batch, &user))
        (panel("Files in this batch, newest first", html! {
            @if found.items.is_empty() { (empty("No files match these filters.", html! { a href=(path) { "Show all files in this batch" } })) }
            @else { (files::rows(&found.items, app.clock.now())) }
            (pager(&path, &[("status", &query.status)], cursor, found.next_cursor.as_deref()))
        }))
    };
    Ok(Page::new("Batch", Section::Files, body).show(&user))
}

fn counts(batch: &Model, user: &User) -> Markup {
    let path = format!("/batches/{}", batch.id);
    let pending = batch.total_files - batch.stored_count - batch.failed_count;
    let figures = [
        ("Files", "", batch.total_files),
        ("Stored", "stored", batch.stored_count),
        ("Failed", "failed", batch.failed_count),
    ];
    let close = html! {
        @if user.may_repair() && batch.finalized_at.is_none() {
            (confirmed_action_button(&format!("{path}/finalize"), "Close…",
                "No more files can be added. batch.complete is sent once every file is final.", "Close batch"))
        }
    };
    panel_with(
        "Progress",
        close,
        html! {
            ol.flow.four {
                @for (name, status, count) in figures {
                    li { a href=(href(&path, &[("status", status)])) { span.sub { (name) } span.num { (number(count.unsigned_abs())) } } }
                }
                // Covers three statuses, so there is no list to link to.
                li { span.sub { "In progress" } span.num { (number(pending.unsigned_abs())) } }
            }
            dl.facts {
                @if let Some(owner) = &batch.owner { dt { "Owner" } dd { (owner) } }
                dt { "Opened" } dd { (when(batch.created_at)) }
                dt { "Closed" } dd { @if let Some(at) = batch.finalized_at { (when(at)) } @else { "not yet; files can still be added" } }
                @if let Some(at) = batch.completed_at { dt { "Complete" } dd { (when(at)) } }
            }
        },
    )
}

#[handler]
async fn finalize(user: User, dashboard: Dashboard, Path(id): Path<Uuid>) -> Result<Response> {
    let app = dashboard.app();
    let closed = batches::finalize(&app.db, &app.clock, &user.sees(), BatchId(id)).await;
    let (_, written) = closed.map_err(|error| match error {
        FinalizeBatchError::NotFound => ErrorPage::not_found("batch with this id"),
        FinalizeBatchError::Database(error) => error.into(),
        FinalizeBatchError::Outbox(error) => ErrorPage::failed(error),
    })?;
    if let Some(written) = written {
        app.dispatch.deliver(&written.due).await;
    }
    let page = format!("/batches/{id}");
    Ok(repair::done(
        &dashboard,
        &user,
        "batch.finalize",
        id.to_string(),
        json!({}),
        &page,
    )
    .await?)
}
