//! The timeline of a file.

use super::show::exact;
use crate::dashboard::{
    components::{Tone, action_button, event_state, state},
    format::{ago, shown_url},
    session::User,
};
use chrono::{DateTime, Utc};
use entity::{WebhookId, attempt, outbox_event::EventStatus, upload::UploadKind};
use landfall_core::{
    files::{FileHistory, HistoryEntry, HistoryEvent},
    outbox::EventDetail,
};
use maud::{Markup, html};
use url::Url;

pub(super) fn list(history: &FileHistory, user: &User) -> Markup {
    let entries = history.entries();
    let shown: Vec<&HistoryEntry<'_>> = entries
        .iter()
        .filter(|entry| is_for(user, &entry.what))
        .collect();
    let before = |index: usize| {
        index
            .checked_sub(1)
            .and_then(|index| shown.get(index))
            .map(|entry| entry.at)
    };
    html! {
        ol.timeline {
            @for (index, entry) in shown.iter().enumerate() {
                li class=(tone(&entry.what).class()) {
                    (clock(entry.at))
                    span.after {
                        @if let Some(gap) = before(index).and_then(|before| (entry.at - before).to_std().ok()) { "+" (exact(gap)) }
                    }
                    (describe(history, entry, user))
                }
            }
        }
    }
}

/// Deliveries and their responses are only for users who may see endpoints.
fn is_for(user: &User, what: &HistoryEvent<'_>) -> bool {
    user.may_repair()
        || !matches!(
            what,
            HistoryEvent::Attempt { .. } | HistoryEvent::DeliveryDue { .. }
        )
}

fn tone(what: &HistoryEvent<'_>) -> Tone {
    match what {
        HistoryEvent::Failed { .. } => Tone::Bad,
        HistoryEvent::Attempt { attempt, .. } if !is_taken(attempt) => Tone::Bad,
        HistoryEvent::Begun(_) | HistoryEvent::Claimed(_) | HistoryEvent::Staged => Tone::Run,
        HistoryEvent::FinalizeDue { .. } | HistoryEvent::DeliveryDue { .. } => Tone::Warn,
        HistoryEvent::Expires | HistoryEvent::Deleted => Tone::Dim,
        HistoryEvent::Transferred(_)
        | HistoryEvent::Stored
        | HistoryEvent::Announced(_)
        | HistoryEvent::Attempt { .. } => Tone::Ok,
    }
}

pub(crate) fn is_taken(attempt: &attempt::Model) -> bool {
    matches!(attempt.status_code, Some(200..=299)) && attempt.error.is_none()
}

fn clock(at: DateTime<Utc>) -> Markup {
    let whole = at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    html! { time datetime=(whole) title=(whole) { (at.format("%H:%M:%S%.3f").to_string()) } }
}

fn describe(history: &FileHistory, entry: &HistoryEntry<'_>, user: &User) -> Markup {
    match &entry.what {
        HistoryEvent::Begun(kind) => {
            html! { "Upload started on " (entry.at.format("%Y-%m-%d").to_string()) (by(*kind)) }
        }
        HistoryEvent::Staged => html! { "Staged; all bytes are durable" },
        HistoryEvent::Claimed(worker) => html! { "Claimed by " span.mono { (worker) } },
        HistoryEvent::Transferred(Some(key)) => {
            html! { "Hashed and copied to storage as " code { (key) } }
        }
        HistoryEvent::Transferred(None) => html! { "Hashed and copied to storage" },
        HistoryEvent::Stored => html! { "Committed" },
        HistoryEvent::Announced(event) => announced(event, user),
        HistoryEvent::Attempt { webhook, attempt } => attempted(history, *webhook, attempt),
        HistoryEvent::Failed { code, message } => {
            html! { "Failed: " strong { (code) } ", " (message) }
        }
        HistoryEvent::Deleted => html! { "Deleted" },
        HistoryEvent::FinalizeDue { attempts } => {
            html! { "Next finalize attempt " (ago(entry.at, Utc::now())) ", after " (attempts) " attempts" }
        }
        HistoryEvent::DeliveryDue { webhook, attempts } => html! {
            (host(history, *webhook)) " is retried " (ago(entry.at, Utc::now())) ", after " (attempts) " attempts "
            @if let Some(event) = event_of(history, *webhook) { (action_button(&format!("/events/{event}/redeliver/{webhook}"), "Now")) }
        },
        HistoryEvent::Expires => html! { "Expires " (ago(entry.at, Utc::now())) },
    }
}

fn by(kind: Option<UploadKind>) -> &'static str {
    match kind {
        None => "",
        Some(UploadKind::Parts) => ", in numbered parts",
        Some(UploadKind::Append | UploadKind::Partial) => ", as a resumable upload",
        Some(UploadKind::Final) => ", concatenated from resumable uploads",
    }
}

fn announced(event: &EventDetail, user: &User) -> Markup {
    let id = event.event.id;
    html! {
        "Event "
        @if user.may_repair() { a href={ "/events/" (id) } { (event.event.event_type) } }
        @else { (event.event.event_type) }
        " " (event_state(event.event.status))
        @if event.deliveries.is_empty() { span.dim { " no matching endpoint" } }
        @if user.may_repair() && event.event.status == EventStatus::Failed {
            " " (action_button(&format!("/events/{id}/redeliver"), "Redeliver"))
        }
    }
}

fn attempted(history: &FileHistory, webhook: WebhookId, attempt: &attempt::Model) -> Markup {
    html! { (host(history, webhook)) " " (attempt_response(attempt)) }
}

/// Renders the response to an attempt; its body is untrusted and shown as text.
pub(crate) fn attempt_response(attempt: &attempt::Model) -> Markup {
    let tone = if is_taken(attempt) {
        Tone::Ok
    } else {
        Tone::Bad
    };
    let word = attempt
        .status_code
        .map_or_else(|| "no response".to_owned(), |code| code.to_string());
    let body = attempt
        .response_body
        .as_deref()
        .filter(|body| !body.trim().is_empty());
    html! {
        (state(&word, tone)) " in " (attempt.duration_ms) " ms"
        @if let Some(error) = &attempt.error { span.sub { " · " (error) } }
        @if let Some(body) = body {
            details.body { summary { "Response" } pre tabindex="0" { (body) } }
        }
    }
}

fn host(history: &FileHistory, webhook: WebhookId) -> Markup {
    let url = history
        .urls
        .get(&webhook)
        .map(String::as_str)
        .unwrap_or_default();
    html! { a href={ "/webhooks/" (webhook) } title=(shown_url(url)) { (host_of(url)) } }
}

/// Returns the host of a URL, with its port.
pub(crate) fn host_of(url: &str) -> String {
    let parsed = url.parse::<Url>().ok();
    let host = parsed.as_ref().and_then(|url| {
        let host = url.host_str()?;
        Some(
            url.port()
                .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
        )
    });
    host.unwrap_or_else(|| url.to_owned())
}

fn event_of(history: &FileHistory, webhook: WebhookId) -> Option<entity::EventId> {
    let pending = |event: &&EventDetail| {
        event.deliveries.iter().any(|delivery| {
            delivery.delivery.webhook_id == webhook
                && delivery.delivery.status == entity::delivery::DeliveryStatus::Pending
        })
    };
    history
        .events
        .iter()
        .find(pending)
        .map(|event| event.event.id)
}
