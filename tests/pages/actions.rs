//! Buttons do what they say, record it, and are only for administrators and pages of this server.

use super::dashboard_user::DashboardUser;
use crate::support::{TestApp, app::SOON};
use entity::{audit_entry, delivery, file::FileStatus, webhook_endpoint};
use landfall_core::tokens::TokenScope;
use landfall_test_servers::{Behaviour, S3Operation, S3Server, wait_until};
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};
use serde_json::Value;

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

async fn logged(app: &TestApp, action: &str) -> Vec<audit_entry::Model> {
    let entries = audit_entry::Entity::find().filter(audit_entry::Column::Action.eq(action));
    entries.all(app.parts.app.db.read()).await.expect("the log")
}

async fn endpoint(app: &TestApp, id: &Value) -> webhook_endpoint::Model {
    let id = entity::WebhookId(text(id).parse().expect("an id"));
    let row = webhook_endpoint::Entity::find_by_id(id)
        .one(app.parts.app.db.read())
        .await;
    row.expect("the database").expect("the endpoint")
}

/// An installation with one attempt per delivery, an endpoint that fails, and files it was not notified of.
async fn broken(app: &TestApp, files: usize) -> Value {
    app.receiver
        .set("/hook", Behaviour::status(503).body("out of order"));
    let webhook = app.webhook("/hook", &["file.stored"]).await;
    for number in 0..files {
        app.upload(&format!("file-{number}"), "hello").await;
    }
    let db = app.parts.app.db.read();
    wait_until(SOON, async || {
        let failed = delivery::Entity::find()
            .filter(delivery::Column::Status.eq(delivery::DeliveryStatus::Failed));
        (failed.count(db).await.expect("a count") == files as u64).then_some(())
    })
    .await;
    webhook
}

async fn impatient() -> TestApp {
    TestApp::builder()
        .set("webhooks.max_attempts", "1")
        .start()
        .await
}

#[tokio::test]
async fn all_failed_deliveries_are_counted_and_redelivered() {
    let app = impatient().await;
    let webhook = broken(&app, 3).await;
    let user = DashboardUser::local(&app).await;
    let path = format!("/webhooks/{}", text(&webhook["id"]));
    let page = user.page(&path).await;
    assert!(
        page.contains("503") && page.contains("out of order") && page.contains("0.0 %"),
        "{page}"
    );
    app.receiver.mend("/hook");
    let asked = user.page(&format!("{path}/replay?status=failed")).await;
    assert!(asked.contains("3 deliveries"), "{asked}");
    let done = user
        .press_and_follow(
            &format!("{path}/replay"),
            &[("status", "failed"), ("since", "")],
        )
        .await;
    assert!(done.contains("3 deliveries enqueued."));
    app.receiver.wait_for_at("/hook", 6, SOON).await;
    assert_eq!(logged(&app, "webhook.replay").await.len(), 1);
}

#[tokio::test]
async fn all_events_since_a_time_are_counted_and_sent() {
    let app = TestApp::start().await;
    for number in 0..2 {
        app.settled(&app.upload(&format!("file-{number}"), "hello").await["id"])
            .await;
    }
    let webhook = app.webhook("/late", &["file.stored"]).await;
    let user = DashboardUser::local(&app).await;
    let path = format!("/webhooks/{}/replay", text(&webhook["id"]));
    assert!(
        user.page(&format!("{path}?since=2020-01-01"))
            .await
            .contains("2 deliveries")
    );
    assert!(
        user.page(&format!("{path}?since=2099-01-01"))
            .await
            .contains("No deliveries match.")
    );
    user.press_and_follow(&path, &[("since", "2020-01-01T00:00:00Z")])
        .await;
    app.receiver.wait_for_at("/late", 2, SOON).await;
}

