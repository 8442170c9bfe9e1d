//! `/tokens`: what an administrator creates and revokes there is what the API accepts and refuses.

use super::dashboard_user::{DashboardUser, app, location};
use crate::support::TestApp;
use landfall_core::tokens::TokenScope;
use reqwest::StatusCode;

async fn list_files(app: &TestApp, token: &str) -> StatusCode {
    let request = app.get("/v1/files").bearer_auth(token);
    request.send().await.expect("a response").status()
}

#[tokio::test]
async fn a_token_is_shown_once_and_works_until_it_is_revoked() {
    let app = app().await;
    let admin = DashboardUser::new(&app, "ops", &[TokenScope::Admin]).await;
    let fields = [
        ("owner", "surveys"),
        ("scope", "read"),
        ("scope", "upload"),
        ("days", "30"),
    ];
    let created = admin.submit("/tokens", &fields).await;
    assert_eq!(created.status(), 200);
    let page = created.text().await.expect("a page");
    let (_, shown) = page.split_once(">lf_").expect("the page shows the token");
    let (secret, _) = shown.split_once('<').expect("the element ends");
    let token = format!("lf_{secret}");
    assert_eq!(list_files(&app, &token).await, 200);

    let list = admin.page("/tokens").await;
    assert!(
        list.contains("surveys") && list.contains("read, upload"),
        "{list}"
    );
    assert!(!list.contains(secret), "the secret is not shown again");
    let (_, revoke) = list.split_once("formaction=\"/tokens/").expect("a button");
    let (id, _) = revoke.split_once('/').expect("the path goes on");
    let revoked = admin.press(&format!("/tokens/{id}/revoke")).await;
    assert_eq!(revoked.status(), 303);
    assert!(
        admin
            .page(location(&revoked))
            .await
            .contains("Token revoked.")
    );
    assert_eq!(list_files(&app, &token).await, 401);
    let log = admin.page("/log").await;
    assert!(log.contains("Token created.") && log.contains("Token revoked."));
    assert!(!log.contains(secret));
    assert_eq!(
        admin.press(&format!("/tokens/{id}/revoke")).await.status(),
        404
    );
}

#[tokio::test]
async fn a_form_that_is_not_allowed_creates_nothing() {
    let app = app().await;
    let admin = DashboardUser::new(&app, "ops", &[TokenScope::Admin]).await;
    for fields in [
        &[("owner", ""), ("scope", "read"), ("days", "0")][..],
        &[("owner", "intruder"), ("days", "0")],
        &[("owner", "intruder"), ("scope", "root"), ("days", "0")],
        &[("owner", "intruder"), ("scope", "read"), ("days", "-1")],
    ] {
        let refused = admin.submit("/tokens", fields).await;
        assert_eq!(refused.status(), 400, "{fields:?}");
    }
    assert!(!admin.page("/tokens").await.contains("intruder"));
}

#[tokio::test]
async fn only_administrators_see_and_change_tokens() {
    let app = app().await;
    let reader = DashboardUser::new(&app, "ann", &[TokenScope::Read, TokenScope::Upload]).await;
    assert_eq!(reader.get("/tokens").await.status(), 403);
    let fields = [("owner", "ann"), ("scope", "admin"), ("days", "0")];
    assert_eq!(reader.submit("/tokens", &fields).await.status(), 403);
}
