//! `/jobs`: the queues, the workers, and the jobs of one state, with actions to retry or delete them.
//!
//! All of this is in Redis. While Redis is down, the page says so, and that nothing is lost.

mod actions;
mod list;
mod queues;
mod workers;

use super::{
    auth::{ADMIN, READ},
    components::{missing, part},
    error::ErrorPage,
    format::bytes,
    layout::{Page, Section},
    pages::Pages,
    session::User,
    sse::{self, PageParts},
    state::Dashboard,
};
use crate::server::queue_monitor::QueuesSnapshot;
use landfall_queue::{JobState, QueueError};
use landfall_workers::QueueName;
use maud::{Markup, html};
use poem::{Request, Response, Result, handler};

/// The pages and actions of queues and jobs.
pub(super) fn pages(pages: Pages) -> Pages {
    pages
        .get("/jobs", READ, show)
        .get("/live/jobs", READ, stream)
        .post("/jobs/sweep", ADMIN, actions::sweep)
        .post("/jobs/audit", ADMIN, actions::audit)
        .get("/jobs/:queue/:state", ADMIN, list::show)
        .post("/jobs/:queue/:state", ADMIN, actions::pause_or_resume)
        .post(
            "/jobs/:queue/dead/run-again",
            ADMIN,
            actions::run_dead_again,
        )
        .post("/jobs/:queue/dead/delete", ADMIN, actions::delete_dead)
        .get("/jobs/:queue/job/:id", ADMIN, list::one)
        .post("/jobs/:queue/job/:id/run-again", ADMIN, actions::run_again)
        .post("/jobs/:queue/job/:id/delete", ADMIN, actions::delete)
}

#[handler]
async fn show(user: User, dashboard: Dashboard) -> Response {
    let body = html! {
        h1.unseen { "Jobs" }
        @for (id, body) in load(&dashboard, user.may_repair()).await { (part(&id, body)) }
    };
    Page::new("Jobs", Section::Jobs, body)
        .live("/live/jobs")
        .show(&user)
}

#[handler]
async fn stream(user: User, dashboard: Dashboard, request: &Request) -> Result<Response> {
    let (name, may_repair) = (sse::name("jobs", &user), user.may_repair());
    let looking = dashboard.clone();
    Ok(sse::stream(&dashboard, request, &name, move || {
        let dashboard = looking.clone();
        sse::boxed(async move {
            let mut parts = load(&dashboard, may_repair).await;
            parts.push(sse::heartbeat(dashboard.app().clock.now()));
            parts
        })
    })?)
}

async fn load(dashboard: &Dashboard, may_repair: bool) -> PageParts {
    let view = dashboard.cached_queues().await;
    let id = |name: &str| name.to_owned();
    let Some(view) = &*view else {
        return vec![
            (id("away"), away()),
            (id("queues"), html! {}),
            (id("workers"), html! {}),
        ];
    };
    vec![
        (id("away"), html! {}),
        (id("queues"), queues::panel(view, memory(view), may_repair)),
        (id("workers"), workers::panel(view, may_repair)),
    ]
}

fn away() -> Markup {
    missing(
        "Redis cannot be reached.",
        "Queues and workers cannot be shown. Nothing is lost: pending work is recorded in the database, and the sweep enqueues it again when Redis is back.",
    )
}

fn memory(view: &QueuesSnapshot) -> String {
    let used = bytes(view.memory.used);
    match view.memory.limit {
        0 => format!("Redis uses {used}"),
        limit => format!("Redis uses {used} of {}", bytes(limit)),
    }
}

/// Parses a queue in a path.
fn queue_of(name: &str) -> Result<QueueName, ErrorPage> {
    name.parse()
        .map_err(|_| ErrorPage::not_found("queue with this name"))
}

/// Parses a state in a path.
fn state_of(name: &str) -> Result<JobState, ErrorPage> {
    const STATES: [JobState; 5] = [
        JobState::Ready,
        JobState::Scheduled,
        JobState::Running,
        JobState::Done,
        JobState::Dead,
    ];
    let found = STATES.into_iter().find(|state| state.as_str() == name);
    found.ok_or_else(|| ErrorPage::not_found("state with this name"))
}

fn unreachable(error: QueueError) -> ErrorPage {
    ErrorPage::unavailable("Redis cannot be reached", error)
}
