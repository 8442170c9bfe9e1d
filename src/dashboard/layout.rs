//! The layout of every page: head, navigation, search, a notice of the last action, and keyboard shortcuts.

use super::{
    assets,
    components::{csrf_field, part},
    error::ErrorPage,
    repair,
    session::User,
    sse,
    state::Dashboard,
};
use crate::api::mount::RewriteLinks;
use chrono::TimeDelta;
use landfall_core::{operator_log, tokens::TokenScope};
use maud::{DOCTYPE, Markup, html};
use poem::{Request, Response};
use url::form_urlencoded;
use uuid::Uuid;

/// The query parameter with the id of the operator log entry of the last action.
pub(super) const DONE_PARAM: &str = "did";

/// How long after the action its notice is shown.
const NOTICE_TTL: TimeDelta = TimeDelta::minutes(2);

/// htmx configuration: no injected styles, no history cache, and elements that the user opened stay open when a part is
/// updated.
const HTMX: &str =
    r#"{"includeIndicatorCSS":false,"history":false,"morphIgnore":["data-htmx-powered","open"]}"#;

/// The sections of the dashboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Overview,
    Jobs,
    Files,
    Events,
    Webhooks,
    Upload,
    UploadLinks,
    Log,
    Tokens,
    Settings,
}

impl Section {
    const ALL: [Self; 10] = [
        Self::Overview,
        Self::Jobs,
        Self::Files,
        Self::Events,
        Self::Webhooks,
        Self::Upload,
        Self::UploadLinks,
        Self::Log,
        Self::Tokens,
        Self::Settings,
    ];

    /// Name, path, shortcut key after `g`, and required scope.
    fn about(self) -> (&'static str, &'static str, &'static str, TokenScope) {
        match self {
            Self::Overview => ("Overview", "/", "o", TokenScope::Read),
            Self::Jobs => ("Jobs", "/jobs", "j", TokenScope::Read),
            Self::Files => ("Files", "/files", "f", TokenScope::Read),
            Self::Events => ("Events", "/events", "e", TokenScope::Admin),
            Self::Webhooks => ("Webhooks", "/webhooks", "w", TokenScope::Admin),
            Self::Upload => ("Upload", "/upload", "u", TokenScope::Upload),
            Self::UploadLinks => ("Links", "/upload-links", "k", TokenScope::Admin),
            Self::Log => ("Log", "/log", "l", TokenScope::Admin),
            Self::Tokens => ("Tokens", "/tokens", "t", TokenScope::Admin),
            Self::Settings => ("Settings", "/settings", "s", TokenScope::Admin),
        }
    }
}

/// The content of a page, without the layout.
#[derive(Debug)]
pub(crate) struct Page {
    title: String,
    section: Option<Section>,
    live: Option<String>,
    scripts: Vec<&'static str>,
    body: Markup,
}

impl Page {
    pub(crate) fn new(title: impl Into<String>, section: Section, body: Markup) -> Self {
        Self {
            title: title.into(),
            section: Some(section),
            live: None,
            scripts: Vec::new(),
            body,
        }
    }

    /// A page that belongs to no section.
    pub(super) fn standalone(title: impl Into<String>, body: Markup) -> Self {
        Self {
            title: title.into(),
            section: None,
            live: None,
            scripts: Vec::new(),
            body,
        }
    }

    pub(super) fn from_error(error_page: &ErrorPage) -> Self {
        Self::standalone(
            &error_page.title,
            html! {
                section.panel.alone {
                    h1 { (error_page.title) }
                    p { (error_page.detail) }
                    p { a href="/" { "Go to the overview" } }
                }
            },
        )
    }

    /// Updates the page's parts from the stream at this path.
    pub(crate) fn live(mut self, path: impl Into<String>) -> Self {
        self.live = Some(path.into());
        self
    }

    /// Adds a script.
    pub(crate) fn script(mut self, asset: &'static str) -> Self {
        self.scripts.push(asset);
        self
    }

    /// Renders the page for this user.
    pub(crate) fn show(self, user: &User) -> Response {
        self.respond(Some(user))
    }

    pub(super) fn respond(self, user: Option<&User>) -> Response {
        Response::builder()
            .content_type("text/html; charset=utf-8")
            .extension(RewriteLinks)
            .body(self.framed(user).into_string())
    }

