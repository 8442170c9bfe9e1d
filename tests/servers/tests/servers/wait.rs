use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use landfall_test_servers::wait_until;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn wait_returns_what_was_waited_for() {
    let looks = AtomicU32::new(0);
    let found = wait_until(SOON, async || {
        (looks.fetch_add(1, Ordering::Relaxed) == 2).then_some("it")
    })
    .await;
    assert_eq!(found, "it");
    assert_eq!(looks.into_inner(), 3);
}

#[tokio::test]
#[should_panic(expected = "in vain, last saw: 3 of 4 files")]
async fn wait_in_vain_says_what_was_seen() {
    wait_until(Duration::from_millis(30), async || {
        Err::<(), _>("3 of 4 files")
    })
    .await;
}

#[tokio::test]
#[should_panic(expected = "the first look did not come back")]
async fn look_that_hangs_is_ended_by_the_deadline() {
    wait_until(Duration::from_millis(30), std::future::pending::<bool>).await;
}
