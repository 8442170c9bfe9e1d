//! What every page must have so that everybody can use it: contrast in both themes, names, structure, a focus that is
//! seen. Measured in a real browser.

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
use landfall_test_servers::{Behaviour, wait_until};
use serde_json::{Value, json};

/// The script that checks a page, and returns what is wrong.
const LOOK: &str = include_str!("basics.js");

const TAB: &str = "\u{E004}";

/// More controls than this are reached by the same styles.
const MAX_TABS: usize = 40;

/// Something of everything, good and bad, so that all colours are on the pages; and the pages.
async fn furnished(app: &TestApp, secret: &str) -> Vec<String> {
    let sent = async |path: &str, body: Value| -> Value {
        let request = app.post(path).bearer_auth(secret).json(&body);
        let response = request.send().await.expect("a response");
        response.json().await.expect("JSON")
    };
    let id = |value: &Value| value["id"].as_str().expect("an id").to_owned();
    let broken = sent("/v1/webhooks", json!({"url": app.receiver.url("/broken")})).await;
    sent("/v1/webhooks", json!({"url": app.receiver.url("/hook")})).await;
    app.receiver.set("/broken", Behaviour::status(500));
    let batch = sent("/v1/batches", json!({})).await;
    let file = uploaded(app, secret, "seen.txt").await;
    kill_jobs(app, &["nonsense"]).await;
    let events = wait_until(SOON, async || {
        let request = app.get("/v1/events?status=failed").bearer_auth(secret);
        let events: Value = request.send().await.ok()?.json().await.ok()?;
        events["items"][0].is_object().then_some(events)
    });
    let event = id(&events.await["items"][0]);
    let paths = [
        "/",
        "/jobs",
        "/jobs/maintenance/dead",
        "/jobs/maintenance/job/nonsense",
    ];
    let lists = [
        "/files",
        "/events",
        "/webhooks",
        "/upload",
        "/log",
        "/tokens",
        "/settings",
        "/files?status=uploading",
    ];
    let mut pages: Vec<String> = paths.into_iter().chain(lists).map(str::to_owned).collect();
    pages.push(format!("/files/{file}"));
    pages.push(format!("/events/{event}"));
    pages.push(format!("/webhooks/{}", id(&broken)));
    pages.push(format!("/webhooks/{}/replay?status=failed", id(&broken)));
    pages.push(format!("/batches/{}", id(&batch)));
    pages.push("/docs".to_owned());
    pages.push(format!("/files/{}", uuid::Uuid::now_v7()));
    pages
}

async fn is_sound(browser: &Browser, page: &str) {
    for dark in [false, true] {
        browser.theme(dark).await;
        let wrong = browser.run(LOOK).await;
        assert_eq!(wrong, json!([]), "{page}, dark: {dark}");
    }
}

/// Tabs through the page; the focus must be visible.
async fn focus_is_seen(browser: &Browser, page: &str) {
    browser.run("document.activeElement.blur()").await;
    let mut reached = 0;
    for _ in 0..MAX_TABS {
        browser.press(TAB).await;
        let focus = browser
            .run(
                "const at = document.activeElement;
                 if (at === document.body) return null;
                 const marked = [at, at.closest('label'), at.parentElement].filter(Boolean).some(one => {
                     const style = getComputedStyle(one);
                     return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1;
                 });
                 return marked ? '' : at.outerHTML.slice(0, 120);",
            )
            .await;
        match focus.as_str() {
            None => break,
            Some(unseen) => assert_eq!(unseen, "", "the focus is not seen on {page}"),
        }
        reached += 1;
    }
    assert!(
        reached > 2,
        "{page} has {reached} controls for the keyboard"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs a browser: scripts/test runs it"
)]
async fn every_page_is_readable_in_both_themes_and_usable_by_keyboard() {
    let app = TestApp::builder()
        .set("auth.mode", "tokens")
        .set("webhooks.max_attempts", "1")
        .start()
        .await;
    let all = [TokenScope::Upload, TokenScope::Read, TokenScope::Admin];
    let secret = token(&app, "ops", &all).await;
    let pages = furnished(&app, &secret).await;
    let browser = Browser::open(1280, 900).await;
    browser.go(&format!("{}/sign-in", app.url)).await;
    is_sound(&browser, "/sign-in").await;
    browser.write("#token", &format!("{secret}{ENTER}")).await;
    browser.sees("Sign out").await;
    for page in &pages {
        browser.go(&format!("{}{page}", app.url)).await;
        is_sound(&browser, page).await;
    }
    for page in ["/", "/jobs", "/files", "/upload", "/webhooks"] {
        browser.go(&format!("{}{page}", app.url)).await;
        focus_is_seen(&browser, page).await;
    }
    browser.close().await;
}
