//! `/upload-links`: the links by which files can be sent without a token. The URL of a link is shown only in the response
//! to the request that created it.

use super::{
    auth::ADMIN,
    components::{
        Tone, col, confirmed_action_button, csrf_field, empty, num, pager, panel, panel_with,
        state, table,
    },
    error::ErrorPage,
    format::{ago, bytes, href},
    layout::{Page, Section},
    listing,
    pages::Pages,
    repair,
    session::User,
    state::Dashboard,
};
use chrono::{DateTime, Utc};
use entity::UploadLinkId;
use landfall_core::{
    batches::JoinBatchError,
    upload_links::{
        self, MAX_LINK_FILES, NewUploadLink, UploadLink, UploadLinkError, UploadLinkStatus,
    },
};
use maud::{Markup, html};
use poem::{
    Response, Result, handler,
    web::{Form, Path, Query},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

pub(super) fn pages(pages: Pages) -> Pages {
    pages
        .get("/upload-links", ADMIN, list)
        .post("/upload-links", ADMIN, create)
        .post("/upload-links/:id/revoke", ADMIN, revoke)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ListUploadLinksQuery {
    cursor: String,
}

/// The submitted form; empty fields are absent ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct UploadLinkForm {
    minutes: String,
    max_files: String,
    max_size: String,
    allowed_types: String,
    cors_origins: String,
    metadata: String,
}

#[handler]
async fn list(
    user: User,
    dashboard: Dashboard,
    Query(query): Query<ListUploadLinksQuery>,
) -> Result<Response> {
    let app = dashboard.app();
    let page = listing::page(&query.cursor)?;
    let found = upload_links::list(&app.db, &user.sees(), page).await;
    let found = found.map_err(ErrorPage::from)?;
    let cursor = Some(query.cursor.as_str()).filter(|cursor| !cursor.is_empty());
    let body = html! {
        h1.unseen { "Upload links" }
        (panel_with("Upload links", html! { a href="#add" { "Create a link" } }, html! {
            @if found.items.is_empty() { (empty("No upload links yet.", html! { "With a link, a browser or a phone uploads without a token." })) }
            @else { (rows(&found.items, app.clock.now())) }
            (pager("/upload-links", &[], cursor, found.next_cursor.as_deref()))
        }))
        (panel("Create a link", new_form(&user)))
    };
    Ok(Page::new("Upload links", Section::UploadLinks, body).show(&user))
}

fn rows(links: &[UploadLink], now: DateTime<Utc>) -> Markup {
    let columns = [
        col("Link"),
        col("State"),
        num("Files"),
        col("Limits"),
        col("Owner"),
        col("Expires"),
        col("Action"),
    ];
    table(
        "Upload links",
        &columns,
        html! {
            @for link in links {
                tr {
                    td.name { span.mono { (link.id) } span.sub { (link.metadata) } }
                    td { (link_state(link.status_at(now))) }
                    td.n { (link.used_files) " / " (link.max_files) }
                    td { (limits(link)) }
                    td { (link.owner.as_deref().unwrap_or("–")) }
                    td { (ago(link.expires_at, now)) }
                    td {
                        @if link.revoked_at.is_none() && link.expires_at > now {
                            (confirmed_action_button(&format!("/upload-links/{}/revoke", link.id), "Revoke…", "The link is refused from the next request on. Its files stay.", "Revoke link"))
                        }
                    }
                }
            }
        },
    )
}

fn link_state(status: UploadLinkStatus) -> Markup {
    match status {
        UploadLinkStatus::Open => state("open", Tone::Ok),
        UploadLinkStatus::Used => state("used", Tone::Dim),
        UploadLinkStatus::Expired => state("expired", Tone::Dim),
        UploadLinkStatus::Revoked => state("revoked", Tone::Dim),
    }
}

fn limits(link: &UploadLink) -> Markup {
    html! {
        @match link.max_size { Some(max) => { (bytes(max)) } None => { span.dim { "any size" } } }
        span.sub { @if link.allowed_types.is_empty() { "all types" } @else { (link.allowed_types.join(", ")) } }
        @if let Some(batch) = link.batch_id { span.sub { a href=(href(&format!("/batches/{batch}"), &[])) { "into a batch" } } }
    }
}

fn new_form(user: &User) -> Markup {
    html! {
        form.stacked #add method="post" action="/upload-links" {
            (csrf_field(user))
            label { "Valid for, in minutes" input type="number" name="minutes" value="60" min="1" max="10080" required; }
            label { "Number of files" input type="number" name="max_files" value="1" min="1" max=(MAX_LINK_FILES) required; }
            label { "Maximum size of a file, in MiB" input type="number" name="max_size" min="1" placeholder="as large as the server accepts"; }
            label { "Media types" input name="allowed_types" placeholder="image/*, application/pdf" spellcheck="false"; }
            label { "Origins of pages that may use it" input name="cors_origins" placeholder="https://app.example.com" spellcheck="false"; }
            label { "Metadata, as a JSON object" input name="metadata" placeholder="{\"user\": \"42\"}" spellcheck="false"; }
            button.go type="submit" { "Create" }
        }
    }
}

