//! Manual actions on queues and jobs.

use super::{queue_of, unreachable};
use crate::dashboard::{
    error::ErrorPage,
    repair::{COUNT, done},
    session::User,
    state::Dashboard,
};
use landfall_queue::{JobState, QueueError};
use poem::{Response, Result, handler, web::Path};
use serde_json::json;

/// Number of jobs per step.
const STEP_SIZE: usize = 1000;

/// Maximum number of steps per request: a hundred thousand jobs.
const MAX_STEPS: usize = 100;

/// Repeats a step until it changes nothing, and returns the number of changes. After an error, what was done is
/// reported and the rest is unchanged.
async fn in_steps<S>(step: impl Fn() -> S) -> Result<u64, ErrorPage>
where
    S: Future<Output = Result<u64, QueueError>>,
{
    let mut count = 0;
    for _ in 0..MAX_STEPS {
        match step().await {
            Ok(0) => break,
            Ok(some) => count += some,
            Err(_) if count > 0 => break,
            Err(error) => return Err(unreachable(error)),
        }
    }
    Ok(count)
}

/// Pauses or resumes a queue.
#[handler]
pub(super) async fn pause_or_resume(
    user: User,
    dashboard: Dashboard,
    Path((queue, verb)): Path<(String, String)>,
) -> Result<Response> {
    let queue = queue_of(&queue)?.as_str();
    let inspector = dashboard.queues().inspector();
    let action = match verb.as_str() {
        "pause" => {
            inspector.pause(queue).await.map_err(unreachable)?;
            "queue.pause"
        }
        "resume" => {
            inspector.resume(queue).await.map_err(unreachable)?;
            "queue.resume"
        }
        _ => return Err(ErrorPage::not_found("such action").into()),
    };
    Ok(done(&dashboard, &user, action, queue, json!({}), "/jobs").await?)
}

/// Enqueues a sweep.
#[handler]
pub(super) async fn sweep(user: User, dashboard: Dashboard) -> Result<Response> {
    dashboard.queues().sweep().await.map_err(unreachable)?;
    Ok(done(&dashboard, &user, "sweep.run", "sweep", json!({}), "/jobs").await?)
}

/// Enqueues an audit.
#[handler]
pub(super) async fn audit(user: User, dashboard: Dashboard) -> Result<Response> {
    dashboard.queues().audit().await.map_err(unreachable)?;
    Ok(done(&dashboard, &user, "audit.run", "audit", json!({}), "/").await?)
}

#[handler]
pub(super) async fn run_dead_again(
    user: User,
    dashboard: Dashboard,
    Path(queue): Path<String>,
) -> Result<Response> {
    let queue = queue_of(&queue)?.as_str();
    let inspector = dashboard.queues().inspector();
    let count = in_steps(|| inspector.run_all_dead_again(queue, STEP_SIZE)).await?;
    let detail = json!({ COUNT: count });
    Ok(done(&dashboard, &user, "jobs.run_again", queue, detail, "/jobs").await?)
}

#[handler]
pub(super) async fn delete_dead(
    user: User,
    dashboard: Dashboard,
    Path(queue): Path<String>,
) -> Result<Response> {
    let queue = queue_of(&queue)?.as_str();
    let inspector = dashboard.queues().inspector();
    let count = in_steps(|| inspector.delete_all(queue, JobState::Dead, STEP_SIZE)).await?;
    let detail = json!({ COUNT: count });
    Ok(done(&dashboard, &user, "jobs.delete", queue, detail, "/jobs").await?)
}

#[handler]
pub(super) async fn run_again(
    user: User,
    dashboard: Dashboard,
    Path((queue, id)): Path<(String, String)>,
) -> Result<Response> {
    let queue = queue_of(&queue)?.as_str();
    let inspector = dashboard.queues().inspector();
    if !inspector.run_again(queue, &id).await.map_err(unreachable)? {
        return Err(ErrorPage::conflict(
            "The job is already ready or running, or it no longer exists.",
        )
        .into());
    }
    let page = format!("/jobs/{queue}/dead");
    let detail = json!({ "queue": queue });
    Ok(done(&dashboard, &user, "job.run_again", id, detail, &page).await?)
}

/// Deletes a dead job; another job may be running on a worker.
#[handler]
pub(super) async fn delete(
    user: User,
    dashboard: Dashboard,
    Path((queue, id)): Path<(String, String)>,
) -> Result<Response> {
    let queue = queue_of(&queue)?.as_str();
    let inspector = dashboard.queues().inspector();
    let job = inspector.job(queue, &id).await.map_err(unreachable)?;
    let is_dead = job.is_some_and(|job| job.state == JobState::Dead);
    if !is_dead || !inspector.delete(queue, &id).await.map_err(unreachable)? {
        return Err(ErrorPage::conflict("The job is not dead.").into());
    }
    let page = format!("/jobs/{queue}/dead");
    let detail = json!({ "queue": queue });
    Ok(done(&dashboard, &user, "job.delete", id, detail, &page).await?)
}
