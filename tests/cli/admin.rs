//! Commands that work from the settings: `migrate`, `sweep`, `token`; and those that need nothing at all.

use super::{CommandOutput, configured, text};
use crate::support::{Installation, Process, TestApp, app::json};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn migrations_are_applied_reverted_and_listed() {
    let mut on_postgres = Installation::new();
    on_postgres.on_postgres().await;
    configured(&on_postgres, &["migrate", "down", "100", "--yes"])
        .await
        .done();
    for installation in [Installation::new(), on_postgres] {
        let status = ["migrate", "status", "--json"];
        let states = configured(&installation, &status).await.json();
        let states = states.as_array().expect("a list").clone();
        assert!(
            states.iter().all(|state| state["applied"] == false),
            "{states:?}"
        );
        let refused = configured(&installation, &["serve"]).await.failed();
        let behind = format!(
            "behind by {} migration(s); run `landfall migrate up`",
            states.len()
        );
        assert!(refused.contains(&behind), "{refused}");
        let refused = configured(&installation, &["worker"]).await.failed();
        assert!(refused.contains(&behind), "{refused}");

        let applied = configured(&installation, &["migrate", "up"]).await.done();
        assert_eq!(applied.lines().count(), states.len(), "{applied}");
        assert!(
            applied
                .lines()
                .all(|line| line.starts_with("applied  m2026")),
            "{applied}"
        );
        assert_eq!(
            configured(&installation, &["migrate", "up"]).await.done(),
            ""
        );
        let table = configured(&installation, &["migrate", "status"])
            .await
            .done();
        assert_eq!(table.lines().count(), states.len());
        assert!(
            table.lines().all(|line| line.starts_with("applied  m2026")),
            "{table}"
        );
        let asked = configured(&installation, &["migrate", "down"])
            .await
            .failed();
        assert!(asked.contains("nothing was reverted"), "{asked}");
        let down = ["migrate", "down", "--yes"];
        configured(&installation, &down).await.done();
        let table = configured(&installation, &["migrate", "status"])
            .await
            .done();
        let pending = table.lines().filter(|line| line.starts_with("pending"));
        assert_eq!(pending.count(), 1, "{table}");
        let refused = configured(&installation, &["serve"]).await.failed();
        assert!(refused.contains("behind by 1 migration(s)"), "{refused}");
        configured(&installation, &["migrate", "up"]).await.done();
        let mut served = Process::listening(&["serve"], &installation.environment()).await;
        let refused = configured(&installation, &down).await.failed();
        assert!(refused.contains("are running on"), "{refused}");
        assert!(served.terminate().await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_reports_what_it_did() {
    let app = TestApp::builder().workers(&[]).start().await;
    app.upload("waits.txt", "hello").await;
    app.parts.app.clock.advance(std::time::Duration::ZERO);
    let report = configured(&app.installation, &["sweep", "--json"])
        .await
        .json();
    assert_eq!(report["faults"], json!([]), "{report}");
    assert!(report["staged_pushed"].is_u64(), "{report}");
    let said = configured(&app.installation, &["sweep"]).await.done();
    assert!(!said.is_empty(), "people are told, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_created_listed_and_revoked() {
    let app = TestApp::builder()
        .workers(&[])
        .set("auth.mode", "tokens")
        .start()
        .await;
    let installation = &app.installation;
    let create = [
        "token",
        "create",
        "--owner",
        "alice",
        "--scope",
        "upload,read",
    ];
    let secret = configured(installation, &create).await.done();
    let secret = secret.trim_end();
    assert!(
        secret.starts_with("lf_") && !secret.contains(char::is_whitespace),
        "{secret}"
    );
    let asked = async || {
        let asked = app.get("/v1/files").bearer_auth(secret).send().await;
        asked.expect("a response").status().as_u16()
    };
    assert_eq!(asked().await, 200);
    let listed = configured(installation, &["token", "list", "--json"])
        .await
        .json();
    assert_eq!(listed[0]["owner"], "alice");
    assert_eq!(listed[0]["scopes"], json!(["upload", "read"]));
    let table = configured(installation, &["token", "list"]).await.done();
    assert!(
        table.contains("alice") && !table.contains(secret),
        "{table}"
    );
    let id = text(&listed[0]["id"]);
    assert_eq!(
        configured(installation, &["token", "revoke", id])
            .await
            .done(),
        ""
    );
    assert_eq!(asked().await, 401);
    let unknown = ["token", "revoke", "01928f4e-6f00-7a3b-8c1d-2e3f4a5b6c7d"];
    configured(installation, &unknown).await.failed();
    for wrong in [
        ["token", "create", "--owner", "alice", "--scope", "fly"].as_slice(),
        &["token", "create", "--scope", "read"],
        &["token", "revoke", "nope"],
    ] {
        configured(installation, wrong).await.misused();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_definition_is_the_one_the_server_has() {
    // Without a configuration it describes a server that requires tokens.
    let builder = TestApp::builder().set("auth.mode", "tokens");
    let app = builder.workers(&[]).start().await;
    let printed = CommandOutput::of(&["openapi"], &[]).await.json();
    let served = json(
        app.get("/openapi.json").send().await.expect("a response"),
        200,
    )
    .await;
    assert_eq!(printed, served);
}

#[tokio::test]
async fn completions_and_help_need_nothing() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = CommandOutput::of(&["completions", shell], &[]).await.done();
        assert!(
            script.contains("landfall") && script.contains("webhook"),
            "{shell}"
        );
    }
    CommandOutput::of(&["completions", "dos"], &[])
        .await
        .misused();
    let help = CommandOutput::of(&["--help"], &[]).await.done();
    for command in [
        "up", "serve", "worker", "migrate", "check", "upload", "sweep",
    ] {
        assert!(help.contains(&format!("  {command} ")), "{command}: {help}");
    }
    assert!(
        CommandOutput::of(&["--version"], &[])
            .await
            .done()
            .starts_with("landfall ")
    );
}
