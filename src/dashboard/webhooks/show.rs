//! `/webhooks/{id}`: one endpoint, its health and its deliveries, updated in place.

use super::{EndpointSnapshot, circuit, last_error, rate, settings, took};
use crate::dashboard::{
    components::{
        action_button, confirmed_action_button, empty, pager, panel_with, part,
        primary_action_button,
    },
    error::ErrorPage,
    events::{DeliveriesBy, deliveries},
    files::timeline::host_of,
    format::{ago, number, shown_url, span, when},
    layout::{Page, Section},
    listing,
    session::User,
    sse::{self, PageParts},
    state::Dashboard,
};
use chrono::{DateTime, Utc};
use entity::{WebhookId, delivery::DeliveryStatus};
use landfall_core::{
    outbox::{self, HEALTH_DELIVERIES},
    webhooks,
};
use maud::{Markup, html};
use poem::{
    Request, Response, Result, handler,
    web::{Path, Query},
};
use serde::Deserialize;
use uuid::Uuid;

/// Number of deliveries per page.
const DELIVERIES_SHOWN: u64 = 20;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListDeliveriesQuery {
    status: String,
    cursor: String,
}

#[handler]
pub(super) async fn show(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
    Query(query): Query<ListDeliveriesQuery>,
) -> Result<Response> {
    let (endpoint, parts) = load(&dashboard, WebhookId(id), &query).await?;
    let body = html! {
        @for (id, body) in &parts { (part(id, body)) }
        (settings::panels(&endpoint.webhook, &user))
    };
    let feed = crate::dashboard::format::href(
        &format!("/live/webhooks/{id}"),
        &[("status", &query.status), ("cursor", &query.cursor)],
    );
    let title = host_of(&endpoint.webhook.url);
    Ok(Page::new(title, Section::Webhooks, body)
        .live(feed)
        .show(&user))
}

#[handler]
pub(super) async fn stream(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
    Query(query): Query<ListDeliveriesQuery>,
    request: &Request,
) -> Result<Response> {
    load(&dashboard, WebhookId(id), &query).await?;
    let what = format!("webhook {id} {} {}", query.status, query.cursor);
    let name = sse::name(&what, &user);
    let looking = dashboard.clone();
    Ok(sse::stream(&dashboard, request, &name, move || {
        let (dashboard, query) = (looking.clone(), query.clone());
        sse::boxed(async move {
            let found = load(&dashboard, WebhookId(id), &query).await;
            let mut parts = found.map(|(_, parts)| parts).unwrap_or_default();
            parts.push(sse::heartbeat(dashboard.app().clock.now()));
            parts
        })
    })?)
}

async fn load(
    dashboard: &Dashboard,
    id: WebhookId,
    query: &ListDeliveriesQuery,
) -> Result<(EndpointSnapshot, PageParts), ErrorPage> {
    let app = dashboard.app();
    let status = listing::status::<DeliveryStatus>("status", &query.status)?;
    let page = landfall_core::pagination::PageRequest {
        limit: DELIVERIES_SHOWN,
        ..listing::page(&query.cursor)?
    };
    let endpoint = EndpointSnapshot::load(dashboard, webhooks::get(&app.db, id).await?).await?;
    let found = outbox::deliveries(&app.db, id, status, page).await?;
    let now = app.clock.now();
    let path = endpoint.path();
    let cursor = Some(query.cursor.as_str()).filter(|cursor| !cursor.is_empty());
    let list = html! {
        @if found.items.is_empty() { (empty("No deliveries match these filters.", html! {})) }
        @else { (deliveries(&found.items, DeliveriesBy::Events, now)) }
        (pager(&path, &[("status", &query.status)], cursor, found.next_cursor.as_deref()))
    };
    let parts = vec![
        ("endpoint".to_owned(), head(&endpoint)),
        ("health".to_owned(), health(&endpoint, now)),
        (
            "deliveries".to_owned(),
            panel_with(
                "Deliveries, newest first",
                kinds(&path, &query.status),
                list,
            ),
        ),
    ];
    Ok((endpoint, parts))
}