    fn framed(&self, user: Option<&User>) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                (self.head())
                body {
                    a.skip href="#main" { "Skip to content" }
                    (header(user, self.section))
                    main #main tabindex="-1" {
                        @if let Some(notice) = user.and_then(|user| user.notice.as_deref()) {
                            p.notice role="status" { (notice) }
                        }
                        (self.body)
                    }
                    @if let Some(path) = &self.live {
                        p #live role="status" hidden { "Connection lost. These figures are out of date; reconnecting…" }
                        footer { (part(sse::HEARTBEAT_PART, html! {})) }
                        div #stream hx-sse:connect=(path) hx-swap="none" {}
                    }
                    @if let Some(user) = user {
                        form #act method="post" { (csrf_field(user)) }
                        (keys(user))
                    }
                }
            }
        }
    }

    fn head(&self) -> Markup {
        html! {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="htmx-config" content=(HTMX);
                title { (self.title) " · Landfall" }
                link rel="icon" type="image/svg+xml" href=(assets::path("icon.svg"));
                link rel="stylesheet" href=(assets::path("style.css"));
                @if self.live.is_some() {
                    script src=(assets::path("htmx.js")) defer {}
                }
                script src=(assets::path("dashboard.js")) defer {}
                @for script in &self.scripts { script src=(assets::path(script)) defer {} }
            }
        }
    }
}

fn header(user: Option<&User>, here: Option<Section>) -> Markup {
    html! {
        header {
            a.brand href="/" { (mark()) "Landfall" }
            @if let Some(user) = user {
                nav aria-label="Sections" {
                    @for (section, (name, path, key, _)) in open_to(user) {
                        a href=(path) data-key=(key) aria-current=[(here == Some(section)).then_some("page")] { (name) }
                    }
                }
                form.search role="search" action="/search" {
                    input #search type="search" name="q" aria-label="Search an id, a name or a SHA-256"
                        placeholder="Id, name or SHA-256" autocomplete="off" spellcheck="false";
                    kbd aria-hidden="true" { "/" }
                }
                @if user.signed_in {
                    div.who {
                        span { (user.name()) @if !user.may_repair() { " (read-only)" } }
                        button.plain type="submit" form="act" formaction="/sign-out" { "Sign out" }
                    }
                }
            }
        }
    }
}

fn open_to(
    user: &User,
) -> impl Iterator<
    Item = (
        Section,
        (&'static str, &'static str, &'static str, TokenScope),
    ),
> {
    let sections = Section::ALL.map(|section| (section, section.about()));
    let may = sections
        .into_iter()
        .filter(|(_, (.., scope))| user.identity.may(*scope));
    may.collect::<Vec<_>>().into_iter()
}

fn mark() -> Markup {
    html! {
        svg width="22" height="22" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2"
            stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" {
            path d="M12 3v10M8 9l4 4 4-4" {}
            path d="M3 17c2.2 0 2.2-1.6 4.5-1.6S9.8 17 12 17s2.2-1.6 4.5-1.6S18.8 17 21 17" {}
            path d="M3 21c2.2 0 2.2-1.6 4.5-1.6S9.8 21 12 21s2.2-1.6 4.5-1.6S18.8 21 21 21" {}
        }
    }
}

/// The dialog opened with `?`.
fn keys(user: &User) -> Markup {
    html! {
        dialog #keys aria-labelledby="keys-heading" {
            h2 #keys-heading { "Keyboard shortcuts" }
            dl {
                div { dt { kbd { "/" } } dd { "Search" } }
                @for (_, (name, _, key, _)) in open_to(user) {
                    div { dt { kbd { "g" } " " kbd { (key) } } dd { (name) } }
                }
                div { dt { kbd { "j" } " " kbd { "k" } } dd { "Move down or up in a list (arrow keys work too)" } }
                div { dt { kbd { "Enter" } } dd { "Open the row" } }
                div { dt { kbd { "?" } } dd { "Show this help" } }
            }
            form method="dialog" { button { "Close" } }
        }
    }
}

/// Returns a notice of what this user has just done, if the URL asks for it. It is read from the operator log, so a
/// link cannot make a page claim an action that did not happen.
pub(super) async fn notice_of(
    dashboard: &Dashboard,
    request: &Request,
    user: &User,
) -> Result<Option<String>, ErrorPage> {
    let query = request.uri().query().unwrap_or_default();
    let did = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == DONE_PARAM);
    let Some(id) = did.and_then(|(_, id)| id.parse::<Uuid>().ok()) else {
        return Ok(None);
    };
    let app = dashboard.app();
    let entry = operator_log::get(app.db.read(), id).await?;
    let just = |entry: &operator_log::Entry| {
        entry.actor == user.name() && app.clock.now() - entry.at < NOTICE_TTL
    };
    Ok(entry.filter(just).map(|entry| repair::describe(&entry)))
}
