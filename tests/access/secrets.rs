//! What is hidden from whom: files of the data folder, secrets, metrics, addresses.

use super::{header, token};
use crate::{
    support::{
        Installation, Process, TestApp,
        app::{SOON, json, problem},
        process::command,
    },
    web::dashboard_user::{DashboardUser, cookie_of, sign_in},
};
use entity::webhook_endpoint as endpoint;
use landfall_core::{db::Database, tokens::TokenScope};
use landfall_test_servers::wait_until;
use reqwest::Client;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
use serde_json::{Value, json as object};
use std::{os::unix::fs::PermissionsExt, path::Path};

/// Every file and folder others may look into.
fn open_to_others(path: &Path) -> Vec<String> {
    let found = std::fs::symlink_metadata(path).unwrap();
    let mode = found.permissions().mode() & 0o777;
    let mut open = Vec::new();
    if mode & 0o077 != 0 {
        open.push(format!("{} {mode:o}", path.display()));
    }
    if found.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            open.extend(open_to_others(&entry.unwrap().path()));
        }
    }
    open
}

async fn endpoints(installation: &Installation) -> Vec<endpoint::Model> {
    let url = installation.config().database.url;
    let db = Database::open(&url, 2).await.unwrap();
    endpoint::Entity::find().all(db.read()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn created_files_are_private_and_secrets_are_encrypted() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut installation = Installation::new();
    installation.unset_raw("LANDFALL__REDIS__URL");
    let data = installation.config().data_dir;
    let mut up = Process::listening(&["up"], &installation.environment()).await;
    let client = Client::new();
    let file = client.post(format!("{}/v1/files?filename=a", up.url));
    let file = json(file.body("bytes").send().await.unwrap(), 202).await;
    let wait = format!(
        "{}/v1/files/{}?wait=20",
        up.url,
        file["id"].as_str().unwrap()
    );
    let file = json(client.get(wait).send().await.unwrap(), 200).await;
    assert_eq!(file["status"], "stored");
    let hook = object!({"url": "http://127.0.0.1:9/hook"});
    let made = client.post(format!("{}/v1/webhooks", up.url)).json(&hook);
    let made = json(made.send().await.unwrap(), 201).await;
    assert_eq!(open_to_others(&data), Vec::<String>::new());
    let sealed = &endpoints(&installation).await[0].secret;
    assert!(sealed.starts_with("sealed:v1:"), "{sealed}");
    let key = std::fs::read_to_string(data.join("webhooks.key")).unwrap();
    up.kill().await;

    // The next start, and every other command, can decrypt the secrets.
    let mut up = Process::listening(&["up"], &installation.environment()).await;
    let again = std::fs::read_to_string(data.join("webhooks.key")).unwrap();
    assert_eq!(key, again);
    let swept = command(&["sweep"], &installation.environment()).output();
    let swept = swept.await.unwrap();
    assert!(
        swept.status.success(),
        "{}",
        String::from_utf8_lossy(&swept.stderr)
    );
    let id = made["id"].as_str().unwrap();
    let gone = client.delete(format!("{}/v1/webhooks/{id}", up.url)).send();
    assert_eq!(gone.await.unwrap().status(), 204);
    let left = &endpoints(&installation).await[0];
    assert_eq!((left.secret.as_str(), &left.previous_secret), ("", &None));
    up.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_path_too_long_for_the_data_folder_is_in_a_private_one() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut installation = Installation::new();
    installation.unset_raw("LANDFALL__REDIS__URL");
    let data = installation.folder().join("deep".repeat(30));
    installation.set("data_dir", &data.display().to_string());
    let runtime = installation.folder().join("run");
    std::fs::create_dir(&runtime).unwrap();
    for private in [false, true] {
        let mode = if private { 0o700 } else { 0o755 };
        std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(mode)).unwrap();
        installation.set_raw("XDG_RUNTIME_DIR", &runtime.display().to_string());
        let mut up = Process::listening(&["up"], &installation.environment()).await;
        let place = data.join("redis/redis.socket-place");
        let socket = std::fs::read_to_string(&place).unwrap();
        let folder = Path::new(&socket).parent().unwrap();
        assert_eq!(folder.starts_with(&runtime), private, "{socket}");
        assert_eq!(open_to_others(folder), Vec::<String>::new());
        let swept = command(&["sweep"], &installation.environment())
            .output()
            .await;
        let swept = swept.unwrap();
        assert!(
            swept.status.success(),
            "{}",
            String::from_utf8_lossy(&swept.stderr)
        );
        up.terminate().await;
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_allowed_networks_and_administrators() {
    let app = TestApp::builder()
        .workers(&[])
        .set("auth.mode", "tokens")
        .start()
        .await;
    let admin = token(&app, "root", &[TokenScope::Admin]).await;
    let reader = token(&app, "ann", &[TokenScope::Read]).await;
    assert_eq!(app.get("/metrics").send().await.unwrap().status(), 200);
    let near = app.read("/readyz").await;
    assert_ne!(near["checks"]["database"]["detail"], "");
    for name in ["X-Forwarded-For", "Forwarded"] {
        let far = |path: &str| app.get(path).header(name, "for=192.0.2.1");
        problem(far("/metrics").send().await.unwrap(), 401, "unauthorized").await;
        let refused = far("/metrics").bearer_auth(&reader).send().await.unwrap();
        problem(refused, 403, "forbidden").await;
        let shown = far("/metrics").bearer_auth(&admin).send().await.unwrap();
        assert_eq!(shown.status(), 200);
        let ready = json(far("/readyz").send().await.unwrap(), 200).await;
        assert_eq!(ready["status"], near["status"]);
        for (check, found) in ready["checks"].as_object().unwrap() {
            assert_eq!(found["detail"], "", "{check}");
            assert!(found["status"].is_string(), "{check}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_read_access_no_url_is_returned() {
    let app = TestApp::builder().set("auth.mode", "tokens").start().await;
    let uploader = token(&app, "ann", &[TokenScope::Upload]).await;
    let both = token(&app, "ann", &[TokenScope::Upload, TokenScope::Read]).await;
    let body = object!({"original_filename": "a", "total_size_bytes": 5});
    let begun = app.post("/v1/uploads").bearer_auth(&uploader).json(&body);
    let begun = json(begun.send().await.unwrap(), 201).await;
    let session = format!("/v1/uploads/{}", begun["id"].as_str().unwrap());
    let part = app.request(reqwest::Method::PUT, &format!("{session}/parts/1"));
    json(
        part.bearer_auth(&uploader)
            .body("bytes")
            .send()
            .await
            .unwrap(),
        200,
    )
    .await;
    let complete = async |token: &str| {
        let request = app.post(&format!("{session}/complete")).bearer_auth(token);
        json(request.send().await.unwrap(), 202).await
    };
    complete(&uploader).await;
    wait_until(SOON, async || {
        let file = complete(&both).await;
        (file["status"] == "stored" && file["url"].is_string()).then_some(())
    })
    .await;
    let file = complete(&uploader).await;
    assert_eq!(
        (&file["status"], &file["url"]),
        (&"stored".into(), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_with_secrets_are_never_cached() {
    let app = TestApp::builder().workers(&[]).start().await;
    let body = object!({"url": app.receiver.url("/hook")});
    for _ in 0..2 {
        let request = app.post("/v1/webhooks").header("Idempotency-Key", "one");
        let made = request.json(&body).send().await.unwrap();
        assert_eq!(header(&made, "cache-control"), Some("no-store"));
        let made = json(made, 201).await;
        let rotate = format!(
            "/v1/webhooks/{}/rotate-secret",
            made["id"].as_str().unwrap()
        );
        let rotated = app.post(&rotate).send().await.unwrap();
        assert_eq!(header(&rotated, "cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn over_tls_the_session_cookie_cannot_be_set_by_other_hosts() {
    let app = crate::web::dashboard_user::app().await;
    let admin = token(&app, "ops", &[TokenScope::Admin]).await;
    let plain = cookie_of(&sign_in(&app, &admin).await);
    let by_tls = || ("x-forwarded-proto", "https");
    let (name, value) = by_tls();
    let request = app.post("/sign-in").header(name, value);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let signed_in = request.body(format!("token={admin}")).send().await.unwrap();
    let cookie = cookie_of(&signed_in);
    assert!(cookie.starts_with("__Host-landfall_session="), "{cookie}");
    let page = async |cookie: &str| {
        let request = app.get("/").header(name, value).header("cookie", cookie);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(page(&cookie).await, 200);
    assert_eq!(page(&plain).await, 303, "anybody may have planted it");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_no_endpoints_and_no_user_sees_secrets() {
    let app = crate::web::dashboard_user::app().await;
    let admin = DashboardUser::new(&app, "ops", &[TokenScope::Admin]).await;
    let reader = DashboardUser::new(&app, "ann", &[TokenScope::Read]).await;
    let root = token(&app, "root", &[TokenScope::Admin]).await;
    let body = object!({"url": "http://127.0.0.1:9/services/SECRET?token=SECRET"});
    let made = app.post("/v1/webhooks").bearer_auth(&root).json(&body);
    let made = json(made.send().await.unwrap(), 201).await;
    let db = &app.parts.app.db;
    let failing = endpoint::Entity::update_many()
        .col_expr(endpoint::Column::ConsecutiveFailures, Expr::value(7))
        .filter(endpoint::Column::Active.eq(true))
        .exec(db.read())
        .await;
    assert_eq!(failing.unwrap().rows_affected, 1);
    let page = admin.page("/").await;
    assert!(page.contains("1 endpoint is failing."), "{page}");
    assert!(page.contains("http://127.0.0.1:9/…"), "{page}");
    let own = format!("/webhooks/{}", made["id"].as_str().unwrap());
    for page in [page, admin.page("/webhooks").await] {
        assert!(!page.contains("SECRET"), "{page}");
    }
    assert!(
        admin.page(&own).await.contains("SECRET"),
        "where it is changed"
    );
    let page = reader.page("/").await;
    assert!(!page.contains("endpoint is failing"), "{page}");
    assert!(!page.contains("127.0.0.1:9"), "{page}");
    let mut live = reader.get("/live/overview").await;
    let first = tokio::time::timeout(SOON, live.chunk()).await;
    let first = first.expect("a look").unwrap().expect("a part");
    let first = String::from_utf8_lossy(&first).into_owned();
    assert!(first.contains("health"), "{first}");
    assert!(!first.contains("127.0.0.1:9"), "{first}");
}
