//! Which host names the server accepts, and what pages of other sites may do.

use super::{header, token};
use crate::support::{TestApp, app::problem};
use landfall::server;
use landfall_core::tokens::TokenScope;
use reqwest::{Method, RequestBuilder};
use serde_json::json;

async fn app(settings: &[(&str, &str)]) -> TestApp {
    let builder = TestApp::builder().workers(&[]);
    let set = |builder: crate::support::app::Builder, (key, value): &(&str, &str)| {
        builder.set(key, value)
    };
    settings.iter().fold(builder, set).start().await
}

async fn status_by(app: &TestApp, host: &str, path: &str) -> u16 {
    let request = app.get(path).header("Host", host);
    request.send().await.unwrap().status().as_u16()
}

/// Every path: of the API, for monitoring, of the dashboard, and one that does not exist.
async fn paths(app: &TestApp) -> Vec<(Method, String)> {
    let definition = app.read("/openapi.json").await;
    let mut all = Vec::new();
    for (path, operations) in definition["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            all.push((method.to_uppercase().parse().unwrap(), path.clone()));
        }
    }
    for (method, path) in server::pages() {
        all.push((method, path.to_owned()));
    }
    for path in ["/openapi.json", "/docs", "/nothing"] {
        all.push((Method::GET, path.to_owned()));
    }
    all.push((Method::OPTIONS, "/v1/tus".to_owned()));
    assert!(all.len() > 80, "{}", all.len());
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_every_path_rejects_foreign_host_names() {
    let app = app(&[]).await;
    let file = app.upload("secret.txt", "secret").await;
    let id = file["id"].as_str().unwrap();
    for (method, path) in paths(&app).await {
        let path = path.replace("{id}", id).replace(":id", id);
        let request = app.request(method.clone(), &path);
        let response = request.header("Host", "evil.example").send().await.unwrap();
        assert_eq!(response.status(), 421, "{method} {path}");
        assert!(response.headers().contains_key("x-request-id"));
    }
    assert_eq!(app.file(id).await["id"], id, "nothing was deleted");
    let rebound = app.get("/v1/files").header("Host", "evil.example:8080");
    problem(rebound.send().await.unwrap(), 421, "host_not_allowed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_and_configured_host_names_are_accepted() {
    let none = app(&[
        ("server.public_url", "https://files.example/landfall"),
        ("server.allowed_hosts", "intake.example,192.0.2.7"),
    ])
    .await;
    for host in [
        "localhost",
        "localhost:8080",
        "app.localhost",
        "127.0.0.1:1",
        "[::1]:8080",
        "files.example",
        "INTAKE.example:8443",
        "192.0.2.7",
    ] {
        assert_eq!(status_by(&none, host, "/v1/files").await, 200, "{host}");
    }
    for host in [
        "evil.example",
        "xfiles.example",
        "192.0.2.8",
        "localhost.evil.example",
    ] {
        assert_eq!(status_by(&none, host, "/v1/files").await, 421, "{host}");
    }
    let with_tokens = app(&[("auth.mode", "tokens")]).await;
    assert_eq!(
        status_by(&with_tokens, "any.example", "/v1/files").await,
        401
    );
    let listed = app(&[
        ("auth.mode", "tokens"),
        ("server.allowed_hosts", "a.example"),
    ])
    .await;
    assert_eq!(status_by(&listed, "a.example", "/v1/files").await, 401);
    assert_eq!(status_by(&listed, "b.example", "/v1/files").await, 421);
}

/// What a page of another site can send without asking first: a form, or a request of a simple kind.
fn simple(app: &TestApp) -> Vec<RequestBuilder> {
    let webhook = json!({"url": app.receiver.url("/stolen")}).to_string();
    vec![
        app.post("/v1/files?filename=a").body("bytes"),
        app.post("/v1/batches"),
        app.post("/v1/webhooks")
            .header("content-type", "text/plain")
            .body(webhook),
        app.post("/jobs/sweep"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_a_page_of_another_site_changes_nothing() {
    let app = app(&[]).await;
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://localhost:1"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        for request in simple(&app) {
            let response = request.header(name, value).send().await.unwrap();
            let path = response.url().path().to_owned();
            assert_eq!(response.status(), 403, "{path} with {name}: {value}");
        }
    }
    let files = app.read("/v1/files").await;
    assert_eq!(files["items"], json!([]));
    let refused = app
        .post("/v1/batches")
        .header("origin", "https://evil.example");
    problem(refused.send().await.unwrap(), 403, "cross_site").await;
    for (name, value) in [("origin", app.url.as_str()), ("sec-fetch-site", "none")] {
        let request = app.post("/v1/batches").header(name, value);
        assert_eq!(
            request.send().await.unwrap().status(),
            201,
            "{name}: {value}"
        );
    }
    // Reading changes nothing, and CORS decides what may be read.
    let look = app
        .get("/v1/files")
        .header("origin", "https://evil.example");
    let look = look.send().await.unwrap();
    assert_eq!(look.status(), 200);
    assert_eq!(header(&look, "access-control-allow-origin"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn cors_origins_may_make_changes_and_tokens_need_no_origin() {
    let named = app(&[("server.cors_origins", "https://shop.example")]).await;
    let from = |app: &TestApp, path: &str| app.post(path).header("origin", "https://shop.example");
    let made = from(&named, "/v1/batches").send().await.unwrap();
    assert_eq!(made.status(), 201);
    let without_tokens = app(&[]).await;
    let tus = from(&without_tokens, "/v1/tus");
    let tus = tus
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Length", "5");
    assert_eq!(
        tus.send().await.unwrap().status(),
        201,
        "uploads are for any page"
    );
    let with_tokens = app(&[("auth.mode", "tokens")]).await;
    let token = token(&with_tokens, "ann", &[TokenScope::Upload]).await;
    let made = from(&with_tokens, "/v1/batches").bearer_auth(token);
    assert_eq!(made.send().await.unwrap().status(), 201);
}
