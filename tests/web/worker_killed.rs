//! A worker that is killed over a job, as an operator sees it in a real browser.

use crate::support::{Process, TestApp, browser::Browser};
use landfall_test_servers::{Behaviour, wait_until};
use serde::Deserialize;
use std::time::Duration;

/// A lease, the heartbeat timeout, and a slow machine.
const AFTER_A_KILL: Duration = Duration::from_secs(60);

/// Longer than the test takes to kill the waiting worker, shorter than `webhooks.timeout`.
const LONG: Duration = Duration::from_secs(25);

/// Long enough to be seen on the page.
const A_WHILE: Duration = Duration::from_secs(6);

/// What the page shows of one queue of one worker.
#[derive(Debug, Deserialize)]
struct Row {
    /// Of all queues the same.
    process: String,
    job: Option<String>,
    text: String,
}

async fn rows(browser: &Browser) -> Vec<Row> {
    let rows = browser
        .run(
            "return [...document.querySelectorAll('#workers tbody tr')].map(row => ({
                 process: row.querySelector('code').innerText.split('-').slice(0, -1).join('-'),
                 job: row.querySelector('a.mono')?.innerText ?? null,
                 text: row.innerText,
             }))",
        )
        .await;
    serde_json::from_value(rows).expect("rows")
}

/// Waits until the page shows such rows, and returns the first.
async fn sees_row(browser: &Browser, is_like: impl Fn(&Row) -> bool) -> Row {
    wait_until(AFTER_A_KILL, async || {
        let rows = rows(browser).await;
        let told = format!("{rows:?}");
        rows.into_iter().find(&is_like).ok_or(told)
    })
    .await
}

/// The job has ended, and the process that was killed over it is missed in all its queues.
fn is_over(rows: &[Row], lost: &str) -> bool {
    let (gone, working): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.process == lost);
    let is_idle = |row: &&Row| row.job.is_none() && row.text.contains("alive");
    gone.len() == 3
        && gone.iter().all(|row| row.text.contains("lost"))
        && working.len() == 3
        && working.iter().all(is_idle)
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs a browser: scripts/test runs it"
)]
async fn a_killed_worker_is_shown_and_its_job_moves_and_ends() {
    let app = TestApp::builder()
        .workers(&[])
        .set("workers.lease", "3s")
        .set("sweep.interval", "1s")
        .start()
        .await;
    app.webhook("/hook", &[]).await;
    app.receiver.set("/hook", Behaviour::stall(A_WHILE));
    app.receiver.set_next("/hook", 1, &Behaviour::stall(LONG));
    let browser = Browser::open(1280, 900).await;
    browser.go(&format!("{}/jobs", app.url)).await;
    browser.sees("No worker is running").await;
    // Nothing is loaded again.
    browser.run("window.mark = 1").await;

    let environment = app.installation.environment();
    let mut first = Process::spawn(&["worker"], &environment);
    app.upload("moves.txt", "hello").await;
    let held = sees_row(&browser, |row| {
        let job = row.job.as_deref();
        job.is_some_and(|job| job.starts_with("delivery:"))
    });
    let held = held.await;
    let (lost, job) = (held.process, held.job.expect("a job"));
    assert!(held.text.contains("alive"), "{}", held.text);
    let mut second = Process::spawn(&["worker"], &environment);
    sees_row(&browser, |row| row.process != lost).await;
    first.kill().await;

    let moved = sees_row(&browser, |row| {
        row.process != lost && row.job.as_deref() == Some(&job)
    });
    let moved = moved.await;
    assert!(moved.text.contains("alive"), "{}", moved.text);
    wait_until(AFTER_A_KILL, async || {
        let rows = rows(&browser).await;
        match is_over(&rows, &lost) {
            true => Ok(()),
            false => Err(format!("{rows:?}")),
        }
    })
    .await;
    browser.sees("running at its last heartbeat").await;
    browser.sees("0 of 98 slots busy").await;
    assert_eq!(browser.run("return window.mark").await, 1);
    assert_eq!(browser.complaints().await, Vec::<String>::new());

    let attempts = app.receiver.requests_to("/hook");
    assert_eq!(attempts.len(), 2, "one was broken off with its worker");
    assert_eq!(
        attempts[0].header("webhook-id"),
        attempts[1].header("webhook-id")
    );
    let events = app.read("/v1/events").await;
    assert_eq!(events["items"][0]["status"], "delivered", "{events}");
    browser.close().await;
    assert!(second.terminate().await.success());
}
