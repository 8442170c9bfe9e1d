//! Runs every command of the README, with addresses and ids replaced.

use super::{
    read, root,
    shell::{commands, run},
};
use crate::support::{Installation, Process, app::SOON, process::binary};
use landfall_core::digest::Sha256Digest;
use landfall_test_servers::{Receiver, wait_until};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

/// Where the README's server and receiver are.
const SERVER: &str = "http://127.0.0.1:8080";
const RECEIVER: &str = "http://127.0.0.1:9000";

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_readme_works() {
    let mut installation = Installation::new();
    installation.unset_raw("LANDFALL__REDIS__URL");
    installation.set_raw("LANDFALL_BINARY", binary().to_str().expect("a path"));
    let folder = installation.folder().to_owned();
    std::fs::copy(root().join("README.md"), folder.join("README.md")).expect("a copy");
    let receiver = Receiver::start().await;
    let (mut up, mut id, mut run_of_them) = (None, String::new(), 0);
    for line in commands("README.md") {
        if let Some(script) = line.strip_prefix("scripts/") {
            let path = root().join("scripts").join(script);
            let mode = path
                .metadata()
                .expect("the script is there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o111, 0o111, "scripts/{script} is to be executable");
            // The other one is who runs this test.
            if script == "up" {
                let environment = installation.environment();
                up = Some(Process::started(&path, &environment, &folder).await);
            }
            continue;
        }
        let server = &up.as_ref().expect("scripts/up comes first").url;
        let asked = line
            .replace(SERVER, server)
            .replace(RECEIVER, receiver.url("").trim_end_matches('/'))
            .replace("/ID", &format!("/{id}"));
        let response = run(&asked, &folder, &[]).await;
        let parsed: Value = serde_json::from_str(&response).unwrap_or_default();
        match line.as_str() {
            line if line.contains("-F file=@README.md") => {
                id = parsed["id"].as_str().expect("an id").to_owned();
            }
            line if line.contains("?wait=") => {
                let digest = Sha256Digest::compute(read("README.md").as_bytes()).to_string();
                assert_eq!(
                    (&parsed["status"], &parsed["sha256"]),
                    (&"stored".into(), &digest.into())
                );
            }
            line if line.contains("/content") => {
                let saved = line.split(' ').skip_while(|word| *word != "-o").nth(1);
                let saved = folder.join(saved.expect("the file it is saved as"));
                let fetched = std::fs::read_to_string(saved).expect("the file");
                assert_eq!(fetched, read("README.md"), "byte for byte");
            }
            line if line.contains("/v1/webhooks") => {
                assert!(
                    parsed["secret"]
                        .as_str()
                        .is_some_and(|secret| secret.starts_with("whsec_"))
                );
            }
            other => panic!("nothing says what this command is there for: {other}"),
        }
        run_of_them += 1;
    }
    assert_eq!(run_of_them, 4, "commands were run");
    let mut up = up.expect("scripts/up was run");
    // The endpoint of the last command receives later events.
    let again = format!("curl -fsS -F file=@README.md {}/v1/files", up.url);
    run(&again, &folder, &[]).await;
    receiver.wait_for_at("/hook", 1, SOON).await;
    assert!(up.terminate().await.success());
    let socket = folder.join("data/redis/redis.sock");
    wait_until(SOON, async || !socket.exists()).await;
}
