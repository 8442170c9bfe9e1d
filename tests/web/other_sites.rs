//! What a page of another site can do in a real browser: nothing.

use crate::support::{TestApp, browser::Browser};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Serves another site with this page, and returns its port. The browser finds it as `evil.example` too.
async fn other_site(page: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let response = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
                page.len()
            );
            let mut request = [0; 4096];
            // The browser may disconnect early.
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(response.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

fn port(app: &TestApp) -> &str {
    app.url.rsplit(':').next().expect("a port")
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_rebinding_shows_nothing() {
    let app = TestApp::builder().workers(&[]).start().await;
    app.upload("secret.txt", "secret").await;
    let browser = Browser::open(1000, 700).await;
    for path in ["/", "/v1/files", "/metrics", "/docs"] {
        let rebound = format!("http://evil.example:{}{path}", port(&app));
        browser.go(&rebound).await;
        browser.sees("host_not_allowed").await;
    }
    let script = "return fetch('/v1/files').then(answer => answer.status)";
    assert_eq!(browser.run(script).await, 421);
    browser
        .go(&format!("http://localhost:{}/files", port(&app)))
        .await;
    browser.sees("secret.txt").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_of_another_site_is_rejected() {
    let app = TestApp::builder().workers(&[]).start().await;
    for (path, kind, name) in [
        ("/v1/batches", "text/plain", "{}"),
        ("/v1/files?filename=a", "multipart/form-data", "file"),
        ("/jobs/sweep", "application/x-www-form-urlencoded", "csrf"),
    ] {
        let page = format!(
            "<form method=post enctype='{kind}' action='{}{path}'><input name='{name}' value='a'><button>Send</button></form>",
            app.url
        );
        let port = other_site(page).await;
        let browser = Browser::open(1000, 700).await;
        browser.go(&format!("http://evil.example:{port}/")).await;
        browser.click("button").await;
        browser.sees("cross_site").await;
        browser.close().await;
    }
    assert_eq!(app.read("/v1/files").await["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_can_be_framed_by_another_site() {
    let app = TestApp::builder().workers(&[]).start().await;
    for path in ["/", "/webhooks", "/docs", "/v1/files", "/openapi.json"] {
        let page = format!(
            "<h1>Win a prize</h1><iframe src='{}{path}'></iframe>",
            app.url
        );
        let port = other_site(page).await;
        let browser = Browser::open(1000, 700).await;
        browser.go(&format!("http://evil.example:{port}/")).await;
        browser.sees("Win a prize").await;
        let framed = browser.text_in_frame("iframe").await;
        for shown in ["Landfall", "Overview", "items", "openapi"] {
            assert!(!framed.contains(shown), "{path}: {framed}");
        }
        browser.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uploaded_script_does_not_run_in_the_dashboard() {
    let app = TestApp::start().await;
    let page = "<script>document.title = 'owned'</script><h1>Owned</h1>";
    let request = app.post("/v1/files?filename=page.html");
    let request = request.header("content-type", "text/html").body(page);
    let file = crate::support::app::json(request.send().await.expect("a response"), 202).await;
    app.settled(&file["id"]).await;
    let id = file["id"].as_str().expect("an id");
    for path in [
        format!("/files/{id}/content"),
        format!("/v1/files/{id}/content"),
    ] {
        let response = app.get(&path).send().await.expect("a response");
        assert_eq!(response.status(), 200, "{path}");
        let header = |name: &str| response.headers()[name].to_str().expect("text").to_owned();
        let policy = header("content-security-policy");
        assert!(
            policy.split("; ").any(|one| one == "sandbox"),
            "{path}: {policy}"
        );
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(
            header("content-disposition").starts_with("attachment"),
            "{path}"
        );
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
    }
    let browser = Browser::open(1000, 700).await;
    browser.go(&format!("{}/files", app.url)).await;
    browser.sees("page.html").await;
    let script = format!("location.href = '/files/{id}/content'; return document.title");
    let title = browser.run(&script).await;
    assert_ne!(title, "owned");
    browser.sees("page.html").await;
    assert_eq!(
        browser.path().await,
        "/files",
        "it was downloaded, not shown"
    );
    browser.close().await;
}
