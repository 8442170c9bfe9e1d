//! `/events`: the outbox events and their deliveries.

mod actions;
mod show;

pub(super) use show::{DeliveriesBy, deliveries};

use super::{
    auth::ADMIN,
    components::{col, empty, event_state, num, pager, panel, table},
    error::ErrorPage,
    format::{ago, href, number},
    layout::{Page, Section},
    listing,
    pages::Pages,
    session::User,
    state::Dashboard,
};
use chrono::{DateTime, Utc};
use entity::{EventId, delivery, outbox_event};
use landfall_core::outbox::{self, EventFilter, EventType};
use maud::{Markup, html};
use poem::{Response, Result, handler, web::Query};
use serde::Deserialize;
use std::collections::HashMap;

pub(super) fn pages(pages: Pages) -> Pages {
    pages
        .get("/events", ADMIN, list)
        .get("/events/:id", ADMIN, show::show)
        .get("/live/events/:id", ADMIN, show::stream)
        .post("/events/:id/redeliver", ADMIN, actions::redeliver_all)
        .post(
            "/events/:id/redeliver/:webhook",
            ADMIN,
            actions::redeliver_one,
        )
}

/// The filters in the URL.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ListEventsQuery {
    status: String,
    event_type: String,
    about: String,
    since: String,
    until: String,
    cursor: String,
}

impl ListEventsQuery {
    fn filter(&self) -> Result<EventFilter, ErrorPage> {
        Ok(EventFilter {
            status: listing::status("status", &self.status)?,
            event_type: listing::text("event_type", &self.event_type)?,
            aggregate_id: listing::id("about", &self.about)?,
            since: listing::moment("since", &self.since)?,
            until: listing::moment("until", &self.until)?,
        })
    }

    fn pairs(&self) -> [(&'static str, &str); 5] {
        [
            ("status", &self.status),
            ("event_type", &self.event_type),
            ("about", &self.about),
            ("since", &self.since),
            ("until", &self.until),
        ]
    }

    fn is_filtered(&self) -> bool {
        self.pairs().iter().any(|(_, value)| !value.is_empty())
    }
}

#[handler]
async fn list(
    user: User,
    dashboard: Dashboard,
    Query(query): Query<ListEventsQuery>,
) -> Result<Response> {
    let app = dashboard.app();
    let filter = query.filter()?;
    let page = listing::page(&query.cursor)?;
    let chosen = filter.status;
    let found = outbox::list(&app.db, filter, page)
        .await
        .map_err(ErrorPage::from)?;
    let ids: Vec<EventId> = found.items.iter().map(|event| event.id).collect();
    let deliveries = outbox::event_deliveries(&app.db, &ids)
        .await
        .map_err(ErrorPage::from)?;
    let cursor = Some(query.cursor.as_str()).filter(|cursor| !cursor.is_empty());
    let next = found.next_cursor.as_deref();
    let types = EventType::ALL.map(|one| one.as_str().to_owned());
    let fields = html! {
        (listing::status_field("Status", "status", chosen))
        (listing::choice_field("Type", "event_type", &types, &query.event_type))
        label.long { "Subject (id of a file, batch or endpoint)"
            input type="search" name="about" value=(query.about) autocomplete="off" spellcheck="false"; }
        (listing::text_field("From (UTC)", "since", "date", &query.since))
        (listing::text_field("Before (UTC)", "until", "date", &query.until))
    };
    let body = html! {
        h1.unseen { "Events" }
        section.panel aria-label="Filter events" { (listing::filters("/events", query.is_filtered(), fields)) }
        (panel("Events, newest first", html! {
            @if found.items.is_empty() {
                (empty(if next.is_some() { "No matches yet." } else { "No events match these filters." },
                    html! { "Events are written when a file is stored, deleted or about to expire, and when a batch is complete." }))
            } @else { (rows(&found.items, &deliveries, app.clock.now())) }
            (pager("/events", &query.pairs(), cursor, next))
        }))
    };
    Ok(Page::new("Events", Section::Events, body).show(&user))
}

fn rows(
    events: &[outbox_event::Model],
    deliveries: &HashMap<EventId, Vec<delivery::Model>>,
    now: DateTime<Utc>,
) -> Markup {
    let columns = [
        col("Event"),
        col("Type"),
        col("Status"),
        col("About"),
        num("Delivered"),
        num("Written"),
    ];
    table(
        "Events",
        &columns,
        html! {
            @for event in events {
                tr {
                    td { a href={ "/events/" (event.id) } { (listing::short(event.id)) } }
                    td { (event.event_type) }
                    td { (event_state(event.status)) }
                    td { (about(event)) }
                    td.n { (delivery_summary(event, deliveries.get(&event.id).map_or(&[], Vec::as_slice))) }
                    td.n { (ago(event.created_at, now)) }
                }
            }
        },
    )
}

/// What an event is about, with a link.
fn about(event: &outbox_event::Model) -> Markup {
    let id = event.aggregate_id;
    let (noun, path) = match event.aggregate_type.as_str() {
        "UploadFile" => ("file", "/files"),
        "Batch" => ("batch", "/batches"),
        "Webhook" => ("endpoint", "/webhooks"),
        other => return html! { (other) " " (listing::short(id)) },
    };
    html! { a href={ (path) "/" (id) } { (noun) " " (listing::short(id)) } }
}

fn delivery_summary(event: &outbox_event::Model, deliveries: &[delivery::Model]) -> Markup {
    if deliveries.is_empty() {
        return html! { span.dim { "no endpoint" } };
    }
    let delivered = deliveries
        .iter()
        .filter(|one| one.status == delivery::DeliveryStatus::Delivered);
    let path = href(&format!("/events/{}", event.id), &[]);
    html! { a href=(path) { (number(delivered.count() as u64)) " of " (number(deliveries.len() as u64)) } }
}