#[tokio::test]
async fn one_event_is_redelivered_to_one_endpoint_or_to_all() {
    let app = impatient().await;
    let webhook = broken(&app, 1).await;
    let user = DashboardUser::local(&app).await;
    let events: Value = app.read("/v1/events?status=failed").await;
    let path = format!("/events/{}", text(&events["items"][0]["id"]));
    let page = user.page(&path).await;
    assert!(
        page.contains("1 of 1 deliveries failed.") && page.contains("out of order"),
        "{page}"
    );
    user.press_and_follow(&format!("{path}/redeliver/{}", text(&webhook["id"])), &[])
        .await;
    app.receiver.wait_for_at("/hook", 2, SOON).await;
    wait_until(SOON, async || {
        user.page(&path)
            .await
            .contains("deliveries failed.")
            .then_some(())
    })
    .await;
    app.receiver.mend("/hook");
    let said = user
        .press_and_follow(&format!("{path}/redeliver"), &[])
        .await;
    assert!(said.contains("1 delivery enqueued."), "{said}");
    wait_until(SOON, async || {
        user.page(&path).await.contains(">delivered<").then_some(())
    })
    .await;
    assert_eq!(logged(&app, "event.redeliver").await.len(), 2);
}

#[tokio::test]
async fn an_endpoint_is_added_tested_changed_disabled_and_deleted() {
    let app = TestApp::start().await;
    let user = DashboardUser::local(&app).await;
    let url = app.receiver.url("/made");
    let made = user
        .press(
            "/webhooks",
            &[
                ("url", &url),
                ("description", "ours"),
                ("event_type", "file.stored"),
            ],
        )
        .await;
    assert_eq!(made.status(), 200, "the secret is in this answer");
    let made = made.text().await.unwrap();
    assert!(made.contains("whsec_"));
    let webhooks: Value = app.read("/v1/webhooks").await;
    let id = webhooks["items"][0]["id"].clone();
    let path = format!("/webhooks/{}", text(&id));
    let page = user.page(&path).await;
    assert!(
        page.contains("ours") && !page.contains("whsec_"),
        "the secret is in no other page"
    );
    let tested = user.press_and_follow(&format!("{path}/test"), &[]).await;
    assert!(tested.contains("webhook.test"));
    app.receiver.wait_for_at("/made", 1, SOON).await;
    let before = endpoint(&app, &id).await.secret;
    let rotated = user
        .press(&format!("{path}/rotate-secret"), &[])
        .await
        .text()
        .await
        .unwrap();
    let after = endpoint(&app, &id).await;
    assert!(after.secret != before && after.previous_secret.as_deref() == Some(before.as_str()));
    assert!(rotated.contains(&after.secret));
    user.press_and_follow(
        &format!("{path}/settings"),
        &[("url", &url), ("description", "theirs")],
    )
    .await;
    let changed = endpoint(&app, &id).await;
    assert_eq!(
        (changed.description.as_str(), changed.event_types),
        ("theirs", serde_json::json!([]))
    );
    assert_eq!(
        user.press(&format!("{path}/settings"), &[("url", "ftp://x")])
            .await
            .status(),
        400
    );
    user.press_and_follow(&format!("{path}/switch-off"), &[])
        .await;
    assert!(!endpoint(&app, &id).await.active);
    user.press_and_follow(&format!("{path}/switch-on"), &[])
        .await;
    assert!(endpoint(&app, &id).await.active);
    user.press_and_follow(&format!("{path}/delete"), &[]).await;
    assert!(endpoint(&app, &id).await.deleted_at.is_some());
    for action in [
        "create",
        "test",
        "rotate_secret",
        "change",
        "switch_off",
        "switch_on",
        "delete",
    ] {
        let entries = logged(&app, &format!("webhook.{action}")).await;
        assert_eq!(entries.len(), 1, "{action}");
        assert_eq!(entries[0].subject, text(&id));
    }
}

