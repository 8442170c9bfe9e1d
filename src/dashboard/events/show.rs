//! `/events/{id}`: one event, its deliveries and their attempts, updated in place.

use super::about;
use crate::dashboard::{
    components::{
        action_button, delivery_state, empty, event_state, panel, part, primary_action_button,
    },
    error::ErrorPage,
    files::timeline::{attempt_response, host_of},
    format::{ago, plural, shown_url, when},
    layout::{Page, Section},
    session::User,
    sse::{self, PageParts},
    state::Dashboard,
};
use chrono::{DateTime, Utc};
use entity::{EventId, WebhookId, attempt, delivery::DeliveryStatus};
use landfall_core::{
    outbox::{self, DeliveryDetail, EventDetail},
    webhooks,
};
use maud::{Markup, html};
use poem::{Request, Response, Result, handler, web::Path};
use std::collections::HashMap;
use uuid::Uuid;

#[handler]
pub(super) async fn show(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let (detail, parts) = load(&dashboard, EventId(id)).await?;
    let body = html! {
        @for (id, body) in &parts { (part(id, body)) }
        (facts(&detail))
        (panel("Payload", html! {
            pre tabindex="0" { (serde_json::to_string_pretty(&detail.event.payload).unwrap_or_default()) }
        }))
    };
    let title = format!("Event {}", detail.event.event_type);
    Ok(Page::new(title, Section::Events, body)
        .live(format!("/live/events/{id}"))
        .show(&user))
}

#[handler]
pub(super) async fn stream(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
    request: &Request,
) -> Result<Response> {
    load(&dashboard, EventId(id)).await?;
    let name = sse::name(&format!("event {id}"), &user);
    let looking = dashboard.clone();
    Ok(sse::stream(&dashboard, request, &name, move || {
        let dashboard = looking.clone();
        sse::boxed(async move {
            let found = load(&dashboard, EventId(id)).await;
            let mut parts = found.map(|(_, parts)| parts).unwrap_or_default();
            parts.push(sse::heartbeat(dashboard.app().clock.now()));
            parts
        })
    })?)
}

/// Only administrators, who may repair, see this page.
async fn load(dashboard: &Dashboard, id: EventId) -> Result<(EventDetail, PageParts), ErrorPage> {
    let app = dashboard.app();
    let found = outbox::get(&app.db, id).await?;
    let detail = found.ok_or_else(|| ErrorPage::not_found("event with this id"))?;
    let summary = detail.deliveries.iter().map(|one| one.delivery.webhook_id);
    let urls = webhooks::urls(&app.db, summary).await?;
    let now = app.clock.now();
    let parts = vec![
        ("event".to_owned(), head(&detail)),
        (
            "deliveries".to_owned(),
            panel(
                "Deliveries",
                html! {
                    @if detail.deliveries.is_empty() {
                        (empty("No endpoint subscribes to this event, so it counts as delivered.", html! { a href="/webhooks" { "Add an endpoint" } }))
                    } @else { (deliveries(&detail.deliveries, DeliveriesBy::Endpoints(&urls), now)) }
                },
            ),
        ),
    ];
    Ok((detail, parts))
}

fn head(detail: &EventDetail) -> Markup {
    let event = &detail.event;
    let path = format!("/events/{}/redeliver", event.id);
    let failed = detail
        .deliveries
        .iter()
        .filter(|one| one.delivery.status == DeliveryStatus::Failed)
        .count();
    html! {
        div.title { h1 { (event.event_type) } (event_state(event.status)) }
        @if failed > 0 {
            div.banner.bad role="status" {
                p { strong { (failed) " of " (detail.deliveries.len()) " deliveries failed." } " They are not retried automatically." }
                div.does { (primary_action_button(&path, "Redeliver to all")) }
            }
        } @else {
            div.does { (action_button(&path, "Redeliver to all")) }
        }
    }
}

fn facts(detail: &EventDetail) -> Markup {
    let event = &detail.event;
    panel(
        "Details",
        html! {
            dl.facts {
                dt { "Id" } dd { code { (event.id) } " " span.dim { "the webhook-id of every attempt" } }
                dt { "About" } dd { (about(event)) }
                dt { "Written" } dd { (when(event.created_at)) }
                @if let Some(at) = event.delivered_at { dt { "Delivered" } dd { (when(at)) } }
                dt { "Key" } dd { code { (event.idempotency_key) } }
                @if let Some(trace) = &event.traceparent { dt { "Trace" } dd { code { (trace) } } }
            }
        },
    )
}

/// How deliveries are listed: the endpoint or the event is known from the page.
#[derive(Clone, Copy)]
pub(in crate::dashboard) enum DeliveriesBy<'a> {
    Endpoints(&'a HashMap<WebhookId, String>),
    Events,
}

/// Renders deliveries with their attempts.
pub(in crate::dashboard) fn deliveries(
    all: &[DeliveryDetail],
    shown: DeliveriesBy<'_>,
    now: DateTime<Utc>,
) -> Markup {
    html! {
        ul.deliveries {
            @for detail in all { li { (delivery(detail, shown, now)) } }
        }
    }
}

fn delivery(detail: &DeliveryDetail, shown: DeliveriesBy<'_>, now: DateTime<Utc>) -> Markup {
    let delivery = &detail.delivery;
    let (event, webhook) = (delivery.event_id, delivery.webhook_id);
    html! {
        div.row {
            @match shown {
                DeliveriesBy::Endpoints(urls) => {
                    @let url = urls.get(&webhook).map(String::as_str).unwrap_or_default();
                    a href={ "/webhooks/" (webhook) } title=(shown_url(url)) { (host_of(url)) }
                }
                DeliveriesBy::Events => { a href={ "/events/" (event) } { "event " (crate::dashboard::listing::short(event)) } }
            }
            (delivery_state(delivery.status))
            @if let Some(at) = delivery.next_attempt_at { span.sub { "next attempt " (ago(at, now)) } }
            @if let Some(at) = delivery.delivered_at { span.sub { (ago(at, now)) } }
            div.does { (action_button(&format!("/events/{event}/redeliver/{webhook}"), "Redeliver")) }
        }
        @if let Some(error) = delivery.last_error.as_ref().filter(|_| detail.attempts.is_empty()) { p.sub { (error) } }
        @if !detail.attempts.is_empty() {
            (attempts(&detail.attempts, matches!(shown, DeliveriesBy::Events)))
        }
    }
}

/// Newest first. In a list of deliveries the earlier attempts are collapsed.
fn attempts(all: &[attempt::Model], fold: bool) -> Markup {
    let one = |attempt: &attempt::Model| html! { li { (when(attempt.at)) " " (attempt_response(attempt)) } };
    let shown = if fold { 1 } else { all.len() };
    let earlier = all.len().saturating_sub(shown);
    html! {
        ol.attempts aria-label="Attempts" {
            @for attempt in all.iter().rev().take(shown) { (one(attempt)) }
            @if earlier > 0 {
                li { details.earlier {
                    summary { (plural(earlier as u64, "earlier attempt", "earlier attempts")) }
                    ol.attempts { @for attempt in all.iter().rev().skip(shown) { (one(attempt)) } }
                } }
            }
        }
    }
}
