use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use landfall_test_servers::{Durability, PostgresServer, RedisServer, wait_until};

const SOON: Duration = Duration::from_secs(20);
// Set in the process that holds the servers, which is this test binary once more.
const HOLD: &str = "LANDFALL_TEST_HOLD_SERVERS";

fn runs(pid: u32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::test_kill_process(pid).is_ok()
}

#[tokio::test]
async fn servers_and_their_folders_are_gone_after_the_test_process_is_killed() {
    if std::env::var_os(HOLD).is_some() {
        let redis = RedisServer::start().await;
        let postgres = PostgresServer::start(Durability::On).await;
        println!(
            "\nholding {} {};{} {}",
            redis.pid(),
            redis.folder().display(),
            postgres.pid(),
            postgres.folder().display()
        );
        std::future::pending::<()>().await;
    }
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "--exact"])
        .arg("ending::servers_and_their_folders_are_gone_after_the_test_process_is_killed")
        .env(HOLD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let held: Vec<(u32, PathBuf)> = BufReader::new(holder.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .find_map(|line| line.strip_prefix("holding ").map(str::to_owned))
        .unwrap()
        .split(';')
        .map(|server| {
            let (pid, folder) = server.split_once(' ').unwrap();
            (pid.parse().unwrap(), PathBuf::from(folder))
        })
        .collect();
    for (pid, folder) in &held {
        assert!(runs(*pid) && folder.is_dir());
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    for (pid, folder) in &held {
        wait_until(SOON, async || !runs(*pid)).await;
        wait_until(SOON, async || !folder.exists()).await;
    }
}
