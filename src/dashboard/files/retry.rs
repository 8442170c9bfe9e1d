//! `/files/retry`: retrying all failed files that match a filter, counted first, then staged again.

use super::{ListFilesQuery, name};
use crate::dashboard::{
    components::{csrf_field, panel},
    error::ErrorPage,
    format::{href, number, plural},
    layout::{Page, Section},
    repair::{self, COUNT},
    session::User,
    state::Dashboard,
};
use landfall_core::files::{self, BulkRetryPreview, MAX_RETRIED};
use maud::{Markup, html};
use poem::{
    Response, Result, handler,
    web::{Form, Query},
};
use serde_json::json;

#[handler]
pub(super) async fn ask(
    user: User,
    dashboard: Dashboard,
    Query(query): Query<ListFilesQuery>,
) -> Result<Response> {
    let filter = query.filter()?;
    let forecast = files::preview_retry(dashboard.app(), &user.sees(), &filter).await;
    let forecast = forecast.map_err(ErrorPage::from)?;
    let body = html! {
        div.title { h1 { "Retry failed files" } a.button href=(query.list()) { "Back to files" } }
        (panel("Which files", filters(&query)))
        (panel("Files to retry", remedy(&query, &user, forecast)))
    };
    Ok(Page::new("Retry failed files", Section::Files, body).show(&user))
}

fn filters(query: &ListFilesQuery) -> Markup {
    let query = query.pairs();
    let mut given = query
        .into_iter()
        .filter(|(field, value)| *field != "status" && !value.is_empty())
        .peekable();
    html! {
        div.stacked {
            @if given.peek().is_none() { p { "All that failed." } }
            @else { dl.facts { @for (field, value) in given { dt { (field) } dd { (name(value)) } } } }
        }
    }
}

fn remedy(query: &ListFilesQuery, user: &User, forecast: BulkRetryPreview) -> Markup {
    let more = if forecast.at_least { " or more" } else { "" };
    html! {
        div.stacked {
            @if forecast.retryable == 0 {
                p { "None: no failed file that matches still has its bytes." }
            } @else {
                p { strong { (plural(forecast.retryable, "failed file", "failed files")) (more) } " will be staged again. "
                    "Workers verify and store the bytes and announce file.stored for each. A file whose cause of failure "
                    "persists fails again, and keeps its bytes anew." }
                @if forecast.at_least {
                    p { "At most " (number(MAX_RETRIED)) " are staged at once; repeat it for the rest." }
                }
                form method="post" action="/files/retry" {
                    (csrf_field(user))
                    @for (field, value) in query.pairs() {
                        @if !value.is_empty() { input type="hidden" name=(field) value=(value); }
                    }
                    button.go type="submit" { "Retry " (number(forecast.retryable)) (more) }
                }
            }
            @if forecast.gone > 0 {
                p.dim { (plural(forecast.gone, "file", "files")) " that match can no longer be retried: their bytes are gone." }
            }
        }
    }
}

#[handler]
pub(super) async fn retry_matching(
    user: User,
    dashboard: Dashboard,
    Form(query): Form<ListFilesQuery>,
) -> Result<Response> {
    let filter = query.filter()?;
    let retried = files::retry_matching(dashboard.app(), &user.sees(), &filter).await;
    let retried = retried.map_err(ErrorPage::from)?;
    let filters: serde_json::Map<_, _> = query
        .pairs()
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(field, value)| (field.to_owned(), json!(value)))
        .collect();
    let detail = json!({ COUNT: retried.staged, "refused": retried.refused, "filter": filters });
    let page = href("/files", &query.pairs());
    Ok(repair::done(&dashboard, &user, "files.retry", "files", detail, &page).await?)
}
