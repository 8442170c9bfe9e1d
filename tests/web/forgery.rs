//! What other sites cannot make a visitor's browser do, and what a page may load.

use super::dashboard_user::{DashboardUser, Fields, app, token};
use landfall_core::tokens::TokenScope;
use reqwest::{RequestBuilder, header};

const PAUSE: &str = "/jobs/finalize/pause";

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.expect("a response").status().as_u16()
}

#[tokio::test]
async fn a_form_of_another_site_changes_nothing() {
    let app = app().await;
    let user = DashboardUser::new(&app, "ops", &[TokenScope::Admin]).await;
    let other = DashboardUser::new(&app, "ops", &[TokenScope::Admin]).await;
    let csrf = user.csrf().await;
    let post = || user.with_cookie(app.post(PAUSE));
    let with = |token: &str| post().form(&[("csrf", token)]);
    assert_eq!(status(post()).await, 403, "no token");
    assert_eq!(status(with("")).await, 403, "an empty one");
    assert_eq!(
        status(with(&other.csrf().await)).await,
        403,
        "another session's"
    );
    let origin = with(&csrf).header(header::ORIGIN, "https://evil.example");
    assert_eq!(status(origin).await, 403);
    let null = with(&csrf).header(header::ORIGIN, "null");
    assert_eq!(status(null).await, 403);
    for site in ["cross-site", "same-site", "none"] {
        let sent = with(&csrf).header("sec-fetch-site", site);
        assert_eq!(status(sent).await, 403, "{site}");
    }
    assert_eq!(
        status(app.post(PAUSE).form(&[("csrf", &csrf)])).await,
        303,
        "to the sign-in"
    );
    assert!(!paused(&user).await, "nothing of all this was done");
    let own = with(&csrf).header(header::ORIGIN, &app.url);
    assert_eq!(
        status(own.header("sec-fetch-site", "same-origin")).await,
        303
    );
    assert!(paused(&user).await);
    let by_script = post().header("x-csrf-token", &csrf);
    assert_eq!(
        status(by_script).await,
        303,
        "a script sends it in a header"
    );
}

async fn paused(user: &DashboardUser<'_>) -> bool {
    let inspector = user.app.parts.queues.redis.clone();
    let inspector = landfall_queue::Inspector::new(inspector);
    inspector.stats("finalize").await.expect("figures").paused
}

#[tokio::test]
async fn another_site_signs_nobody_in_or_out() {
    let app = app().await;
    let token = token(&app, "ops", &[TokenScope::Admin]).await;
    let user = DashboardUser::new(&app, "ops", &[TokenScope::Admin]).await;
    let enter = app.post("/sign-in").form(&[("token", &token)]);
    let enter = enter.header(header::ORIGIN, "https://evil.example");
    assert_eq!(status(enter).await, 403);
    let leave = user.with_cookie(app.post("/sign-out"));
    assert_eq!(status(leave).await, 403);
    assert_eq!(user.get("/").await.status(), 200);
}

#[tokio::test]
async fn pages_load_only_resources_of_this_server() {
    let app = app().await;
    let user = DashboardUser::new(&app, "ops", &[TokenScope::Admin]).await;
    for path in [
        "/",
        "/jobs",
        "/jobs/finalize/dead",
        "/log",
        "/tokens",
        "/settings",
        "/search?q=a",
        "/nothing-here",
        "/sign-in",
    ] {
        let response = user.get(path).await;
        if path == "/nothing-here" || response.status().is_redirection() {
            continue;
        }
        let policy = &response.headers()[header::CONTENT_SECURITY_POLICY];
        let policy = policy.to_str().expect("text").to_owned();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(
            response.headers()[header::X_CONTENT_TYPE_OPTIONS],
            "nosniff"
        );
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let page = response.text().await.expect("a page");
        for forbidden in [
            "<style",
            " style=",
            "<script>",
            " onclick=",
            "src=\"http",
            "href=\"http",
            "javascript:",
        ] {
            assert!(!page.contains(forbidden), "{forbidden} in {path}");
        }
    }
}

#[tokio::test]
async fn assets_are_cached_forever_under_content_hashes() {
    let app = app().await;
    let page = app.get("/sign-in").send().await.expect("a response");
    let page = page.text().await.expect("a page");
    let paths = page.split('"').filter(|text| text.starts_with("/assets/"));
    let mut seen = 0;
    for path in paths {
        let asset = app.get(path).send().await.expect("a response");
        assert_eq!(asset.status(), 200, "{path}");
        let kept = asset.headers()[header::CACHE_CONTROL].to_str();
        assert!(kept.expect("text").contains("immutable"));
        seen += 1;
    }
    assert!(seen >= 3, "style, icon and script: {seen}");
    let old = app.get("/assets/style.0000000000000000.css").send().await;
    assert_eq!(old.expect("a response").status(), 404);
}

/// htmx starts once its own script has run, so an extension that arrives later, on a slow connection, would never be
/// used.
#[tokio::test]
async fn htmx_and_its_extension_are_one_script() {
    let app = crate::support::TestApp::start().await;
    let page = app.text("/").await;
    let scripts = page.split('"').filter(|text| text.ends_with(".js"));
    let scripts: Vec<&str> = scripts.filter(|path| path.contains("htmx")).collect();
    let [script] = scripts[..] else {
        panic!("one script of htmx: {scripts:?}");
    };
    let script = app.text(script).await;
    assert!(script.contains(r#"registerExtension("sse""#));
}
