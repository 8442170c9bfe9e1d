//! `/search`: redirects an id or a digest to its page; anything else is a file name prefix.

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

/// The page of the search box.
pub(super) fn pages(pages: Pages) -> Pages {
    pages.get("/search", READ, show)
}

#[derive(Deserialize)]
struct SearchQuery {
    #[serde(default)]
    q: String,
}

#[handler]
async fn show(
    user: User,
    dashboard: Dashboard,
    Query(SearchQuery { q }): Query<SearchQuery>,
) -> Result<Response> {
    let q = q.trim();
    if let Ok(id) = q.parse::<Uuid>() {
        let db = dashboard.app().db.read();
        let found = lookup::by_id(db, &user.sees(), id)
            .await
            .map_err(ErrorPage::from)?;
        return Ok(match found {
            Some(found) => see_other(&page_of(found)),
            None => nothing(&user, q),
        });
    }
    if user.may_repair()
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

/// The id of a job is the kind of work and the id of its subject. Jobs cannot be found while Redis is down.
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

fn nothing(user: &User, q: &str) -> Response {
    let hint = html! { p { "Upload sessions are deleted some time after they end, and events after " code { "outbox.retention" } "." } };
    let body = panel("Search", empty(&format!("No results for {q}."), hint));
    let mut response = Page::standalone("Search", body).show(user);
    response.set_status(http::StatusCode::NOT_FOUND);
    response
}
