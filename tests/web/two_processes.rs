//! One installation, several processes: a browser may reach any of them.

use super::dashboard_user::{Fields, cookie_of, location, token};
use crate::support::{Process, TestApp};
use landfall_core::tokens::TokenScope;
use reqwest::{Response, header};

/// Gets a page of this process with this cookie.
async fn page(app: &TestApp, process: &Process, path: &str, cookie: &str) -> Response {
    let request = app.client.get(format!("{}{path}", process.url));
    let request = request.header(header::COOKIE, cookie);
    request.send().await.expect("a response")
}

/// Presses a button of a page that this process has shown.
async fn press(app: &TestApp, process: &Process, path: &str, cookie: &str, csrf: &str) -> Response {
    let request = app.client.post(format!("{}{path}", process.url));
    let request = request
        .header(header::COOKIE, cookie)
        .header(header::ORIGIN, &process.url)
        .form(&[("csrf", csrf)]);
    request.send().await.expect("a response")
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn a_session_is_shared_by_all_processes() {
    let app = TestApp::builder()
        .postgres()
        .set("auth.mode", "tokens")
        .workers(&[])
        .start()
        .await;
    let environment = app.installation.environment();
    let first = Process::listening(&["serve"], &environment).await;
    let second = Process::listening(&["serve"], &environment).await;
    let token = token(&app, "ops", &[TokenScope::Admin]).await;
    let entered = app.client.post(format!("{}/sign-in", first.url));
    let entered = entered.form(&[("token", &token)]).send().await;
    let cookie = cookie_of(&entered.expect("a response"));

    let shown = page(&app, &second, "/jobs", &cookie).await;
    assert_eq!(shown.status(), 200);
    let shown = shown.text().await.expect("a page");
    let (_, rest) = shown
        .split_once(r#"name="csrf" value=""#)
        .expect("every page has a form");
    let csrf = rest[..64].to_owned();
    // What one has shown, the other does.
    let paused = press(&app, &first, "/jobs/finalize/pause", &cookie, &csrf).await;
    assert_eq!(paused.status(), 303);
    let notice = page(&app, &second, location(&paused), &cookie).await;
    let notice = notice.text().await.expect("a page");
    assert!(notice.contains("Queue finalize paused."), "{notice}");

    let left = press(&app, &first, "/sign-out", &cookie, &csrf).await;
    assert_eq!(location(&left), "/sign-in");
    for process in [&first, &second] {
        let refused = page(&app, process, "/jobs", &cookie).await;
        assert_eq!(refused.status(), 303);
        assert_eq!(location(&refused), "/sign-in?next=%2Fjobs");
        let refused = page(&app, process, "/live/jobs", &cookie).await;
        assert_eq!(refused.status(), 401);
        let refused = press(&app, process, "/jobs/finalize/resume", &cookie, &csrf).await;
        assert_eq!(location(&refused), "/sign-in");
    }
}