#[tokio::test]
async fn a_file_is_finalized_now_or_deleted_when_its_state_allows() {
    let app = TestApp::builder().workers(&[]).start().await;
    let user = DashboardUser::local(&app).await;
    let id = app.upload("waits", "hello").await["id"].clone();
    let path = format!("/files/{}", text(&id));
    let page = user.page(&path).await;
    assert!(page.contains("Finalize now") && !page.contains("Delete it"));
    assert_eq!(
        user.press(&format!("{path}/delete"), &[]).await.status(),
        409
    );
    user.press_and_follow(&format!("{path}/finalize"), &[])
        .await;
    let file = entity::FileId(text(&id).parse().unwrap());
    let landfall = &app.parts.app;
    landfall_core::finalize::Finalizer::new(landfall, "by hand")
        .finalize(file)
        .await
        .unwrap();
    assert_eq!(
        user.press(&format!("{path}/finalize"), &[]).await.status(),
        409
    );
    assert!(
        user.page(&path).await.contains("by hand"),
        "who took it ashore"
    );
    let deleted = user.press_and_follow(&format!("{path}/delete"), &[]).await;
    assert!(deleted.contains("File deleted."));
    let row = landfall_core::files::get(
        landfall.db.read(),
        &landfall_core::files::OwnerScope::All,
        file,
    )
    .await;
    assert_eq!(row.unwrap().unwrap().status, FileStatus::Deleted);
    assert_eq!(logged(&app, "file.delete").await.len(), 1);
}

#[tokio::test]
async fn failed_files_are_retried_singly_or_by_filter_after_a_count() {
    let server = S3Server::start().await;
    let builder = TestApp::builder().s3(&server);
    let app = builder.set("workers.retry_for", "1s").start().await;
    let user = DashboardUser::local(&app).await;
    server.fail_next(S3Operation::PutObject, 10_000, 503);
    let mut ids = Vec::new();
    for number in 0..3 {
        let file = app.upload(&format!("file-{number}"), "hello").await;
        let failed = app.settled(&file["id"]).await;
        assert_eq!(failed["status"], "failed");
        ids.push(failed["id"].clone());
    }
    server.heal();
    let path = format!("/files/{}", text(&ids[0]));
    let page = user.page(&path).await;
    assert!(
        page.contains("Retry it") && page.contains("it is staged again"),
        "{page}"
    );
    let done = user.press_and_follow(&format!("{path}/retry"), &[]).await;
    assert!(done.contains("The file is staged again."));
    assert_eq!(app.settled(&ids[0]).await["status"], "stored");
    assert_eq!(
        user.press(&format!("{path}/retry"), &[]).await.status(),
        409
    );

    let list = user.page("/files?status=failed").await;
    assert!(list.contains("Retry all that match"), "{list}");
    let none = user.page("/files/retry?status=failed&code=poison").await;
    assert!(none.contains("None:"), "{none}");
    let asked = user
        .page("/files/retry?status=failed&code=storage_unavailable")
        .await;
    assert!(asked.contains("2 failed files"), "{asked}");
    let done = user
        .press_and_follow(
            "/files/retry",
            &[("status", "failed"), ("code", "storage_unavailable")],
        )
        .await;
    assert!(done.contains("2 files are staged again."), "{done}");
    for id in &ids {
        assert_eq!(app.settled(id).await["status"], "stored");
    }
    assert_eq!(logged(&app, "files.retry").await.len(), 1);
}

