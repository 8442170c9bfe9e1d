//! In a real browser.

use super::{
    dashboard_user::{token, uploaded},
    jobs::kill_jobs,
};
use crate::support::{
    TestApp,
    app::SOON,
    browser::{Browser, ENTER},
};
use landfall_core::tokens::TokenScope;
use landfall_queue::NewJob;
use landfall_test_servers::wait_until;
use landfall_workers::MaintenanceJob;

#[tokio::test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs a browser: scripts/test runs it"
)]
async fn an_operator_signs_in_sees_live_figures_and_repairs() {
    let app = TestApp::builder().set("auth.mode", "tokens").start().await;
    let secret = token(&app, "ops", &[TokenScope::Admin]).await;
    let browser = Browser::open(1280, 900).await;
    browser.go(&app.url).await;
    browser.sees("Sign in").await;
    browser.write("#token", &format!("{secret}{ENTER}")).await;
    browser.sees("No files yet").await;
    assert_eq!(browser.path().await, "/");

    // Nothing is loaded again: what changes, changes in place.
    browser.run("window.mark = 1").await;
    for name in ["a", "b"] {
        let request = app.post("/v1/files").query(&[("filename", name)]);
        let sent = request.bearer_auth(&secret).body("hello").send().await;
        assert_eq!(sent.expect("a response").status(), 202);
    }
    browser.sees("Stored\n2").await;
    browser.sees("Announced\n2").await;
    assert_eq!(browser.run("return window.mark").await, 1);

    kill_jobs(&app, &["nonsense"]).await;
    browser.sees("1 dead job in the maintenance queue.").await;
    browser.press("gj").await;
    browser.sees("slots busy").await;
    assert_eq!(browser.path().await, "/jobs");
    browser
        .click("button[formaction='/jobs/finalize/pause']")
        .await;
    browser.sees("Queue finalize paused.").await;
    browser
        .click("button[formaction='/jobs/finalize/resume']")
        .await;
    browser.sees("Queue finalize resumed.").await;
    browser
        .go(&format!("{}/jobs/maintenance/dead", app.url))
        .await;
    browser.click(".ask summary").await;
    browser.click(".ask button").await;
    browser.sees("1 job of maintenance deleted.").await;

    browser.press("/").await;
    let focus = browser.run("return document.activeElement.id").await;
    assert_eq!(focus, "search");
    browser.run("document.activeElement.blur()").await;
    browser.press("?").await;
    let open = browser
        .run("return document.getElementById('keys').open")
        .await;
    assert_eq!(open, true);

    assert_eq!(browser.complaints().await, Vec::<String>::new());
    for url in browser.requested().await {
        assert!(url.starts_with(&app.url), "{url} is of another host");
    }
    browser.close().await;
}

