//! Pages on other origins, by `server.cors_origins`.

use super::header;
use crate::support::{TestApp, app::problem};
use reqwest::{Method, Response};

const SHOP: &str = "https://shop.example";

async fn from(app: &TestApp, origin: &str, path: &str) -> Response {
    let request = app.get(path).header("Origin", origin);
    request.send().await.unwrap()
}

async fn preflight(app: &TestApp, origin: &str, path: &str) -> Response {
    let request = app.request(Method::OPTIONS, path).header("Origin", origin);
    let request = request.header("Access-Control-Request-Method", "DELETE");
    request.send().await.unwrap()
}

fn allowed(response: &Response) -> Option<&str> {
    assert_eq!(header(response, "access-control-allow-credentials"), None);
    header(response, "access-control-allow-origin")
}

async fn app(mode: &str, origins: Option<&str>) -> TestApp {
    let mut builder = TestApp::builder().workers(&[]).set("auth.mode", mode);
    if let Some(origins) = origins {
        builder = builder.set("server.cors_origins", origins);
    }
    builder.start().await
}

#[tokio::test]
async fn any_page_may_call_the_whole_api_with_a_token() {
    let app = app("tokens", None).await;
    let refused = from(&app, SHOP, "/v1/files").await;
    assert_eq!(refused.status(), 401);
    assert_eq!(allowed(&refused), Some("*"));
    let exposed = header(&refused, "access-control-expose-headers").unwrap();
    for name in [
        "etag",
        "retry-after",
        "location",
        "x-request-id",
        "upload-offset",
    ] {
        assert!(exposed.split(", ").any(|one| one == name), "{name}");
    }
    let path = "/v1/files/01928f4e-6f00-7a3b-8c1d-2e3f4a5b6c7d";
    let asked = preflight(&app, SHOP, path).await;
    assert_eq!(asked.status(), 204);
    assert_eq!(allowed(&asked), Some("*"));
    let methods = header(&asked, "access-control-allow-methods");
    assert_eq!(methods, Some("DELETE, GET, HEAD"));
    let sent = header(&asked, "access-control-allow-headers").unwrap();
    for name in [
        "authorization",
        "content-type",
        "idempotency-key",
        "tus-resumable",
    ] {
        assert!(sent.split(", ").any(|one| one == name), "{name}");
    }
    for path in ["/readyz", "/metrics", "/docs", "/nothing", "/v1x"] {
        assert_eq!(allowed(&from(&app, SHOP, path).await), None, "{path}");
    }
}

#[tokio::test]
async fn without_tokens_any_page_may_upload_but_not_read() {
    let app = app("none", None).await;
    assert_eq!(
        allowed(&from(&app, SHOP, "/v1/tus/nothing").await),
        Some("*")
    );
    assert_eq!(allowed(&from(&app, SHOP, "/v1/files").await), None);
    let asked = preflight(&app, SHOP, "/v1/files").await;
    problem(asked, 405, "method_not_allowed").await;
}

#[tokio::test]
async fn only_listed_origins_may_call() {
    let app = app("none", Some("https://shop.example/,http://localhost:3000")).await;
    for origin in [SHOP, "http://localhost:3000"] {
        for path in ["/v1/files", "/v1/tus/nothing"] {
            let answer = from(&app, origin, path).await;
            assert_eq!(allowed(&answer), Some(origin), "{path}");
            assert_eq!(header(&answer, "vary"), Some("origin"));
        }
        assert_eq!(preflight(&app, origin, "/v1/files").await.status(), 204);
    }
    for origin in [
        "https://evil.example",
        "http://shop.example",
        "https://shop.example:8443",
        "https://shop.example.evil.example",
        "null",
    ] {
        let answer = from(&app, origin, "/v1/files").await;
        assert_eq!(allowed(&answer), None, "{origin}");
        assert_eq!(header(&answer, "vary"), Some("origin"));
        let asked = preflight(&app, origin, "/v1/tus").await;
        assert_eq!(allowed(&asked), None, "{origin}");
    }
}

#[tokio::test]
async fn with_no_origins_no_page_may_call() {
    let app = app("tokens", Some("")).await;
    for path in ["/v1/files", "/v1/tus/nothing"] {
        assert_eq!(allowed(&from(&app, SHOP, path).await), None, "{path}");
    }
    let options = preflight(&app, SHOP, "/v1/tus").await;
    assert_eq!(options.status(), 204);
    assert_eq!(header(&options, "access-control-allow-methods"), None);
    assert!(header(&options, "tus-extension").is_some());
}