/// Every button, with ids that exist.
fn buttons(file: &str, event: &str, webhook: &str) -> Vec<String> {
    vec![
        format!("/files/{file}/finalize"),
        format!("/files/{file}/delete"),
        format!("/files/{file}/retry"),
        "/files/retry".to_owned(),
        format!("/batches/{file}/finalize"),
        format!("/events/{event}/redeliver"),
        format!("/events/{event}/redeliver/{webhook}"),
        "/webhooks".to_owned(),
        format!("/webhooks/{webhook}/replay"),
        format!("/webhooks/{webhook}/settings"),
        format!("/webhooks/{webhook}/rotate-secret"),
        format!("/webhooks/{webhook}/test"),
        format!("/webhooks/{webhook}/switch-on"),
        format!("/webhooks/{webhook}/switch-off"),
        format!("/webhooks/{webhook}/delete"),
        "/upload-links".to_owned(),
        format!("/upload-links/{file}/revoke"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_link_is_shown_once_and_revoked() {
    let app = TestApp::builder().workers(&[]).start().await;
    let user = DashboardUser::local(&app).await;
    assert!(
        user.page("/upload-links")
            .await
            .contains("No upload links yet.")
    );
    let fields = [
        ("minutes", "10"),
        ("max_files", "2"),
        ("max_size", "1"),
        ("allowed_types", "image/*, text/plain"),
        ("cors_origins", ""),
        ("metadata", r#"{"user": "42"}"#),
    ];
    let made = user.press("/upload-links", &fields).await;
    assert_eq!(made.status(), 200);
    let page = made.text().await.unwrap();
    let (_, rest) = page
        .split_once(r#"<pre class="secret" tabindex="0">"#)
        .unwrap();
    let url = rest.split('<').next().unwrap();
    let sent = app.client.put(url).header("Content-Type", "text/plain");
    let sent = sent.body("hello").send().await.unwrap();
    let file: Value = sent.json().await.unwrap();
    assert_eq!(file["metadata"]["user"], "42", "{file}");
    let list = user.page("/upload-links").await;
    let secret = url.rsplit('/').next().unwrap();
    assert!(!list.contains(secret));
    assert!(
        list.contains("1 / 2") && list.contains("image/*, text/plain"),
        "{list}"
    );
    let (_, rest) = list.split_once("formaction=\"/upload-links/").unwrap();
    let id = rest.split('/').next().unwrap();
    let after = user
        .press_and_follow(&format!("/upload-links/{id}/revoke"), &[])
        .await;
    assert!(after.contains("Upload link revoked."), "{after}");
    let refused = app.client.put(url).body("hello").send().await.unwrap();
    assert_eq!(refused.status(), 410);
    for action in ["upload_link.create", "upload_link.revoke"] {
        assert_eq!(logged(&app, action).await.len(), 1, "{action}");
    }
    for wrong in [
        ("minutes", "0"),
        ("minutes", "x"),
        ("max_files", "1001"),
        ("allowed_types", "image"),
        ("metadata", "[1]"),
    ] {
        let refused = user.press("/upload-links", &[wrong]).await;
        assert_eq!(refused.status(), 400, "{wrong:?}");
    }
}

#[tokio::test]
async fn a_read_only_user_sees_and_can_press_no_button() {
    let app = TestApp::builder().set("auth.mode", "tokens").start().await;
    let admin = DashboardUser::with(&app, "root", TokenScope::Admin).await;
    let made = admin
        .press("/webhooks", &[("url", &app.receiver.url("/hook"))])
        .await;
    assert_eq!(made.status(), 200);
    let landfall = &app.parts.app;
    let made = landfall_core::tokens::create(
        &landfall.db,
        &landfall.clock,
        "ann",
        &[TokenScope::Upload],
        None,
    )
    .await;
    let token = secrecy::ExposeSecret::expose_secret(&made.unwrap().1).to_owned();
    let sent = app
        .post("/v1/files?filename=hers")
        .bearer_auth(&token)
        .body("hello")
        .send()
        .await
        .unwrap();
    let file: Value = sent.json().await.unwrap();
    let onlooker = DashboardUser::with(&app, "ann", TokenScope::Read).await;
    let path = format!("/files/{}", text(&file["id"]));
    wait_until(SOON, async || {
        onlooker
            .page(&path)
            .await
            .contains(">stored<")
            .then_some(())
    })
    .await;
    let page = onlooker.page(&path).await;
    assert!(
        !page.contains("formaction=\"/files") && !page.contains("/webhooks/"),
        "{page}"
    );
    assert!(admin.page(&path).await.contains("formaction=\"/files"));
    let webhook = landfall_core::webhooks::list(&landfall.db, Default::default())
        .await
        .unwrap()
        .items[0]
        .id
        .to_string();
    let event = landfall_core::outbox::list(&landfall.db, Default::default(), Default::default())
        .await
        .unwrap()
        .items[0]
        .id
        .to_string();
    for button in buttons(text(&file["id"]), &event, &webhook) {
        assert_eq!(onlooker.press(&button, &[]).await.status(), 403, "{button}");
    }
    for page in [
        "/events",
        "/webhooks",
        &format!("/events/{event}"),
        &format!("/webhooks/{webhook}"),
    ] {
        assert_eq!(
            onlooker.get(page).send().await.unwrap().status(),
            403,
            "{page}"
        );
    }
    let stranger = DashboardUser::with(&app, "bob", TokenScope::Read).await;
    for hers in [
        path.clone(),
        format!("{path}/content"),
        format!("/live{path}"),
    ] {
        assert_eq!(
            stranger.get(&hers).send().await.unwrap().status(),
            404,
            "{hers}"
        );
    }
    assert!(!stranger.page("/files").await.contains("hers"));
    let nobody = app.get(&path).send().await.unwrap();
    assert_eq!(
        nobody.status(),
        303,
        "a browser without a session is sent to sign in"
    );
}

#[tokio::test]
async fn requests_from_other_sites_change_nothing() {
    let app = TestApp::start().await;
    let webhook = app.webhook("/hook", &["file.stored"]).await;
    let file = app.settled(&app.upload("kept", "hello").await["id"]).await;
    let user = DashboardUser::local(&app).await;
    let events: Value = app.read("/v1/events").await;
    for button in buttons(
        text(&file["id"]),
        text(&events["items"][0]["id"]),
        text(&webhook["id"]),
    ) {
        assert_eq!(
            user.send(&button, &[]).await.status(),
            403,
            "{button} without the token"
        );
        assert_eq!(
            user.send(&button, &[("csrf", "0")]).await.status(),
            403,
            "{button} with another token"
        );
    }
    let begun = user.begin_upload(None).await;
    assert_eq!(begun.status(), 403, "an upload without the token");
    assert!(endpoint(&app, &webhook["id"]).await.active);
    assert_eq!(app.file(text(&file["id"])).await["status"], "stored");
    assert_eq!(
        audit_entry::Entity::find()
            .count(app.parts.app.db.read())
            .await
            .unwrap(),
        0
    );
}

#[tokio::test]
async fn a_session_with_upload_scope_sends_files_by_tus() {
    let app = TestApp::builder().set("auth.mode", "tokens").start().await;
    let sender = DashboardUser::with(&app, "ann", TokenScope::Upload).await;
    let id = sender.upload("hello").await;
    let states = wait_until(SOON, async || {
        let states: Value = sender
            .get(&format!("/upload/states?ids={id}"))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        (states[0]["announced"] == "delivered" && states[0]["status"] == "stored").then_some(states)
    })
    .await;
    assert_eq!(states[0]["status"], "stored");
    let row = landfall_core::files::get(
        app.parts.app.db.read(),
        &landfall_core::files::OwnerScope::All,
        id.parse().unwrap(),
    )
    .await;
    assert_eq!(row.unwrap().unwrap().owner.as_deref(), Some("ann"));
    let other = DashboardUser::with(&app, "bob", TokenScope::Upload).await;
    let states: Value = other
        .get(&format!("/upload/states?ids={id}"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        states,
        serde_json::json!([]),
        "nobody learns of another's files"
    );
    let onlooker = DashboardUser::with(&app, "ann", TokenScope::Read).await;
    assert_eq!(onlooker.begin_upload_signed().await.status(), 403);
}