#[tokio::test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs a browser: scripts/test runs it"
)]
async fn a_dead_job_is_retried_once_its_cause_is_fixed() {
    let app = TestApp::start().await;
    let file = app
        .settled(&app.upload("gone.txt", "hello").await["id"])
        .await;
    let folder = app.parts.app.config.storage.path.join("uploads");
    // Blocks the deletion of the object.
    let object = files_in(&folder).pop().expect("the object");
    std::fs::remove_file(&object).expect("it is removed");
    std::fs::create_dir_all(object.join("in-the-way")).expect("a folder");
    let id = file["id"].as_str().expect("an id");
    let deleted = app.delete(&format!("/v1/files/{id}")).send().await;
    assert_eq!(deleted.expect("a response").status(), 204);
    let purge = MaintenanceJob::Purge {
        file_id: id.parse().expect("an id"),
    };
    let job = NewJob::new("purge-once", purge).max_attempts(1);
    let pushed = app.parts.queues.maintenance.push(job).await;
    pushed.expect("pushed");

    let browser = Browser::open(1280, 900).await;
    browser.go(&app.url).await;
    browser.sees("1 dead job in the maintenance queue.").await;
    std::fs::remove_dir_all(&object).expect("the way is free");
    browser
        .click("button[formaction='/jobs/maintenance/dead/run-again']")
        .await;
    browser.sees("1 job of maintenance enqueued again.").await;
    wait_until(SOON, async || {
        let page = browser.text().await;
        (!page.contains("dead job in")).then_some(())
    })
    .await;
    browser
        .go(&format!("{}/jobs/maintenance/dead", app.url))
        .await;
    browser.sees("No dead jobs in the maintenance queue.").await;
    browser
        .go(&format!("{}/jobs/maintenance/done", app.url))
        .await;
    browser.sees("purge-once").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

/// The files in a folder, and in those in it.
fn files_in(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let each = paths.flat_map(|path| match path.is_dir() {
        true => files_in(&path),
        false => vec![path],
    });
    each.collect()
}

#[tokio::test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs a browser: scripts/test runs it"
)]
async fn a_read_only_user_has_no_buttons_and_is_denied_actions() {
    let app = TestApp::builder().set("auth.mode", "tokens").start().await;
    let sender = token(&app, "ann", &[TokenScope::Upload]).await;
    let file = uploaded(&app, &sender, "hers.txt").await;
    let secret = token(&app, "ann", &[TokenScope::Read]).await;
    let browser = Browser::open(1280, 900).await;
    browser.go(&app.url).await;
    browser.sees("Sign in").await;
    browser.write("#token", &format!("{secret}{ENTER}")).await;
    browser.sees("ann (read-only)").await;
    for path in ["/", "/jobs", "/files", &format!("/files/{file}")] {
        browser.go(&format!("{}{path}", app.url)).await;
        browser.sees("ann (read-only)").await;
        let acts = "return [...document.querySelectorAll('[formaction], form[method=post]:not(#act)')]\
            .map(act => act.formAction || act.action).filter(path => !path.endsWith('/sign-out'))";
        assert_eq!(browser.run(acts).await, serde_json::json!([]), "{path}");
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    for path in ["/jobs/finalize/pause", &format!("/files/{file}/delete")] {
        let press = format!(
            "return fetch('{path}', {{ method: 'POST', body: new URLSearchParams({{ \
             csrf: document.querySelector('[name=csrf]').value }}) }}).then(answer => answer.status)"
        );
        assert_eq!(browser.run(&press).await, 403, "{path}");
    }
    browser.go(&format!("{}/log", app.url)).await;
    browser
        .sees("requires a token with the scope `admin`")
        .await;
    browser.close().await;
}

#[tokio::test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs a browser: scripts/test runs it"
)]
async fn a_lost_connection_is_shown() {
    let app = TestApp::builder().workers(&[]).start().await;
    let browser = Browser::open(1280, 900).await;
    browser.go(&format!("{}/jobs", app.url)).await;
    browser.sees("Live, as of").await;
    assert!(!browser.text().await.contains("Connection lost"));
    app.stop().await;
    browser.sees("Connection lost").await;
    browser.close().await;
}

#[tokio::test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs a browser: scripts/test runs it"
)]
async fn no_dashboard_page_scrolls_horizontally_on_a_phone() {
    let app = TestApp::start().await;
    app.upload("a.txt", "hello").await;
    let browser = Browser::open(390, 844).await;
    browser.go(&app.url).await;
    assert_eq!(browser.run("return innerWidth").await, 390);
    for path in ["/", "/jobs", "/log", "/jobs/finalize/done"] {
        browser.go(&format!("{}{path}", app.url)).await;
        let script =
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.run(script).await, 0, "{path}");
        let unnamed = "return [...document.querySelectorAll('input:not([type=hidden]),button,a')]\
            .filter(e => !(e.innerText || e.ariaLabel || (e.labels && e.labels.length))).length";
        assert_eq!(
            browser.run(unnamed).await,
            0,
            "each control has a name: {path}"
        );
    }
    browser.close().await;
}
