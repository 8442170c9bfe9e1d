//! In a real browser.

use super::{jobs::kill_jobs, visitor::token};
use crate::support::{
    TestApp,
    browser::{Browser, ENTER},
};
use landfall_core::tokens::TokenScope;

#[tokio::test]
async fn an_operator_signs_in_sees_figures_change_and_repairs() {
    let app = TestApp::builder().set("auth.mode", "tokens").start().await;
    let secret = token(&app, "ops", &[TokenScope::Admin]).await;
    let browser = Browser::open(1280, 900).await;
    browser.go(&app.url).await;
    browser.sees("Sign in").await;
    browser.write("#token", &format!("{secret}{ENTER}")).await;
    browser.sees("No file has come in yet").await;
    assert_eq!(browser.path().await, "/");

    // Nothing is loaded again: what changes, changes in place.
    browser.run("window.mark = 1").await;
    for name in ["a", "b"] {
        let request = app.post("/v1/files").query(&[("filename", name)]);
        let sent = request.bearer_auth(&secret).body("hello").send().await;
        assert_eq!(sent.expect("an answer").status(), 202);
    }
    browser.sees("Stored\n2").await;
    browser.sees("Announced\n2").await;
    assert_eq!(browser.run("return window.mark").await, 1);

    kill_jobs(&app, &["nonsense"]).await;
    browser.sees("1 job of maintenance is dead.").await;
    browser.press("gj").await;
    browser.sees("slots busy").await;
    assert_eq!(browser.path().await, "/jobs");
    browser
        .click("button[formaction='/jobs/finalize/pause']")
        .await;
    browser.sees("The queue finalize is paused.").await;
    browser
        .click("button[formaction='/jobs/finalize/resume']")
        .await;
    browser.sees("The queue finalize goes on.").await;
    browser
        .go(&format!("{}/jobs/maintenance/dead", app.url))
        .await;
    browser.click(".ask summary").await;
    browser.click(".ask button").await;
    browser.sees("1 job of maintenance is deleted.").await;

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
async fn a_lost_connection_is_told() {
    let app = TestApp::builder().workers(&[]).start().await;
    let browser = Browser::open(1280, 900).await;
    browser.go(&format!("{}/jobs", app.url)).await;
    browser.sees("Live, as of").await;
    assert!(!browser.text().await.contains("The connection is lost"));
    app.stop().await;
    browser.sees("The connection is lost").await;
    browser.close().await;
}

#[tokio::test]
async fn no_page_scrolls_sideways_on_a_phone() {
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
