//! The overview: an empty installation, files in progress, alerts.

use super::dashboard_user::{DashboardUser, app, location};
use crate::support::{TestApp, app::SOON};
use landfall_core::{audit, tokens::TokenScope};
use landfall_test_servers::{Behaviour, RedisServer, wait_until};
use landfall_workers::QueueName;
use sea_orm::{ConnectionTrait, DbErr};

async fn page(app: &TestApp, path: &str) -> String {
    let response = app.get(path).send().await.expect("a response");
    response.text().await.expect("a page")
}

/// The figures of the flow's steps, as they are written.
fn figures(page: &str) -> Vec<&str> {
    let each = page.split(r#"<span class="num">"#).skip(1);
    each.filter_map(|rest| rest.split('<').next()).collect()
}

#[tokio::test]
async fn an_empty_installation_shows_how_to_send_a_first_file() {
    let app = TestApp::start().await;
    let first = page(&app, "/").await;
    let command = format!("curl -F file=@README.md {}/v1/files", app.url);
    assert!(first.contains(&command), "{first}");
    assert!(first.contains("No audit has run yet"));
    app.upload("a.txt", "hello").await;
    let then = wait_until(SOON, async || {
        let page = page(&app, "/").await;
        let is_right = !page.contains("class=\"banner");
        (is_right && figures(&page) == ["0", "0", "0", "1", "1"]).then_some(page)
    });
    let then = then.await;
    assert!(!then.contains("curl"), "it knows how by now");
}

#[tokio::test]
async fn files_are_counted_by_the_minute_as_they_come_and_are_stored() {
    let app = TestApp::start().await;
    for _ in 0..3 {
        let file = app.upload("a.txt", "hello").await;
        app.settled(&file["id"]).await;
    }
    let counted = wait_until(SOON, async || {
        let landfall = &app.parts.app;
        let last = landfall_core::activity::last(landfall.db.read(), &landfall.clock, 10).await;
        let last = last.expect("counts");
        let sum = |series: &[u64]| series.iter().sum::<u64>();
        let found = [
            sum(&last.files_received),
            sum(&last.bytes_received),
            sum(&last.files_stored),
            sum(&last.files_failed),
        ];
        (found == [3, 15, 3, 0]).then_some(())
    });
    counted.await;
}

#[tokio::test]
async fn alerts_come_first_with_their_count_and_fix() {
    let app = TestApp::builder()
        .workers(&[QueueName::Deliver])
        .start()
        .await;
    app.upload("a.txt", "hello").await;
    let user = DashboardUser {
        app: &app,
        cookie: "landfall_session=any".to_owned(),
    };
    user.press("/jobs/finalize/pause").await;
    let wrong = user.page("/").await;
    assert!(wrong.contains("The queue finalize is paused."), "{wrong}");
    assert!(wrong.contains("1 job is waiting."), "{wrong}");
    assert!(wrong.contains(r#"formaction="/jobs/finalize/resume""#));
    app.parts
        .app
        .clock
        .advance(std::time::Duration::from_secs(600));
    user.press("/jobs/finalize/resume").await;
    let wrong = user.page("/").await;
    assert!(!wrong.contains("is paused"), "{wrong}");
    assert!(wrong.contains("1 staged file is waiting."), "{wrong}");
}

#[tokio::test]
async fn the_last_audit_is_shown() {
    let app = TestApp::start().await;
    let file = app.upload("a.txt", "hello").await;
    app.settled(&file["id"]).await;
    let landfall = &app.parts.app;
    audit::audit(landfall, audit::AuditOptions::default(), &audit::NoObserver)
        .await
        .expect("an audit");
    let page = page(&app, "/").await;
    let (_, results) = page.split_once("Audit results").expect("a table");
    let (results, _) = results.split_once("</table>").expect("its end");
    assert_eq!(results.matches(">ok<").count(), 4, "{page}");
}

#[tokio::test]
async fn without_redis_the_pages_show_data_from_the_database() {
    let redis = RedisServer::start().await;
    let app = TestApp::builder()
        .set("redis.url", &redis.url())
        .workers(&[])
        .start()
        .await;
    app.upload("a.txt", "hello").await;
    redis.stop().await;
    let overview = wait_until(SOON, async || {
        let page = page(&app, "/").await;
        page.contains("Redis cannot be reached.").then_some(page)
    });
    let overview = overview.await;
    assert_eq!(figures(&overview)[1], "1", "one file is staged: {overview}");
    let jobs = page(&app, "/jobs").await;
    assert!(jobs.contains("Nothing is lost"), "{jobs}");
    let list = app.get("/jobs/finalize/dead").send().await;
    assert_eq!(list.expect("a response").status(), 503);
}

#[tokio::test]
async fn a_search_redirects_to_the_page_with_the_id() {
    let app = app().await;
    let admin = DashboardUser::new(&app, "ops", &[TokenScope::Admin]).await;
    let owner = super::dashboard_user::token(&app, "ann", &[TokenScope::Upload]).await;
    let sent = app.post("/v1/files?filename=a").body("hello");
    let sent = sent.bearer_auth(owner).send().await.expect("a response");
    let file: serde_json::Value = sent.json().await.expect("a File");
    let id = file["id"].as_str().expect("an id");
    let search = format!("/search?q=%20{id}");
    assert_eq!(location(&admin.get(&search).await), format!("/files/{id}"));
    let other = DashboardUser::new(&app, "bob", &[TokenScope::Read]).await;
    assert_eq!(other.get(&search).await.status(), 404, "it is not bob's");
    let unknown = format!("/search?q={}", uuid::Uuid::now_v7());
    assert_eq!(admin.get(&unknown).await.status(), 404);
    let named = admin.get("/search?q=a%26b").await;
    assert_eq!(location(&named), "/files?q=a%26b");
    let job = admin.get(&format!("/search?q=file:{id}")).await;
    assert_eq!(location(&job), format!("/jobs/finalize/job/file:{id}"));
}

#[tokio::test]
async fn failed_deliveries_are_redelivered_by_one_button() {
    let app = TestApp::builder()
        .set("webhooks.max_attempts", "1")
        .start()
        .await;
    app.webhook("/hook", &[]).await;
    app.receiver.set("/hook", Behaviour::status(500));
    for name in ["a", "b"] {
        app.upload(name, "hello").await;
    }
    let user = DashboardUser {
        app: &app,
        cookie: "landfall_session=any".to_owned(),
    };
    wait_until(SOON, async || {
        let page = user.page("/").await;
        page.contains("Redeliver 2").then_some(())
    })
    .await;
    app.receiver.mend("/hook");
    let pressed = user.press("/redeliver").await;
    let notice = user.page(location(&pressed)).await;
    assert!(notice.contains("2 deliveries enqueued again."), "{notice}");
    wait_until(SOON, async || {
        let page = user.page("/").await;
        (figures(&page)[4] == "2" && !page.contains("could not be delivered")).then_some(())
    })
    .await;
}

#[tokio::test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn while_the_database_hangs_the_overview_shows_the_rest() {
    let app = TestApp::builder().postgres().workers(&[]).start().await;
    let landfall = &app.parts.app;
    let (locked, lock) = tokio::sync::oneshot::channel();
    let (unlock, unlocked) = tokio::sync::oneshot::channel::<()>();
    let holds = landfall.db.write(move |transaction| {
        Box::pin(async move {
            let all = "LOCK TABLE files IN ACCESS EXCLUSIVE MODE";
            transaction.execute_unprepared(all).await?;
            let _ = locked.send(());
            let _ = unlocked.await;
            Ok::<_, DbErr>(())
        })
    });
    let looks = async {
        lock.await.expect("the table is locked");
        let shown = page(&app, "/").await;
        assert!(shown.contains("The database cannot be reached."), "{shown}");
        assert!(shown.contains("Health"), "{shown}");
        let _ = unlock.send(());
    };
    let (held, ()) = tokio::join!(holds, looks);
    held.expect("the lock is let go");
    wait_until(SOON, async || {
        let page = page(&app, "/").await;
        (!page.contains("cannot be reached")).then_some(())
    })
    .await;
}
