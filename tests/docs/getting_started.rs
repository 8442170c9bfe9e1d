//! Follows docs/getting-started.md: runs every command in order, with addresses, ids and secrets replaced.

use super::{
    root,
    shell::{commands, run},
};
use crate::support::{Installation, Process, process::binary};
use landfall_core::digest::Sha256Digest;
use landfall_test_servers::port::free_port;
use serde_json::Value;
use std::{process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

const SERVER: &str = "http://127.0.0.1:8080";
const TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Python: scripts/test runs it"
)]
async fn getting_started_works_as_written() {
    let mut installation = Installation::new();
    installation.unset_raw("LANDFALL__REDIS__URL");
    // Loopback is allowed by default while the server listens on it.
    installation.unset_raw("LANDFALL__WEBHOOKS__ALLOW_NETWORKS");
    installation.set_raw("LANDFALL_BINARY", binary().to_str().expect("a path"));
    let folder = installation.folder().to_owned();
    for name in ["README.md", "LICENSE-MIT", "examples"] {
        let link = folder.join(name);
        std::os::unix::fs::symlink(root().join(name), link).expect("a link");
    }
    // The program is on the reader's PATH.
    std::os::unix::fs::symlink(binary(), folder.join("landfall")).expect("a link");
    let path = std::env::var("PATH").expect("a PATH");
    let path = format!("{}:{path}", folder.display());

    let receiver_port = free_port().to_string();
    let mut server: Option<Process> = None;
    let (mut id, mut secret, mut receiver) = (String::new(), String::new(), None);
    let mut count = 0;
    for line in commands("docs/getting-started.md") {
        count += 1;
        let mut environment = installation.environment();
        environment.push(("PATH".to_owned(), path.clone()));
        if line == "scripts/up" {
            server = Some(Process::started(&root().join(&line), &environment, &folder).await);
            continue;
        }
        let url = &server.as_ref().expect("the server is started first").url;
        environment.push(("LANDFALL_URL".to_owned(), url.clone()));
        let command = line
            .replace(SERVER, url)
            .replace("9000", &receiver_port)
            .replace("/ID", &format!("/{id}"))
            .replace("whsec_…", &secret);
        if line.contains("examples/receiver.py") {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", &format!("exec env {command}")])
                .current_dir(&folder)
                .stdout(Stdio::piped());
            let mut child = shell.kill_on_drop(true).spawn().expect("it starts");
            let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
            let first = tokio::time::timeout(TIMEOUT, lines.next_line()).await;
            let first = first.expect("in time").expect("text").expect("a line");
            assert!(first.starts_with("listening on "), "{first}");
            receiver = Some((child, lines));
            continue;
        }
        let output = run(&command, &folder, &environment).await;
        match line.as_str() {
            line if line.contains("-F file=@") => {
                let file: Value = serde_json::from_str(&output).expect("JSON");
                assert_eq!(file["status"], "staged");
                id = file["id"].as_str().expect("an id").to_owned();
            }
            line if line.contains("?wait=") => {
                let file: Value = serde_json::from_str(&output).expect("JSON");
                let bytes = std::fs::read(root().join("README.md")).expect("a file");
                assert_eq!(file["status"], "stored");
                assert_eq!(file["sha256"], Sha256Digest::compute(&bytes).to_string());
            }
            line if line.contains("/content") => {
                let fetched = std::fs::read(folder.join("fetched.md")).expect("a file");
                let sent = std::fs::read(root().join("README.md")).expect("a file");
                assert_eq!(fetched, sent);
            }
            "landfall upload --wait README.md" => {
                assert!(output.contains(" stored "), "{output}");
            }
            "landfall file list" => assert!(output.contains(&id), "{output}"),
            line if line.starts_with("landfall webhook add ") => {
                let words = output.split_whitespace();
                let printed = words.into_iter().find(|word| word.starts_with("whsec_"));
                secret = printed.expect("the secret").to_owned();
            }
            "landfall upload --wait LICENSE-MIT" => {
                let (_, lines) = receiver.as_mut().expect("the receiver is started first");
                let event = tokio::time::timeout(TIMEOUT, lines.next_line()).await;
                let event = event.expect("in time").expect("text").expect("a line");
                assert!(event.contains(" file.stored "), "{event}");
                assert!(event.contains("LICENSE-MIT"), "{event}");
            }
            "landfall check" => assert!(!output.contains("failed"), "{output}"),
            "landfall audit" => assert!(output.contains(" 0 offenders"), "{output}"),
            other => panic!("this test does not know what the command is for: {other}"),
        }
    }
    assert_eq!(count, 11, "commands were run");
    assert!(server.expect("a server").terminate().await.success());
}
