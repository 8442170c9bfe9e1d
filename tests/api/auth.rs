//! Tokens: who may do what, and who sees whose files.

use crate::support::{
    TestApp,
    app::{json, problem},
};
use landfall_core::tokens::{self, TokenScope};
use reqwest::{Response, header};
use secrecy::ExposeSecret;

async fn app() -> TestApp {
    TestApp::builder()
        .workers(&[])
        .set("auth.mode", "tokens")
        .start()
        .await
}

async fn token(app: &TestApp, owner: &str, scope: TokenScope) -> String {
    let landfall = &app.parts.app;
    let created = tokens::create(&landfall.db, &landfall.clock, owner, &[scope], None).await;
    created.expect("a token").1.expose_secret().to_owned()
}

async fn upload(app: &TestApp, token: &str) -> Response {
    let request = app
        .post("/v1/files?filename=a")
        .body("hello")
        .bearer_auth(token);
    request.send().await.expect("a response")
}

async fn get(app: &TestApp, path: &str, token: &str) -> Response {
    app.get(path)
        .bearer_auth(token)
        .send()
        .await
        .expect("a response")
}

#[tokio::test]
async fn without_a_valid_token_every_request_is_rejected() {
    let app = app().await;
    let landfall = &app.parts.app;
    let none = app.get("/v1/files").send().await.expect("a response");
    assert!(none.headers().contains_key(header::WWW_AUTHENTICATE));
    problem(none, 401, "unauthorized").await;
    problem(
        get(&app, "/v1/files", "lf_nonsense").await,
        401,
        "unauthorized",
    )
    .await;
    let life = std::time::Duration::from_secs(60);
    let token = async |life| {
        tokens::create(
            &landfall.db,
            &landfall.clock,
            "a",
            &[TokenScope::Read],
            life,
        )
        .await
        .expect("a token")
    };
    let (_, secret) = token(Some(life)).await;
    json(get(&app, "/v1/files", secret.expose_secret()).await, 200).await;
    landfall.clock.advance(life);
    problem(
        get(&app, "/v1/files", secret.expose_secret()).await,
        401,
        "unauthorized",
    )
    .await;
    let (made, secret) = token(None).await;
    json(get(&app, "/v1/files", secret.expose_secret()).await, 200).await;
    tokens::revoke(&landfall.db, &landfall.clock, made.id)
        .await
        .expect("revoked");
    problem(
        get(&app, "/v1/files", secret.expose_secret()).await,
        401,
        "unauthorized",
    )
    .await;
}

#[tokio::test]
async fn scopes_allow_what_they_name() {
    let app = app().await;
    let uploader = token(&app, "a", TokenScope::Upload).await;
    let reader = token(&app, "a", TokenScope::Read).await;
    let admin = token(&app, "a", TokenScope::Admin).await;
    problem(upload(&app, &reader).await, 403, "forbidden").await;
    problem(get(&app, "/v1/files", &uploader).await, 403, "forbidden").await;
    for token in [&uploader, &reader] {
        problem(get(&app, "/v1/webhooks", token).await, 403, "forbidden").await;
        problem(get(&app, "/v1/events", token).await, 403, "forbidden").await;
    }
    json(upload(&app, &uploader).await, 202).await;
    json(get(&app, "/v1/files", &reader).await, 200).await;
    json(get(&app, "/v1/webhooks", &admin).await, 200).await;
    json(upload(&app, &admin).await, 202).await;
}

#[tokio::test]
async fn owners_see_their_own_files_and_admins_all() {
    let app = app().await;
    let taken = json(
        upload(&app, &token(&app, "ann", TokenScope::Upload).await).await,
        202,
    )
    .await;
    assert_eq!(taken["owner"], "ann");
    let path = format!("/v1/files/{}", taken["id"].as_str().expect("an id"));
    let (ann, bob) = (
        token(&app, "ann", TokenScope::Read).await,
        token(&app, "bob", TokenScope::Read).await,
    );
    let admin = token(&app, "root", TokenScope::Admin).await;
    for (token, count) in [(&ann, 1), (&bob, 0), (&admin, 1)] {
        let list = json(get(&app, "/v1/files", token).await, 200).await;
        assert_eq!(list["items"].as_array().map(Vec::len), Some(count));
    }
    json(get(&app, &path, &ann).await, 200).await;
    problem(get(&app, &path, &bob).await, 404, "not_found").await;
    problem(
        get(&app, &format!("{path}/content"), &bob).await,
        404,
        "not_found",
    )
    .await;
    json(get(&app, &path, &admin).await, 200).await;
}
