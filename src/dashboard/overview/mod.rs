//! `/`: is everything ashore, what is not, and the button that mends it.

mod actions;
mod alerts;
mod charts;
mod flow;
mod health;
mod last_audit;
mod snapshot;

use super::{
    auth::{ADMIN, READ},
    components::{self, missing, part},
    layout::{Page, Section},
    pages::Pages,
    session::User,
    sse::{self, Parts},
    state::Dashboard,
};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use poem::{Request, Response, Result, handler};
pub(super) use snapshot::Seen;
use snapshot::{Known, Picture};

/// The overview and its stream.
pub(super) fn pages(pages: Pages) -> Pages {
    pages
        .get("/", READ, show)
        .get("/live/overview", READ, stream)
        .post("/redeliver", ADMIN, actions::redeliver)
}

#[handler]
async fn show(visitor: User, dashboard: Dashboard) -> Response {
    let picture = dashboard.overview().picture(&dashboard).await;
    let parts = parts(&dashboard, &picture, visitor.may_repair());
    let body = html! {
        h1.unseen { "Overview" }
        @for (id, body) in &parts[..3] { (part(id, body)) }
        div.grid { @for (id, body) in &parts[3..] { (part(id, body)) } }
    };
    Page::new("Overview", Section::Overview, body)
        .live("/live/overview")
        .show(&visitor)
}

#[handler]
async fn stream(visitor: User, dashboard: Dashboard, request: &Request) -> Result<Response> {
    let (name, may_repair) = (sse::name("overview", &visitor), visitor.may_repair());
    let looking = dashboard.clone();
    Ok(sse::stream(&dashboard, request, &name, move || {
        let dashboard = looking.clone();
        sse::boxed(async move {
            let picture = dashboard.overview().picture(&dashboard).await;
            let mut parts = parts(&dashboard, &picture, may_repair);
            parts.push(sse::beat(dashboard.app().clock.now()));
            parts
        })
    })?)
}

fn parts(dashboard: &Dashboard, picture: &Picture, may_repair: bool) -> Parts {
    let now = dashboard.app().clock.now();
    let id = |name: &str| name.to_owned();
    let banners = alerts::banners(picture, now, may_repair);
    let (flow, charts, proof) = match &picture.known {
        Some(known) => known_parts(dashboard, known, now, may_repair),
        None => (
            missing(
                "The database cannot be reached.",
                "The figures below come from the other services.",
            ),
            html! {},
            html! {},
        ),
    };
    vec![
        (id("banners"), banners),
        (id("flow"), flow),
        (id("charts"), charts),
        (id("proof"), proof),
        (
            id("health"),
            health::panel(&picture.readiness.checks, may_repair),
        ),
    ]
}

fn known_parts(
    dashboard: &Dashboard,
    known: &Known,
    now: DateTime<Utc>,
    may_repair: bool,
) -> (Markup, Markup, Markup) {
    let flow = match known.flow.is_empty() {
        true => first_file(dashboard),
        false => flow::panel(&known.flow, now, may_repair),
    };
    (
        flow,
        charts::panels(&known.minutes),
        last_audit::panel(known.audit.as_ref(), now, may_repair),
    )
}

/// What an empty installation shows.
fn first_file(dashboard: &Dashboard) -> Markup {
    let app = dashboard.app();
    let base = app.public_url.as_str().trim_end_matches('/');
    let token = match app.config.auth.mode {
        landfall_core::config::AuthMode::None => "",
        landfall_core::config::AuthMode::Tokens => " -H 'Authorization: Bearer lf_…'",
    };
    components::panel(
        "Files in progress",
        components::empty(
            "No files yet. Send the first one:",
            html! { pre { "curl -F file=@README.md" (token) " " (base) "/v1/files" } },
        ),
    )
}