fn head(endpoint: &EndpointSnapshot) -> Markup {
    let (webhook, path) = (&endpoint.webhook, endpoint.path());
    let failed = endpoint.counts.failed;
    html! {
        div.title { h1 { (host_of(&webhook.url)) } (circuit(webhook)) }
        p.sub { code { (shown_url(&webhook.url)) } @if !webhook.description.is_empty() { " · " (webhook.description) } @if !webhook.header_names.is_empty() { " · headers: " (webhook.header_names.join(", ")) } }
        @if !webhook.active {
            div.banner.bad role="status" {
                p { strong { "This endpoint is disabled." } " "
                    @match &webhook.disabled_reason {
                        Some(reason) => { "Disabled automatically: " (reason) "." }
                        None => { "New events are not sent to it." }
                    } }
                div.does { (primary_action_button(&format!("{path}/switch-on"), "Enable")) }
            }
        } @else if failed > 0 {
            div.banner.bad role="status" {
                p { strong { (endpoint.counted("failed", failed)) " deliveries failed." } " They are not retried automatically." }
                div.does { a.button.go href={ (path) "/replay?status=failed" } { "Redeliver all failed…" } }
            }
        } @else if webhook.consecutive_failures > 0 {
            div.banner role="status" {
                p { strong { "The last " (webhook.consecutive_failures) " attempts failed." }
                    @if webhook.consecutive_failures >= super::THROTTLED_FROM { " Only one request at a time is sent until it responds." } }
            }
        }
        div.does {
            (action_button(&format!("{path}/test"), "Send test event"))
            a.button href={ (path) "/replay" } { "Replay…" }
            @if webhook.active {
                (confirmed_action_button(&format!("{path}/switch-off"), "Disable…", "New events are not sent to it, and pending deliveries fail when they are due.", "Disable endpoint"))
            }
        }
    }
}

fn health(endpoint: &EndpointSnapshot, now: DateTime<Utc>) -> Markup {
    let health = &endpoint.health;
    let beside = html! { span { "last " (number(HEALTH_DELIVERIES)) " deliveries" } };
    panel_with(
        "Health",
        beside,
        html! {
            ol.flow {
                li { span.sub { "Succeeded" } span.num { (rate(health)) } span.sub { (number(health.succeeded)) " of " (number(health.attempts)) " attempts" } }
                li { span.sub { "p95" } span.num { (took(health)) }
                    span.sub { @if let Some(median) = health.median { "median " (number(median.as_millis() as u64)) " ms" } } }
                li { a href={ (endpoint.path()) "?status=pending" } { span.sub { "Waiting" } span.num { (super::at_most(endpoint.counts.pending)) } }
                    span.sub { @if let Some(since) = endpoint.counts.oldest_pending_since { "oldest " (span(crate::dashboard::format::age(since, now))) } } }
                li { a href={ (endpoint.path()) "?status=failed" } { span.sub { "Failed" } span.num { (super::at_most(endpoint.counts.failed)) } }
                    span.sub { "not retried" } }
                li { span.sub { "Last error" } span.num.small { (last_error(health, now)) } }
            }
            @if let Some(failure) = &health.last_failure {
                @if !failure.error.is_empty() { p.sub { "The last error: " (failure.error) } }
            }
            @if let Some(at) = health.last_success_at { p.sub { "Last success " (ago(at, now)) ", at " (when(at)) "." } }
        },
    )
}

fn kinds(path: &str, chosen: &str) -> Markup {
    let kinds = [
        ("all", ""),
        ("pending", "pending"),
        ("delivered", "delivered"),
        ("failed", "failed"),
    ];
    html! {
        nav.kinds aria-label="Delivery status" {
            @for (word, status) in kinds {
                a href=(crate::dashboard::format::href(path, &[("status", status)])) aria-current=[(status == chosen).then_some("true")] { (word) }
            }
        }
    }
}
