//! `/`: the overview: what is in progress, what is wrong, and how to fix it.

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
    sse::{self, PageParts},
    state::Dashboard,
};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use poem::{Request, Response, Result, handler};
pub(super) use snapshot::OverviewCache;
use snapshot::{DatabaseSnapshot, OverviewSnapshot};

/// The pages of the overview.
pub(super) fn pages(pages: Pages) -> Pages {
    pages
        .get("/", READ, show)
        .get("/live/overview", READ, stream)
        .post("/redeliver", ADMIN, actions::redeliver)
}

#[handler]
async fn show(user: User, dashboard: Dashboard) -> Response {
    let snapshot = dashboard.overview().snapshot(&dashboard).await;
    let parts = parts(&dashboard, &snapshot, user.may_repair());
    let body = html! {
        h1.unseen { "Overview" }
        @for (id, body) in &parts[..3] { (part(id, body)) }
        div.grid { @for (id, body) in &parts[3..] { (part(id, body)) } }
    };
    Page::new("Overview", Section::Overview, body)
        .live("/live/overview")
        .show(&user)
}

#[handler]
async fn stream(user: User, dashboard: Dashboard, request: &Request) -> Result<Response> {
    let (name, may_repair) = (sse::name("overview", &user), user.may_repair());
    let looking = dashboard.clone();
    Ok(sse::stream(&dashboard, request, &name, move || {
        let dashboard = looking.clone();
        sse::boxed(async move {
            let snapshot = dashboard.overview().snapshot(&dashboard).await;
            let mut parts = parts(&dashboard, &snapshot, may_repair);
            parts.push(sse::heartbeat(dashboard.app().clock.now()));
            parts
        })
    })?)
}

fn parts(dashboard: &Dashboard, snapshot: &OverviewSnapshot, may_repair: bool) -> PageParts {
    let now = dashboard.app().clock.now();
    let id = |name: &str| name.to_owned();
    let banners = alerts::banners(snapshot, now, may_repair);
    let (flow, charts, proof) = match &snapshot.database {
        Some(database) => database_parts(dashboard, database, now, may_repair),
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
            health::panel(&snapshot.readiness.checks, may_repair),
        ),
    ]
}

fn database_parts(
    dashboard: &Dashboard,
    database: &DatabaseSnapshot,
    now: DateTime<Utc>,
    may_repair: bool,
) -> (Markup, Markup, Markup) {
    let flow = match database.flow.is_empty() {
        true => first_file(dashboard),
        false => flow::panel(&database.flow, now, may_repair),
    };
    (
        flow,
        charts::panels(&database.minutes),
        last_audit::panel(database.audit.as_ref(), now, may_repair),
    )
}

/// Shown in an empty installation.
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
