//! `/webhooks`: the endpoints and their health.

mod actions;
mod replay;
mod settings;
mod show;

use super::{
    auth::ADMIN,
    components::{Tone, col, empty, num, pager, panel, panel_with, state, table},
    error::ErrorPage,
    files::timeline::host_of,
    format::{ago, href, number, shown_url},
    layout::{Page, Section},
    listing,
    pages::Pages,
    session::User,
    state::Dashboard,
};
use chrono::{DateTime, Utc};
use landfall_core::{
    outbox::{self, COUNT_LIMIT, DeliveryCounts, EndpointHealth},
    pagination::PageRequest,
    webhooks::{self, Webhook, WebhookError},
};
use maud::{Markup, html};
use poem::{Response, Result, handler, web::Query};
use serde::Deserialize;

/// Number of endpoints per page; few, because the health of each is queried.
const ENDPOINTS_SHOWN: u64 = 20;

/// Number of consecutive failures from which an endpoint gets one request at a time (see `landfall_workers`).
const THROTTLED_FROM: u32 = 5;

pub(super) fn pages(pages: Pages) -> Pages {
    let pages = pages
        .get("/webhooks", ADMIN, list)
        .post("/webhooks", ADMIN, settings::create)
        .get("/webhooks/:id", ADMIN, show::show)
        .get("/live/webhooks/:id", ADMIN, show::stream)
        .get("/webhooks/:id/replay", ADMIN, replay::ask);
    pages
        .post("/webhooks/:id/replay", ADMIN, replay::replay_events)
        .post("/webhooks/:id/settings", ADMIN, settings::change)
        .post("/webhooks/:id/rotate-secret", ADMIN, settings::rotate)
        .post("/webhooks/:id/test", ADMIN, actions::test)
        .post("/webhooks/:id/switch-on", ADMIN, actions::switch_on)
        .post("/webhooks/:id/switch-off", ADMIN, actions::switch_off)
        .post("/webhooks/:id/delete", ADMIN, actions::delete)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ListWebhooksQuery {
    cursor: String,
}

/// An endpoint and its health.
struct EndpointSnapshot {
    webhook: Webhook,
    health: EndpointHealth,
    counts: DeliveryCounts,
}

impl EndpointSnapshot {
    async fn load(dashboard: &Dashboard, webhook: Webhook) -> Result<Self, ErrorPage> {
        let db = &dashboard.app().db;
        Ok(Self {
            health: outbox::health(db, webhook.id).await?,
            counts: outbox::endpoint_counts(db, webhook.id).await?,
            webhook,
        })
    }

    fn path(&self) -> String {
        format!("/webhooks/{}", self.webhook.id)
    }

    /// The number of deliveries with a status, linked to their list.
    fn counted(&self, status: &str, count: u64) -> Markup {
        html! { a href=(href(&self.path(), &[("status", status)])) { (at_most(count)) } }
    }
}

/// Formats a bounded count.
fn at_most(count: u64) -> String {
    match count {
        COUNT_LIMIT.. => format!("{}+", number(COUNT_LIMIT)),
        _ => number(count),
    }
}

#[handler]
async fn list(
    user: User,
    dashboard: Dashboard,
    Query(query): Query<ListWebhooksQuery>,
) -> Result<Response> {
    let app = dashboard.app();
    let page = PageRequest {
        limit: ENDPOINTS_SHOWN,
        ..listing::page(&query.cursor)?
    };
    let found = webhooks::list(&app.db, page)
        .await
        .map_err(ErrorPage::from)?;
    let mut endpoints = Vec::with_capacity(found.items.len());
    for webhook in found.items {
        endpoints.push(EndpointSnapshot::load(&dashboard, webhook).await?);
    }
    let cursor = Some(query.cursor.as_str()).filter(|cursor| !cursor.is_empty());
    let body = html! {
        h1.unseen { "Webhooks" }
        (panel_with("Endpoints", html! { a href="#add" { "Add an endpoint" } }, html! {
            @if endpoints.is_empty() { (empty("No endpoints yet.", html! { "Add the first endpoint below. Events from then on are sent to it." })) }
            @else { (rows(&endpoints, app.clock.now())) }
            (pager("/webhooks", &[], cursor, found.next_cursor.as_deref()))
        }))
        (panel("Add an endpoint", settings::new_form(&user)))
    };
    Ok(Page::new("Webhooks", Section::Webhooks, body).show(&user))
}

fn rows(endpoints: &[EndpointSnapshot], now: DateTime<Utc>) -> Markup {
    let columns = [
        col("Endpoint"),
        col("State"),
        num("Succeeded"),
        num("p95"),
        num("Waiting"),
        num("Failed"),
        col("Last error"),
    ];
    table(
        "Endpoints",
        &columns,
        html! {
            @for one in endpoints {
                tr {
                    td.name {
                        a href=(one.path()) { (host_of(&one.webhook.url)) }
                        span.sub { @if one.webhook.description.is_empty() { (shown_url(&one.webhook.url)) } @else { (one.webhook.description) } }
                    }
                    td { (circuit(&one.webhook)) }
                    td.n { (rate(&one.health)) }
                    td.n { (took(&one.health)) }
                    td.n { (one.counted("pending", one.counts.pending)) }
                    td.n { (one.counted("failed", one.counts.failed)) }
                    td { (last_error(&one.health, now)) }
                }
            }
        },
    )
}

/// The state of an endpoint: on, retrying, throttled or off.
fn circuit(webhook: &Webhook) -> Markup {
    match (webhook.active, webhook.consecutive_failures) {
        (false, _) if webhook.disabled_reason.is_some() => state("disabled", Tone::Bad),
        (false, _) => state("off", Tone::Dim),
        (true, THROTTLED_FROM..) => state("throttled", Tone::Bad),
        (true, 1..) => state("retrying", Tone::Warn),
        (true, 0) => state("on", Tone::Ok),
    }
}

fn rate(health: &EndpointHealth) -> String {
    match health.success_rate() {
        // 100 % is only shown if all succeeded.
        Some(share) if share < 1.0 => format!("{:.1} %", (share * 100.0).min(99.9)),
        Some(_) => "100 %".to_owned(),
        None => "–".to_owned(),
    }
}

fn took(health: &EndpointHealth) -> String {
    health.p95.map_or_else(
        || "–".to_owned(),
        |p95| format!("{} ms", number(p95.as_millis() as u64)),
    )
}

fn last_error(health: &EndpointHealth, now: DateTime<Utc>) -> Markup {
    html! {
        @match &health.last_failure {
            None => { span.dim { "none" } }
            Some(failure) => {
                @match failure.status_code {
                    Some(code) => { (code) }
                    None => { "no response" }
                }
                span.sub { (ago(failure.at, now)) }
            }
        }
    }
}

impl From<WebhookError> for ErrorPage {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::NotFound => Self::not_found("endpoint with this id"),
            WebhookError::Invalid(faults) => {
                let faults: Vec<String> = faults
                    .iter()
                    .map(|fault| format!("{}: {}", fault.field, fault.message))
                    .collect();
                Self::malformed(format!("{}.", faults.join("; ")))
            }
            WebhookError::Event(error) => Self::failed(error),
            WebhookError::Key(error) => Self::failed(error),
            WebhookError::Database(error) => error.into(),
        }
    }
}
