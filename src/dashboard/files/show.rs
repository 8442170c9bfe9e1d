//! `/files/{id}`: one file and its timeline, updated in place.

use super::{name, timeline};
use crate::dashboard::{
    components::{action_button, confirmed_action_button, file_state, panel, panel_with, part},
    error::ErrorPage,
    format::{bytes, href, number, span, when},
    layout::{Page, Section},
    session::User,
    sse::{self, PageParts},
    state::Dashboard,
};
use entity::{
    FileId, Timestamp,
    file::{FileStatus, Model},
};
use landfall_core::files::{self, FileHistory};
use maud::{Markup, html};
use poem::{Request, Response, Result, handler, web::Path};
use std::time::Duration;
use uuid::Uuid;

#[handler]
pub(super) async fn show(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let history = find(&dashboard, &user, FileId(id)).await?;
    let title = history.file.original_filename.clone();
    let body = html! {
        @for (id, body) in parts(&history, &user) { (part(&id, body)) }
        (about(&history.file))
    };
    let page = Page::new(title, Section::Files, body).live(format!("/live/files/{id}"));
    Ok(page.show(&user))
}

#[handler]
pub(super) async fn stream(
    user: User,
    dashboard: Dashboard,
    Path(id): Path<Uuid>,
    request: &Request,
) -> Result<Response> {
    find(&dashboard, &user, FileId(id)).await?;
    let name = sse::name(&format!("file {id}"), &user);
    let looking = (dashboard.clone(), user);
    Ok(sse::stream(&dashboard, request, &name, move || {
        let (dashboard, user) = looking.clone();
        sse::boxed(async move {
            let history = find(&dashboard, &user, FileId(id)).await;
            let mut parts = history
                .map(|history| parts(&history, &user))
                .unwrap_or_default();
            parts.push(sse::heartbeat(dashboard.app().clock.now()));
            parts
        })
    })?)
}

async fn find(dashboard: &Dashboard, user: &User, id: FileId) -> Result<FileHistory, ErrorPage> {
    let history = files::history(&dashboard.app().db, &user.sees(), id).await?;
    history.ok_or_else(|| ErrorPage::not_found("file with this id"))
}

fn parts(history: &FileHistory, user: &User) -> PageParts {
    vec![
        ("file".to_owned(), head(&history.file, user)),
        (
            "life".to_owned(),
            panel_with("Timeline", beside(history), timeline::list(history, user)),
        ),
    ]
}

/// The known durations.
fn beside(history: &FileHistory) -> Markup {
    let file = &history.file;
    let took = |from: Option<Timestamp>, to: Option<Timestamp>| (to? - from?).to_std().ok();
    html! {
        @if let Some(took) = took(Some(file.created_at), file.staged_at) { span { "received in " (exact(took)) } }
        @if let Some(took) = took(file.staged_at, file.stored_at) { span { "stored after " (exact(took)) } }
    }
}

pub(super) fn exact(duration: Duration) -> String {
    match duration.as_millis() {
        millis @ 0..1_000 => format!("{millis} ms"),
        _ => span(duration),
    }
}

fn head(file: &Model, user: &User) -> Markup {
    html! {
        div.title {
            h1 { (name(&file.original_filename)) }
            (file_state(file.status))
        }
        @if file.status == FileStatus::Failed {
            div.banner.bad role="status" {
                p { strong { "The file failed: " (file.error_code.as_deref().unwrap_or("unknown")) "." } " "
                    (file.error_message.as_deref().unwrap_or_default()) " Nothing was announced." }
                @match files::retryable_until(file) {
                    Some(until) => p { "Its bytes are kept until " (when(until)) ", and it can be retried until then: "
                        "it is staged again and finalized like a new file, and is announced once it is stored." },
                    None => p { "Its bytes are gone; it must be sent again." },
                }
            }
        }
        @if file.finalize_attempts > 0 && file.status == FileStatus::Staged {
            div.banner role="status" {
                p { strong { "Waiting to be finalized again." } " " (file.finalize_attempts) " attempts failed with a temporary error." }
            }
        }
        div.does {
            @if file.status == FileStatus::Stored {
                a.button href={ "/files/" (file.id) "/content" } download { "Download" }
            }
            @if user.may_repair() {
                @if matches!(file.status, FileStatus::Staged | FileStatus::Finalizing) {
                    (action_button(&format!("/files/{}/finalize", file.id), "Finalize now"))
                }
                @if files::retryable_until(file).is_some() {
                    (confirmed_action_button(&format!("/files/{}/retry", file.id), "Retry…",
                        "The file is staged again and a worker finalizes it: its bytes are verified and stored, and file.stored \
                         is announced. If the cause persists, it fails again.", "Retry it"))
                    (confirmed_action_button(&format!("/files/{}/delete", file.id), "Remove its bytes…",
                        "The bytes are removed for good, and the file can no longer be retried.", "Remove them"))
                }
                @if file.status == FileStatus::Stored {
                    (confirmed_action_button(&format!("/files/{}/delete", file.id), "Delete…",
                        "The object is deleted permanently and file.deleted is sent.", "Delete file"))
                }
            }
        }
    }
}

fn about(file: &Model) -> Markup {
    let sha256 = file.sha256.as_deref().or(file.declared_sha256.as_deref());
    html! {
        (panel("Details", html! {
            dl.facts {
                dt { "Id" } dd { code { (file.id) } }
                dt { "Size" } dd { (bytes(file.size_bytes.unsigned_abs())) " " span.dim { "(" (number(file.size_bytes.unsigned_abs())) " bytes)" } }
                dt { "Content type" } dd { (file.content_type) }
                @if let Some(sha256) = sha256 {
                    dt { "SHA-256" } dd { code { (sha256) } " "
                        @if file.sha256.is_some() { a href=(href("/files", &[("sha256", sha256)])) { "all files with this content" } }
                        @else { span.dim { "declared by the client, not yet verified" } } }
                }
                @if let Some(owner) = &file.owner { dt { "Owner" } dd { a href=(href("/files", &[("owner", owner)])) { (owner) } } }
                @if let Some(batch) = file.batch_id { dt { "Batch" } dd { a.mono href={ "/batches/" (batch) } { (batch) } } }
                @if let Some(key) = &file.storage_key { dt { "Storage key" } dd { code { (key) } } }
                @if let Some(at) = file.expires_at { dt { "Expires" } dd { (when(at)) } }
                @if file.metadata.as_object().is_some_and(|fields| !fields.is_empty()) {
                    dt { "Metadata" } dd { (laid_out(&file.metadata)) }
                }
            }
        }))
    }
}

/// Formats JSON with indentation.
fn laid_out(metadata: &serde_json::Value) -> Markup {
    html! { pre tabindex="0" { (serde_json::to_string_pretty(metadata).unwrap_or_default()) } }
}
