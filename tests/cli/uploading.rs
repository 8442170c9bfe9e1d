//! `landfall upload`.

use super::{Client, text};
use crate::support::{
    Process, TestApp,
    app::{SOON, json},
    process::command,
};
use entity::{part, upload};
use landfall_core::{digest::Sha256Digest, staging::StagingKey};
use landfall_test_servers::wait_until;
use sea_orm::{EntityTrait, PaginatorTrait};
use serde_json::json;
use std::process::Stdio;

#[tokio::test(flavor = "multi_thread")]
async fn waiting_prints_a_line_for_each_file_once_it_is_stored() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let (a, b) = (
        client.file("a b.txt", b"first"),
        client.file("b.bin", b"second"),
    );
    let ran = client.run(&["upload", "--wait", &a, &b]).await;
    assert_eq!(ran.status, 0, "{ran:?}");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{ran:?}");
    for (line, name, bytes) in [
        (lines[0], "a b.txt", b"first".as_slice()),
        (lines[1], "b.bin", b"second"),
    ] {
        let digest = Sha256Digest::compute(bytes).to_string();
        let id = line.split(' ').next().expect("an id");
        assert!(line.contains("stored") && line.contains(&digest), "{line}");
        assert!(line.ends_with(name), "{line}");
        assert_eq!(app.file(id).await["sha256"], digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn json_has_the_files_in_the_order_of_the_arguments() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let names = ["1.png", "2.pdf", "3.txt"];
    let paths = names.map(|name| client.file(name, name.as_bytes()));
    let mut arguments = vec!["upload", "--wait", "--json", "--parallel", "3"];
    arguments.extend(["--metadata", r#"{"album":"summer"}"#]);
    arguments.extend(paths.iter().map(String::as_str));
    let files = client.run(&arguments).await.json();
    let files = files.as_array().expect("an array");
    let found: Vec<_> = files
        .iter()
        .map(|file| text(&file["original_filename"]))
        .collect();
    assert_eq!(found, names);
    for file in files {
        assert_eq!(file["status"], "stored");
        assert_eq!(file["metadata"], json!({ "album": "summer" }));
        assert_eq!(
            *file,
            app.file(text(&file["id"])).await,
            "as the server has it"
        );
    }
    assert_eq!(files[0]["content_type"], "image/png");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failing_file_does_not_stop_the_others() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let paths: Vec<String> = (0..12)
        .map(|number| client.file(&format!("{number}.txt"), b"hello"))
        .collect();
    let missing = client
        .folder
        .path()
        .join("missing.txt")
        .display()
        .to_string();
    let empty = client.file("empty.txt", b"");
    let mut arguments = vec!["upload", "--parallel", "4", &missing, &empty];
    arguments.extend(paths.iter().map(String::as_str));
    let ran = client.run(&arguments).await;
    assert_eq!(ran.status, 1, "{ran:?}");
    assert_eq!(ran.stdout.lines().count(), 12, "{ran:?}");
    for name in [missing, empty] {
        let told = format!("landfall: {name}: ");
        let told = ran.stderr.lines().filter(|line| line.starts_with(&told));
        assert_eq!(told.count(), 1, "{name} is named once: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_upload_is_resumed() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let bytes: Vec<u8> = (0..40 * 1024 * 1024_u32)
        .map(|at| (at % 251) as u8)
        .collect();
    let path = client.file("large.bin", &bytes);
    let arguments = [
        "upload",
        "--wait",
        "--parallel",
        "1",
        "--chunk-size",
        "256KiB",
        &path,
    ];
    let mut begun = command(&arguments, &client.environment);
    begun
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut begun = begun.spawn().expect("landfall starts");
    let db = app.parts.app.db.read();
    wait_until(SOON, async || {
        part::Entity::find()
            .count(db)
            .await
            .is_ok_and(|parts| parts >= 8)
    })
    .await;
    begun.kill().await.expect("it is killed");
    let sent = part::Entity::find().count(db).await.expect("a count");
    assert!(sent < 160, "it was killed in the middle");

    let mut again = arguments.to_vec();
    again.insert(1, "--resume");
    let ran = client.run(&again).await;
    assert_eq!(ran.status, 0, "{ran:?}");
    let line = ran.stdout.trim_end();
    assert_eq!(ran.stdout.lines().count(), 1, "{ran:?}");
    assert!(
        line.contains(&Sha256Digest::compute(&bytes).to_string()),
        "{line}"
    );
    let sessions = upload::Entity::find().count(db).await.expect("a count");
    assert_eq!(
        sessions, 1,
        "the second command went on with the session of the first"
    );
    let states = client.folder.path().join("state/landfall/uploads");
    let left = std::fs::read_dir(states).expect("the states").count();
    assert_eq!(left, 0, "what is done is forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_fails_after_acceptance_is_reported_with_wait() {
    let app = TestApp::builder().workers(&[]).start().await;
    let client = Client::of(&app);
    let path = client.file("doomed.txt", b"hello");
    let arguments = ["upload", "--wait", &path];
    let waiting = client.run(&arguments);
    let spoiling = async {
        let staging = &app.parts.app.staging;
        let id = wait_until(SOON, async || {
            let list = json(app.get("/v1/files").send().await.ok()?, 200).await;
            Some(text(list["items"].get(0)?.get("id")?).to_owned())
        })
        .await;
        let key = StagingKey::whole(id.parse().expect("an id"));
        staging.delete(&[key]).await.expect("the bytes are gone");
        Process::spawn(&["worker"], &app.installation.environment())
    };
    let (ran, _worker) = tokio::join!(waiting, spoiling);
    assert_eq!(ran.status, 1, "{ran:?}");
    assert!(ran.stderr.contains("doomed.txt: failed: "), "{ran:?}");
    assert!(ran.stdout.contains("failed"), "{ran:?}");
}
