//! Who gets in.

use super::dashboard_user::{
    DashboardUser, Fields, app, cookie_of, location, set_cookie, sign_in, token,
};
use crate::support::TestApp;
use landfall_core::pagination::PageRequest;
use landfall_core::tokens::{self, TokenScope};
use reqwest::header;

#[tokio::test]
async fn a_page_without_a_session_redirects_to_the_sign_in_and_back() {
    let app = app().await;
    let response = app.get("/jobs?x=1").send().await.expect("a response");
    assert_eq!(response.status(), 303);
    assert_eq!(location(&response), "/sign-in?next=%2Fjobs%3Fx%3D1");
    let form = app.get("/sign-in?next=%2Fjobs%3Fx%3D1").send().await;
    let form = form.expect("a response").text().await.expect("a page");
    assert!(form.contains(r#"name="next" value="/jobs?x=1""#), "{form}");
    let token = token(&app, "ops", &[TokenScope::Admin]).await;
    let fields = [("token", token.as_str()), ("next", "/jobs?x=1")];
    let entered = app.post("/sign-in").form(&fields).send().await;
    assert_eq!(location(&entered.expect("a response")), "/jobs?x=1");
    let stream = app.get("/live/jobs").send().await.expect("a response");
    assert_eq!(stream.status(), 401, "a stream cannot be led anywhere");
    let api = app.get("/v1/files").send().await.expect("a response");
    assert_eq!(api.status(), 401, "the API never redirects");
}

#[tokio::test]
async fn a_sign_in_redirects_to_no_other_host() {
    let app = app().await;
    let token = token(&app, "ops", &[TokenScope::Admin]).await;
    for next in [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example/",
        "javascript:1",
    ] {
        let fields = [("token", token.as_str()), ("next", next)];
        let entered = app.post("/sign-in").form(&fields).send().await;
        assert_eq!(location(&entered.expect("a response")), "/", "{next}");
    }
}

#[tokio::test]
async fn a_session_cookie_is_unusable_for_scripts_and_other_sites() {
    let app = app().await;
    let token = token(&app, "ops", &[TokenScope::Admin]).await;
    let response = sign_in(&app, &token).await;
    let cookie = set_cookie(&response);
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    assert!(!cookie.contains("; Secure"), "this test speaks plain HTTP");
    let request = app.post("/sign-in").form(&[("token", &token)]);
    let by_tls = request.header("x-forwarded-proto", "https").send().await;
    let cookie = set_cookie(&by_tls.expect("a response"));
    assert!(cookie.ends_with("; Secure"), "{cookie}");
}

#[tokio::test]
async fn a_cookie_planted_before_the_sign_in_is_worth_nothing() {
    let app = app().await;
    let token = token(&app, "ops", &[TokenScope::Admin]).await;
    let planted = "landfall_session=planted-by-somebody-else";
    let request = app.post("/sign-in").form(&[("token", &token)]);
    let response = request.header(header::COOKIE, planted).send().await;
    let cookie = cookie_of(&response.expect("a response"));
    assert_ne!(cookie, planted);
    let page = app.get("/").header(header::COOKIE, planted).send().await;
    assert_eq!(page.expect("a response").status(), 303);
    let page = app.get("/").header(header::COOKIE, &cookie).send().await;
    assert_eq!(page.expect("a response").status(), 200);
}

#[tokio::test]
async fn a_session_ends_on_sign_out_and_with_its_token() {
    let app = app().await;
    let landfall = &app.parts.app;
    let leaving = DashboardUser::new(&app, "ops", &[TokenScope::Admin]).await;
    let staying = DashboardUser::new(&app, "root", &[TokenScope::Admin]).await;
    assert_eq!(location(&leaving.press("/sign-out").await), "/sign-in");
    assert_eq!(
        leaving.get("/").await.status(),
        303,
        "it was ended, not forgotten"
    );
    assert_eq!(staying.get("/").await.status(), 200);
    let all = tokens::list(&landfall.db, PageRequest::default()).await;
    for token in all.expect("tokens").items {
        let revoked = tokens::revoke(&landfall.db, &landfall.clock, token.id).await;
        revoked.expect("revoked");
    }
    assert_eq!(staying.get("/").await.status(), 303);
}

#[tokio::test]
async fn a_session_lasts_half_a_day() {
    let app = app().await;
    let user = DashboardUser::new(&app, "ops", &[TokenScope::Admin]).await;
    let clock = &app.parts.app.clock;
    clock.advance(landfall_core::sessions::LIFETIME);
    assert_eq!(user.get("/").await.status(), 303);
}

#[tokio::test]
async fn failed_sign_ins_are_limited() {
    let app = app().await;
    let good = token(&app, "ops", &[TokenScope::Admin]).await;
    for _ in 0..10 {
        let response = sign_in(&app, "lf_nonsense").await;
        assert_eq!(response.status(), 401);
        assert!(response.headers().get(header::SET_COOKIE).is_none());
    }
    let response = sign_in(&app, "lf_nonsense").await;
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    let response = sign_in(&app, &good).await;
    assert_eq!(
        response.status(),
        303,
        "who guesses locks nobody out that has a token"
    );
}

#[tokio::test]
async fn a_reader_sees_no_button_and_cannot_call_what_is_behind_one() {
    let app = app().await;
    let admin = DashboardUser::new(&app, "ops", &[TokenScope::Admin]).await;
    let reader = DashboardUser::new(&app, "ann", &[TokenScope::Read]).await;
    for path in ["/", "/jobs"] {
        let page = reader.page(path).await;
        let acts = page.matches("formaction=").count();
        assert_eq!(acts, 1, "signing out is all a reader does: {page}");
        assert!(page.contains("read-only"), "and the page says so");
        assert!(admin.page(path).await.matches("formaction=").count() > 1);
    }
    for path in [
        "/jobs/finalize/pause",
        "/jobs/sweep",
        "/jobs/deliver/dead/delete",
    ] {
        assert_eq!(reader.press(path).await.status(), 403, "{path}");
    }
    for path in ["/log", "/jobs/finalize/dead"] {
        assert_eq!(reader.get(path).await.status(), 403, "{path}");
    }
    let uploader = DashboardUser::new(&app, "ann", &[TokenScope::Upload]).await;
    let refused = uploader.get("/").await;
    assert_eq!(refused.status(), 403);
    let page = refused.text().await.expect("a page");
    assert!(
        page.contains("requires a token with the scope `read`"),
        "{page}"
    );
}

#[tokio::test]
async fn without_tokens_only_loopback_names_are_allowed() {
    let app = TestApp::builder().workers(&[]).start().await;
    let page = app.get("/").send().await.expect("a response");
    assert_eq!(page.status(), 200);
    let led = app.get("/sign-in").send().await.expect("a response");
    assert_eq!(location(&led), "/");
    // A page of another site whose name was made to lead here.
    let rebound = app.get("/").header(header::HOST, "evil.example:8080");
    let rebound = rebound.send().await.expect("a response");
    assert_eq!(rebound.status(), 421);
}
