//! The jobs of one state, in pages, and the details of one job.

use super::{queue_of, state_of, unreachable};
use crate::{
    dashboard::{
        components::{
            self, Tone, action_button, col, confirmed_action_button, empty, num,
            primary_action_button, state,
        },
        error::ErrorPage,
        format::{ago, href, moment, number, plural, when},
        layout::{Page, Section},
        session::User,
        state::Dashboard,
    },
    server::queue_monitor::{JobSubject, subject},
};
use chrono::{DateTime, Utc};
use landfall_queue::{JobInfo, JobState, QueueStats};
use landfall_workers::QueueName;
use maud::{Markup, html};
use poem::{
    Response, Result, handler,
    web::{Path, Query},
};
use serde::Deserialize;

/// Number of jobs per page.
const PAGE_SIZE: usize = 50;

#[derive(Deserialize)]
pub(super) struct ListJobsQuery {
    /// Number of jobs before the page.
    #[serde(default)]
    from: u64,
}

#[handler]
pub(super) async fn show(
    user: User,
    dashboard: Dashboard,
    Path((queue, state)): Path<(String, String)>,
    Query(ListJobsQuery { from }): Query<ListJobsQuery>,
) -> Result<Response> {
    let (queue, state) = (queue_of(&queue)?, state_of(&state)?);
    let inspector = dashboard.queues().inspector();
    let (stats, jobs) = tokio::try_join!(
        inspector.stats(queue.as_str()),
        inspector.jobs(queue.as_str(), state, from, PAGE_SIZE + 1)
    )
    .map_err(unreachable)?;
    let now = dashboard.app().clock.now();
    let title = format!("{}: {}", queue.as_str(), state.as_str());
    let body = html! {
        div.title {
            h1 { a href="/jobs" { "Jobs" } " · " (title) }
            (tabs(queue, state, &stats))
        }
        (panel(queue, state, &stats, &jobs, from, now))
    };
    Ok(Page::new(title, Section::Jobs, body).show(&user))
}

/// Tabs for the states of the queue.
fn tabs(queue: QueueName, here: JobState, stats: &QueueStats) -> Markup {
    let name = queue.as_str();
    let states = [
        (JobState::Ready, stats.ready),
        (JobState::Scheduled, stats.scheduled),
        (JobState::Running, stats.running),
        (JobState::Dead, stats.dead),
        (JobState::Done, stats.done_kept),
    ];
    html! {
        nav.tabs aria-label="States" {
            @for (state, count) in states {
                a href={ "/jobs/" (name) "/" (state.as_str()) } aria-current=[(state == here).then_some("page")] {
                    (state.as_str()) " " span.dim { (number(count)) }
                }
            }
        }
    }
}

fn panel(
    queue: QueueName,
    state: JobState,
    stats: &QueueStats,
    jobs: &[JobInfo],
    from: u64,
    now: DateTime<Utc>,
) -> Markup {
    if jobs.is_empty() {
        let why = format!(
            "No {1} jobs in the {0} queue.",
            queue.as_str(),
            state.as_str()
        );
        return components::panel("Jobs", empty(&why, html! {}));
    }
    const COLUMNS: [components::Column; 5] = [
        col("Job"),
        num("Attempts"),
        num("Since"),
        col("Last error"),
        col(""),
    ];
    let path = format!("/jobs/{}/{}", queue.as_str(), state.as_str());
    let page = |from: u64| href(&path, &[("from", &from.to_string())]);
    let shown = jobs.len().min(PAGE_SIZE) as u64;
    let rows = html! { @for job in jobs.iter().take(PAGE_SIZE) { (row(queue, job, now)) } };
    components::panel_with(
        "Jobs",
        remedies(queue, state, stats),
        html! {
            (components::table("Jobs", &COLUMNS, rows))
            nav.pager aria-label="Pages of the list" {
                @if from > 0 { a href=(page(from.saturating_sub(PAGE_SIZE as u64))) { "Newer" } }
                @if jobs.len() > PAGE_SIZE { a rel="next" href=(page(from + shown)) { "Older" } }
            }
        },
    )
}

