//! `/search`: any id or hash to its page; anything else is the beginning of a file's name.

use super::{
    auth::READ,
    components::{empty, panel},
    error::ErrorPage,
    format::href,
    layout::Page,
    pages::Pages,
    repair::see_other,
    session::User,
    state::Dashboard,
};
use landfall_core::lookup::{self, LookupResult};
use landfall_workers::QueueName;
use maud::html;
use poem::{Response, Result, handler, web::Query};
use serde::Deserialize;
use uuid::Uuid;

/// The search box's answer.
pub(super) fn pages(pages: Pages) -> Pages {
    pages.get("/search", READ, show)
}

#[derive(Deserialize)]
struct Search {
    #[serde(default)]
    q: String,
}

#[handler]
async fn show(
    visitor: User,
    dashboard: Dashboard,
    Query(Search { q }): Query<Search>,
) -> Result<Response> {
    let q = q.trim();
    if let Ok(id) = q.parse::<Uuid>() {
        let db = dashboard.app().db.read();
        let found = lookup::by_id(db, &visitor.sees(), id)
            .await
            .map_err(ErrorPage::from)?;
        return Ok(match found {
            Some(found) => see_other(&page_of(found)),
            None => nothing(&visitor, q),
        });
    }
    if visitor.may_repair()
        && let Some(page) = page_of_job(&dashboard, q).await
    {
        return Ok(see_other(&page));
    }
    Ok(see_other(&href("/files", &[("q", q)])))
}

fn page_of(found: LookupResult) -> String {
    match found {
        LookupResult::File(id) | LookupResult::Upload(id) => format!("/files/{id}"),
        LookupResult::Batch(id) => format!("/batches/{id}"),
        LookupResult::Event(id) | LookupResult::Delivery(id) => format!("/events/{id}"),
        LookupResult::Webhook(id) => format!("/webhooks/{id}"),
    }
}

/// Jobs have the kind of their work before the id of what it is about. While Redis is away they are not found.
async fn page_of_job(dashboard: &Dashboard, id: &str) -> Option<String> {
    let (_, rest) = id.split_once(':')?;
    if rest.is_empty()
        || !rest
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        return None;
    }
    let inspector = dashboard.queues().inspector();
    for queue in QueueName::ALL {
        if let Ok(Some(job)) = inspector.job(queue.as_str(), id).await {
            return Some(format!("/jobs/{}/job/{}", queue.as_str(), job.id));
        }
    }
    None
}

fn nothing(visitor: &User, q: &str) -> Response {
    let hint = html! { p { "Upload sessions are deleted some time after they end, and events after " code { "outbox.retention" } "." } };
    let body = panel("Search", empty(&format!("No results for {q}."), hint));
    let mut response = Page::apart("Search", body).show(visitor);
    response.set_status(http::StatusCode::NOT_FOUND);
    response
}
