//! `/log`: the operator log, who changed what manually.

use super::{
    auth::ADMIN,
    components::{self, col, empty, pager},
    error::ErrorPage,
    format::{href, when},
    layout::{Page, Section},
    pages::Pages,
    repair::describe,
    session::User,
    state::Dashboard,
};
use landfall_core::{
    operator_log::{self, Entry},
    pagination::{DEFAULT_LIMIT, PageRequest},
};
use maud::{Markup, html};
use poem::{Response, Result, handler, web::Query};
use serde::Deserialize;

/// The page of the operator log.
pub(super) fn pages(pages: Pages) -> Pages {
    pages.get("/log", ADMIN, show)
}

#[derive(Deserialize)]
struct LogQuery {
    /// An id or a queue name, to filter by.
    #[serde(default)]
    subject: String,
    cursor: Option<String>,
}

#[handler]
async fn show(
    user: User,
    dashboard: Dashboard,
    Query(filter): Query<LogQuery>,
) -> Result<Response> {
    let cursor = filter.cursor.as_deref();
    let page = PageRequest::decode(DEFAULT_LIMIT, cursor)
        .map_err(|error| ErrorPage::malformed(error.to_string()))?;
    let subject = Some(filter.subject.as_str()).filter(|subject| !subject.is_empty());
    let found = operator_log::list(dashboard.app().db.read(), subject, page)
        .await
        .map_err(ErrorPage::from)?;
    let list = match found.items.is_empty() {
        true => empty("No manual changes yet.", html! {}),
        false => html! {
            (components::table("Log", &[col("When"), col("Who"), col("What"), col("On"), col("Details")], rows(&found.items)))
            (pager("/log", &[("subject", &filter.subject)], cursor, found.next_cursor.as_deref()))
        },
    };
    let heading = match subject {
        Some(subject) => format!("Changes to {subject}"),
        None => "Manual changes".to_owned(),
    };
    let body = html! {
        h1.unseen { "Log" }
        (components::panel(&heading, list))
    };
    Ok(Page::new("Log", Section::Log, body).show(&user))
}

fn rows(entries: &[Entry]) -> Markup {
    html! {
        @for entry in entries {
            tr {
                td { (when(entry.at)) }
                td { (entry.actor) }
                td { (describe(entry)) }
                td { a.mono href=(href("/log", &[("subject", &entry.subject)])) { (entry.subject) } }
                td.name { @if entry.detail.as_object().is_some_and(|detail| !detail.is_empty()) { code { (entry.detail) } } }
            }
        }
    }
}
