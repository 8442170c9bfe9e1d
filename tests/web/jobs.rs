//! Queues and jobs, and manual actions on them.

use super::dashboard_user::{DashboardUser, location};
use crate::support::{TestApp, app::SOON};
use landfall_queue::{Inspector, Job, JobState, NewJob, Queue, Settings};
use landfall_test_servers::wait_until;
use serde::{Deserialize, Serialize};

/// A job that Landfall's workers cannot parse, so that it is dead at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct UnreadableJob {
    name: String,
}

impl Job for UnreadableJob {
    const QUEUE: &'static str = "maintenance";
}

/// Makes dead jobs of these ids.
pub async fn kill_jobs(app: &TestApp, ids: &[&str]) {
    let redis = app.parts.queues.redis.clone();
    let queue: Queue<UnreadableJob> = Queue::new(redis.clone(), Settings::new().max_attempts(1));
    for id in ids {
        let name = "<script>alert(1)</script>".to_owned();
        let job = NewJob::new((*id).to_owned(), UnreadableJob { name });
        queue.push(job).await.expect("pushed");
    }
    let inspector = Inspector::new(redis);
    wait_until(SOON, async || {
        let stats = inspector.stats("maintenance").await.expect("figures");
        (stats.dead == ids.len() as u64).then_some(())
    })
    .await;
}

#[tokio::test]
async fn dead_jobs_are_retried_or_deleted_singly_and_together() {
    let app = TestApp::start().await;
    let user = DashboardUser {
        app: &app,
        cookie: "landfall_session=any".to_owned(),
    };
    kill_jobs(&app, &["a", "b", "c"]).await;
    let list = user.page("/jobs/maintenance/dead").await;
    assert!(list.contains("Retry 3"), "the count comes first: {list}");
    let one = user.page("/jobs/maintenance/job/a").await;
    assert!(!one.contains("<script>alert"), "arguments are text: {one}");
    assert!(one.contains("&lt;script&gt;"));

    let deleted = user.press("/jobs/maintenance/job/a/delete").await;
    assert_eq!(deleted.status(), 303);
    let notice = user.page(location(&deleted)).await;
    assert!(notice.contains("Job a deleted."), "{notice}");
    let again = user.press("/jobs/maintenance/job/a/delete").await;
    assert_eq!(again.status(), 409, "it is gone");
    let gone = user.get("/jobs/maintenance/job/a").await;
    assert_eq!(gone.status(), 404);

    let ran = user.press("/jobs/maintenance/dead/run-again").await;
    let notice = user.page(location(&ran)).await;
    assert!(
        notice.contains("2 jobs of maintenance enqueued again."),
        "{notice}"
    );
    let inspector = Inspector::new(app.parts.queues.redis.clone());
    wait_until(SOON, async || {
        let dead = inspector.jobs("maintenance", JobState::Dead, 0, 10).await;
        (dead.expect("jobs").len() == 2).then_some(())
    })
    .await;
    user.press("/jobs/maintenance/dead/delete").await;
    let stats = inspector.stats("maintenance").await.expect("figures");
    assert_eq!(stats.dead, 0);

    let log = user.page("/log").await;
    for told in [
        "Job a deleted.",
        "2 jobs of maintenance enqueued again.",
        "2 jobs of maintenance deleted.",
    ] {
        assert!(log.contains(told), "{told} in {log}");
    }
}

#[tokio::test]
async fn a_notice_only_shows_what_was_done() {
    let app = TestApp::builder().workers(&[]).start().await;
    let user = DashboardUser {
        app: &app,
        cookie: "landfall_session=any".to_owned(),
    };
    let paused = user.press("/jobs/deliver/pause").await;
    let page = location(&paused).to_owned();
    let notice = |html: &str| html.contains("class=\"notice\"");
    assert!(notice(&user.page(&page).await));
    let made_up = format!("/jobs?did={}", uuid::Uuid::now_v7());
    assert!(!notice(&user.page(&made_up).await));
    let minutes = std::time::Duration::from_secs(180);
    app.parts.app.clock.advance(minutes);
    assert!(!notice(&user.page(&page).await), "it is shown once");
    for path in ["/jobs/nonsense/pause", "/jobs/deliver/nonsense"] {
        assert_eq!(user.press(path).await.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn workers_show_what_they_do() {
    let app = TestApp::start().await;
    let shown = wait_until(SOON, async || {
        let response = app.get("/jobs").send().await.expect("a response");
        let page = response.text().await.expect("a page");
        page.contains("0 of 98 slots busy").then_some(page)
    });
    let page = shown.await;
    assert!(page.contains("Redis uses"), "{page}");
    assert_eq!(page.matches(">alive<").count(), 3, "{page}");
}
