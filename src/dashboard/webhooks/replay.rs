//! `/webhooks/{id}/replay`: replays events to one endpoint; the deliveries are counted first.

use crate::dashboard::{
    components::{csrf_field, panel},
    error::ErrorPage,
    files::timeline::host_of,
    format::{number, plural, when},
    layout::{Page, Section},
    listing,
    repair::{self, COUNT},
    session::User,
    state::Dashboard,
};
use chrono::{DateTime, TimeDelta, Utc};
use entity::{WebhookId, delivery::DeliveryStatus};
use landfall_core::{
    outbox::{self, ReplayPreview, ReplayRequest},
    webhooks::{self, Webhook},
};
use maud::{Markup, html};
use poem::{
    Response, Result, handler,
    web::{Form, Path, Query},
};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

/// The default time range of a replay.
const DEFAULT_RANGE: TimeDelta = TimeDelta::days(1);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ReplayQuery {
    since: String,
    until: String,
    status: String,
}

impl ReplayQuery {
    /// Failed deliveries of all times; other deliveries of one day.
    fn replay(&self, now: DateTime<Utc>) -> Result<ReplayRequest, ErrorPage> {
        let status = listing::status::<DeliveryStatus>("status", &self.status)?;
        if status == Some(DeliveryStatus::Pending) {
            return Err(ErrorPage::malformed(
                "Pending deliveries are already queued. Choose delivered or failed.",
            ));
        }
        let by_default = match status {
            Some(DeliveryStatus::Failed) => DateTime::UNIX_EPOCH,
            _ => now - DEFAULT_RANGE,
        };
        Ok(ReplayRequest {
            since: listing::moment("since", &self.since)?.unwrap_or(by_default),
            until: listing::moment("until", &self.until)?,
            status,
        })
    }
}

#[handler]
pub(super) async fn ask(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
    Query(query): Query<ReplayQuery>,
) -> Result<Response> {
    let app = dashboard.app();
    let webhook = webhooks::get(&app.db, WebhookId(id))
        .await
        .map_err(ErrorPage::from)?;
    let replay = query.replay(app.clock.now())?;
    let preview = preview(&dashboard, webhook.id, replay).await?;
    let body = html! {
        div.title { h1 { "Replay events to " (host_of(&webhook.url)) } a.button href={ "/webhooks/" (id) } { "Back to the endpoint" } }
        (panel("Which events", choose(&webhook, &query, replay)))
        (panel("Deliveries to send", remedy(&webhook, &user, replay, preview)))
    };
    Ok(Page::new("Replay", Section::Webhooks, body).show(&user))
}

/// Failed deliveries are counted directly; the others by event.
async fn preview(
    dashboard: &Dashboard,
    id: WebhookId,
    replay: ReplayRequest,
) -> Result<ReplayPreview, ErrorPage> {
    let db = &dashboard.app().db;
    let all_failed = replay.status == Some(DeliveryStatus::Failed)
        && replay.since == DateTime::UNIX_EPOCH
        && replay.until.is_none();
    if all_failed {
        let count = outbox::endpoint_counts(db, id).await?.failed;
        return Ok(ReplayPreview {
            count,
            at_least: count >= outbox::COUNT_LIMIT,
        });
    }
    Ok(outbox::preview_replay(db, id, replay).await?)
}

fn choose(webhook: &Webhook, query: &ReplayQuery, replay: ReplayRequest) -> Markup {
    let local = |moment: DateTime<Utc>| moment.format("%Y-%m-%dT%H:%M").to_string();
    let words = ["failed".to_owned(), "delivered".to_owned()];
    let path = format!("/webhooks/{}/replay", webhook.id);
    let since = match replay.since == DateTime::UNIX_EPOCH {
        true => String::new(),
        false => local(replay.since),
    };
    html! {
        form.filters action=(path) {
            (listing::choice_field("Delivery status", "status", &words, &query.status))
            (listing::text_field("Since (UTC)", "since", "datetime-local", &since))
            (listing::text_field("Before (UTC)", "until", "datetime-local", &replay.until.map(local).unwrap_or_default()))
            button.go type="submit" { "Count" }
        }
    }
}

fn remedy(webhook: &Webhook, user: &User, replay: ReplayRequest, preview: ReplayPreview) -> Markup {
    let more = if preview.at_least { " or more" } else { "" };
    let status = match replay.status {
        Some(DeliveryStatus::Failed) => "failed",
        Some(DeliveryStatus::Delivered) => "delivered",
        _ => "",
    };
    let exact = |moment: DateTime<Utc>| moment.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    html! {
        div.stacked {
            @if !webhook.active {
                p.wrong { "The endpoint is disabled. Enable it first." }
            } @else if preview.count == 0 {
                p { "No deliveries match." }
            } @else {
                p { strong { (plural(preview.count, "delivery", "deliveries")) (more) } " will be sent again with their original webhook-id"
                    @if replay.since != DateTime::UNIX_EPOCH { ", of events since " (when(replay.since)) }
                    "." }
                form method="post" {
                    (csrf_field(user))
                    input type="hidden" name="since" value=(exact(replay.since));
                    @if let Some(until) = replay.until { input type="hidden" name="until" value=(exact(until)); }
                    input type="hidden" name="status" value=(status);
                    button.go type="submit" { "Send " (number(preview.count)) (more) " again" }
                }
            }
        }
    }
}

#[handler]
pub(super) async fn replay_events(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
    Form(query): Form<ReplayQuery>,
) -> Result<Response> {
    let app = dashboard.app();
    let replay = query.replay(app.clock.now())?;
    let webhook = WebhookId(id);
    let dispatch = &*app.dispatch;
    let count = outbox::replay(&app.db, &app.clock, dispatch, webhook, replay).await;
    let count = count.map_err(ErrorPage::from)?;
    let detail = json!({ COUNT: count, "since": replay.since, "status": query.status });
    let page = format!("/webhooks/{id}");
    Ok(repair::done(
        &dashboard,
        &user,
        "webhook.replay",
        id.to_string(),
        detail,
        &page,
    )
    .await?)
}
