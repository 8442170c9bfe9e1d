//! `landfall audit` as a process: its exit status, its JSON, and that nothing else is on standard output.

use crate::support::{Installation, TestApp, process::command};
use serde_json::Value;
use std::process::Output;

async fn run(installation: &Installation, arguments: &[&str]) -> (i32, Value, String) {
    let arguments: Vec<&str> = [&["audit", "--json"], arguments].concat();
    let output: Output = command(&arguments, &installation.environment())
        .output()
        .await
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let response = match output.stdout.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {:?}", output.stdout)),
    };
    (output.status.code().unwrap(), response, errors)
}

async fn one_stored() -> (TestApp, String) {
    let app = TestApp::builder()
        .postgres()
        .set("workers.lease", "3s")
        .start()
        .await;
    let file = app.upload("told.txt", "told").await;
    app.settled(&file["id"]).await;
    let id = file["id"].as_str().unwrap().to_owned();
    (app, id)
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn exit_status_and_json_distinguish_clean_from_problems() {
    let (app, id) = one_stored().await;
    let (code, response, _) = run(&app.installation, &[]).await;
    assert_eq!((code, &response["offenders"]), (0, &serde_json::json!([])));
    assert_eq!(response["checked"], 3);
    let db = app.parts.app.db.read();
    use sea_orm::EntityTrait;
    entity::outbox_event::Entity::delete_many()
        .exec(db)
        .await
        .unwrap();
    let (code, response, _) = run(&app.installation, &["--deep"]).await;
    assert_eq!(code, 1);
    let fields: Vec<&String> = response.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["checked", "offenders"]);
    let offenders = serde_json::json!([{
        "invariant": "I2", "id": id, "detail": "the stored file has no file.stored event",
    }]);
    assert_eq!(response["offenders"], offenders);
    let (code, response, errors) = run(&app.installation, &["--repair"]).await;
    assert_eq!((code, &response["offenders"]), (0, &serde_json::json!([])));
    assert!(errors.contains(&format!("repaired I2 {id}")), "{errors}");
    assert_eq!(run(&app.installation, &[]).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn problems_are_listed_in_readable_form() {
    let (app, id) = one_stored().await;
    let storage = &app.parts.app.config.storage.path;
    std::fs::remove_dir_all(storage.join("uploads")).unwrap();
    let output = command(&["audit"], &app.installation.environment())
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let wanted = format!("I1  {id}  its object is not in storage\n2 checked, 1 offenders\n");
    assert_eq!(text, wanted);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn audit_that_cannot_run_exits_with_2_and_says_why() {
    let (app, _) = one_stored().await;
    let mut installation = app.stop().await;
    let (code, response, errors) = run(&installation, &["--no-such-flag"]).await;
    assert_eq!((code, response), (2, Value::Null), "{errors}");
    installation.set("database.url", "postgres://nobody:secret@127.0.0.1:1/none");
    let (code, response, errors) = run(&installation, &[]).await;
    assert_eq!((code, response), (2, Value::Null));
    assert!(errors.contains("could not run"), "{errors}");
    assert!(!errors.contains("secret"), "{errors}");
    installation.set("audit.interval", "never");
    let (code, _, errors) = run(&installation, &[]).await;
    assert_eq!(code, 2);
    assert!(errors.contains("audit.interval"), "{errors}");
}
