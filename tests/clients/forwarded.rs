//! Behind a proxy: below a path, under another name.

use super::header;
use crate::{
    support::{TestApp, app::json, browser::Browser},
    web::dashboard_user::{Fields, location, set_cookie, token},
};
use landfall_core::tokens::TokenScope;
use reqwest::Method;
use serde_json::json;

const PUBLIC: &str = "https://files.example/in/take";

async fn below(public_url: &str) -> TestApp {
    TestApp::builder()
        .workers(&[])
        .set("server.public_url", public_url)
        .start()
        .await
}

#[tokio::test]
async fn locations_use_the_public_url() {
    let app = below(PUBLIC).await;
    let file = app
        .post("/v1/files?filename=a")
        .body("hello")
        .send()
        .await
        .expect("a response");
    let session = json!({"original_filename": "a", "total_size_bytes": 5});
    let hook = json!({"url": app.receiver.url("/hook")});
    let tus = app
        .post("/v1/tus")
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Length", 0);
    let draft = app.post("/v1/tus").header("Upload-Complete", "?0");
    for (response, path) in [
        (file, "files"),
        (
            app.post("/v1/uploads")
                .json(&session)
                .send()
                .await
                .expect("a response"),
            "uploads",
        ),
        (
            app.post("/v1/batches")
                .json(&json!({}))
                .send()
                .await
                .expect("a response"),
            "batches",
        ),
        (
            app.post("/v1/webhooks")
                .json(&hook)
                .send()
                .await
                .expect("a response"),
            "webhooks",
        ),
        (tus.send().await.expect("a response"), "tus"),
        (draft.send().await.expect("a response"), "tus"),
    ] {
        assert!(
            response.status().is_success(),
            "{path}: {}",
            response.status()
        );
        let location = header(&response, "location").expect("a Location");
        let id = location.strip_prefix(&format!("{PUBLIC}/v1/{path}/"));
        let id = id.unwrap_or_else(|| panic!("{location}"));
        assert!(id.parse::<uuid::Uuid>().is_ok(), "{location}");
        if let Some(file) = header(&response, "landfall-file") {
            assert_eq!(file, format!("/in/take/v1/files/{id}"));
        }
    }
}

#[tokio::test]
async fn paths_work_with_and_without_the_public_prefix() {
    let app = below(PUBLIC).await;
    for path in [
        "/in/take/v1/files",
        "/v1/files",
        "/in/take/v1/files/",
        "/in/take/readyz",
    ] {
        assert_eq!(
            app.get(path).send().await.expect("a response").status(),
            200,
            "{path}"
        );
    }
    let beside = app
        .get("/in/taken/v1/files")
        .send()
        .await
        .expect("a response");
    assert_eq!(beside.status(), 404);
    let tus = app
        .request(Method::OPTIONS, "/in/take/v1/tus/")
        .send()
        .await
        .expect("a response");
    assert_eq!(header(&tus, "tus-version"), Some("1.0.0"));
}

#[tokio::test]
async fn the_dashboard_stays_under_the_public_path() {
    let app = TestApp::builder()
        .workers(&[])
        .set("server.public_url", "https://files.example/in/take/")
        .set("auth.mode", "tokens")
        .start()
        .await;
    let led = app
        .get("/in/take/jobs?x=1")
        .send()
        .await
        .expect("a response");
    assert_eq!(location(&led), "/in/take/sign-in?next=%2Fjobs%3Fx%3D1");
    let secret = token(&app, "ops", &[TokenScope::Admin, TokenScope::Upload]).await;
    let fields = [("token", secret.as_str()), ("next", "/jobs?x=1")];
    let entered = app.post("/in/take/sign-in").form(&fields);
    let entered = entered
        .header("origin", "https://files.example")
        .send()
        .await;
    let entered = entered.expect("a response");
    assert_eq!(location(&entered), "/in/take/jobs?x=1");
    let cookie = set_cookie(&entered);
    assert!(cookie.contains("; Path=/in/take/;"), "{cookie}");
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    for path in [
        "/in/take",
        "/in/take/jobs",
        "/in/take/files/",
        "/in/take/upload",
    ] {
        let page = app
            .get(path)
            .header("cookie", &cookie)
            .send()
            .await
            .expect("a response");
        assert_eq!(page.status(), 200, "{path}");
        let page = page.text().await.expect("a page");
        for link in [
            "href=\"/",
            "src=\"/",
            "action=\"/",
            "connect=\"/",
            "endpoint=\"/",
        ] {
            let (all, own) = (page.matches(link), format!("{link}in/take/"));
            assert_eq!(
                all.count(),
                page.matches(&own).count(),
                "{link} on {path}: {page}"
            );
        }
    }
}

#[tokio::test]
async fn stored_html_is_sent_unchanged() {
    let app = TestApp::builder()
        .set("server.public_url", PUBLIC)
        .start()
        .await;
    let html = "<a href=\"/elsewhere\">";
    let file = app
        .post("/v1/files?filename=a.html")
        .header("content-type", "text/html");
    let file = json(file.body(html).send().await.expect("a response"), 202).await;
    app.settled(&file["id"]).await;
    let id = file["id"].as_str().expect("an id");
    for path in [
        format!("/v1/files/{id}/content"),
        format!("/files/{id}/content"),
    ] {
        let request = app.get(&path).header("host", "files.example");
        let response = request.send().await.expect("a response");
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.text().await.expect("a body"), html, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs a browser: scripts/test runs it"
)]
async fn a_browser_uploads_and_watches_under_a_path() {
    let app = TestApp::builder()
        .set("server.public_url", PUBLIC)
        .start()
        .await;
    let browser = Browser::open(1280, 900).await;
    browser.go(&format!("{}/in/take/upload", app.url)).await;
    browser
        .run(
            "const files = new DataTransfer();
             files.items.add(new File(['hello'], 'below.txt', {type: 'text/plain'}));
             const choose = document.getElementById('choose');
             choose.files = files.files;
             choose.dispatchEvent(new Event('change'));",
        )
        .await;
    browser.sees("stored and announced").await;
    browser
        .run("document.querySelector('#uploads a').click()")
        .await;
    browser.sees("Live, as of").await;
    browser.sees("below.txt").await;
    browser.close().await;
}

#[tokio::test]
async fn a_trusted_proxy_forwards_the_host_name() {
    let sign_in = async |trusted: &str| {
        let app = TestApp::builder()
            .workers(&[])
            .set("auth.mode", "tokens")
            .set("server.trusted_proxies", trusted)
            .start()
            .await;
        let secret = token(&app, "ops", &[TokenScope::Admin]).await;
        // As a browser sends it through nginx, which calls the server by the name of its upstream.
        let request = app.post("/sign-in").form(&[("token", secret.as_str())]);
        let request = request
            .header("host", "landfall_upstream")
            .header("origin", "https://files.example")
            .header("sec-fetch-site", "same-origin")
            .header("x-forwarded-host", "files.example");
        request.send().await.expect("a response").status().as_u16()
    };
    assert_eq!(sign_in("127.0.0.0/8").await, 303);
    assert_eq!(sign_in("10.0.0.0/8").await, 403);
}
