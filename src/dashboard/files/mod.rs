//! `/files`: finding files.

pub(super) mod actions;
mod retry;
mod show;
pub(super) mod timeline;

use super::{
    auth::READ,
    components::{col, empty, file_state, num, pager, panel, table},
    error::ErrorPage,
    format::{ago, bytes, href},
    layout::{Page, Section},
    listing,
    pages::Pages,
    session::User,
    state::Dashboard,
};
use chrono::{DateTime, Utc};
use entity::{
    BatchId,
    file::{self, FileStatus},
};
use landfall_core::files::{self, FileFilter};
use maud::{Markup, PreEscaped, Render, html};
use poem::{Response, Result, handler, web::Query};
use serde::Deserialize;

pub(super) fn pages(pages: Pages) -> Pages {
    pages
        .get("/files", READ, list)
        .get("/files/retry", READ, retry::ask)
        .post("/files/retry", READ, retry::retry_matching)
        .get("/files/:id", READ, show::show)
        .get("/files/:id/content", READ, actions::content)
        .get("/live/files/:id", READ, show::stream)
        .post("/files/:id/finalize", READ, actions::finalize)
        .post("/files/:id/retry", READ, actions::retry)
        .post("/files/:id/delete", READ, actions::delete)
}

/// The filters in the URL.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ListFilesQuery {
    q: String,
    status: String,
    code: String,
    sha256: String,
    owner: String,
    batch: String,
    since: String,
    until: String,
    cursor: String,
}

impl ListFilesQuery {
    /// Returns the URL of the list with these filters.
    fn list(&self) -> String {
        href("/files", &self.pairs())
    }

    fn filter(&self) -> Result<FileFilter, ErrorPage> {
        Ok(FileFilter {
            q: listing::text("q", &self.q)?,
            status: listing::status("status", &self.status)?,
            error_code: listing::text("code", &self.code)?,
            sha256: listing::text("sha256", &self.sha256)?,
            owner: listing::text("owner", &self.owner)?,
            batch_id: listing::id("batch", &self.batch)?.map(BatchId),
            since: listing::moment("since", &self.since)?,
            until: listing::moment("until", &self.until)?,
        })
    }

    /// Returns the filters without the cursor.
    fn pairs(&self) -> [(&'static str, &str); 8] {
        [
            ("q", &self.q),
            ("status", &self.status),
            ("code", &self.code),
            ("sha256", &self.sha256),
            ("owner", &self.owner),
            ("batch", &self.batch),
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
    Query(query): Query<ListFilesQuery>,
) -> Result<Response> {
    let app = dashboard.app();
    let filter = query.filter()?;
    let page = listing::page(&query.cursor)?;
    let found = files::list(app.db.read(), &user.sees(), &filter, page).await;
    let found = found.map_err(ErrorPage::from)?;
    let cursor = Some(query.cursor.as_str()).filter(|cursor| !cursor.is_empty());
    let next = found.next_cursor.as_deref();
    let body = html! {
        h1.unseen { "Files" }
        section.panel aria-label="Filter files" { (fields(&query, &filter)) }
        (panel("Files, newest first", html! {
            @if filter.status == Some(FileStatus::Failed) && !found.items.is_empty() && user.may_repair() {
                p { a.button href=(href("/files/retry", &query.pairs())) { "Retry all that match…" } }
            }
            @if found.items.is_empty() { (none(&query, next.is_some(), app.public_url.as_str())) }
            @else { (rows(&found.items, app.clock.now())) }
            (pager("/files", &query.pairs(), cursor, next))
        }))
    };
    Ok(Page::new("Files", Section::Files, body).show(&user))
}

fn fields(query: &ListFilesQuery, filter: &FileFilter) -> Markup {
    listing::filters(
        "/files",
        query.is_filtered(),
        html! {
            label.long { "Name, id or SHA-256"
                input type="search" name="q" value=(query.q) placeholder="Name prefix, id or SHA-256" autocomplete="off" spellcheck="false";
            }
            (listing::status_field("Status", "status", filter.status))
            (listing::text_field("Owner", "owner", "text", &query.owner))
            (listing::text_field("Batch", "batch", "text", &query.batch))
            (listing::text_field("From (UTC)", "since", "date", &query.since))
            (listing::text_field("Before (UTC)", "until", "date", &query.until))
            @if filter.status == Some(FileStatus::Failed) || !query.code.is_empty() {
                (listing::text_field("Error code", "code", "text", &query.code))
            }
            @if !query.sha256.is_empty() { input type="hidden" name="sha256" value=(query.sha256); }
        },
    )
}

fn none(query: &ListFilesQuery, is_more: bool, url: &str) -> Markup {
    if is_more {
        return empty("No matches yet.", html! { "Continue with “Older”." });
    }
    if query.is_filtered() || !query.cursor.is_empty() {
        return empty(
            "No files match these filters.",
            html! { a href="/files" { "Show all files" } },
        );
    }
    let url = url.trim_end_matches('/');
    empty(
        "No files yet. Send the first one:",
        html! {
            pre { "curl -F file=@README.md " (url) "/v1/files" }
            a href="/upload" { "Drop files here" }
        },
    )
}

/// Renders files as a table; also used by the batch page.
pub(super) fn rows(files: &[file::Model], now: DateTime<Utc>) -> Markup {
    let columns = [
        col("Name"),
        col("Status"),
        num("Size"),
        col("Owner"),
        col("SHA-256"),
        num("Received"),
    ];
    table(
        "Files",
        &columns,
        html! {
            @for file in files {
                tr {
                    td.name {
                        a href={ "/files/" (file.id) } { (name(&file.original_filename)) }
                        span.sub { (file.content_type) }
                    }
                    td { (file_state(file.status))
                        @if let Some(code) = &file.error_code { span.sub { (code) } }
                    }
                    td.n { (bytes(file.size_bytes.unsigned_abs())) }
                    td { @if let Some(owner) = &file.owner { a href=(href("/files", &[("owner", owner)])) { (owner) } } @else { span.dim { "–" } } }
                    td { @if let Some(sha256) = &file.sha256 { (digest(sha256)) } @else { span.dim { "–" } } }
                    td.n { (ago(file.created_at, now)) }
                }
            }
        },
    )
}

/// A shortened digest that links to all files with it.
pub(super) fn digest(sha256: &str) -> Markup {
    let (head, tail) = (
        sha256.get(..6).unwrap_or(sha256),
        sha256.get(60..).unwrap_or_default(),
    );
    html! { a.mono href=(href("/files", &[("sha256", sha256)])) title=(sha256) { (head) "…" (tail) } }
}

/// Renders a file name; characters that change the text direction or are invisible are shown as code points.
pub(super) fn name(given: &str) -> impl Render {
    let mut shown = String::new();
    for character in given.chars() {
        match character {
            hidden if hidden.is_control() || is_format(hidden) => {
                shown.push_str(&format!(
                    "<span class=\"dim\">U+{:04X}</span>",
                    u32::from(hidden)
                ));
            }
            visible => shown.push_str(&html! { (visible) }.into_string()),
        }
    }
    html! { bdi { (PreEscaped(shown)) } }
}

/// Directional formatting and zero-width characters (Unicode UAX #9, "Default_Ignorable_Code_Point").
fn is_format(character: char) -> bool {
    matches!(character, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_shows_what_it_hides_and_stays_text() {
        let shown = name("a<b>\u{202E}gpj.exe").render().into_string();
        assert_eq!(
            shown,
            "<bdi>a&lt;b&gt;<span class=\"dim\">U+202E</span>gpj.exe</bdi>"
        );
    }
}
