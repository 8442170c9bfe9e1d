//! Tokens: who may upload, and to whose uploads.

use super::{answered, header, method, patch, send, stored, tus};
use crate::support::TestApp;
use landfall_core::tokens::{self, TokenScope};
use reqwest::RequestBuilder;
use secrecy::ExposeSecret;

async fn token(app: &TestApp, owner: &str, scope: TokenScope) -> String {
    let landfall = &app.parts.app;
    let made = tokens::create(&landfall.db, &landfall.clock, owner, &[scope], None).await;
    made.expect("a token").1.expose_secret().to_owned()
}

fn create(app: &TestApp) -> RequestBuilder {
    tus(app, "POST", "/v1/tus").header("Upload-Length", 5)
}

#[tokio::test]
async fn uploads_need_a_token_and_are_private_to_their_owner() {
    let app = TestApp::builder().set("auth.mode", "tokens").start().await;
    let alice = token(&app, "alice", TokenScope::Upload).await;
    let bob = token(&app, "bob", TokenScope::Upload).await;
    let reader = token(&app, "alice", TokenScope::Read).await;
    let refused = send(create(&app)).await;
    answered(&refused, 401);
    assert!(header(&refused, "www-authenticate").is_some());
    assert_eq!(header(&refused, "access-control-allow-origin"), Some("*"));
    answered(&send(create(&app).bearer_auth("lf_nonsense")).await, 401);
    answered(&send(create(&app).bearer_auth(&reader)).await, 403);
    let response = send(create(&app).bearer_auth(&alice)).await;
    answered(&response, 201);
    let path = header(&response, "location").unwrap();
    answered(&send(tus(&app, "HEAD", path).bearer_auth(&bob)).await, 404);
    answered(
        &send(patch(&app, path, 0, "hello").bearer_auth(&bob)).await,
        404,
    );
    answered(
        &send(tus(&app, "DELETE", path).bearer_auth(&bob)).await,
        404,
    );
    answered(
        &send(patch(&app, path, 0, "hello").bearer_auth(&alice)).await,
        204,
    );
    assert_eq!(stored(&app, path).await, b"hello");
    assert_eq!(super::row(&app, path).await.owner.as_deref(), Some("alice"));
    answered(
        &send(tus(&app, "GET", path).bearer_auth(&reader)).await,
        200,
    );
}

#[tokio::test]
async fn browser_preflights_need_no_token() {
    let app = TestApp::builder().set("auth.mode", "tokens").start().await;
    let request = app.request(method("OPTIONS"), "/v1/tus");
    let response = send(request.header("Access-Control-Request-Method", "POST")).await;
    assert_eq!(response.status(), 204);
    let allowed = header(&response, "access-control-allow-headers").unwrap();
    assert!(allowed.contains("authorization"));
}