#[handler]
async fn create(
    user: User,
    dashboard: Dashboard,
    Form(form): Form<UploadLinkForm>,
) -> Result<Response> {
    let new = requested(&user, form)?;
    let created = upload_links::create(dashboard.app(), new, None).await;
    let created = created.map_err(ErrorPage::from)?;
    Ok(show_url(&dashboard, &user, created).await?)
}

fn requested(user: &User, form: UploadLinkForm) -> Result<NewUploadLink, ErrorPage> {
    let minutes = whole("minutes", &form.minutes)?.unwrap_or(60);
    let metadata = match form.metadata.trim() {
        "" => json!({}),
        text => serde_json::from_str(text).unwrap_or_default(),
    };
    if !metadata.is_object() {
        return Err(ErrorPage::malformed("`metadata` must be a JSON object."));
    }
    let max_files = whole("max_files", &form.max_files)?.unwrap_or(1);
    let max_size = whole("max_size", &form.max_size)?;
    Ok(NewUploadLink {
        owner: user.identity.owner.clone(),
        lifetime: Duration::from_secs(minutes.saturating_mul(60)),
        max_files: u32::try_from(max_files).unwrap_or(u32::MAX),
        max_size: max_size.map(|size| size.saturating_mul(1024 * 1024)),
        allowed_types: entries(&form.allowed_types),
        batch_id: None,
        metadata,
        cors_origins: entries(&form.cors_origins),
    })
}

fn whole(field: &str, given: &str) -> Result<Option<u64>, ErrorPage> {
    match given.trim() {
        "" => Ok(None),
        given => given
            .parse()
            .map(Some)
            .map_err(|_| ErrorPage::malformed(format!("`{field}` must be a whole number."))),
    }
}

/// Splits a list at commas and spaces.
fn entries(given: &str) -> Vec<String> {
    let entries = given.split([',', ' ']).map(str::trim);
    entries
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect()
}

async fn show_url(
    dashboard: &Dashboard,
    user: &User,
    (link, url): (UploadLink, SecretString),
) -> Result<Response, ErrorPage> {
    // The log entry is written first, because this response is the page itself and not a redirect.
    let subject = link.id.to_string();
    repair::done(
        dashboard,
        user,
        "upload_link.create",
        subject,
        json!({}),
        "/upload-links",
    )
    .await?;
    let url = url.expose_secret();
    let body = html! {
        section.panel.alone {
            h1 { "New upload link" }
            p { "Copy it now. It is not shown again." }
            pre.secret tabindex="0" { (url) }
            p.sub { "Send a file by PUT or POST, or resumable to the tus endpoint:" }
            pre.secret tabindex="0" { (url) "/tus" }
            p { a.button.go href="/upload-links" { "I have saved the link" } }
        }
    };
    Ok(Page::new("New upload link", Section::UploadLinks, body).show(user))
}

#[handler]
async fn revoke(user: User, dashboard: Dashboard, Path(id): Path<Uuid>) -> Result<Response> {
    let app = dashboard.app();
    let link = UploadLinkId(id);
    let revoked = upload_links::revoke(&app.db, &app.clock, &user.sees(), link).await;
    revoked.map_err(ErrorPage::from)?;
    let (subject, page) = (id.to_string(), "/upload-links");
    Ok(repair::done(
        &dashboard,
        &user,
        "upload_link.revoke",
        subject,
        json!({}),
        page,
    )
    .await?)
}

impl From<UploadLinkError> for ErrorPage {
    fn from(error: UploadLinkError) -> Self {
        match error {
            UploadLinkError::NotFound => Self::not_found("upload link with this id"),
            UploadLinkError::Invalid(faults) => {
                let faults: Vec<String> = faults
                    .iter()
                    .map(|fault| format!("{}: {}", fault.field, fault.message))
                    .collect();
                Self::malformed(format!("{}.", faults.join("; ")))
            }
            UploadLinkError::Batch(JoinBatchError::Database(error))
            | UploadLinkError::Database(error) => error.into(),
            UploadLinkError::Batch(error) => Self::conflict(format!("{error}.")),
            UploadLinkError::Response(error) => Self::failed(error),
        }
    }
}