/// Actions on all dead jobs, with their number.
fn remedies(queue: QueueName, state: JobState, stats: &QueueStats) -> Markup {
    let path = format!("/jobs/{}/dead", queue.as_str());
    let count = plural(stats.dead, "job", "jobs");
    html! {
        @if state == JobState::Dead && stats.dead > 0 {
            (primary_action_button(&format!("{path}/run-again"), &format!("Retry {}", number(stats.dead))))
            (confirmed_action_button(
                &format!("{path}/delete"),
                &format!("Delete {}…", number(stats.dead)),
                "The sweep enqueues work that the database still needs. The last error of these jobs is lost.",
                &format!("Delete {count}"),
            ))
        }
    }
}

fn row(queue: QueueName, job: &JobInfo, now: DateTime<Utc>) -> Markup {
    let path = format!("/jobs/{}/job/{}", queue.as_str(), job.id);
    html! {
        tr {
            td { a.mono href=(path) { (job.id) } }
            td.n { (job.attempts) " of " (job.max_attempts) }
            td.n { (ago(moment(job.finished_at.or(job.run_at).or(job.started_at).unwrap_or(job.created_at)), now)) }
            td.name { (job.last_error.as_deref().unwrap_or("")) }
            td { div.does { (buttons(&path, job)) } }
        }
    }
}

fn buttons(path: &str, job: &JobInfo) -> Markup {
    html! {
        @if matches!(job.state, JobState::Dead | JobState::Scheduled) {
            (action_button(&format!("{path}/run-again"), "Run now"))
        }
        @if job.state == JobState::Dead { (action_button(&format!("{path}/delete"), "Delete")) }
    }
}

#[handler]
pub(super) async fn one(
    user: User,
    dashboard: Dashboard,
    Path((queue, id)): Path<(String, String)>,
) -> Result<Response> {
    let queue = queue_of(&queue)?;
    let job = dashboard
        .queues()
        .inspector()
        .job(queue.as_str(), &id)
        .await;
    let job = job
        .map_err(unreachable)?
        .ok_or_else(|| ErrorPage::not_found("job with this id"))?;
    let path = format!("/jobs/{}/job/{}", queue.as_str(), job.id);
    let body = html! {
        div.title { h1 { a href="/jobs" { "Jobs" } " · " code { (job.id) } } }
        (components::panel_with(
            "Job",
            html! { (buttons(&path, &job)) },
            facts(queue, &job),
        ))
    };
    Ok(Page::new(job.id.clone(), Section::Jobs, body).show(&user))
}

fn facts(queue: QueueName, job: &JobInfo) -> Markup {
    html! {
        dl.facts {
            dt { "State" } dd { (badge(job.state)) }
            dt { "Queue" } dd { a href={ "/jobs/" (queue.as_str()) "/" (job.state.as_str()) } { (queue.as_str()) } }
            @match subject(&job.args) {
                Some(JobSubject::File(id)) => { dt { "File" } dd { a.mono href={ "/files/" (id) } { (id) } } }
                Some(JobSubject::Delivery(id)) => { dt { "Delivery" } dd { a.mono href=(href("/search", &[("q", &id.to_string())])) { (id) } } }
                None => {}
            }
            dt { "Attempts" } dd { (job.attempts) " failed of " (job.max_attempts) "; " (job.crashes) " interrupted because a worker died" }
            @if let Some(error) = &job.last_error { dt { "Last error" } dd { (error) } }
            @if let Some(owner) = &job.owner { dt { "Worker" } dd { code { (owner) } } }
            dt { "Enqueued" } dd { (when(moment(job.created_at))) }
            @if let Some(at) = job.run_at { dt { "Due" } dd { (when(moment(at))) } }
            @if let Some(at) = job.started_at { dt { "Last run started" } dd { (when(moment(at))) } }
            @if let Some(at) = job.finished_at { dt { "Ended" } dd { (when(moment(at))) } }
            dt { "Arguments" } dd { code { (job.args) } }
        }
    }
}

fn badge(job: JobState) -> Markup {
    let tone = match job {
        JobState::Ready | JobState::Scheduled | JobState::Running => Tone::Run,
        JobState::Done => Tone::Ok,
        JobState::Dead => Tone::Bad,
    };
    state(job.as_str(), tone)
}
